-- Ends what is due to endpoints that are disabled or deleted, or whose application is, without a request: an attempt of outcome
-- "canceled" (3) each, p_limit rows at most. What is leased is left alone: somebody is sending it, or died while sending it, and
-- then the claim says so first. An endpoint that is on again is left alone, too: whether it is off and what is owed to it is read
-- in one snapshot, so nothing that was accepted after it had been switched on can be meant.
-- Returns how many ended for each endpoint that was looked at; nothing for those for which the limit left no room.
create function cancel_v1(p_endpoint uuid[], p_limit integer) returns table (endpoint_id uuid, canceled integer) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v_id uuid;
  v_left integer := p_limit;
  v_canceled integer;
begin
  foreach v_id in array p_endpoint loop
    exit when v_left <= 0;
    with off as materialized (
      select e.url, case when e.deleted_at is null and a.deleted_at is null then 'canceled: the endpoint is disabled'
          else 'canceled: the endpoint has been deleted' end as why
        from endpoint e cross join lateral (select a.deleted_at from application a where a.id = e.application_id offset 0) a
        where e.id = v_id and (e.is_disabled or e.deleted_at is not null or a.deleted_at is not null)
    ), picked as materialized (
      select q.ctid as place from queue q where q.endpoint_id = v_id and q.due_at <= now() and q.lease is null and exists (select from off)
        order by q.endpoint_id, q.due_at limit v_left for update skip locked
    ), ended as (
      delete from queue q where q.ctid = any (array(select p.place from picked p)) and q.lease is null
        returning q.message_id, q.endpoint_id, q.run, q.attempts, q.tenant_id, q.application_id, q.trigger, q.last_attempt_id
    ), superseded as (
      update attempt a set is_latest = false where a.id = any (array(select d.last_attempt_id from ended d where d.last_attempt_id is not null))
    ), recorded as (
      insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url, response)
        select uuid_v7(), d.message_id, d.endpoint_id, d.run, (d.attempts + 1)::smallint, d.tenant_id, d.application_id, d.trigger, 3, o.url,
            convert_to(o.why, 'UTF8')
          from ended d cross join off o
    )
    select count(*) into v_canceled from ended;
    v_left := v_left - v_canceled;
    endpoint_id := v_id;
    canceled := v_canceled;
    return next;
  end loop;
end
$$;
