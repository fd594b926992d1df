//! Results that wait for a lock of somebody else's: set aside, so that nobody waits with them.
//!
//! Each is tried alone, on a connection of its own, and ever more rarely. That a first try was sent and its end is unknown does
//! no harm: whichever takes the row from the queue records the result, and the other finds nothing.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    antidote::antidote,
    batch::Batch,
    link::{LOCK_PATIENCE, Trouble},
    writer::{LAST_PATIENCE, count_results},
};
use crate::{Db, connection::Connection, partitions};

/// How long a result rests before it is tried again: at first, and at the longest.
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// The way aside.
#[derive(Debug)]
pub(super) struct Aside {
    results: mpsc::UnboundedSender<Batch>,
    keeper: JoinHandle<()>,
}

/// A result, in a batch of its own.
struct Waiting {
    batch: Batch,
    due: Instant,
    rest: Duration,
}

impl Aside {
    pub(super) fn start(db: &Db, stopped: watch::Receiver<bool>) -> Self {
        let (results, waiting) = mpsc::unbounded_channel();
        let keeper = Keeper { db: db.clone(), results: waiting, stopped, connection: None, waiting: Vec::new() };
        Self { results, keeper: tokio::spawn(keeper.run()) }
    }

    /// Takes the results of a batch.
    pub(super) fn take(&self, batch: &mut Batch) {
        let results = batch.take_results();
        tracing::warn!(results = results.len(), "another session locks what these results are to be written to: they are set aside");
        for result in results {
            // It ends when this does.
            self.results.send(result).ok();
        }
    }

    /// Returns when nothing is waiting any more, or has been waiting for too long.
    pub(super) async fn stop(self) {
        drop(self.results);
        if self.keeper.await.is_err() {
            tracing::error!("what kept results aside ended in a panic");
        }
    }
}

/// The task that has them.
struct Keeper {
    db: Db,
    results: mpsc::UnboundedReceiver<Batch>,
    stopped: watch::Receiver<bool>,
    /// Only while something waits.
    connection: Option<Connection>,
    waiting: Vec<Waiting>,
}

impl Keeper {
    async fn run(mut self) {
        while let Some(batch) = self.results.recv().await {
            self.add(batch);
            let mut stopped = self.stopped.clone();
            let giving_up = async move {
                if stopped.wait_for(|is_stopped| *is_stopped).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(LAST_PATIENCE).await;
            };
            tokio::select! {
                () = self.write_all() => {}
                () = giving_up => {}
            }
            if let Some(connection) = self.connection.take() {
                connection.close().await;
            }
            if !self.waiting.is_empty() {
                tracing::error!(
                    results = self.waiting.len(),
                    "stopped while these results waited for a lock: they are lost, and show as unknown"
                );
                return;
            }
        }
    }

    fn add(&mut self, batch: Batch) {
        self.waiting.push(Waiting { batch, due: Instant::now() + FIRST_REST, rest: FIRST_REST });
    }

    /// Until nothing waits.
    async fn write_all(&mut self) {
        let mut is_open = true;
        while let Some(next) = self.waiting.iter().map(|waiting| waiting.due).min() {
            tokio::select! {
                batch = self.results.recv(), if is_open => match batch {
                    Some(batch) => self.add(batch),
                    None => is_open = false,
                },
                () = sleep_until(next) => self.write_due().await,
            }
        }
    }

    async fn write_due(&mut self) {
        let now = Instant::now();
        for place in (0..self.waiting.len()).rev() {
            if self.waiting[place].due > now {
                continue;
            }
            // It stays in the list while it is tried, since a stop may end the try.
            let written = self.write(place).await;
            if written {
                drop(self.waiting.swap_remove(place));
            }
        }
    }

    /// Tries to write the result at this place of the list; returns whether it has been dealt with.
    async fn write(&mut self, place: usize) -> bool {
        let tried = self.try_to_write(place).await;
        let waiting = &mut self.waiting[place];
        let trouble = match tried {
            Ok(late) => {
                count_results(&self.db, &waiting.batch, &late);
                return true;
            }
            Err(error) => Trouble::of(&error),
        };
        match trouble {
            Trouble::Lost => {
                waiting.batch.is_rerun = true;
                self.connection = None;
            }
            Trouble::MissingPartition => drop(partitions::ensure(&self.db).await),
            Trouble::BadData if !antidote(&self.db, &mut waiting.batch) => return true,
            _ => {}
        }
        waiting.rest = (waiting.rest * 2).min(LONGEST_REST);
        waiting.due = Instant::now() + waiting.rest;
        false
    }

    async fn try_to_write(&mut self, place: usize) -> Result<Vec<usize>, sqlx::Error> {
        if self.connection.is_none() {
            let mut connection = self.db.connect_apart("posthaste-aside").await?;
            sqlx::raw_sql(LOCK_PATIENCE).execute(&mut connection).await?;
            self.connection = Some(connection);
        }
        // It has just been made, if it was not there.
        let Some(connection) = &mut self.connection else { return Err(sqlx::Error::PoolClosed) };
        let (_, late) = self.waiting[place].batch.run(connection, self.db.key_horizon()).await?;
        Ok(late)
    }
}
