-- What a tenant wants otherwise than the installation has it: how its idempotency keys are treated. Null: as there.
create table idempotency_policy (
  tenant_id uuid primary key references tenant,
  preset text,
  covers_patch boolean,
  saves text,
  ttl_seconds integer,
  wait_ms integer,
  compares boolean,
  updated_at timestamptz not null default now(),
  constraint preset_is_known check (preset in ('default', 'svix', 'novu')),
  constraint saves_is_known check (saves in ('successes', 'executed', 'all')),
  constraint ttl_is_remembered check (ttl_seconds between 1 and 604800),
  constraint wait_is_short check (wait_ms between 0 and 60000)
);

-- How often an outcome was replayed: summed in memory and added up about once a second, so that a replay costs no write.
alter table idempotency add column replays bigint not null default 0;
