-- The rows of Posthaste. Ids are UUIDv7, made with this server's time. What is sealed is encrypted with the main secret.
--
-- Every table that holds a tenant's rows has tenant_id, so that tenants can be told apart, counted and moved. It is no part of the
-- primary keys: first in them it would take away the one plan that each look-up has, last in them it would only be written
-- again and again. Columns of fixed width come first, the widest before the others, so that rows are not padded.

-- ── Ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

-- The smallest uuid whose UUIDv7 timestamp is `at`.
create function uuid_floor(at timestamptz) returns uuid language sql immutable strict parallel safe as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- A UUIDv7 of this moment, for rows that no process asked for. Bits 52 and 53 turn version 4 into version 7.
create function uuid_v7() returns uuid language sql volatile parallel safe as $$
  select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- Ids as the API and the log spell them (`msg_…`, `ep_…`), for people who query: a public id as the uuid that the tables hold, and back.
-- The public form is a prefix and 27 base62 digits of 160 bits: the seconds since 1400000000, then the uuid (crates/domain/src/id.rs).

-- The public form of a row's id: `posthaste_id('msg', id)`.
create function posthaste_id(prefix text, id uuid) returns text language plpgsql immutable strict parallel safe as $$
declare
  alphabet constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  hex constant text := replace(id::text, '-', '');
  seconds constant bigint := ('x' || lpad(left(hex, 12), 16, '0'))::bit(64)::bigint / 1000 - 1400000000;
  number numeric := least(greatest(seconds, 0), 4294967295);
  digits text := '';
begin
  for word in 0..3 loop
    number := number * 4294967296 + ('x' || lpad(substr(hex, word * 8 + 1, 8), 16, '0'))::bit(64)::bigint;
  end loop;
  for place in 1..27 loop
    digits := substr(alphabet, mod(number, 62)::integer + 1, 1) || digits;
    number := div(number, 62);
  end loop;
  return prefix || '_' || digits;
end
$$;

-- The id of a row by its public form; null for what is none. A constant to the planner, so it finds the row by its index.
create function posthaste_id(public_id text) returns uuid language plpgsql immutable strict parallel safe as $$
declare
  alphabet constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  parts constant text[] := regexp_match(public_id, '^(app|atmpt|ep|evtype|msg|org|qtask|src|sub)_([0-9A-Za-z]{27})$');
  number numeric := 0;
  hex text := '';
  id uuid;
begin
  if parts is null then
    return null;
  end if;
  for place in 1..27 loop
    number := number * 62 + strpos(alphabet, substr(parts[2], place, 1)) - 1;
  end loop;
  for word in 1..4 loop
    hex := lpad(to_hex(mod(number, 4294967296)::bigint), 8, '0') || hex;
    number := div(number, 4294967296);
  end loop;
  id := hex::uuid;
  -- What we could not have written is no id of ours.
  return case when substr(hex, 13, 1) = '7' and posthaste_id(parts[1], id) = public_id then id end;
end
$$;

-- ── The installation ────────────────────────────────────────────────────────────────────────────────────────────────────

-- One row: what holds for the whole installation.
create table installation (
  is_only boolean primary key default true,
  seal_check bytea not null,
  key_horizon interval not null default '25 hours',
  min_program bigint not null default 1,
  created_at timestamptz not null default now(),
  constraint there_is_only_one check (is_only)
);
comment on column installation.seal_check is 'sealed with the main secret of the first start';
comment on column installation.key_horizon is 'how far back saved outcomes are looked for: the longest that any server of this installation remembers a key. A server raises it before it accepts its first request; the others read it again each minute, and never look back less than 25 hours, so none can miss an outcome that a longer memory has saved';
comment on column installation.min_program is 'the oldest program that may run on this schema, by the newest migration that it was built with. A migration that takes away what an older program needs raises it; the others leave it alone';

-- The statements of the hot path that have been installed (crates/storage/functions): under one name there is one text for ever.
create table hot_function (
  name text primary key,
  source text not null,
  installed_at timestamptz not null default now()
);

