//! Time-sliced tables: their partitions are made weeks ahead and dropped when nothing in them is wanted.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{Executor, Postgres, types::Uuid};

use domain::id::{Id as _, MessageId};

use crate::{
    Database, Error, Result,
    connection::Connection,
    locks::{PARTITIONS_LOCK, SWEEP_LOCK},
    trim,
};

/// What suits a sweep better than the limits of a request: detaching may wait for a while, and holds up at most whoever wants to
/// attach a partition to the same table; so each wait for a lock is short, and the next round goes on where this one ended.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(5);
const PATIENCE: &str = "set statement_timeout = '5min'; set lock_timeout = '3s'";

/// `ensure_partitions` begins with the week, or day, before the present one.
const MADE_BACK: i32 = 2;

/// Makes the partitions of the next four weeks.
pub async fn ensure(db: &Database) -> Result<()> {
    make(&mut db.pool().acquire().await?).await
}

/// Makes the partitions that rows with these ids go into, wherever a clock that was set has put them: those of the next weeks are
/// counted from what it shows now.
pub(crate) async fn ensure_for(db: &Database, ids: &[Uuid]) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1, 'message'::regclass::oid::int)", PARTITIONS_LOCK).execute(&mut *tx).await?;
    let times: Vec<_> = ids.iter().map(|id| MessageId::from(*id).created_at()).collect();
    sqlx::query!(
        "select ensure_partition(parent::regclass, to_char(week at time zone 'UTC', 'YYYYMMDD'), 'id', uuid_floor(week)::text, uuid_floor(week + interval '168 hours')::text)
           from (select distinct date_trunc('week', at, 'UTC') as week from unnest($1::timestamptz[]) at) weeks, unnest('{message,attempt}'::text[]) parent",
        &times,
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

async fn make(connection: &mut Connection) -> Result<()> {
    let mut tx = connection.begin().await?;
    make_in(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// Makes them in a transaction that the caller ends.
pub(crate) async fn make_in<C>(tx: &mut C) -> std::result::Result<(), sqlx::Error>
where
    for<'e> &'e mut C: Executor<'e, Database = Postgres>,
{
    sqlx::query!("select pg_advisory_xact_lock($1, 'message'::regclass::oid::int)", PARTITIONS_LOCK).execute(&mut *tx).await?;
    let made = sqlx::query_scalar!(r#"select ensure_partitions(interval '28 days') as "made!""#).fetch_one(&mut *tx).await?;
    if made > 0 {
        tracing::debug!(made, "made partitions");
    }
    Ok(())
}

/// A partition that a sweep could not deal with.
#[derive(Debug)]
pub struct Stuck {
    /// Its name.
    pub partition: String,
    /// What went wrong.
    pub error: Error,
    /// The session whose transaction is the oldest, in words, if a lock was waited for: it is what holds most sweeps up.
    pub oldest_transaction: Option<String>,
}

/// A table of a week or a day.
#[derive(Debug)]
struct Part {
    /// The name of what it is or was a part of.
    parent: String,
    /// Its own.
    name: String,
    /// Both as a statement names them.
    parent_path: String,
    path: String,
    /// Whether it is a part; else it stands alone, since somebody detached it.
    is_attached: bool,
    /// A detachment was begun and not finished.
    is_pending: bool,
    /// The first moment that it is for, and the first that it is not for.
    begins: DateTime<Utc>,
    ends: DateTime<Utc>,
    /// How long ago that is by the server's clock, as it stands now: ours may not have heard yet that it was set.
    age: TimeDelta,
}

/// Deals with what earlier rounds left undone, drops the partitions that hold only what is older than `retention` (messages,
/// attempts) or has expired (idempotency records), and trims what must stay unique for as long as its message exists. What cannot
/// be dealt with now keeps nothing else from it. One node at a time does this; the others only count: `None`.
pub async fn drop_expired(db: &Database, retention: Duration) -> Result<Option<Vec<Stuck>>> {
    let mut connection = db.connect_apart("posthaste-upkeep").await?;
    sqlx::raw_sql(PATIENCE).execute(&mut connection).await?;
    connection.be_patient(STATEMENT_TIMEOUT);
    count(db, &mut connection, retention).await?;
    if !sqlx::query_scalar!(r#"select pg_try_advisory_lock($1, 'message'::regclass::oid::int) as "is_ours!""#, SWEEP_LOCK)
        .fetch_one(&mut connection)
        .await?
    {
        return Ok(None);
    }
    let mut stuck = Vec::new();
    for part in parts(&mut connection).await? {
        let is_expired = part.is_to_go(db, &mut connection, retention).await?;
        if let Err(error) = settle(&mut connection, &part, is_expired).await {
            stuck.push(part.stuck(&mut connection, error).await?);
        }
    }
    if count(db, &mut connection, retention).await? == 0 {
        tracing::debug!("no partition is past its time");
    }
    trim::run(&mut connection).await?;
    Ok(Some(stuck))
}

/// Counts the expired partitions that are still there, for the metrics.
async fn count(db: &Database, connection: &mut Connection, retention: Duration) -> Result<usize> {
    let mut expired = 0;
    for part in parts(connection).await? {
        expired += usize::from(part.is_to_go(db, connection, retention).await?);
    }
    db.note_expired_partitions(expired);
    Ok(expired)
}

/// All parts, looked up by their parents themselves and not by a name that another schema may have too; those first that wait to
/// be finished, since they keep others of their table from being detached, and messages, which others refer to, last. What stands
/// alone counts if it is beside its parent and has no column that the parent has not.
async fn parts(connection: &mut Connection) -> Result<Vec<Part>> {
    let rows = sqlx::query!(
        r#"select p.relname::text as "parent!", c.relname::text as "name!", p.oid::regclass::text as "parent_path!",
                  format('%I.%I', n.nspname, c.relname) as "path!", i.inhparent is not null as "is_attached!",
                  coalesce(i.inhdetachpending, false) as "is_pending!", now() as "now!"
             from pg_class p
             join pg_class c on c.relkind = 'r' and c.relname ~ ('^' || p.relname || '_[0-9]{8}$')
             join pg_namespace n on n.oid = c.relnamespace
             left join pg_inherits i on i.inhrelid = c.oid
            where p.oid in ('message'::regclass, 'attempt'::regclass, 'idempotency'::regclass)
              and (i.inhparent = p.oid or (i.inhparent is null and c.relnamespace = p.relnamespace and c.relowner = p.relowner
                and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                  and not exists (select from pg_attribute b where b.attrelid = p.oid and b.attname = a.attname and b.atttypid = a.atttypid))))
            order by not coalesce(i.inhdetachpending, false), p.relname = 'message', p.relname, c.relname"#
    )
    .fetch_all(connection)
    .await?;
    let parts = rows.into_iter().filter_map(|row| {
        let begins = begins(&row.parent, &row.name)?;
        let ends = begins + if row.parent == "idempotency" { TimeDelta::days(1) } else { TimeDelta::days(7) };
        Some(Part {
            begins,
            ends,
            age: row.now - ends,
            parent: row.parent,
            name: row.name,
            parent_path: row.parent_path,
            path: row.path,
            is_attached: row.is_attached,
            is_pending: row.is_pending,
        })
    });
    Ok(parts.collect())
}

/// Reads the first day of a partition from its name.
fn begins(parent: &str, name: &str) -> Option<DateTime<Utc>> {
    let label = name.strip_prefix(parent)?.strip_prefix('_')?;
    let day = NaiveDate::parse_from_str(label, "%Y%m%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc())
}

impl Part {
    fn is_expired(&self, db: &Database, retention: Duration) -> bool {
        let kept = match self.parent.as_str() {
            "idempotency" => db.key_horizon(),
            // A saved outcome that refers to a message is replayed from it.
            "message" => retention.max(db.key_horizon()),
            _ => retention,
        };
        self.age > TimeDelta::from_std(kept).unwrap_or(TimeDelta::MAX)
    }

    /// Whether it is to be dropped. What would be made again within the hour stays, once nothing is in it any more.
    async fn is_to_go(&self, db: &Database, connection: &mut Connection, retention: Duration) -> Result<bool> {
        if !self.is_expired(db, retention) {
            return Ok(false);
        }
        let is_made_again = self.begins > db.now() - (self.ends - self.begins) * MADE_BACK;
        Ok(!is_made_again || !is_empty(connection, &self.path).await?)
    }

    async fn stuck(self, connection: &mut Connection, error: Error) -> Result<Stuck> {
        let oldest_transaction = match &error {
            Error::Unavailable(_) => oldest_transaction(connection).await?,
            _ => None,
        };
        Ok(Stuck { partition: self.name, error, oldest_transaction })
    }
}

async fn is_empty(connection: &mut Connection, path: &str) -> Result<bool> {
    let any = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("select 1 from {path} limit 1"))).fetch_optional(connection).await?;
    Ok(any.is_none())
}

/// Brings a part to where it belongs: away, if its time is over, else into its table.
async fn settle(connection: &mut Connection, part: &Part, is_expired: bool) -> Result<()> {
    let Part { parent_path, path, .. } = part;
    if part.is_pending {
        run(connection, format!("alter table {parent_path} detach partition {path} finalize")).await?;
    } else if part.is_attached && is_expired {
        // Waits for those who may be reading it, and blocks nobody.
        run(connection, format!("alter table {parent_path} detach partition {path} concurrently")).await?;
    }
    if is_expired {
        run(connection, format!("drop table {path}")).await?;
        tracing::info!(partition = part.name, "dropped an expired partition");
    } else if part.is_pending || !part.is_attached {
        attach(connection, part).await?;
    }
    Ok(())
}

/// The paths come from the catalogue, quoted.
async fn run(connection: &mut Connection, statement: String) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// Makes what stands alone, though its time is not over, a part of its table again.
async fn attach(connection: &mut Connection, part: &Part) -> Result<()> {
    let label = part.begins.format("%Y%m%d").to_string();
    let is_attached = sqlx::query_scalar!(
        r#"select case when $1 = 'idempotency' then ensure_partition('idempotency', $2, 'created_at', ($3::timestamptz)::text, ($4::timestamptz)::text)
             else ensure_partition($1::text::regclass, $2, 'id', uuid_floor($3)::text, uuid_floor($4)::text) end as "is_attached!""#,
        part.parent,
        label,
        part.begins,
        part.ends,
    )
    .fetch_one(connection)
    .await?;
    if is_attached {
        tracing::warn!(partition = part.name, "a partition stood alone although its time is not over: attached it again");
    }
    Ok(())
}

/// The session with the oldest transaction on this database, in words.
async fn oldest_transaction(connection: &mut Connection) -> Result<Option<String>> {
    let oldest = sqlx::query_scalar!(
        r#"select format('pid %s (%s), since %s', pid, coalesce(nullif(application_name, ''), 'no name'), date_trunc('second', xact_start)) as "words!"
             from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
            order by xact_start limit 1"#
    )
    .fetch_optional(connection)
    .await?;
    Ok(oldest)
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
