//! News that something is due: inside the process at once, to other nodes by NOTIFY, at most every 20 ms.
//!
//! NOTIFY takes a database-wide lock at commit, so it never runs inside the transaction that accepts messages. It only
//! saves waiting: the claimer polls anyway.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::postgres::PgListener;

use crate::{Db, db::Inner};

const CHANNEL: &str = "posthaste_due";
/// Bursts become one NOTIFY.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How long to wait before listening again after the connection was lost.
const BACK_OFF: Duration = Duration::from_millis(500);

/// Wakes up when something is due.
#[derive(Debug)]
pub struct Wakeups {
    db: Db,
    listener: Option<PgListener>,
}

impl Wakeups {
    /// Listens to this process and, as soon as the database can be reached, to all others.
    pub fn listen(db: &Db) -> Self {
        Self { db: db.clone(), listener: None }
    }

    /// Returns when something may be due. A caller that stops waiting misses nothing that its next poll does not find.
    pub async fn wait(&mut self) {
        let due = Arc::clone(&self.db.inner.due);
        tokio::select! {
            () = due.notified() => {}
            () = self.wait_for_others() => {}
        }
    }

    async fn wait_for_others(&mut self) {
        loop {
            if let Some(listener) = &mut self.listener {
                if let Ok(Some(_)) = listener.try_recv().await {
                    return;
                }
                // The connection was lost, and notifications with it: look at once.
                self.listener = None;
                return;
            }
            let connected = async {
                let mut listener = PgListener::connect_with(self.db.pool()).await?;
                listener.listen(CHANNEL).await.map(|()| listener)
            };
            match connected.await {
                Ok(listener) => self.listener = Some(listener),
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
    }
}

impl Db {
    /// Says that something is due, to this process and to the others.
    pub(crate) fn wake(&self) {
        self.inner.due.notify_one();
        self.inner.due_elsewhere.notify_one();
    }
}

/// Passes the news on to the other nodes, for as long as somebody holds the handle.
pub(crate) async fn tell_others(db: Weak<Inner>) {
    while let Some(inner) = db.upgrade() {
        let news = tokio::time::timeout(Duration::from_secs(5), inner.due_elsewhere.notified()).await;
        if news.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
            // A lost NOTIFY costs others a poll interval and nothing else.
            sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(&inner.pool).await.ok();
        }
    }
}