-- The main secrets that servers seal with: each process makes sure that there is a row which its own secret has sealed, and that
-- it can open all the others. `posthaste reseal` removes those that nothing is sealed with any more.
create table main_secret (
  id uuid primary key,
  seal_check bytea not null,
  noted_at timestamptz not null default now()
);
comment on column main_secret.seal_check is 'sealed';
comment on column main_secret.noted_at is 'when a server that seals with it last said so';

-- One row per process that claims. Written every few seconds by the claimer itself, on its own connection: a process that lives and
-- does not claim is no worker. The claimers drop rows that have been silent for an hour.
create table worker (
  id uuid primary key,
  started_at timestamptz not null default now(),
  claimed_at timestamptz not null default now(),
  is_stopped boolean not null default false
);
comment on column worker.started_at is 'for people who look: no statement reads it';
comment on column worker.claimed_at is 'when it last looked for what is due, give or take a few seconds';

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

-- ── What tenants set up ─────────────────────────────────────────────────────────────────────────────────────────────────

create table tenant (
  id uuid primary key,
  subject text not null,
  created_at timestamptz not null default now(),
  constraint tenant_subject unique (subject),
  constraint subject_is_short check (octet_length(subject) between 1 and 256)
);

-- What a tenant wants otherwise than the installation has it: how its idempotency keys are treated. Null: as there.
create table idempotency_policy (
  tenant_id uuid primary key references tenant,
  preset text,
  covers_put boolean,
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

create table event_type (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  name text collate "C" not null,
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
comment on column event_type.name is 'in the order of its bytes, which is that of the list';

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
  is_own boolean not null generated always as (coalesce(uid = '!own', false)) stored,
  constraint throttle_rate_is_positive check (throttle_rate > 0),
  constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object')
);
comment on column application.is_own is 'the hidden one of its tenant: its endpoints hear of the tenant''s own events. Its uid is no name that anybody could give or call';
comment on column application.version is 'changes with everything that decides who is sent what: a cache that has this version is true';
create unique index application_uid on application (tenant_id, uid) where deleted_at is null;
create index application_deleted_uid on application (tenant_id, uid, id) where deleted_at is not null;
create index application_list on application (tenant_id, id) where deleted_at is null;
create index application_own on application (tenant_id) where is_own and deleted_at is null;

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
  filter jsonb,
  subscriptions jsonb,
  settings jsonb,
  since_version bigint not null default 1,
  metadata jsonb not null default '{}',
  headers bytea,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint throttle_rate_is_positive check (throttle_rate > 0),
  constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
  constraint filter_is_an_object check (jsonb_typeof(filter) = 'object'),
  constraint filters_are_not_empty check (cardinality(event_types) > 0 and cardinality(channels) > 0)
);
comment on column endpoint.filter is 'conditions on what is in a message, by scope; null: all';
comment on column endpoint.subscriptions is 'null: it gets what its own filters take; else what one of these takes, which are a copy of its rows in `subscription` that is made in the transaction that changes them';
comment on column endpoint.settings is 'null for most: how its requests are signed, tried again and timed out, where that is not what the installation does, and what people note of it';
comment on column endpoint.since_version is 'the first version of its application that has it: a message that was accepted under an earlier one is not owed to it';
comment on column endpoint.headers is 'sealed JSON object';
create unique index endpoint_uid on endpoint (application_id, uid) where deleted_at is null;
create index endpoint_list on endpoint (application_id, id) where deleted_at is null;
create index endpoint_of_tenant on endpoint (tenant_id, id) where deleted_at is null;

create table endpoint_secret (
  id uuid primary key,
  tenant_id uuid not null,
  endpoint_id uuid not null references endpoint,
  secret bytea not null,
  expires_at timestamptz
);
comment on column endpoint_secret.secret is 'sealed';
comment on column endpoint_secret.expires_at is 'null: the current secret; else a superseded one signs beside it until then';
create unique index endpoint_secret_current on endpoint_secret (endpoint_id) where expires_at is null;
create index endpoint_secret_old on endpoint_secret (endpoint_id, expires_at);

-- ── Projects, as Convoy's clients know them: a tenant is one ───────────────────────────────────────────────────────────────

