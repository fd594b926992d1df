//! Makes hours of minutes and days of hours, and removes what is past its retention.
//!
//! What is folded is deleted and added in one statement, so that every sum is the same before and after, whoever dies, and however
//! often it is tried. It goes from endpoint to endpoint, which costs one look-up where there is nothing to do.

use std::time::Duration;

use domain::statistics::NAMED_TYPES;
use sqlx::types::Uuid;

use crate::{
    Database, Result,
    connection::{Connection, Transaction},
};

/// The advisory lock under which one node at a time folds ("fold" in ASCII), of the table of this schema. Two that fold at the same
/// time would do no harm, but wait for each other.
const LOCK: i32 = 0x666f_6c64;
/// How many endpoints, or applications, one statement deals with,
const OWNERS: i64 = 50;
/// and how many hours, or days, it makes of each at most: usually there is one to make.
const MADE_AT_ONCE: i32 = 6;

/// A span and what it is folded into.
#[derive(Clone, Copy, Debug)]
struct Step {
    span: i16,
    /// How many hours rows of it are kept.
    kept: i32,
    /// What the next one is called in SQL,
    into: &'static str,
    /// and how many hours it has.
    hours: i32,
}

const STEPS: [Step; 2] = [Step { span: 0, kept: 3, into: "hour", hours: 1 }, Step { span: 1, kept: 8 * 24, into: "day", hours: 24 }];
/// What suits it better than the limits of a request; and no plan but the one by the index, however small a table was when it was looked at
/// last.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(5);
const PATIENCE: &str = "set statement_timeout = '5min'; set lock_timeout = '3s'; set jit = off; set enable_seqscan = off; set enable_hashjoin = off; \
                        set enable_mergejoin = off; set enable_bitmapscan = off";

/// Folds what is old enough and removes what is older than `retention`. One node at a time does this; for the others there is nothing
/// to do.
pub async fn fold(db: &Database, retention: Duration) -> Result<()> {
    let mut connection = db.connect_apart("posthaste-upkeep").await?;
    sqlx::raw_sql(PATIENCE).execute(&mut connection).await?;
    connection.be_patient(STATEMENT_TIMEOUT);
    for table in [Table::Endpoints, Table::Applications] {
        // Whoever finds another node at it leaves all to that one: if it went on with the other table, the two could send each other away.
        if !fold_all(&mut connection, table, retention).await? {
            break;
        }
    }
    // A process that has been silent for so long has nothing to send again.
    sqlx::query!("delete from rollup_writer where written_at < now() - interval '2 days'").execute(&mut connection).await?;
    connection.close().await;
    Ok(())
}

/// Whose roll-ups.
#[derive(Clone, Copy, Debug)]
enum Table {
    Endpoints,
    Applications,
}

/// Deals with all endpoints, or applications; `false`: another node is at it.
async fn fold_all(connection: &mut Connection, table: Table, retention: Duration) -> Result<bool> {
    let mut after = Uuid::nil();
    loop {
        let owners = next(&mut *connection, table, after).await?;
        let Some(last) = owners.last().copied() else { return Ok(true) };
        if !fold_some(&mut *connection, table, &owners, retention).await? {
            return Ok(false);
        }
        after = last;
    }
}

/// Deals with these endpoints, or applications; `false`: another node is at it.
async fn fold_some(connection: &mut Connection, table: Table, owners: &[Uuid], retention: Duration) -> Result<bool> {
    for step in STEPS {
        loop {
            let Some(mut tx) = begin(connection).await? else { return Ok(false) };
            let folded = match table {
                Table::Endpoints => fold_endpoints(&mut tx, owners, step).await?,
                Table::Applications => fold_applications(&mut tx, owners, step).await?,
            };
            tx.commit().await?;
            if folded == 0 {
                break;
            }
        }
    }
    for (span, length) in [(0, "1 minute"), (1, "1 hour"), (2, "1 day")] {
        remove(connection, table, owners, span, length, retention).await?;
    }
    Ok(true)
}

/// Begins a transaction that holds the lock, unless another node does.
async fn begin(connection: &mut Connection) -> Result<Option<Transaction<'_>>> {
    let mut tx = connection.begin().await?;
    let is_ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1, 'endpoint_rollup'::regclass::oid::int) as "is_ours!""#, LOCK);
    if is_ours.fetch_one(&mut *tx).await? {
        return Ok(Some(tx));
    }
    tx.rollback().await?;
    Ok(None)
}

/// The next endpoints or applications of which there is anything, one look-up each.
async fn next(tx: &mut Connection, table: Table, after: Uuid) -> Result<Vec<Uuid>> {
    let found = match table {
        Table::Endpoints => {
            sqlx::query_scalar!(
                r#"with recursive owner as (
                     (select endpoint_id as id from endpoint_rollup where endpoint_id > $1 order by endpoint_id limit 1)
                     union all
                     select (select r.endpoint_id from endpoint_rollup r where r.endpoint_id > o.id order by r.endpoint_id limit 1) from owner o where o.id is not null
                   ) select id as "id!" from (select id from owner limit $2) found where id is not null order by id"#,
                after,
                OWNERS,
            )
            .fetch_all(tx)
            .await?
        }
        Table::Applications => {
            sqlx::query_scalar!(
                r#"with recursive owner as (
                     (select application_id as id from application_rollup where application_id > $1 order by application_id limit 1)
                     union all
                     select (select r.application_id from application_rollup r where r.application_id > o.id order by r.application_id limit 1) from owner o where o.id is not null
                   ) select id as "id!" from (select id from owner limit $2) found where id is not null order by id"#,
                after,
                OWNERS,
            )
            .fetch_all(tx)
            .await?
        }
    };
    Ok(found)
}

