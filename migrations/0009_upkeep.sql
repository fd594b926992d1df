-- What upkeep needs to survive crashes and long readers, releases to be rolled back, and the main secret to be rotated.

-- The oldest program that may run on this schema, by the newest migration that it was built with. A migration that takes away
-- what an older program needs raises it; the others leave it alone.
alter table installation add column min_program bigint not null default 8;

-- The main secrets that servers seal with: each process makes sure that there is a row which its own secret has sealed, and that
-- it can open all the others. `posthaste reseal` removes those that nothing is sealed with any more.
create table main_secret (
  id uuid primary key,
  seal_check bytea not null,
  noted_at timestamptz not null default now()
);
comment on column main_secret.seal_check is 'sealed';

-- How far what must stay unique for as long as its message exists has been trimmed. The rows of a table lie in no order that an
-- index knows, and an index on `message_id` would cost each message with a key an entry: so the tables are read from end to
-- end, a few pages at a time, once each time that messages have been dropped.
create table trimming (
  name text primary key,
  below uuid not null default '00000000-0000-0000-0000-000000000000',
  passing uuid,
  page bigint not null default 0,
  constraint name_is_known check (name in ('event_uid', 'message_key'))
);
comment on column trimming.below is 'nothing refers to a message before this one any more';
comment on column trimming.passing is 'null, or what `below` will be at the end of the pass that is under way';
comment on column trimming.page is 'where that goes on';
insert into trimming (name) values ('event_uid'), ('message_key');

-- As before; and what stands alone, detached by hand or by a process that died before it could go on, is attached again.
create or replace function ensure_partition(parent regclass, label text, bounded text, lower_bound text, upper_bound text) returns boolean
language plpgsql as $$
declare
  v_parent record;
  v_child text;
  v_found regclass;
begin
  select n.nspname, c.relname into v_parent from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = parent;
  v_child := format('%I.%I', v_parent.nspname, v_parent.relname || '_' || label);
  v_found := to_regclass(v_child);
  if v_found is null then
    execute format('create table %s (like %s including all)', v_child, parent);
    execute format('alter table %s add constraint within_bounds check (%I >= %L and %I < %L)', v_child, bounded, lower_bound, bounded, upper_bound);
    execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, v_child, lower_bound, upper_bound);
    execute format('alter table %s drop constraint within_bounds', v_child);
    return true;
  end if;
  if exists (select from pg_inherits i where i.inhrelid = v_found) then
    return false;
  end if;
  begin
    execute format('alter table %s attach partition %s for values from (%L) to (%L)', parent, v_child, lower_bound, upper_bound);
  exception
    when lock_not_available or deadlock_detected then
      raise;
    when others then
      -- A stranger of that name must not keep the other partitions from being made.
      raise warning 'the table % stands alone and cannot be attached to %: %', v_child, parent, sqlerrm;
      return false;
  end;
  return true;
end
$$;