-- What a tenant is called there, and how it wants its webhooks made. One that has no row has the defaults.
create table project (
  tenant_id uuid primary key references tenant,
  application_id uuid references application,
  kind smallint not null default 1,
  name text not null,
  logo_url text not null default '',
  config jsonb not null default '{}',
  is_named boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint kind_is_known check (kind in (0, 1)),
  constraint config_is_an_object check (jsonb_typeof(config) = 'object')
);
comment on column project.application_id is 'whose endpoints have no owner of their own, and whose messages those of sources are; null: it was not needed yet';
comment on column project.kind is '0 incoming, 1 outgoing';
comment on column project.is_named is 'whether somebody has created or changed it: until then it is what every tenant has';
comment on column project.config is 'what of it was set: the rest is as the installation has it';

-- Keys that programs call with. The key itself is shown once; what is kept tells it from others and makes it useless to a thief.
create table api_key (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  name text not null,
  role smallint not null,
  mask text not null,
  hash bytea not null,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  revoked_at timestamptz,
  constraint api_key_mask unique (mask),
  constraint role_is_known check (role in (0, 1))
);
comment on column api_key.mask is 'the part of the key by which it is found';
comment on column api_key.hash is 'SHA-256 of the whole key, which holds more than 300 random bits';
comment on column api_key.role is '0 may do everything, 1 may only read';
create index api_key_list on api_key (tenant_id, id);

--- What opens one application for its customer: a token of the one dialect, or a link with a token of the other. The token itself is shown once.
create table portal_access (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  application_id uuid not null references application,
  name text,
  is_renewed boolean not null default false,
  capabilities smallint not null,
  feature_flags text[],
  session_id text,
  hash bytea not null,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  revoked_at timestamptz,
  constraint portal_access_hash unique (hash)
);
comment on column portal_access.name is 'of a link; null for a token alone';
comment on column portal_access.is_renewed is 'whether the token of a link is good for an hour at a time';
comment on column portal_access.capabilities is 'what the bearer may do: bits 0 view, 1 view secrets, 2 manage secrets, 3 transformations, 4 attempts, 5 manage endpoints';
comment on column portal_access.hash is 'SHA-256 of the whole token, which holds more than 250 random bits';
create index portal_access_list on portal_access (tenant_id, id) where name is not null and revoked_at is null;
create index portal_access_of_application on portal_access (application_id);

-- Where other services send to us.
create table source (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  mask text not null,
  name text not null,
  provider text not null default '',
  verifier bytea,
  idempotency_keys text[] not null default '{}',
  rejects_missing_key boolean not null default false,
  forward_headers text[] not null default '{}',
  event_type_location text,
  response_body text,
  response_content_type text,
  is_disabled boolean not null default false,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint source_mask unique (mask)
);
comment on column source.mask is 'names it in its URL, and is as hard to guess as a key';
comment on column source.verifier is 'sealed JSON object: its type, and the secrets by which requests are known to be genuine; null: all are taken';
comment on column source.idempotency_keys is 'the locations of what makes a repeat known, in their order';
comment on column source.rejects_missing_key is 'a request that has nothing at any of the locations is refused; else it is never a duplicate';
create index source_list on source (tenant_id, id) where deleted_at is null;

