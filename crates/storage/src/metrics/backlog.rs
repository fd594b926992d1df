//! What is owed, asked of the database at a scrape: rarely, cheaply, and never for long.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use prometheus_client::registry::{Registry, Unit};
use tokio::sync::{Mutex, MutexGuard};

use super::instruments::Reading;
use crate::{Db, Error, Result};

/// For how long an answer is good enough: many may scrape, and each scrape costs the database a few milliseconds.
const FRESH: Duration = Duration::from_secs(2);
/// How long the database may take; the statements give up by themselves a little earlier.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Bounds the statements of one look, and keeps them to their indexes whatever the statistics say of a queue that was
/// empty a moment ago.
const SETTINGS: &str =
    "set local statement_timeout = '1s'; set local jit = off; set local enable_seqscan = off; set local enable_sort = off;
    set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off";

/// What the last look brought.
#[derive(Debug)]
pub(super) struct Backlog {
    /// When that was.
    looked_at: Mutex<Option<Instant>>,
    database_up: Reading,
    due: Reading,
    sleeping: Reading,
    oldest_due_age: Reading,
    endpoints_held: Reading,
}

/// What is owed at one moment.
struct Owed {
    due: f64,
    sleeping: f64,
    oldest_due_age: f64,
    held: f64,
}

impl Backlog {
    pub(super) fn register(to: &mut Registry) -> Self {
        let reading = Reading::default;
        let backlog = Self {
            looked_at: Mutex::default(),
            database_up: reading(),
            due: reading(),
            sleeping: reading(),
            oldest_due_age: reading(),
            endpoints_held: reading(),
        };
        to.register(
            "database_up",
            "1 if the database answers this server in time and new messages can be written, else 0",
            backlog.database_up.clone(),
        );
        let rows = |what| {
            format!("Deliveries that are {what}, on all nodes; counted up to 10000, beyond that estimated from the table's statistics")
        };
        to.register("queue_due_rows", rows("due and not being sent"), backlog.due.clone());
        to.register("queue_sleeping_rows", rows("asleep until their next attempt"), backlog.sleeping.clone());
        let held = "Endpoints that the circuit breaker holds, on all nodes; counted up to 10000";
        to.register("endpoints_held", held, backlog.endpoints_held.clone());
        let age = "How long the oldest delivery that is due has been waiting, on all nodes; what is due to held endpoints is left out";
        to.register_with_unit("oldest_due_age", age, Unit::Seconds, backlog.oldest_due_age.clone());
        backlog
    }

    /// Looks again if the last look is too old. The readings do not change while the guard is held.
    pub(super) async fn read(&self, db: &Db) -> MutexGuard<'_, Option<Instant>> {
        let mut looked_at = self.looked_at.lock().await;
        if looked_at.is_none_or(|at| at.elapsed() > FRESH) {
            let owed = tokio::time::timeout(PATIENCE, owed(db)).await.unwrap_or(Err(Error::Unavailable(None)));
            // A look that took too long leaves the queue unknown; only silence means that the database is away.
            let is_up = match &owed {
                Ok(_) => true,
                Err(error) => answers(error),
            };
            let owed = owed.ok();
            self.database_up.set(Some(f64::from(u8::from(is_up))));
            self.due.set(owed.as_ref().map(|owed| owed.due));
            self.sleeping.set(owed.as_ref().map(|owed| owed.sleeping));
            self.oldest_due_age.set(owed.as_ref().map(|owed| owed.oldest_due_age));
            self.endpoints_held.set(owed.as_ref().map(|owed| owed.held));
            *looked_at = Some(Instant::now());
        }
        if db.inner.is_down.load(Ordering::Relaxed) {
            self.database_up.set(Some(0.0));
        }
        looked_at
    }
}

/// Whether an error is an answer of the server's own, such as SQLSTATE 57014 (`query_canceled`, by its time limit).
fn answers(error: &Error) -> bool {
    let cause = match error {
        Error::Unavailable(cause) => cause.as_ref(),
        Error::Database(cause) => Some(cause),
        _ => None,
    };
    cause.and_then(sqlx::Error::as_database_error).is_some_and(|error| error.code().as_deref() == Some("57014"))
}

/// Counts what is owed, up to a bound, and finds the oldest due row by its endpoints: their number, not that of the rows,
/// is what it costs.
async fn owed(db: &Db) -> Result<Owed> {
    let mut tx = db.pool().begin().await?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let row = sqlx::query!(
        r#"with recursive oldest(endpoint_id, due_at) as (
             (select endpoint_id, due_at from queue order by endpoint_id, due_at limit 1)
             union all
             select next.endpoint_id, next.due_at from oldest o cross join lateral (
                 select q.endpoint_id, q.due_at from queue q where q.endpoint_id > o.endpoint_id order by q.endpoint_id, q.due_at limit 1) next
           ), counted as (
             select (select count(*) from (select from queue where due_at <= now() limit 10001) due) as due,
                    (select count(*) from (select from queue_later limit 10001) sleeping) as sleeping
           ), estimated as (
             select (select reltuples from pg_class where oid = 'queue'::regclass) as due,
                    (select reltuples from pg_class where oid = 'queue_later'::regclass) as sleeping
           )
           select (case when c.due > 10000 then greatest(c.due, e.due) else c.due end)::float8 as "due!",
                  (case when c.sleeping > 10000 then greatest(c.sleeping, e.sleeping) else c.sleeping end)::float8 as "sleeping!",
                  (select greatest(extract(epoch from now() - min(o.due_at)), 0)::float8 from (select endpoint_id, due_at from oldest limit 10000) o
                     where not exists (select from endpoint_health h where h.endpoint_id = o.endpoint_id and h.state = 1)) as oldest,
                  (select count(*) from (select from endpoint_health where state = 1 limit 10000) held)::float8 as "held!"
             from counted c, estimated e"#
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.rollback().await?;
    Ok(Owed { due: row.due, sleeping: row.sleeping, oldest_due_age: row.oldest.unwrap_or(0.0), held: row.held })
}
