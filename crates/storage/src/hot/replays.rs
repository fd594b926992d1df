//! How often saved outcomes were replayed: summed in memory and added to the records about once a second, so that a replay
//! costs no write. What a process had not added when it was killed is not counted.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use sqlx::types::Uuid;

use crate::{Database, Result};

/// How often the sums are added to the records.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many keys are summed at most; replays of further ones are not counted until the sums have been added.
const CAPACITY: usize = 50_000;

/// Replays that are not in the database yet, by the record's key.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<HashMap<Uuid, i64>>);

impl Replays {
    /// Counts one.
    pub(crate) fn note(&self, k: Uuid) {
        let mut sums = self.0.lock();
        if sums.len() < CAPACITY || sums.contains_key(&k) {
            *sums.entry(k).or_default() += 1;
        }
    }

    fn take(&self) -> HashMap<Uuid, i64> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Adds what this process has counted to the records.
pub(crate) async fn add_up(db: &Database, replays: &Replays) -> Result<()> {
    let (keys, counts): (Vec<_>, Vec<_>) = replays.take().into_iter().unzip();
    if keys.is_empty() {
        return Ok(());
    }
    // Locked in one order, since other processes add to the same records.
    sqlx::query!(
        "with mine as materialized (
           select i.k, i.created_at, t.n from unnest($1::uuid[], $2::bigint[]) t(k, n) join idempotency i on i.k = t.k
             where i.created_at > now() - make_interval(secs => $3) and i.expires_at > now() order by i.k, i.created_at for update of i)
         update idempotency i set replays = i.replays + mine.n from mine where i.k = mine.k and i.created_at = mine.created_at",
        &keys,
        &counts,
        db.key_horizon().as_secs_f64(),
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Adds up again and again, for as long as somebody holds the handle.
pub(crate) async fn keep_adding(db: Weak<Database>, replays: Arc<Replays>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(db) = db.upgrade() else { return };
        if let Err(error) = add_up(&db, &replays).await {
            tracing::debug!(?error, "replays could not be counted");
        }
    }
}