-- What an endpoint wants, and of which source. `filters`: by event type, what else must hold.
create table subscription (
  id uuid primary key,
  tenant_id uuid not null references tenant,
  application_id uuid not null references application,
  endpoint_id uuid not null references endpoint,
  source_id uuid references source,
  name text not null,
  event_types text[] not null default '{*}',
  filter jsonb not null default '{}',
  filters jsonb not null default '[]',
  settings jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
comment on column subscription.filter is 'conditions by scope that hold whatever the type';
comment on column subscription.filters is '[{"id", "event_type" (or "*"), "enabled_at", "filter": conditions by scope}]: the one of the type of a message must hold too, or else that of all types';
comment on column subscription.settings is 'what clients note in it and read again';
create index subscription_list on subscription (tenant_id, id) where deleted_at is null;
create index subscription_of_endpoint on subscription (endpoint_id, id) where deleted_at is null;
create index subscription_of_source on subscription (source_id, id) where deleted_at is null;

-- ── Gates: looked up when rows are claimed, so no row of the queue is rewritten when holding or throttling begins or ends ──

-- Endpoints that failed lately, or were paused. state: 0 closed (nothing is held), 1 open (rows are held, but for a probe), 2 recovering,
-- 3 paused by its owner (rows are held until it is activated).
-- Written once a second per process, in the order of ids, never by the statement that accepts and records.
create table endpoint_health (
  endpoint_id uuid primary key,
  tenant_id uuid not null,
  failures integer not null default 0,
  failing_since timestamptz,
  failed_at timestamptz,
  state smallint not null default 0,
  slots integer not null default 0,
  cool_down_seconds float8 not null default 0,
  probe_at timestamptz,
  changed_at timestamptz not null default now(),
  constraint state_is_known check (state between 0 and 3),
  constraint an_open_gate_is_probed check ((state = 1) = (probe_at is not null)),
  constraint slots_are_of_a_recovery check ((state = 2) = (slots > 0))
) with (fillfactor = 50);
comment on column endpoint_health.failures is 'in a row';
comment on column endpoint_health.failing_since is 'the first failure since the last success';
comment on column endpoint_health.slots is 'recovering: how many sends at a time one process may have';
comment on column endpoint_health.changed_at is 'when state or slots last changed';
create index endpoint_health_news on endpoint_health (changed_at);

-- Endpoints with a throttle that may be sent to. tat: the theoretical arrival time (GCRA) of the next send.
create table endpoint_rate (
  endpoint_id uuid primary key,
  tenant_id uuid not null,
  rate integer not null,
  tat timestamptz not null default '-infinity',
  constraint rate_is_positive check (rate > 0)
) with (fillfactor = 50);
comment on column endpoint_rate.rate is 'sends a second';

-- ── What is published and sent ──────────────────────────────────────────────────────────────────────────────────────────

create table message (
  id uuid primary key,
  tenant_id uuid not null,
  application_id uuid not null,
  duplicate_of uuid,
  payload_expires_at timestamptz,
  released_at timestamptz,
  payload_mismatch boolean not null default false,
  event_type text not null,
  content_type text not null,
  event_id text,
  channels text[],
  message_key text,
  payload bytea,
  particulars jsonb,
  constraint a_duplicate_has_a_key check (duplicate_of is null or message_key is not null),
  constraint only_a_duplicate_can_mismatch check (not payload_mismatch or duplicate_of is not null),
  constraint only_a_duplicate_is_released check (released_at is null or duplicate_of is not null)
) partition by range (id);
alter table message alter payload set storage external;
comment on column message.payload is 'the publisher''s exact bytes; null once expunged';
comment on column message.particulars is 'null for most: what is special about it. {"source": the id of the source that it came by, "only": the id of the one endpoint that may get it, "headers": [[name, value], …] that go on with each copy, "query": …, "path": … of the request that it came with, "tags": […], "example": true if it is one for that one endpoint}';
comment on column message.payload_expires_at is 'from then on the payload is not shown or sent, and soon removed';
comment on column message.released_at is 'when this duplicate was released, to be delivered after all; null: it was not';
create index message_list on message (application_id, id);
create index message_payload_expiry on message (payload_expires_at) where payload_expires_at is not null;
-- Its order is that of the list, so that a page of a key that a million messages carry reads one page's rows. A message with a
-- key costs one entry of it (some 90 bytes with a short key), one without a key nothing.
create index message_of_key on message (application_id, message_key, id) where message_key is not null;

-- What must stay unique for longer than a partition lives; trimmed after the message's partition is gone.
create table event_uid (
  scope_hash uuid primary key,
  tenant_id uuid not null,
  message_id uuid not null
);
create table message_key (
  scope_hash uuid primary key,
  tenant_id uuid not null,
  message_id uuid not null,
  fingerprint uuid not null
);

-- Saved outcomes. Uniqueness of a live k comes from the advisory lock under which a row is written.
create table idempotency (
  k uuid not null,
  tenant_id uuid not null,
  fingerprint uuid not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  replays bigint not null default 0,
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
comment on column idempotency.replays is 'summed in memory and added up about once a second, so that a replay costs no write';

-- What is owed and due, or being sent. lease: null, or the token under which it is being sent until due_at.
create table queue (
  message_id uuid not null,
  endpoint_id uuid not null,
  tenant_id uuid not null,
  application_id uuid not null,
  due_at timestamptz not null default now(),
  run integer not null default 0,
  trigger smallint not null default 0,
  attempts smallint not null default 0,
  unknown_in_a_row smallint not null default 0,
  lease uuid,
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
  tenant_id uuid not null,
  application_id uuid not null,
  next_attempt_at timestamptz,
  run integer not null,
  duration_ms integer not null default 0,
  number smallint not null,
  trigger smallint not null,
  outcome smallint not null,
  status_code smallint not null default 0,
  is_latest boolean not null default true,
  is_resent boolean not null default false,
  url text not null,
  response bytea not null default '',
  constraint attempts_start_at_1 check (number >= 1),
  constraint outcome_is_known check (outcome between 0 and 4),
  constraint trigger_is_known check (trigger in (0, 1)),
  constraint response_is_short check (octet_length(response) <= 16384),
  constraint only_a_failure_is_followed check (next_attempt_at is null or outcome in (1, 2))
) partition by range (id);
comment on column attempt.is_resent is 'the kept connection had been closed, so the request was sent once more on a new one';
create index attempt_of_message on attempt (message_id, id);
create index attempt_of_endpoint on attempt (endpoint_id, id);
create index attempt_latest on attempt (endpoint_id, outcome, id) where is_latest and outcome <> 0;
-- One expression, in the order of endpoints and their messages: nothing that is asked of it can be looked up in another index.
create index attempt_of_delivery on attempt ((uuid_send(endpoint_id) || uuid_send(message_id))) where is_latest;

-- ── Roll-ups: what happened, counted by time ────────────────────────────────────────────────────────────────────────────
--
-- Each process sums in memory and adds its sums once a second, on a connection that is not the committer's. span: 0 a minute, 1 an
-- hour, 2 a day, all in UTC; `at` is when it begins. Upkeep folds minutes into hours and hours into days, and removes what is past
-- its retention. A busy endpoint has its row of this minute rewritten each second: no index has a counter in it, and pages keep
-- room, so that a new version lies beside the old one and costs no index entry.

-- What was owed to an endpoint, how attempts ended, and how long those took that were answered.
create table endpoint_rollup (
  endpoint_id uuid not null,
  tenant_id uuid not null,
  at timestamptz not null,
  deliveries bigint not null default 0,
  succeeded bigint not null default 0,
  redirected bigint not null default 0,
  client_errors bigint not null default 0,
  server_errors bigint not null default 0,
  timed_out bigint not null default 0,
  refused bigint not null default 0,
  blocked bigint not null default 0,
  other_failures bigint not null default 0,
  unknown bigint not null default 0,
  canceled bigint not null default 0,
  discarded bigint not null default 0,
  under_16_ms bigint not null default 0,
  under_32_ms bigint not null default 0,
  under_64_ms bigint not null default 0,
  under_128_ms bigint not null default 0,
  under_256_ms bigint not null default 0,
  under_512_ms bigint not null default 0,
  under_1024_ms bigint not null default 0,
  under_2048_ms bigint not null default 0,
  under_4096_ms bigint not null default 0,
  under_8192_ms bigint not null default 0,
  under_16384_ms bigint not null default 0,
  slower bigint not null default 0,
  span smallint not null default 0,
  primary key (endpoint_id, span, at),
  constraint span_is_known check (span in (0, 1, 2))
) with (fillfactor = 50);
comment on column endpoint_rollup.deliveries is 'deliveries that came to be owed, resends among them';
comment on column endpoint_rollup.unknown is 'attempts whose worker died while it sent';
comment on column endpoint_rollup.canceled is 'deliveries that ended without a request, since the endpoint was off or gone';
comment on column endpoint_rollup.discarded is 'deliveries that ended without a request, since the content of the message was gone';
comment on column endpoint_rollup.under_16_ms is 'attempts that were answered within so many milliseconds, and not within the bound before';

-- What was published to an application, by event type. '' stands for the types beyond the first hundred.
create table application_rollup (
  application_id uuid not null,
  tenant_id uuid not null,
  at timestamptz not null,
  messages bigint not null default 0,
  duplicates bigint not null default 0,
  deliveries bigint not null default 0,
  span smallint not null default 0,
  event_type text collate "C" not null,
  primary key (application_id, span, at, event_type),
  constraint span_is_known check (span in (0, 1, 2))
) with (fillfactor = 50);
comment on column application_rollup.messages is 'messages that were accepted, duplicates among them';
comment on column application_rollup.deliveries is 'deliveries that came to be owed, resends among them';

-- Which of its sums a process has added: one whose end was lost is sent once more, and must not count twice.
create table rollup_writer (
  id uuid primary key,
  number bigint not null,
  written_at timestamptz not null default now()
) with (fillfactor = 50);
comment on column rollup_writer.id is 'a process, by a number that it drew when it started';
comment on column rollup_writer.number is 'the last of its sums, which it numbers from 1';

-- ── What tenants hear of their own things ────────────────────────────────────────────────────────────────────────────────

-- The outbox: each row is written in the transaction of what it tells of, and goes when it has been published to the endpoints of the
-- tenant's hidden application. Tenants without such endpoints have none.
create table own_event (
  tenant_id uuid not null,
  id uuid not null,
  created_at timestamptz not null default now(),
  due_at timestamptz not null default now(),
  kind smallint not null,
  facts jsonb not null,
  primary key (tenant_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column own_event.id is 'the event id of the message that comes of it: published twice, it is still one message';
comment on column own_event.due_at is 'later than created_at: it could not be published, and is tried again then';
comment on column own_event.kind is 'crates/domain/src/own_event.rs';

-- One row: which process empties the outbox. Two that do it at once do no harm, but each other's work.
create table own_event_turn (
  is_only boolean primary key default true,
  holder uuid not null,
  ends_at timestamptz not null,
  constraint there_is_only_one check (is_only)
);
insert into own_event_turn (holder, ends_at) values ('00000000-0000-0000-0000-000000000000', '-infinity');
-- Long work, step by step. A step is one transaction: it locks the row, does a bounded piece, and writes how far it is, so that a worker
-- that dies leaves nothing half-done and nothing taken. Whoever finds the row unlocked goes on. A fan-out has the id of its message.
create table task (
  id uuid primary key,
  tenant_id uuid not null,
  application_id uuid,
  endpoint_id uuid,
  cursor uuid,
  cursor_within uuid,
  due_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  scanned bigint not null default 0,
  done bigint not null default 0,
  kind smallint not null,
  state smallint not null default 0,
  failures smallint not null default 0,
  parameters jsonb not null default '{}',
  error text,
  constraint kind_is_known check (kind between 1 and 7),
  constraint state_is_known check (state between 0 and 3)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on column task.kind is '1 fan-out of a message, 2 recover, 3 replay what is missing, 4 broadcast of a message, 5 deliveries once more, 6 messages once more, 7 erasure of payloads';
comment on column task.application_id is 'null: it goes through all of the tenant''s';
comment on column task.state is '0 to be done, 1 finished (a fan-out is then removed), 2 failed, 3 canceled';
comment on column task.cursor is 'what has been looked at: everything up to this id; null: nothing yet';
comment on column task.cursor_within is 'cursor is an application, and what has been looked at in it is everything up to this message; null: all of it';
comment on column task.due_at is 'when its next step may be done: of a tenant''s tasks the one with the earliest comes first';
comment on column task.failures is 'how many steps in a row could not be done';
comment on column task.scanned is 'how much has been looked at';
comment on column task.done is 'how many deliveries it has made, or payloads erased';
create index task_due on task (tenant_id, due_at) where state = 0;
create index task_list on task (tenant_id, id) where kind <> 1;

-- ── Partitions ──────────────────────────────────────────────────────────────────────────────────────────────────────────

-- Makes one partition if it is missing: as a table of its own with a CHECK, so that attaching it scans nothing. What stands alone,
-- detached by hand or by a process that died before it could go on, is attached again.
create function ensure_partition(parent regclass, label text, bounded text, lower_bound text, upper_bound text) returns boolean
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
