-- The rows of Posthaste. Ids are UUIDv7, made with this server's time.

-- The smallest uuid whose UUIDv7 timestamp is `at`.
create function uuid_floor(at timestamptz) returns uuid language sql immutable strict parallel safe as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- A UUIDv7 of this moment, for rows that no process asked for. Bits 52 and 53 turn version 4 into version 7.
create function uuid_v7() returns uuid language sql volatile parallel safe as $$
  select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- One row: what holds for the whole installation.
create table installation (
  is_only boolean primary key default true,
  seal_check bytea not null,
  created_at timestamptz not null default now(),
  constraint there_is_only_one check (is_only)
);

create table tenant (
  id uuid primary key,
  subject text not null,
  created_at timestamptz not null default now(),
  constraint tenant_subject unique (subject),
  constraint subject_is_short check (octet_length(subject) between 1 and 256)
);

create table application (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  uid text,
  name text not null,
  throttle_rate integer,
  metadata jsonb not null default '{}',
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint throttle_rate_is_positive check (throttle_rate > 0),
  constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object')
);
create unique index application_uid on application (tenant_id, uid) where deleted_at is null;
create index application_deleted_uid on application (tenant_id, uid, id) where deleted_at is not null;
create index application_list on application (tenant_id, id) where deleted_at is null;

create table endpoint (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  application_id uuid not null references application,
  uid text,
  url text not null,
  description text not null default '',
  version integer not null default 1,
  throttle_rate integer,
  is_disabled boolean not null default false,
  event_types text[],
  channels text[],
  metadata jsonb not null default '{}',
  headers bytea,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint throttle_rate_is_positive check (throttle_rate > 0),
  constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
  constraint filters_are_not_empty check (cardinality(event_types) > 0 and cardinality(channels) > 0)
);
comment on column endpoint.headers is 'sealed JSON object';
create unique index endpoint_uid on endpoint (application_id, uid) where deleted_at is null;
create index endpoint_list on endpoint (application_id, id) where deleted_at is null;

create table endpoint_secret (
  id uuid primary key,
  endpoint_id uuid not null references endpoint,
  secret bytea not null,
  expires_at timestamptz
);
comment on column endpoint_secret.secret is 'sealed';
comment on column endpoint_secret.expires_at is 'null: the current secret; else a superseded one signs beside it until then';
create unique index endpoint_secret_current on endpoint_secret (endpoint_id) where expires_at is null;
create index endpoint_secret_old on endpoint_secret (endpoint_id, expires_at);

create table event_type (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  name text not null,
  description text not null default '',
  schemas json,
  feature_flag text,
  group_name text,
  is_archived boolean not null default false,
  is_deprecated boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint event_type_name unique (tenant_id, name)
);

create table message (
  id uuid primary key,
  tenant_id uuid not null,
  application_id uuid not null,
  event_type text not null,
  event_id text,
  channels text[],
  message_key text,
  duplicate_of uuid,
  payload_mismatch boolean not null default false,
  payload bytea,
  content_type text not null,
  source_headers bytea,
  source_query text,
  source_path text,
  payload_expires_at timestamptz,
  constraint a_duplicate_has_a_key check (duplicate_of is null or message_key is not null),
  constraint only_a_duplicate_can_mismatch check (not payload_mismatch or duplicate_of is not null)
) partition by range (id);
alter table message alter payload set storage external;
comment on column message.payload is 'the publisher''s exact bytes; null once expunged';
comment on column message.payload_expires_at is 'from then on the payload is not shown or sent, and soon removed';
create index message_list on message (application_id, id);
create index message_payload_expiry on message (payload_expires_at) where payload_expires_at is not null;

-- What must stay unique for longer than a partition lives; trimmed after the message's partition is gone.
create table event_uid (
  scope_hash uuid primary key,
  message_id uuid not null
);
create table message_key (
  scope_hash uuid primary key,
  message_id uuid not null,
  fingerprint uuid not null
);

-- Saved outcomes. Uniqueness of a live k comes from the advisory lock under which a row is written.
create table idempotency (
  k uuid not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  fingerprint uuid not null,
  fingerprint_version smallint not null default 1,
  status smallint not null,
  ref uuid,
  answer bytea,
  primary key (k, created_at),
  constraint an_outcome_is_a_reference_or_an_answer check ((ref is null) <> (answer is null))
) partition by range (created_at);
alter table idempotency alter answer set storage external;
comment on column idempotency.ref is 'a message creation: the message, or for a 409 the holder of the event id';
comment on column idempotency.answer is 'everything else: sealed status line, headers and body';

