-- Claims a webhook and processes it in one statement, and therefore in one transaction. INSERT 0 1 says that it was done,
-- INSERT 0 0 that it had been done before. With psql, and the tables of schema.sql:
--   psql -v ON_ERROR_STOP=1 -v id="$WEBHOOK_ID" -v until="$REDELIVERY_UNTIL" -v payload="$BODY" -f claim.sql "$DATABASE_URL"
with claimed as (
    insert into webhook_seen (id, forget_after)
    values (:'id', greatest(nullif(:'until', '')::timestamptz, now()) + interval '6 days')
    on conflict do nothing
    returning id
)
insert into payment (order_number)
select (:'payload'::jsonb ->> 'order')::bigint from claimed;
