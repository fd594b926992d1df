//! Which processes claim: a row each, so that every process sees when none does.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use sqlx::types::Uuid;

use crate::{Database, Result, connection::Connection};

/// How often a process that claims says so.
const INTERVAL: Duration = Duration::from_secs(5);
/// A process that has said so within this time counts as a worker: long enough for a slow round, or one that had to wait.
const ALIVE: Duration = Duration::from_secs(20);
/// How often a process that accepts messages looks whether anybody sends them.
const LOOK: Duration = Duration::from_secs(10);

/// The row of one claimer.
#[derive(Debug)]
pub(crate) struct Beat {
    id: Uuid,
    last: Option<Instant>,
}

impl Beat {
    pub(crate) fn new() -> Self {
        Self { id: Uuid::from_u128(rand::random()), last: None }
    }

    /// A round of claiming has just been done; now and then this says so, and drops what processes that are gone have left.
    pub(crate) async fn keep(&mut self, connection: &mut Connection) -> Result<()> {
        if self.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return Ok(());
        }
        sqlx::query!(
            "with gone as (
               delete from worker where id in (
                 select id from worker where claimed_at < now() - interval '1 hour' and id <> $1 order by id for update skip locked)
             )
             insert into worker (id) values ($1) on conflict (id) do update set claimed_at = now()",
            self.id,
        )
        .execute(connection)
        .await?;
        self.last = Some(Instant::now());
        Ok(())
    }

    /// This process claims no more.
    pub(crate) async fn end(&self, connection: &mut Connection) -> Result<()> {
        sqlx::query!("update worker set is_stopped = true where id = $1", self.id).execute(connection).await?;
        Ok(())
    }
}

/// Who claims on this database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Census {
    /// How many processes.
    pub(crate) workers: i64,
    /// How many seconds ago the last of them did; nothing, if none ever has.
    pub(crate) last_claim_age: Option<f64>,
}

pub(crate) async fn census(connection: &mut Connection) -> Result<Census> {
    Ok(sqlx::query_as!(
        Census,
        r#"select count(*) filter (where not is_stopped and claimed_at > now() - make_interval(secs => $1)) as "workers!",
                  case when count(*) > 0 then greatest(extract(epoch from now() - max(claimed_at)), 0)::float8 end as last_claim_age
             from worker"#,
        ALIVE.as_secs_f64(),
    )
    .fetch_one(connection)
    .await?)
}

/// Says in the log when no process claims on this database any more, and when one does again, for as long as somebody holds the
/// handle: for processes that accept messages which somebody else is to send.
pub fn watch(db: &Arc<Database>) {
    tokio::spawn(keep_watching(Arc::downgrade(db)));
}

async fn keep_watching(db: Weak<Database>) {
    let mut is_missing = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(db) = db.upgrade() else { return };
        let looking = async { census(&mut db.pool().acquire().await?).await };
        // If the database is away, others say so.
        let Ok(census) = looking.await else { continue };
        let was_missing = std::mem::replace(&mut is_missing, census.workers == 0);
        if is_missing && !was_missing {
            tracing::error!(
                last_claim_seconds_ago = census.last_claim_age,
                "no worker runs on this database: messages are accepted and wait to be sent. Start `posthaste worker` or `posthaste serve`"
            );
        } else if was_missing && !is_missing {
            tracing::info!("a worker runs on this database again");
        }
    }
}
