-- Writes what one process has to write, in one transaction: finished sends and new messages. It is one long function, since every
-- call of another one costs as much as several messages; and a batch does nothing about what none of it has.
--
-- READ COMMITTED only: each statement in here sees what the holders of the locks before us have committed. Equal keys, event
-- ids and message keys inside one batch are the caller's to avoid: advisory locks are re-entrant.
--
-- f_…: finished sends, each recorded only under its live lease: a late result changes nothing. kind: 0 finished, 1 to be tried again after
-- f_delay seconds, 2 handed back unsent; f_event: empty, or for each what is to be told of it, null: nothing. p_…: new messages
-- (p_payload_seconds: for how long the payload is kept, null: as long as its message; p_particulars: empty if none has any); a_…: the versions of the applications whose
-- endpoints were used; d_…: what the messages owe; t_…: the messages that owe too much to be written at once, each of which gets a
-- fan-out instead, and those that go to everybody, each of which gets a broadcast (t_task: its id; null: it is a fan-out). Returns a row for each message that was not simply executed:
--   1 key busy · 2 event id busy · 3 message key busy · 4 replay · 5 mismatch · 6 event id taken · 7 stale endpoints
--   8 executed as a duplicate · 9 replay of "event id taken" · 10 executed before (by a run of this batch whose end was lost)
-- and a row with outcome 100 for each result that came too late.
--
-- How Postgres goes about it depends on no statistics. A queue that was long and is short has large indexes and few rows, so each
-- index looks as if all of it had to be read for one row. So every row that a batch names is looked up in a way for which there
-- is one plan: a row of the queue as the first one from itself on, in the order of its whole primary key, which no other index has (a
-- range from itself to itself would be read to the end of its message's rows, which may be thousands); what
-- has but one index by a LATERAL subquery, of which `offset 0` or `limit` keeps the planner from making a join that begins at the
-- other end.
--
-- Arrays become rows in the target list of a subquery: `from unnest(...)` copies every one of them first.
create function step_v1(
  p_id uuid[], p_tenant uuid[], p_application uuid[], p_event_type text[], p_event_id text[], p_channels text[],
  p_message_key text[], p_payload bytea[], p_content_type text[], p_payload_seconds float8[], p_particulars text[],
  p_k uuid[], p_fingerprint uuid[], p_ttl float8[], p_saves_conflict boolean[],
  p_uid_hash uuid[], p_key_hash uuid[], p_digest uuid[],
  p_lock bigint[], p_uid_lock bigint[], p_key_lock bigint[],
  a_id uuid[], a_version bigint[],
  d_of integer[], d_endpoint uuid[], d_is_leased boolean[], t_of integer[], t_version bigint[], t_task uuid[],
  p_lease uuid, p_lease_seconds float8, p_horizon interval, p_is_rerun boolean,
  f_message uuid[], f_endpoint uuid[], f_run integer[], f_lease uuid[], f_kind smallint[], f_attempt uuid[], f_number smallint[],
  f_outcome smallint[], f_status smallint[], f_duration integer[], f_response bytea[], f_url text[], f_delay float8[], f_is_resent boolean[],
  f_event smallint[]
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
    raise 'step_v1 needs READ COMMITTED';
  end if;

  if cardinality(f_message) > 0 then
    with result as (
      select unnest(f_message) as message_id, unnest(f_endpoint) as endpoint_id, unnest(f_run) as run, unnest(f_lease) as lease, unnest(f_kind) as kind,
        unnest(f_attempt) as attempt_id, unnest(f_number) as number, unnest(f_outcome) as outcome, unnest(f_status) as status_code,
        unnest(f_duration) as duration_ms, unnest(f_response) as response, unnest(f_url) as url, unnest(f_delay) as delay,
        unnest(f_is_resent) as is_resent
    ), found as (
      select r.*, q.place from result r
        cross join lateral (select q.ctid as place, q.message_id, q.endpoint_id, q.run from queue q
          where (q.message_id, q.endpoint_id, q.run) >= (r.message_id, r.endpoint_id, r.run)
          order by q.message_id, q.endpoint_id, q.run limit 1) q
        where r.kind <> 2 and (q.message_id, q.endpoint_id, q.run) = (r.message_id, r.endpoint_id, r.run)
    ), taken as (
      delete from queue q using found f where q.ctid = f.place and q.lease = f.lease
        returning q.tenant_id, q.application_id, q.trigger, q.last_attempt_id, f.*
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
    if cardinality(f_event) > 0 and v_live is not null then
      insert into own_event (tenant_id, id, kind, facts)
        select t.tenant_id, t.id, r.kind, jsonb_build_object('application', t.application_id, 'application_uid', a.uid, 'endpoint', t.endpoint_id,
            'message', t.message_id, 'event_id', m.event_id, 'attempt', t.id, 'status_code', t.status_code)
          from (select unnest(f_attempt) as id, unnest(f_event) as kind) r
          cross join lateral (select t.id, t.tenant_id, t.application_id, t.endpoint_id, t.message_id, t.status_code from attempt t where t.id = r.id offset 0) t
          left join lateral (select a.uid from application a where a.id >= t.application_id and a.id <= t.application_id order by a.id limit 1) a on true
          left join lateral (select m.event_id from message m where m.id = t.message_id offset 0) m on true
          where r.kind is not null and r.id = any (v_live);
    end if;
    if 2 = any (f_kind) then
      with result as (
        select unnest(f_message) as message_id, unnest(f_endpoint) as endpoint_id, unnest(f_run) as run, unnest(f_lease) as lease, unnest(f_kind) as kind,
          unnest(f_attempt) as attempt_id
      ), found as (
        select r.attempt_id, r.lease, q.place from result r
          cross join lateral (select q.ctid as place, q.message_id, q.endpoint_id, q.run from queue q
            where (q.message_id, q.endpoint_id, q.run) >= (r.message_id, r.endpoint_id, r.run)
            order by q.message_id, q.endpoint_id, q.run limit 1) q
          where r.kind = 2 and (q.message_id, q.endpoint_id, q.run) = (r.message_id, r.endpoint_id, r.run)
      ), released as (
        update queue q set lease = null, due_at = now() from found f where q.ctid = f.place and q.lease = f.lease
          returning f.attempt_id
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
      payload_expires_at, particulars)
    select t.id, t.tenant, t.application, t.event_type, t.event_id, t.channels::text[], t.message_key,
        case when v_state[t.n] = 8 then v_ref[t.n] end, v_state[t.n] = 8 and v_mismatch[t.n], t.payload, t.content_type,
        now() + make_interval(secs => t.payload_seconds), t.particulars::jsonb
      from (select generate_subscripts(p_id, 1) as n, unnest(p_id) as id, unnest(p_tenant) as tenant, unnest(p_application) as application,
        unnest(p_event_type) as event_type, unnest(p_event_id) as event_id, unnest(p_channels) as channels, unnest(p_message_key) as message_key,
        unnest(p_payload) as payload, unnest(p_content_type) as content_type, unnest(p_payload_seconds) as payload_seconds,
        unnest(p_particulars) as particulars) t
      where v_state[t.n] in (0, 8);
  if v_has_uids then
    insert into event_uid (scope_hash, tenant_id, message_id)
      select t.h, t.tenant, t.id
        from (select generate_subscripts(p_id, 1) as n, unnest(p_uid_hash) as h, unnest(p_tenant) as tenant, unnest(p_id) as id) t
        where t.h is not null and v_state[t.n] in (0, 8);
  end if;
  if v_has_keys then
    insert into message_key (scope_hash, tenant_id, message_id, fingerprint)
      select t.h, t.tenant, t.id, t.d
        from (select generate_subscripts(p_id, 1) as n, unnest(p_key_hash) as h, unnest(p_tenant) as tenant, unnest(p_id) as id, unnest(p_digest) as d) t
        where t.h is not null and v_state[t.n] = 0;
  end if;
  insert into queue (message_id, endpoint_id, tenant_id, application_id, lease, due_at)
    select p_id[t.o], t.endpoint, p_tenant[t.o], p_application[t.o], case when t.is_leased then p_lease end,
        case when t.is_leased then now() + make_interval(secs => p_lease_seconds) else now() end
      from (select unnest(d_of) as o, unnest(d_endpoint) as endpoint, unnest(d_is_leased) as is_leased) t where v_state[t.o] = 0;
  if cardinality(t_of) > 0 then
    insert into task (id, tenant_id, application_id, kind, parameters)
      select coalesce(t.task, p_id[t.o]), p_tenant[t.o], case when t.task is null then p_application[t.o] end, case when t.task is null then 1 else 4 end,
          case when t.task is null then jsonb_build_object('version', t.version) else jsonb_build_object('message', p_id[t.o]) end
        from (select unnest(t_of) as o, unnest(t_version) as version, unnest(t_task) as task) t where v_state[t.o] = 0;
  end if;
  insert into idempotency (k, tenant_id, fingerprint, status, expires_at, ref)
    select t.k, t.tenant, t.fingerprint, case when v_state[t.n] = 6 then 409 else 202 end, now() + make_interval(secs => t.ttl),
        case when v_state[t.n] = 6 then v_ref[t.n] else t.id end
      from (select generate_subscripts(p_id, 1) as n, unnest(p_k) as k, unnest(p_tenant) as tenant, unnest(p_fingerprint) as fingerprint, unnest(p_ttl) as ttl,
        unnest(p_saves_conflict) as saves_conflict, unnest(p_id) as id) t
      where t.k is not null and (v_state[t.n] in (0, 8) or (v_state[t.n] = 6 and t.saves_conflict));

  if 0 <> any (v_state) then
    return query select t.n::integer, t.state, v_ref[t.n], coalesce(v_mismatch[t.n], false) from unnest(v_state) with ordinality t(state, n) where t.state <> 0;
  end if;
end
$$;
