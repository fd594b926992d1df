-- What makes the shipped statements stop where the scheduler wants them to, and what gives them its clock. The sessions of the
-- model have this schema before pg_catalog in their search path: so the shipped text stays as it is, and finds these instead.
create schema model;

-- The scheduler's clock, as a statement sees it.
create function model.now() returns timestamptz language sql stable as $$ select current_setting('model.now')::timestamptz $$;
alter table idempotency alter created_at set default model.now();

-- Says that the session has come here, and waits until the scheduler lets it go on.
create function model.stop(point integer) returns void language plpgsql volatile as $$
begin
  if point = any (current_setting('model.stops')::integer[]) then
    raise notice 'model % %', current_setting('model.process'), point;
    perform pg_catalog.pg_advisory_xact_lock_shared(current_setting('model.process')::integer, point);
  end if;
end
$$;

-- Stops inside of whatever statement tries a lock: after that statement's snapshot was taken, and before the lock.
create function model.pg_try_advisory_xact_lock(key bigint) returns boolean language plpgsql volatile as $$
begin
  perform model.stop(1);
  return pg_catalog.pg_try_advisory_xact_lock(key);
end
$$;

-- What "every other write" writes here.
create table model.effect (id uuid primary key, k uuid not null);
create index on model.effect (k);

-- Where messages go.
insert into tenant (id, subject) values ('00000000-0000-7000-8000-000000000001', 'model');
insert into application (id, tenant_id, name) values ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', 'model');

-- Of the days, those alone that the scheduler's clock comes to: each costs every new session some time.
do $$
declare
  v_day text;
begin
  for v_day in select inhrelid::regclass::text from pg_inherits where inhparent in ('idempotency'::regclass)
    and inhrelid::regclass::text > 'idempotency_' || to_char(pg_catalog.now() at time zone 'UTC' + interval '4 days', 'YYYYMMDD')
  loop
    execute 'drop table ' || v_day;
  end loop;
end
$$;