-- What is owed and due, or being sent. lease: null, or the token under which it is being sent until due_at.
create table queue (
  message_id uuid not null,
  endpoint_id uuid not null,
  run integer not null default 0,
  tenant_id uuid not null,
  application_id uuid not null,
  trigger smallint not null default 0,
  attempts smallint not null default 0,
  unknown_in_a_row smallint not null default 0,
  lease uuid,
  due_at timestamptz not null default now(),
  last_attempt_id uuid,
  primary key (message_id, endpoint_id, run),
  constraint due_at_is_finite check (isfinite(due_at)),
  constraint run_0_is_the_fan_out check ((run = 0) = (trigger = 0)),
  constraint trigger_is_known check (trigger in (0, 1))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index queue_due on queue (endpoint_id, due_at);

-- What is owed and asleep: the same columns, never leased.
create table queue_later (
  like queue including defaults including constraints,
  primary key (message_id, endpoint_id, run),
  constraint what_sleeps_is_not_leased check (lease is null)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index queue_later_due on queue_later (due_at);

create table attempt (
  id uuid primary key,
  message_id uuid not null,
  endpoint_id uuid not null,
  run integer not null,
  number smallint not null,
  tenant_id uuid not null,
  application_id uuid not null,
  trigger smallint not null,
  outcome smallint not null,
  status_code smallint not null default 0,
  duration_ms integer not null default 0,
  is_latest boolean not null default true,
  url text not null,
  response bytea not null default '',
  next_attempt_at timestamptz,
  is_resent boolean not null default false,
  constraint attempts_start_at_1 check (number >= 1),
  constraint outcome_is_known check (outcome between 0 and 4),
  constraint trigger_is_known check (trigger in (0, 1)),
  constraint response_is_short check (octet_length(response) <= 16384),
  constraint only_a_failure_is_followed check (next_attempt_at is null or outcome in (1, 2))
) partition by range (id);
comment on column attempt.is_resent is 'the kept connection had been closed, so the request was sent once more on a new one';
create index attempt_of_message on attempt (message_id, id);
create index attempt_of_endpoint on attempt (endpoint_id, id);
create index attempt_latest on attempt (endpoint_id, outcome, id) where is_latest;

-- Makes one partition if it is missing: as a table of its own with a CHECK, so that attaching it scans nothing.
create function ensure_partition(parent regclass, label text, bounded text, lower_bound text, upper_bound text) returns boolean
language plpgsql as $$
declare
  child text := parent::text || '_' || label;
begin
  if to_regclass(child) is not null then
    return false;
  end if;
  execute format('create table %I (like %s including all)', child, parent);
  execute format('alter table %I add constraint within_bounds check (%I >= %L and %I < %L)', child, bounded, lower_bound, bounded, upper_bound);
  execute format('alter table %s attach partition %I for values from (%L) to (%L)', parent, child, lower_bound, upper_bound);
  execute format('alter table %I drop constraint within_bounds', child);
  return true;
end
$$;

-- Makes all partitions from a week ago to `ahead` from now; weeks begin on Monday, days at midnight, both in UTC.
create function ensure_partitions(ahead interval) returns integer language plpgsql as $$
declare
  made integer := 0;
  at timestamptz := date_trunc('week', now() - interval '1 week', 'UTC');
begin
  while at <= now() + ahead loop
    made := made
      + ensure_partition('message', to_char(at at time zone 'UTC', 'YYYYMMDD'), 'id', uuid_floor(at)::text, uuid_floor(at + interval '168 hours')::text)::int
      + ensure_partition('attempt', to_char(at at time zone 'UTC', 'YYYYMMDD'), 'id', uuid_floor(at)::text, uuid_floor(at + interval '168 hours')::text)::int;
    at := at + interval '168 hours';
  end loop;
  at := date_trunc('day', now() - interval '1 day', 'UTC');
  while at <= now() + ahead loop
    made := made + ensure_partition('idempotency', to_char(at at time zone 'UTC', 'YYYYMMDD'), 'created_at', at::text, (at + interval '24 hours')::text)::int;
    at := at + interval '24 hours';
  end loop;
  return made;
end
$$;
