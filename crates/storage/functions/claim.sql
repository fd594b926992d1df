-- Leases a fair share of what is due, endpoint by endpoint, beginning at p_from (or only that of the endpoints in p_only):
--   at most p_total rows and about p_bytes of payload in all, one row at least;
--   at most p_share rows of an endpoint, less what this process has of it already (p_endpoint, p_taken), and none of p_held;
--   of a tenant no more than a fair part of p_quota, less what this process has of it already (p_tenant, p_tenant_taken);
--   nothing of an endpoint that is paused, or held, but for one probe of the latter when its time has come; while it recovers, so many rows as it has slots;
--   of a throttled endpoint so many rows as it has tokens, over all processes.
-- A row whose lease has run out was being sent when its worker died: it gets an attempt of outcome "unknown" (2) and is leased
-- anew, or, the third time in a row, ends as failed (1).
-- The last row of the result is no delivery: it says where the next claim should begin if this one was full (resume_at), of which
-- endpoints and tenants more is due than this process may have now (crowded, crowded_tenants), of which throttled endpoints more is
-- due than they have tokens (throttled), in how many seconds the first of them will have one (tokens_in), how many
-- deliveries whose leases had run out were leased anew (rescued) or ended (given_up), and to which endpoints, of which tenants, how many
-- of both were owed (lost_of, lost_tenants, lost).
-- gate: 0 the endpoint is well, 1 this is a probe, 2 the endpoint recovers.
-- Of its message a row says: the message key, but for a released duplicate, whose key is its own id, since whoever dedupes by the message
-- key has seen that one already; and released_at, from when on it is owed.
--
-- What belongs to the rows that it leased is looked up row by row, as in `step`: planned while there was little of it, a join would read
-- every attempt of the week, and every message.
create function claim_v1(
  p_lease uuid, p_lease_seconds float8, p_total integer, p_bytes bigint, p_share integer, p_endpoint uuid[], p_taken integer[], p_held uuid[],
  p_quota integer, p_tenant uuid[], p_tenant_taken integer[], p_from uuid, p_only uuid[], p_slack_seconds float8
) returns table (
  message_id uuid, endpoint_id uuid, run integer, tenant_id uuid, application_id uuid, trigger smallint, attempts smallint,
  version bigint, payload bytea, content_type text, particulars jsonb, message_key text, released_at timestamptz, gate smallint,
  resume_at uuid, crowded uuid[], crowded_tenants uuid[], throttled uuid[], tokens_in float8, rescued integer, given_up integer,
  lost_of uuid[], lost_tenants uuid[], lost integer[]
) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v_i integer := 0;
  v_left integer := p_total;
  v_bytes bigint := p_bytes;
  v_owed record;
  v_gate record;
  v_rate record;
  v_taken integer;
  v_most integer;
  v_fair integer;
  v_take integer;
  v_tenants uuid[] := p_tenant;
  v_tenant_taken integer[] := p_tenant_taken;
  v_t integer;
  v_period interval;
  v_base timestamptz;
  v_picked tid[];
  v_size bigint;
  v_counts integer[];
  v_rescued integer := 0;
  v_given_up integer := 0;
  v_lost_of uuid[] := '{}';
  v_lost_tenants uuid[] := '{}';
  v_lost integer[] := '{}';
  v_places tid[] := '{}';
  v_probes uuid[] := '{}';
  v_recovering uuid[] := '{}';
  v_resume_at uuid;
  v_crowded uuid[] := '{}';
  v_crowded_tenants uuid[] := '{}';
  v_throttled uuid[] := '{}';
  v_token_at timestamptz;
