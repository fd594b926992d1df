-- The statements of the hot path, as functions: each call is one round trip and one transaction. They are versioned, so
-- that two releases can run side by side, and carry their planner settings, so that no plan depends on statistics.

-- Accepts a batch of new messages. READ COMMITTED only: each statement in here sees what the holders of the locks before
-- us have committed. Equal keys, event ids and message keys inside one batch are the caller's to avoid: advisory locks are
-- re-entrant. Returns a row for each request that was not simply executed:
--   1 key busy · 2 event id busy · 3 message key busy · 4 replay · 5 mismatch · 6 event id taken · 7 stale endpoints
--   8 executed as a duplicate · 9 replay of "event id taken" · 10 executed before (by a run of this batch whose end was lost)
create function accept_v1(
  p_id uuid[], p_tenant uuid[], p_application uuid[], p_event_type text[], p_event_id text[], p_channels text[],
  p_message_key text[], p_payload bytea[], p_content_type text[],
  p_k uuid[], p_fingerprint uuid[], p_ttl float8[], p_saves_conflict boolean[],
  p_uid_hash uuid[], p_key_hash uuid[], p_digest uuid[],
  p_lock bigint[], p_uid_lock bigint[], p_key_lock bigint[],
  a_id uuid[], a_version bigint[],
  d_of integer[], d_endpoint uuid[], d_is_leased boolean[],
  p_lease uuid, p_lease_seconds float8, p_horizon interval, p_is_rerun boolean
) returns table (o integer, outcome smallint, ref uuid, is_mismatch boolean) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v_state smallint[];
  v_ref uuid[] := array_fill(null::uuid, array[cardinality(p_id)]);
  v_mismatch boolean[] := array_fill(false, array[cardinality(p_id)]);
  v_stale uuid[];
  v_row record;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise 'accept_v1 needs READ COMMITTED';
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

  -- A new statement, so a new snapshot: it sees every outcome that an earlier holder of a lock has saved.
  for v_row in
    select t.n, i.fingerprint = t.fingerprint as is_same, i.status, i.ref
      from unnest(p_k, p_fingerprint) with ordinality t(k, fingerprint, n)
      join idempotency i on i.k = t.k and i.created_at > now() - p_horizon and i.created_at < now() + interval '1 day' and i.expires_at > now()
      where t.k is not null and v_state[t.n] = 0
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

  for v_row in
    select t.n, e.message_id from unnest(p_uid_hash) with ordinality t(h, n) join event_uid e on e.scope_hash = t.h
      where t.h is not null and v_state[t.n] = 0
  loop
    v_state[v_row.n] := 6;
    v_ref[v_row.n] := v_row.message_id;
  end loop;

  for v_row in
    select t.n, e.message_id, e.fingerprint <> t.d as is_mismatch from unnest(p_key_hash, p_digest) with ordinality t(h, d, n)
      join message_key e on e.scope_hash = t.h where t.h is not null and v_state[t.n] = 0
  loop
    v_state[v_row.n] := 8;
    v_ref[v_row.n] := v_row.message_id;
    v_mismatch[v_row.n] := v_row.is_mismatch;
  end loop;

  insert into message (id, tenant_id, application_id, event_type, event_id, channels, message_key, duplicate_of, payload_mismatch, payload, content_type)
    select t.id, t.tenant, t.application, t.event_type, t.event_id, t.channels::text[], t.message_key,
        case when v_state[t.n] = 8 then v_ref[t.n] end, v_mismatch[t.n], t.payload, t.content_type
      from unnest(p_id, p_tenant, p_application, p_event_type, p_event_id, p_channels, p_message_key, p_payload, p_content_type)
        with ordinality t(id, tenant, application, event_type, event_id, channels, message_key, payload, content_type, n)
      where v_state[t.n] in (0, 8);
  insert into event_uid (scope_hash, message_id)
    select t.h, t.id from unnest(p_uid_hash, p_id) with ordinality t(h, id, n) where t.h is not null and v_state[t.n] in (0, 8);
  insert into message_key (scope_hash, message_id, fingerprint)
    select t.h, t.id, t.d from unnest(p_key_hash, p_id, p_digest) with ordinality t(h, id, d, n) where t.h is not null and v_state[t.n] = 0;
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

-- Records a batch of finished sends, each only under its live lease: a late result changes nothing. kind: 0 finished,
-- 1 to be tried again after f_delay seconds, 2 handed back unsent. Returns the ordinals of those that were not late.
create function finish_v1(
  f_message uuid[], f_endpoint uuid[], f_run integer[], f_lease uuid[], f_kind smallint[], f_attempt uuid[], f_number smallint[],
  f_outcome smallint[], f_status smallint[], f_duration integer[], f_response bytea[], f_url text[], f_delay float8[]
) returns integer[] language plpgsql volatile as $$
declare
  v_live integer[];
begin
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
  ), superseded as (
    update attempt a set is_latest = false from taken t where t.last_attempt_id is not null and a.id = t.last_attempt_id
  ), recorded as (
    insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms, url, response, next_attempt_at)
      select attempt_id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms,
          -- What ended because its endpoint was deleted was not sent anywhere: it names where it would have gone.
          case when url = '' then coalesce((select e.url from endpoint e where e.id = taken.endpoint_id), '') else url end, response,
          case when kind = 1 then now() + make_interval(secs => delay) end
        from taken
  )
  select array_agg(n::integer) into v_live from taken;
  if 2 = any (f_kind) then
    with released as (
      update queue q set lease = null, due_at = now() from unnest(f_message, f_endpoint, f_run, f_lease, f_kind) with ordinality r(message_id, endpoint_id, run, lease, kind, n)
        where r.kind = 2 and q.message_id = r.message_id and q.endpoint_id = r.endpoint_id and q.run = r.run and q.lease = r.lease
        returning r.n
    )
    select v_live || array_agg(n::integer) into v_live from released;
  end if;
  return coalesce(v_live, '{}');
