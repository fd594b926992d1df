-- The tables of the examples: which webhooks have been seen, and what was done about them.
create table if not exists webhook_seen (
    id           text primary key,
    forget_after timestamptz not null
);

-- Nothing here is unique per webhook: the claim alone keeps a second copy out.
create table if not exists payment (
    id           bigint generated always as identity primary key,
    order_number bigint not null,
    noted_at     timestamptz not null default now()
);