begin
  loop
    v_i := v_i + 1;
    -- The endpoint's oldest row alone says whether anything of it is due.
    if p_only is not null then
      exit when v_i > cardinality(p_only);
      select q.endpoint_id, q.tenant_id, q.due_at into v_owed from queue q where q.endpoint_id = p_only[v_i] order by q.endpoint_id, q.due_at limit 1;
      continue when not found;
    elsif v_i = 1 then
      select q.endpoint_id, q.tenant_id, q.due_at into v_owed from queue q where q.endpoint_id >= p_from order by q.endpoint_id, q.due_at limit 1;
    else
      select q.endpoint_id, q.tenant_id, q.due_at into v_owed from queue q where q.endpoint_id > v_owed.endpoint_id order by q.endpoint_id, q.due_at limit 1;
    end if;
    exit when not found;
    continue when v_owed.due_at > now() or v_owed.endpoint_id = any (p_held);
    if v_left <= 0 or v_bytes <= 0 then
      v_resume_at := v_owed.endpoint_id;
      exit;
    end if;

    v_taken := coalesce(p_taken[array_position(p_endpoint, v_owed.endpoint_id)], 0);
    v_t := array_position(v_tenants, v_owed.tenant_id);
    if v_t is null then
      v_tenants := v_tenants || v_owed.tenant_id;
      v_tenant_taken := v_tenant_taken || 0;
      v_t := cardinality(v_tenants);
    end if;
    -- There is always room for one tenant more.
    v_fair := greatest(p_quota / (1 + cardinality(v_tenants)), 1) - v_tenant_taken[v_t];
    if v_fair <= 0 then
      if v_owed.tenant_id <> all (v_crowded_tenants) then
        v_crowded_tenants := v_crowded_tenants || v_owed.tenant_id;
      end if;
      continue;
    end if;
    v_most := p_share - v_taken;

    select h.state, h.slots, h.probe_at <= now() as is_probed, r.rate is not null as is_throttled into v_gate
      from (select) one
      left join endpoint_health h on h.endpoint_id = v_owed.endpoint_id
      left join endpoint_rate r on r.endpoint_id = v_owed.endpoint_id;
    if v_gate.state = 1 then
      continue when not v_gate.is_probed;
      -- One process probes: the others find the row locked, and the time moved.
      perform from endpoint_health h where h.endpoint_id = v_owed.endpoint_id and h.state = 1 and h.probe_at <= now() for update skip locked;
      continue when not found;
      v_most := least(v_most, 1);
    elsif v_gate.state = 3 then
      continue;
    elsif v_gate.state = 2 then
      v_most := least(v_most, v_gate.slots - v_taken);
    end if;
    if v_most <= 0 then
      v_crowded := v_crowded || v_owed.endpoint_id;
      continue;
    end if;
    v_take := least(v_most, v_fair, v_left);
    if v_gate.is_throttled then
      select r.rate, r.tat into v_rate from endpoint_rate r where r.endpoint_id = v_owed.endpoint_id for update skip locked;
      if not found then
        -- Another process is at it.
        v_throttled := v_throttled || v_owed.endpoint_id;
        v_token_at := now();
        continue;
      end if;
      v_period := make_interval(secs => 1.0 / v_rate.rate);
      v_base := greatest(v_rate.tat, now() - v_period - make_interval(secs => p_slack_seconds));
      v_take := least(v_take, floor(extract(epoch from now() - v_base) * v_rate.rate)::integer);
      if v_take <= 0 then
        v_throttled := v_throttled || v_owed.endpoint_id;
        v_token_at := least(v_token_at, v_base + v_period);
        continue;
      end if;
    end if;

    with locked as materialized (
      select q.ctid as place, q.message_id, q.lease is not null as is_rescued, q.unknown_in_a_row + 1 >= 3 as is_last from queue q where q.endpoint_id = v_owed.endpoint_id and q.due_at <= now()
        order by q.endpoint_id, q.due_at limit v_take for update skip locked
    ), sized as (
      select l.place, l.is_rescued, l.is_last, m.size, sum(m.size) over (rows unbounded preceding) as total
        from locked l cross join lateral (select coalesce((select octet_length(m.payload) from message m where m.id = l.message_id), 0) as size) m
    )
    select array_agg(s.place), sum(s.size), array[count(*) filter (where s.is_rescued and not s.is_last), count(*) filter (where s.is_rescued and s.is_last)]
      into v_picked, v_size, v_counts from sized s where s.total - s.size < v_bytes;
    continue when v_picked is null;

    v_places := v_places || v_picked;
    v_left := v_left - cardinality(v_picked);
    v_bytes := v_bytes - v_size;
    v_rescued := v_rescued + v_counts[1];
    v_given_up := v_given_up + v_counts[2];
    if v_counts[1] + v_counts[2] > 0 then
      v_lost_of := v_lost_of || v_owed.endpoint_id;
      v_lost_tenants := v_lost_tenants || v_owed.tenant_id;
      v_lost := v_lost || (v_counts[1] + v_counts[2]);
    end if;
    v_tenant_taken[v_t] := v_tenant_taken[v_t] + cardinality(v_picked);
    if cardinality(v_picked) = v_most then
      v_crowded := v_crowded || v_owed.endpoint_id;
    end if;
    if v_gate.state = 1 then
      update endpoint_health h set probe_at = now() + make_interval(secs => p_lease_seconds) where h.endpoint_id = v_owed.endpoint_id;
      v_probes := v_probes || v_owed.endpoint_id;
    elsif v_gate.state = 2 then
      v_recovering := v_recovering || v_owed.endpoint_id;
    end if;
    if v_gate.is_throttled then
      v_base := v_base + v_period * cardinality(v_picked);
      update endpoint_rate r set tat = v_base where r.endpoint_id = v_owed.endpoint_id;
      if cardinality(v_picked) = v_take then
        v_throttled := v_throttled || v_owed.endpoint_id;
        v_token_at := least(v_token_at, v_base + v_period);
      end if;
    end if;
  end loop;

  return query
  with picked as materialized (
    select q.ctid as place, q.lease is not null as is_rescued, q.unknown_in_a_row + 1 >= 3 as is_last, q.last_attempt_id as former_id
      from queue q where q.ctid = any (v_places)
  ), ended as (
    delete from queue q using picked p where q.ctid = p.place and p.is_rescued and p.is_last
      returning q.*
  ), leased as (
    update queue q set lease = p_lease, due_at = now() + make_interval(secs => p_lease_seconds),
        unknown_in_a_row = q.unknown_in_a_row + p.is_rescued::integer,
        last_attempt_id = case when p.is_rescued then uuid_v7() else q.last_attempt_id end
      from picked p where q.ctid = p.place and not (p.is_rescued and p.is_last)
      returning q.*, p.is_rescued
  ), superseded as (
    update attempt a set is_latest = false where a.id = any (array(select p.former_id from picked p where p.is_rescued and p.former_id is not null))
  ), unknown as (
    insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url, response, next_attempt_at)
      select l.last_attempt_id, l.message_id, l.endpoint_id, l.run, (l.attempts + 1)::smallint, l.tenant_id, l.application_id, l.trigger, 2, coalesce(e.url, ''),
          'unknown: the worker died while it was sending, so the request may have been sent'::bytea, now()
        from leased l left join lateral (select e.url from endpoint e where e.id = l.endpoint_id offset 0) e on true where l.is_rescued
  ), crashed as (
    insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url, response)
      select uuid_v7(), d.message_id, d.endpoint_id, d.run, (d.attempts + 1)::smallint, d.tenant_id, d.application_id, d.trigger, 1, coalesce(e.url, ''),
          'worker crashed: three sends in a row ended without a result, so the delivery was given up'::bytea
        from ended d left join lateral (select e.url from endpoint e where e.id = d.endpoint_id offset 0) e on true
  )
  select l.message_id, l.endpoint_id, l.run, l.tenant_id, l.application_id, l.trigger, l.attempts, coalesce(a.version, 0),
      case when m.payload_expires_at <= now() then null else m.payload end, m.content_type, m.particulars,
      case when m.duplicate_of is null then m.message_key end, m.released_at,
      case when l.endpoint_id = any (v_probes) then 1 when l.endpoint_id = any (v_recovering) then 2 else 0 end::smallint,
      null::uuid, null::uuid[], null::uuid[], null::uuid[], null::float8, null::integer, null::integer, null::uuid[], null::uuid[], null::integer[]
    from leased l
      left join lateral (select m.* from message m where m.id = l.message_id offset 0) m on true
      left join lateral (select a.version from application a where a.id = l.application_id offset 0) a on true;
  return query select null::uuid, null::uuid, null::integer, null::uuid, null::uuid, null::smallint, null::smallint, null::bigint, null::bytea, null::text, null::jsonb, null::text,
    null::timestamptz, null::smallint, v_resume_at, v_crowded, v_crowded_tenants, v_throttled,
    case when v_token_at is not null then greatest(extract(epoch from v_token_at - now()), 0)::float8 end, v_rescued, v_given_up, v_lost_of, v_lost_tenants, v_lost;
end
$$;