end
$$;

-- Everything that one process has to write, in one transaction: finished sends and new messages. Returns accept_v1's rows,
-- and a row with outcome 100 for each result that came too late.
create function step_v1(
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
declare
  v_live integer[];
begin
  if cardinality(f_message) > 0 then
    v_live := finish_v1(f_message, f_endpoint, f_run, f_lease, f_kind, f_attempt, f_number, f_outcome, f_status, f_duration, f_response, f_url, f_delay);
    if cardinality(v_live) < cardinality(f_message) then
      return query select n, 100::smallint, null::uuid, false from generate_series(1, cardinality(f_message)) n where n <> all (v_live);
    end if;
  end if;
  if cardinality(p_id) > 0 then
    return query select * from accept_v1(p_id, p_tenant, p_application, p_event_type, p_event_id, p_channels, p_message_key, p_payload, p_content_type,
      p_k, p_fingerprint, p_ttl, p_saves_conflict, p_uid_hash, p_key_hash, p_digest, p_lock, p_uid_lock, p_key_lock, a_id, a_version,
      d_of, d_endpoint, d_is_leased, p_lease, p_lease_seconds, p_horizon, p_is_rerun);
  end if;
end
$$;

-- Moves what has fallen due from queue_later to queue; returns how many.
create function promote_v1(p_limit integer) returns integer language plpgsql volatile as $$
declare
  v_count integer;
begin
  with due as (
    delete from queue_later where ctid = any (array(
        select ctid from queue_later where due_at <= now() order by due_at limit p_limit for update skip locked))
      returning *
  )
  insert into queue (message_id, endpoint_id, run, tenant_id, application_id, trigger, attempts, unknown_in_a_row, due_at, last_attempt_id)
    select message_id, endpoint_id, run, tenant_id, application_id, trigger, attempts, unknown_in_a_row, due_at, last_attempt_id from due;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- Leases a fair share of what is due: at most p_share rows of each endpoint (or what p_free says for it), p_total in all,
-- beginning at endpoint p_from. A row whose lease has run out was being sent when its worker died: it gets an attempt of
-- outcome "unknown" (2) and is leased anew, or, the third time in a row, ends as failed (1).
create function claim_v1(p_lease uuid, p_lease_seconds float8, p_total integer, p_share integer, p_endpoint uuid[], p_free integer[], p_from uuid)
returns table (
  message_id uuid, endpoint_id uuid, run integer, tenant_id uuid, application_id uuid, trigger smallint, attempts smallint,
  version bigint, payload bytea, content_type text, message_key text
) language plpgsql volatile as $$
#variable_conflict use_column
begin
  return query
  with recursive owed(endpoint_id) as (
    (select q.endpoint_id from queue q where q.endpoint_id >= p_from order by q.endpoint_id limit 1)
    union all
    select (select q.endpoint_id from queue q where q.endpoint_id > o.endpoint_id order by q.endpoint_id limit 1)
      from owed o where o.endpoint_id is not null
  ), picked as materialized (
    select x.* from owed o
      left join unnest(p_endpoint, p_free) f(endpoint_id, free) on f.endpoint_id = o.endpoint_id
      cross join lateral (
        select q.ctid as place, q.lease is not null as is_rescued, q.unknown_in_a_row + 1 >= 3 as is_last, q.last_attempt_id as former_id
          from queue q where q.endpoint_id = o.endpoint_id and q.due_at <= now()
          order by q.endpoint_id, q.due_at limit coalesce(f.free, p_share) for update skip locked
      ) x
      where o.endpoint_id is not null limit p_total
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
    update attempt a set is_latest = false from picked p where p.is_rescued and p.former_id is not null and a.id = p.former_id
  ), unknown as (
    insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url, response, next_attempt_at)
      select l.last_attempt_id, l.message_id, l.endpoint_id, l.run, (l.attempts + 1)::smallint, l.tenant_id, l.application_id, l.trigger, 2, coalesce(e.url, ''),
          'unknown: the worker died while it was sending, so the request may have been sent'::bytea, now()
        from leased l left join endpoint e on e.id = l.endpoint_id where l.is_rescued
  ), crashed as (
    insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url, response)
      select uuid_v7(), d.message_id, d.endpoint_id, d.run, (d.attempts + 1)::smallint, d.tenant_id, d.application_id, d.trigger, 1, coalesce(e.url, ''),
          'worker crashed: three sends in a row ended without a result, so the delivery was given up'::bytea
        from ended d left join endpoint e on e.id = d.endpoint_id
  )
  select l.message_id, l.endpoint_id, l.run, l.tenant_id, l.application_id, l.trigger, l.attempts, coalesce(a.version, 0), m.payload, m.content_type, m.message_key
    from leased l left join message m on m.id = l.message_id left join application a on a.id = l.application_id;
end
$$;

do $$
declare
  f text;
  s text;
begin
  foreach f in array array['accept_v1', 'finish_v1', 'promote_v1', 'claim_v1'] loop
    foreach s in array array['jit', 'enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_bitmapscan', 'enable_sort'] loop
      execute format('alter function %I set %I = off', f, s);
    end loop;
    execute format('alter function %I set plan_cache_mode = force_generic_plan', f);
  end loop;
end
$$;
