-- The second version of the statement that writes what one process has to write, in one transaction: finished sends and new
-- messages. Beside the first, its look-up of saved outcomes has one plan whatever is stored, and a batch does nothing about
-- what none of it has. It is one long function, since every call of another one costs as much as several messages.
--
-- READ COMMITTED only: each statement in here sees what the holders of the locks before us have committed. Equal keys, event
-- ids and message keys inside one batch are the caller's to avoid: advisory locks are re-entrant.
--
-- f_…: finished sends, each recorded only under its live lease: a late result changes nothing. kind: 0 finished, 1 to be tried
-- again after f_delay seconds, 2 handed back unsent. p_…: new messages; a_…: the versions of the applications whose endpoints
-- were used; d_…: what the messages owe. Returns a row for each message that was not simply executed:
--   1 key busy · 2 event id busy · 3 message key busy · 4 replay · 5 mismatch · 6 event id taken · 7 stale endpoints
--   8 executed as a duplicate · 9 replay of "event id taken" · 10 executed before (by a run of this batch whose end was lost)
-- and a row with outcome 100 for each result that came too late.
create function step_v2(
  p_id uuid[], p_tenant uuid[], p_application uuid[], p_event_type text[], p_event_id text[], p_channels text[],
  p_message_key text[], p_payload bytea[], p_content_type text[],
  p_k uuid[], p_fingerprint uuid[], p_ttl float8[], p_saves_conflict boolean[],
  p_uid_hash uuid[], p_key_hash uuid[], p_digest uuid[],
  p_lock bigint[], p_uid_lock bigint[], p_key_lock bigint[],
  a_id uuid[], a_version bigint[],
  d_of integer[], d_endpoint uuid[], d_is_leased boolean[],
  p_lease uuid, p_lease_seconds float8, p_horizon interval, p_is_rerun boolean,
  f_message uuid[], f_endpoint uuid[], f_run integer[], f_lease uuid[], f_kind smallint[], f_attempt uuid[], f_number smallint[],
  f_outcome smallint[], f_status smallint[], f_duration integer[], f_response bytea[], f_url text[], f_delay float8[]
) returns table (o integer, outcome smallint, ref uuid, is_mismatch boolean) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v_live integer[];
  v_former uuid[];
  v_state smallint[];
  v_ref uuid[] := array_fill(null::uuid, array[cardinality(p_id)]);
  v_mismatch boolean[] := array_fill(false, array[cardinality(p_id)]);
  v_stale uuid[];
  v_has_uids boolean := cardinality(array_remove(p_uid_hash, null)) > 0;
  v_has_keys boolean := cardinality(array_remove(p_key_hash, null)) > 0;
  v_row record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise 'step_v2 needs READ COMMITTED';
  end if;

  if cardinality(f_message) > 0 then
    with result as (
      select * from unnest(f_message, f_endpoint, f_run, f_lease, f_kind, f_attempt, f_number, f_outcome, f_status, f_duration, f_response, f_url, f_delay)
        with ordinality t(message_id, endpoint_id, run, lease, kind, attempt_id, number, outcome, status_code, duration_ms, response, url, delay, n)
    ), taken as (
      delete from queue q using result r
        where r.kind <> 2 and q.message_id = r.message_id and q.endpoint_id = r.endpoint_id and q.run = r.run and q.lease = r.lease
        returning q.tenant_id, q.application_id, q.trigger, q.last_attempt_id, r.*
    ), sleeping as (
      insert into queue_later (message_id, endpoint_id, run, tenant_id, application_id, trigger, attempts, due_at, last_attempt_id)
        select message_id, endpoint_id, run, tenant_id, application_id, trigger, number, now() + make_interval(secs => delay), attempt_id
          from taken where kind = 1
    ), recorded as (
      insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms, url, response, next_attempt_at)
        select attempt_id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms,
            -- What ended because its endpoint was deleted was not sent anywhere: it names where it would have gone.
            case when url = '' then coalesce((select e.url from endpoint e where e.id = taken.endpoint_id), '') else url end, response,
            case when kind = 1 then now() + make_interval(secs => delay) end
          from taken
    )
    select array_agg(n::integer), array_agg(last_attempt_id) filter (where last_attempt_id is not null) into v_live, v_former from taken;
    if v_former is not null then
      update attempt set is_latest = false where id = any (v_former);
    end if;
    if 2 = any (f_kind) then
      with released as (
        update queue q set lease = null, due_at = now() from unnest(f_message, f_endpoint, f_run, f_lease, f_kind) with ordinality r(message_id, endpoint_id, run, lease, kind, n)
          where r.kind = 2 and q.message_id = r.message_id and q.endpoint_id = r.endpoint_id and q.run = r.run and q.lease = r.lease
          returning r.n
      )
      select v_live || array_agg(n::integer) into v_live from released;
    end if;
    if coalesce(cardinality(v_live), 0) < cardinality(f_message) then
      return query select n, 100::smallint, null::uuid, false from generate_series(1, cardinality(f_message)) n where n <> all (coalesce(v_live, '{}'));
    end if;
  end if;
  if cardinality(p_id) = 0 then
    return;
  end if;

  -- Claim without ever waiting: a busy key must not hold up its batch.
  select array_agg((case
      when t.k is not null and not pg_try_advisory_xact_lock(t.k) then 1
      when t.u is not null and not pg_try_advisory_xact_lock(t.u) then 2
      when t.m is not null and not pg_try_advisory_xact_lock(t.m) then 3
      else 0 end)::smallint)
    into v_state from unnest(p_lock, p_uid_lock, p_key_lock) t(k, u, m);

  if p_is_rerun then
    for v_row in select t.n, m.duplicate_of, m.payload_mismatch from unnest(p_id) with ordinality t(id, n) join message m on m.id = t.id loop
      v_state[v_row.n] := 10;
      v_ref[v_row.n] := v_row.duplicate_of;
      v_mismatch[v_row.n] := v_row.payload_mismatch;
    end loop;
  end if;

  -- A new statement, so a new snapshot: it sees every outcome that an earlier holder of a lock has saved. `offset 0` keeps
  -- the planner from joining: planned while a partition is empty, it would look at all keys of the day for each batch.
  for v_row in
    select t.n, i.fingerprint = t.fingerprint as is_same, i.status, i.ref
      from unnest(p_k, p_fingerprint) with ordinality t(k, fingerprint, n)
      cross join lateral (select * from idempotency i
        where i.k = t.k and i.created_at > now() - p_horizon and i.created_at < now() + interval '1 hour' offset 0) i
      where t.k is not null and v_state[t.n] = 0 and i.expires_at > now()
  loop
    v_state[v_row.n] := case when not v_row.is_same then 5 when v_row.status = 409 then 9 else 4 end;
    v_ref[v_row.n] := v_row.ref;
  end loop;

  -- Caches are true or the request waits: the endpoints must be those of this snapshot's application version.
  select array_agg(t.id) into v_stale from unnest(a_id, a_version) t(id, version)
    left join application a on a.id = t.id and a.deleted_at is null where a.version is distinct from t.version;
  if v_stale is not null then
    for v_row in select t.n from unnest(p_application) with ordinality t(id, n) where v_state[t.n] = 0 and t.id = any (v_stale) loop
      v_state[v_row.n] := 7;
    end loop;
  end if;

  if v_has_uids then
    for v_row in
      select t.n, e.message_id from unnest(p_uid_hash) with ordinality t(h, n) join event_uid e on e.scope_hash = t.h
        where t.h is not null and v_state[t.n] = 0
    loop
      v_state[v_row.n] := 6;
      v_ref[v_row.n] := v_row.message_id;
    end loop;
  end if;

  if v_has_keys then
    for v_row in
      select t.n, e.message_id, e.fingerprint <> t.d as is_mismatch from unnest(p_key_hash, p_digest) with ordinality t(h, d, n)
        join message_key e on e.scope_hash = t.h where t.h is not null and v_state[t.n] = 0
    loop
      v_state[v_row.n] := 8;
      v_ref[v_row.n] := v_row.message_id;
      v_mismatch[v_row.n] := v_row.is_mismatch;
    end loop;
  end if;

  insert into message (id, tenant_id, application_id, event_type, event_id, channels, message_key, duplicate_of, payload_mismatch, payload, content_type)
    select t.id, t.tenant, t.application, t.event_type, t.event_id, t.channels::text[], t.message_key,
        case when v_state[t.n] = 8 then v_ref[t.n] end, v_mismatch[t.n], t.payload, t.content_type
      from unnest(p_id, p_tenant, p_application, p_event_type, p_event_id, p_channels, p_message_key, p_payload, p_content_type)
        with ordinality t(id, tenant, application, event_type, event_id, channels, message_key, payload, content_type, n)
      where v_state[t.n] in (0, 8);
  if v_has_uids then
    insert into event_uid (scope_hash, message_id)
      select t.h, t.id from unnest(p_uid_hash, p_id) with ordinality t(h, id, n) where t.h is not null and v_state[t.n] in (0, 8);
  end if;
  if v_has_keys then
    insert into message_key (scope_hash, message_id, fingerprint)
      select t.h, t.id, t.d from unnest(p_key_hash, p_id, p_digest) with ordinality t(h, id, d, n) where t.h is not null and v_state[t.n] = 0;
  end if;
  insert into queue (message_id, endpoint_id, tenant_id, application_id, lease, due_at)
    select p_id[t.o], t.endpoint, p_tenant[t.o], p_application[t.o], case when t.is_leased then p_lease end,
        case when t.is_leased then now() + make_interval(secs => p_lease_seconds) else now() end
      from unnest(d_of, d_endpoint, d_is_leased) t(o, endpoint, is_leased) where v_state[t.o] = 0;
  insert into idempotency (k, fingerprint, status, expires_at, ref)
    select t.k, t.fingerprint, case when v_state[t.n] = 6 then 409 else 202 end, now() + make_interval(secs => t.ttl),
        case when v_state[t.n] = 6 then v_ref[t.n] else t.id end
      from unnest(p_k, p_fingerprint, p_ttl, p_saves_conflict, p_id) with ordinality t(k, fingerprint, ttl, saves_conflict, id, n)
      where t.k is not null and (v_state[t.n] in (0, 8) or (v_state[t.n] = 6 and t.saves_conflict));

  return query select t.n::integer, t.state, v_ref[t.n], v_mismatch[t.n] from unnest(v_state) with ordinality t(state, n) where t.state <> 0;
end
$$;

do $$
declare
  s text;
begin
  foreach s in array array['jit', 'enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_bitmapscan', 'enable_sort'] loop
    execute format('alter function step_v2 set %I = off', s);
  end loop;
  alter function step_v2 set plan_cache_mode = force_generic_plan;
end
$$;
