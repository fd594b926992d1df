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