/// Folds the oldest hours, or days, of each endpoint, if they are old enough; returns how many rows that made, or let grow.
async fn fold_endpoints(tx: &mut Connection, owners: &[Uuid], step: Step) -> Result<u64> {
    let folded = add_to_endpoints!(
        "with gone as (
           delete from endpoint_rollup r where r.ctid = any (array(
             select r.ctid from (select unnest($1::uuid[]) as id) o
               cross join lateral (select date_trunc($4, r.at, 'UTC') as first from endpoint_rollup r
                 where r.endpoint_id = o.id and r.span = $2 order by r.endpoint_id, r.span, r.at limit 1) f
               cross join lateral (select r.ctid from endpoint_rollup r
                 where r.endpoint_id = o.id and r.span = $2 and r.at >= f.first and r.at < f.first + make_interval(hours => $5)
                   and r.at < date_trunc($4, now() - make_interval(hours => $3), 'UTC') offset 0) r))
             returning r.*
         )
         ",
        "select endpoint_id, date_trunc($4, at, 'UTC'), tenant_id, ($2 + 1)::smallint,
               sum(deliveries)::bigint, sum(succeeded)::bigint, sum(redirected)::bigint, sum(client_errors)::bigint,
               sum(server_errors)::bigint, sum(timed_out)::bigint, sum(refused)::bigint, sum(blocked)::bigint,
               sum(other_failures)::bigint, sum(unknown)::bigint, sum(canceled)::bigint, sum(discarded)::bigint,
               sum(under_16_ms)::bigint, sum(under_32_ms)::bigint, sum(under_64_ms)::bigint, sum(under_128_ms)::bigint,
               sum(under_256_ms)::bigint, sum(under_512_ms)::bigint, sum(under_1024_ms)::bigint, sum(under_2048_ms)::bigint,
               sum(under_4096_ms)::bigint, sum(under_8192_ms)::bigint, sum(under_16384_ms)::bigint, sum(slower)::bigint
             from gone group by 1, 2, 3 order by 1, 2",
        owners,
        step.span,
        step.kept,
        step.into,
        step.hours * MADE_AT_ONCE,
    );
    Ok(folded.execute(tx).await?.rows_affected())
}

/// The same; of the event types of an application those with the most messages keep their names, and the others are added up.
async fn fold_applications(tx: &mut Connection, owners: &[Uuid], step: Step) -> Result<u64> {
    let folded = sqlx::query!(
        "with gone as (
           delete from application_rollup r where r.ctid = any (array(
             select r.ctid from (select unnest($1::uuid[]) as id) o
               cross join lateral (select date_trunc($4, r.at, 'UTC') as first from application_rollup r
                 where r.application_id = o.id and r.span = $2 order by r.application_id, r.span, r.at limit 1) f
               cross join lateral (select r.ctid from application_rollup r
                 where r.application_id = o.id and r.span = $2 and r.at >= f.first and r.at < f.first + make_interval(hours => $5)
                   and r.at < date_trunc($4, now() - make_interval(hours => $3), 'UTC') offset 0) r))
             returning r.*
         ), summed as (
           select application_id, tenant_id, date_trunc($4, at, 'UTC') as at, event_type, sum(messages) as messages, sum(duplicates) as duplicates,
               sum(deliveries) as deliveries,
               row_number() over (partition by application_id, date_trunc($4, at, 'UTC') order by event_type = '', sum(messages) desc, event_type) as place
             from gone group by 1, 2, 3, 4
         )
         insert into application_rollup as r (application_id, tenant_id, span, at, event_type, messages, duplicates, deliveries)
           select application_id, tenant_id, ($2 + 1)::smallint, at, case when place <= $6 then event_type else '' end as type,
               sum(messages)::bigint, sum(duplicates)::bigint, sum(deliveries)::bigint
             from summed group by 1, 2, 4, 5 order by 1, 4, 5
           on conflict (application_id, span, at, event_type) do update set messages = r.messages + excluded.messages,
             duplicates = r.duplicates + excluded.duplicates, deliveries = r.deliveries + excluded.deliveries",
        owners,
        step.span,
        step.kept,
        step.into,
        step.hours * MADE_AT_ONCE,
        i64::try_from(NAMED_TYPES).unwrap_or(i64::MAX),
    );
    Ok(folded.execute(tx).await?.rows_affected())
}

/// Removes rows whose whole span is past the retention.
async fn remove(tx: &mut Connection, table: Table, owners: &[Uuid], span: i16, length: &str, retention: Duration) -> Result<()> {
    match table {
        Table::Endpoints => sqlx::query!(
            "delete from endpoint_rollup r using (select unnest($1::uuid[]) as id) o
               where r.endpoint_id = o.id and r.span = $2 and r.at < now() - make_interval(secs => $3) - $4::text::interval",
            owners,
            span,
            retention.as_secs_f64(),
            length,
        ),
        Table::Applications => sqlx::query!(
            "delete from application_rollup r using (select unnest($1::uuid[]) as id) o
               where r.application_id = o.id and r.span = $2 and r.at < now() - make_interval(secs => $3) - $4::text::interval",
            owners,
            span,
            retention.as_secs_f64(),
            length,
        ),
    }
    .execute(tx)
    .await?;
    Ok(())
}
