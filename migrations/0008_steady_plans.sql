-- Plans that do not depend on statistics: the two functions of the hot path that looked rows up by joins, anew.

-- The third version of the statement that writes what one process has to write. What it takes and what it returns is what
-- `step_v2` takes and returns (migration 0005), and two things more: for how long each payload is kept (null: as long as its message), and
-- whether a send was repeated on another connection. How Postgres goes about it does not depend on statistics any more.
--
-- A queue that was long and is short has large indexes and few rows, so each index looks as if all of it had to be read for one
-- row. The planner then took the due rows of the endpoint for each result of a batch, and read all of them. So every row that
-- a batch names is now looked up in a way for which there is one plan: a row of the queue by a range of its whole primary key,
-- from itself to itself, which no other index can serve; what has but one index by a LATERAL subquery, of which `offset 0` or
-- `limit` keeps the planner from making a join that begins at the other end.
--
-- Arrays become rows in the target list of a subquery: `from unnest(...)` copies every one of them first.
create function step_v3(
  p_id uuid[], p_tenant uuid[], p_application uuid[], p_event_type text[], p_event_id text[], p_channels text[],
  p_message_key text[], p_payload bytea[], p_content_type text[], p_payload_seconds float8[],
  p_k uuid[], p_fingerprint uuid[], p_ttl float8[], p_saves_conflict boolean[],
  p_uid_hash uuid[], p_key_hash uuid[], p_digest uuid[],
  p_lock bigint[], p_uid_lock bigint[], p_key_lock bigint[],
  a_id uuid[], a_version bigint[],
  d_of integer[], d_endpoint uuid[], d_is_leased boolean[],
  p_lease uuid, p_lease_seconds float8, p_horizon interval, p_is_rerun boolean,
  f_message uuid[], f_endpoint uuid[], f_run integer[], f_lease uuid[], f_kind smallint[], f_attempt uuid[], f_number smallint[],
  f_outcome smallint[], f_status smallint[], f_duration integer[], f_response bytea[], f_url text[], f_delay float8[], f_is_resent boolean[]
) returns table (o integer, outcome smallint, ref uuid, is_mismatch boolean) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v_live uuid[];
  v_former uuid[];
  v_state smallint[];
  v_ref uuid[];
  v_mismatch boolean[];
  v_stale uuid[];
  v_has_uids boolean := cardinality(array_remove(p_uid_hash, null)) > 0;
  v_has_keys boolean := cardinality(array_remove(p_key_hash, null)) > 0;
  v_row record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise 'step_v3 needs READ COMMITTED';
  end if;

  if cardinality(f_message) > 0 then
    with result as (
      select unnest(f_message) as message_id, unnest(f_endpoint) as endpoint_id, unnest(f_run) as run, unnest(f_lease) as lease, unnest(f_kind) as kind,
        unnest(f_attempt) as attempt_id, unnest(f_number) as number, unnest(f_outcome) as outcome, unnest(f_status) as status_code,
        unnest(f_duration) as duration_ms, unnest(f_response) as response, unnest(f_url) as url, unnest(f_delay) as delay,
        unnest(f_is_resent) as is_resent
    ), taken as (
      delete from queue q using result r
        where (q.message_id, q.endpoint_id, q.run) >= (r.message_id, r.endpoint_id, r.run)
          and (q.message_id, q.endpoint_id, q.run) <= (r.message_id, r.endpoint_id, r.run)
          and q.lease = r.lease and r.kind <> 2
        returning q.tenant_id, q.application_id, q.trigger, q.last_attempt_id, r.*
    ), sleeping as (
      insert into queue_later (message_id, endpoint_id, run, tenant_id, application_id, trigger, attempts, due_at, last_attempt_id)
        select message_id, endpoint_id, run, tenant_id, application_id, trigger, number, now() + make_interval(secs => delay), attempt_id
          from taken where kind = 1
    ), recorded as (
      insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms, url, response, next_attempt_at,
          is_resent)
        select attempt_id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms,
            -- What ended because its endpoint was deleted was not sent anywhere: it names where it would have gone.
            case when url = '' then coalesce((select e.url from endpoint e where e.id = taken.endpoint_id), '') else url end, response,
            case when kind = 1 then now() + make_interval(secs => delay) end, is_resent
          from taken
    )
    select array_agg(attempt_id), array_agg(last_attempt_id) filter (where last_attempt_id is not null) into v_live, v_former from taken;
    if v_former is not null then
      update attempt set is_latest = false where id = any (v_former);
    end if;
    if 2 = any (f_kind) then
      with result as (
        select unnest(f_message) as message_id, unnest(f_endpoint) as endpoint_id, unnest(f_run) as run, unnest(f_lease) as lease, unnest(f_kind) as kind,
          unnest(f_attempt) as attempt_id
      ), released as (
        update queue q set lease = null, due_at = now() from result r
          where (q.message_id, q.endpoint_id, q.run) >= (r.message_id, r.endpoint_id, r.run)
            and (q.message_id, q.endpoint_id, q.run) <= (r.message_id, r.endpoint_id, r.run)
            and q.lease = r.lease and r.kind = 2
          returning r.attempt_id
      )
      select v_live || array_agg(attempt_id) into v_live from released;
    end if;
    if coalesce(cardinality(v_live), 0) < cardinality(f_message) then
      return query select t.n::integer, 100::smallint, null::uuid, false from unnest(f_attempt) with ordinality t(id, n) where t.id <> all (coalesce(v_live, '{}'));
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
    into v_state from (select unnest(p_lock) as k, unnest(p_uid_lock) as u, unnest(p_key_lock) as m) t;

  if p_is_rerun then
    for v_row in
      select t.n, m.duplicate_of, m.payload_mismatch from (select generate_subscripts(p_id, 1) as n, unnest(p_id) as id) t
        cross join lateral (select m.duplicate_of, m.payload_mismatch from message m where m.id = t.id offset 0) m
    loop
      v_state[v_row.n] := 10;
      v_ref[v_row.n] := v_row.duplicate_of;
      v_mismatch[v_row.n] := v_row.payload_mismatch;
    end loop;
  end if;

  -- A new statement, so a new snapshot: it sees every outcome that an earlier holder of a lock has saved.
  for v_row in
    select t.n, i.fingerprint = t.fingerprint as is_same, i.status, i.ref
      from (select generate_subscripts(p_k, 1) as n, unnest(p_k) as k, unnest(p_fingerprint) as fingerprint) t
      cross join lateral (select i.fingerprint, i.status, i.ref, i.expires_at from idempotency i
        where i.k = t.k and i.created_at > now() - p_horizon and i.created_at < now() + interval '1 hour' offset 0) i
      where t.k is not null and v_state[t.n] = 0 and i.expires_at > now()
  loop
    v_state[v_row.n] := case when not v_row.is_same then 5 when v_row.status = 409 then 9 else 4 end;
    v_ref[v_row.n] := v_row.ref;
  end loop;

  -- Caches are true or the request waits: the endpoints must be those of this snapshot's application version.
  select array_agg(t.id) into v_stale from (select unnest(a_id) as id, unnest(a_version) as version) t
    left join lateral (select a.version, a.deleted_at from application a where a.id >= t.id and a.id <= t.id order by a.id limit 1) a on true
    where a.version is distinct from t.version or a.deleted_at is not null;
  if v_stale is not null then
    for v_row in select t.n from unnest(p_application) with ordinality t(id, n) where v_state[t.n] = 0 and t.id = any (v_stale) loop
      v_state[v_row.n] := 7;
    end loop;
  end if;

  if v_has_uids then
    for v_row in
      select t.n, e.message_id from (select generate_subscripts(p_uid_hash, 1) as n, unnest(p_uid_hash) as h) t
        cross join lateral (select e.message_id from event_uid e where e.scope_hash = t.h offset 0) e
        where t.h is not null and v_state[t.n] = 0
    loop
      v_state[v_row.n] := 6;
      v_ref[v_row.n] := v_row.message_id;
    end loop;
  end if;

  if v_has_keys then
    for v_row in
      select t.n, e.message_id, e.fingerprint <> t.d as is_mismatch
        from (select generate_subscripts(p_key_hash, 1) as n, unnest(p_key_hash) as h, unnest(p_digest) as d) t
        cross join lateral (select e.message_id, e.fingerprint from message_key e where e.scope_hash = t.h offset 0) e
        where t.h is not null and v_state[t.n] = 0
    loop
      v_state[v_row.n] := 8;
      v_ref[v_row.n] := v_row.message_id;
      v_mismatch[v_row.n] := v_row.is_mismatch;
    end loop;
  end if;

  insert into message (id, tenant_id, application_id, event_type, event_id, channels, message_key, duplicate_of, payload_mismatch, payload, content_type,
      payload_expires_at)
    select t.id, t.tenant, t.application, t.event_type, t.event_id, t.channels::text[], t.message_key,
        case when v_state[t.n] = 8 then v_ref[t.n] end, v_state[t.n] = 8 and v_mismatch[t.n], t.payload, t.content_type,
        now() + make_interval(secs => t.payload_seconds)
      from (select generate_subscripts(p_id, 1) as n, unnest(p_id) as id, unnest(p_tenant) as tenant, unnest(p_application) as application,
        unnest(p_event_type) as event_type, unnest(p_event_id) as event_id, unnest(p_channels) as channels, unnest(p_message_key) as message_key,
        unnest(p_payload) as payload, unnest(p_content_type) as content_type, unnest(p_payload_seconds) as payload_seconds) t
      where v_state[t.n] in (0, 8);
  if v_has_uids then
    insert into event_uid (scope_hash, message_id)
      select t.h, t.id from (select generate_subscripts(p_id, 1) as n, unnest(p_uid_hash) as h, unnest(p_id) as id) t
        where t.h is not null and v_state[t.n] in (0, 8);
  end if;
  if v_has_keys then
    insert into message_key (scope_hash, message_id, fingerprint)
      select t.h, t.id, t.d from (select generate_subscripts(p_id, 1) as n, unnest(p_key_hash) as h, unnest(p_id) as id, unnest(p_digest) as d) t
        where t.h is not null and v_state[t.n] = 0;
  end if;
  insert into queue (message_id, endpoint_id, tenant_id, application_id, lease, due_at)
    select p_id[t.o], t.endpoint, p_tenant[t.o], p_application[t.o], case when t.is_leased then p_lease end,
        case when t.is_leased then now() + make_interval(secs => p_lease_seconds) else now() end
      from (select unnest(d_of) as o, unnest(d_endpoint) as endpoint, unnest(d_is_leased) as is_leased) t where v_state[t.o] = 0;
  insert into idempotency (k, fingerprint, status, expires_at, ref)
    select t.k, t.fingerprint, case when v_state[t.n] = 6 then 409 else 202 end, now() + make_interval(secs => t.ttl),
        case when v_state[t.n] = 6 then v_ref[t.n] else t.id end
      from (select generate_subscripts(p_id, 1) as n, unnest(p_k) as k, unnest(p_fingerprint) as fingerprint, unnest(p_ttl) as ttl,
        unnest(p_saves_conflict) as saves_conflict, unnest(p_id) as id) t
      where t.k is not null and (v_state[t.n] in (0, 8) or (v_state[t.n] = 6 and t.saves_conflict));

  if 0 <> any (v_state) then
    return query select t.n::integer, t.state, v_ref[t.n], coalesce(v_mismatch[t.n], false) from unnest(v_state) with ordinality t(state, n) where t.state <> 0;
  end if;
