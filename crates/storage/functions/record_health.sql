-- Adds what a process saw of its endpoints in the last second: for each, whether a send succeeded, how many failed since
-- (or in all), and whether a probe failed. The state machine of the circuit breaker is here, so that all processes share it.
-- An endpoint that is well costs one look-up; one that is off or gone is not held, since what it is owed ends without a request.
-- Returns the endpoints whose state has changed, and those that have been failing for so long that they are to be disabled.
create function record_health_v1(
  p_endpoint uuid[], p_tenant uuid[], p_has_success boolean[], p_tail integer[], p_has_failed_probe boolean[],
  p_opens_after integer, p_first_cool_down float8, p_longest_cool_down float8, p_first_slots integer, p_closes_at integer,
  p_forgets_after float8, p_disables_after float8
) returns table (endpoint_id uuid, tenant_id uuid, state smallint, has_changed boolean, is_given_up boolean) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v record;
  h endpoint_health%rowtype;
  v_was endpoint_health%rowtype;
begin
  for v in
    select t.* from unnest(p_endpoint, p_tenant, p_has_success, p_tail, p_has_failed_probe) t(id, tenant, has_success, tail, has_failed_probe)
      where t.tail > 0 or exists (select from endpoint_health e where e.endpoint_id = t.id)
      order by t.id
  loop
    select e.* into h from endpoint_health e where e.endpoint_id = v.id for update;
    continue when v.tail > 0 and not exists (
      select from endpoint e join application a on a.id = e.application_id
        where e.id = v.id and not e.is_disabled and e.deleted_at is null and a.deleted_at is null);
    if h.endpoint_id is null then
      continue when v.tail = 0;
      insert into endpoint_health as e (endpoint_id, tenant_id, cool_down_seconds) values (v.id, v.tenant, p_first_cool_down) on conflict do nothing;
      select e.* into h from endpoint_health e where e.endpoint_id = v.id for update;
      continue when not found;
    end if;
    v_was := h;

    -- A long silence says nothing of the receiver: the clock of its failing starts anew.
    if v.has_success or h.failed_at < now() - make_interval(secs => p_forgets_after) then
      h.failing_since := null;
    end if;
    h.failures := v.tail + case when v.has_success then 0 else h.failures end;
    if v.tail > 0 then
      h.failed_at := now();
      h.failing_since := coalesce(h.failing_since, now());
    end if;

    if h.state = 1 and v.has_success and v.tail < p_opens_after then
      h.state := 2;
      h.slots := p_first_slots;
    elsif h.state = 1 and v.has_failed_probe then
      h.cool_down_seconds := least(h.cool_down_seconds * 2, p_longest_cool_down);
      h.probe_at := now() + make_interval(secs => h.cool_down_seconds * (0.9 + 0.2 * random()));
    elsif h.state = 2 and (not v.has_success or v.tail >= p_opens_after) then
      h.state := 1;
      h.cool_down_seconds := least(h.cool_down_seconds * 2, p_longest_cool_down);
    elsif h.state = 2 and v.tail = 0 and h.changed_at <= now() - interval '0.8 s' then
      h.slots := h.slots * 2;
      if h.slots >= p_closes_at then
        h.state := 0;
        h.cool_down_seconds := p_first_cool_down;
      end if;
    elsif h.state = 0 and h.failures >= p_opens_after then
      h.state := 1;
    end if;
    if h.state <> 2 then
      h.slots := 0;
    end if;
    if h.state <> 1 then
      h.probe_at := null;
    elsif h.probe_at is null then
      h.probe_at := now() + make_interval(secs => h.cool_down_seconds * (0.9 + 0.2 * random()));
    end if;

    update endpoint_health e
      set failures = h.failures, failing_since = h.failing_since, failed_at = h.failed_at, state = h.state, slots = h.slots,
          cool_down_seconds = h.cool_down_seconds, probe_at = h.probe_at,
          changed_at = case when (h.state, h.slots) = (v_was.state, v_was.slots) then e.changed_at else now() end
      where e.endpoint_id = v.id;
    -- A paused endpoint stays so until its owner activates it: late failures neither hold it nor give it up.
    if h.state <> v_was.state or (h.state <> 3 and v.tail > 0 and h.failing_since <= now() - make_interval(secs => p_disables_after)) then
      return query select h.endpoint_id, h.tenant_id, h.state, h.state <> v_was.state,
        h.state <> 3 and v.tail > 0 and h.failing_since <= now() - make_interval(secs => p_disables_after);
    end if;
  end loop;
end
$$;
