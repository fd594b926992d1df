//! Time-sliced tables: their partitions are made weeks ahead and dropped when nothing in them is wanted.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{Connection, PgConnection};

use crate::{Db, Result};

/// The advisory lock under which one node at a time works on partitions ("parts" in ASCII).
const LOCK: i64 = 0x70_61_72_74_73;
/// How many rows of the narrow tables one statement trims.
const TRIM: i64 = 10_000;

/// Makes the partitions of the next four weeks.
pub async fn ensure(db: &Db) -> Result<()> {
    make(&mut *db.pool().acquire().await?).await
}

pub(crate) async fn make(connection: &mut PgConnection) -> Result<()> {
    let mut tx = connection.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let made = sqlx::query_scalar!(r#"select ensure_partitions(interval '28 days') as "made!""#).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    if made > 0 {
        tracing::debug!(made, "made partitions");
    }
    Ok(())
}

/// Drops the partitions that hold only what is older than `retention` (messages, attempts) or has expired (idempotency
/// records), and then trims what must stay unique for as long as its message exists.
pub async fn drop_expired(db: &Db, retention: Duration) -> Result<()> {
    let mut connection = db.connect_apart("posthaste-upkeep").await?;
    if !sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "is_ours!""#, LOCK).fetch_one(&mut connection).await? {
        return Ok(());
    }
    let now = db.now();
    let mut parts = sqlx::query!(
        r#"select parent.relname::text as "parent!", child.relname::text as "child!" from pg_inherits
             join pg_class child on child.oid = inhrelid join pg_class parent on parent.oid = inhparent
            where parent.relname in ('message', 'attempt', 'idempotency') and child.relkind = 'r' and not inhdetachpending"#
    )
    .fetch_all(&mut connection)
    .await?;
    // In one order, so that a round that was cut short goes on where the last one ended; messages, which others refer to, last.
    parts.sort_by(|a, b| (&a.parent, &a.child).cmp(&(&b.parent, &b.child)));
    let mut dropped_messages = false;
    for part in parts {
        let (width, kept) = match part.parent.as_str() {
            "idempotency" => (TimeDelta::days(1), db.key_horizon()),
            // A saved outcome that refers to a message is replayed from it.
            "message" => (TimeDelta::days(7), retention.max(db.key_horizon())),
            _ => (TimeDelta::days(7), retention),
        };
        let ends = begins(&part.parent, &part.child).map(|begins| begins + width);
        let kept = TimeDelta::from_std(kept).unwrap_or(TimeDelta::MAX);
        if ends.is_some_and(|ends| now.signed_duration_since(ends) > kept) {
            drop_partition(&mut connection, &part.parent, &part.child).await?;
            dropped_messages |= part.parent == "message";
        }
    }
    if dropped_messages {
        trim(&mut connection).await?;
    }
    Ok(())
}

/// Reads the first day of a partition from its name.
fn begins(parent: &str, child: &str) -> Option<DateTime<Utc>> {
    let label = child.strip_prefix(parent)?.strip_prefix('_')?;
    let day = NaiveDate::parse_from_str(label, "%Y%m%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc())
}

/// Detaches first, without blocking readers, then drops. The names come from the catalogue and hold only `[a-z_0-9]`.
async fn drop_partition(connection: &mut PgConnection, parent: &str, child: &str) -> Result<()> {
    let detach = format!("alter table {parent} detach partition {child} concurrently");
    sqlx::raw_sql(sqlx::AssertSqlSafe(detach)).execute(&mut *connection).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop table {child}"))).execute(connection).await?;
    tracing::info!(partition = child, "dropped an expired partition");
    Ok(())
}

/// Removes event ids and message keys whose message is gone, a batch at a time.
async fn trim(connection: &mut PgConnection) -> Result<()> {
    loop {
        let uids = sqlx::query!(
            "delete from event_uid where scope_hash = any (array(
               select u.scope_hash from event_uid u where not exists (select from message m where m.id = u.message_id) limit $1))",
            TRIM
        );
        let keys = sqlx::query!(
            "delete from message_key where scope_hash = any (array(
               select k.scope_hash from message_key k where not exists (select from message m where m.id = k.message_id) limit $1))",
            TRIM
        );
        let trimmed = uids.execute(&mut *connection).await?.rows_affected() + keys.execute(&mut *connection).await?.rows_affected();
        if trimmed == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_says_when_it_begins() {
        assert_eq!(begins("message", "message_20261116").map(|at| at.to_rfc3339()), Some("2026-11-16T00:00:00+00:00".into()));
        assert_eq!(begins("message", "message_old"), None);
    }
}