end
$$;

-- `claim_v3` (migration 0007), but for how what belongs to the rows that it leased is looked up: planned while there was little of it,
-- it read every attempt of the week for each row of a dead process, and every message for each row.
create function claim_v4(
  p_lease uuid, p_lease_seconds float8, p_total integer, p_bytes bigint, p_share integer, p_endpoint uuid[], p_taken integer[], p_held uuid[],
  p_quota integer, p_tenant uuid[], p_tenant_taken integer[], p_from uuid, p_only uuid[], p_slack_seconds float8
) returns table (
  message_id uuid, endpoint_id uuid, run integer, tenant_id uuid, application_id uuid, trigger smallint, attempts smallint,
  version bigint, payload bytea, content_type text, message_key text, released_at timestamptz, gate smallint,
  resume_at uuid, crowded uuid[], crowded_tenants uuid[], throttled uuid[], tokens_in float8, rescued integer, given_up integer
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
      case when m.payload_expires_at <= now() then null else m.payload end, m.content_type,
      case when m.duplicate_of is null then m.message_key end, m.released_at,
      case when l.endpoint_id = any (v_probes) then 1 when l.endpoint_id = any (v_recovering) then 2 else 0 end::smallint,
      null::uuid, null::uuid[], null::uuid[], null::uuid[], null::float8, null::integer, null::integer
    from leased l
      left join lateral (select m.* from message m where m.id = l.message_id offset 0) m on true
      left join lateral (select a.version from application a where a.id = l.application_id offset 0) a on true;
  return query select null::uuid, null::uuid, null::integer, null::uuid, null::uuid, null::smallint, null::smallint, null::bigint, null::bytea, null::text, null::text,
    null::timestamptz, null::smallint, v_resume_at, v_crowded, v_crowded_tenants, v_throttled,
    case when v_token_at is not null then greatest(extract(epoch from v_token_at - now()), 0)::float8 end, v_rescued, v_given_up;
end
$$;

do $$
declare
  f text;
  s text;
begin
  foreach f in array array['step_v3', 'claim_v4'] loop
    foreach s in array array['jit', 'enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_bitmapscan', 'enable_sort'] loop
      execute format('alter function %I set %I = off', f, s);
    end loop;
    execute format('alter function %I set plan_cache_mode = force_generic_plan', f);
  end loop;
end
$$;
