//! News that something is due: inside the process at once, to other nodes by NOTIFY, at most every 20 ms.
//!
//! NOTIFY takes a database-wide lock at commit, so it never runs inside the transaction that accepts messages. It only
//! saves waiting: the claimer polls anyway.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, Executor as _, PgConnection,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use crate::{
    Database,
    deadline::{PING, in_time},
    hosts::Origin,
    opener,
};

/// Bursts become one NOTIFY.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How long it may take to listen.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
/// How the channel of the outbox begins.
const OWN_EVENTS: &str = "posthaste_own_";
/// How long to wait before listening again after the connection was lost.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How long it may be quiet before we ask whether the connection is still there.
const QUIET: Duration = Duration::from_secs(15);

/// What the news say if long work is to be done too.
const TASK: &str = "task";

/// Wakes up when something is due.
#[derive(Debug)]
pub struct Wakeups {
    db: Arc<Database>,
    listener: Option<(PgListener, Origin)>,
    /// When it was last known to be connected.
    heard: Instant,
}

impl Wakeups {
    /// Listens to this process and, as soon as the database can be reached, to all others.
    pub fn listen(db: &Arc<Database>) -> Self {
        Self { db: Arc::clone(db), listener: None, heard: Instant::now() }
    }

    /// Returns when something may be due. A caller that stops waiting misses nothing that its next poll does not find.
    pub async fn wait(&mut self) {
        let due = self.db.due();
        tokio::select! {
            () = due.notified() => {}
            () = self.wait_for_others() => {}
        }
    }

    async fn wait_for_others(&mut self) {
        loop {
            if let Some((listener, _)) = &mut self.listener {
                match timeout(QUIET.saturating_sub(self.heard.elapsed()), listener.try_recv()).await {
                    Ok(Ok(Some(news))) => {
                        self.heard = Instant::now();
                        if !news.channel().starts_with(OWN_EVENTS) {
                            if news.payload() == TASK {
                                self.db.task_due().notify_one();
                            }
                            return;
                        }
                        self.db.own_events().notify_one();
                    }
                    Ok(_) => {}
                    Err(_) => {
                        // Not ours while it is asked: a caller that stops waiting leaves half an answer on it.
                        let Some((mut listener, origin)) = self.listener.take() else { continue };
                        if origin.is_current() && Box::pin(in_time(PING, listener.execute("select 1"))).await.is_ok() {
                            (self.listener, self.heard) = (Some((listener, origin)), Instant::now());
                            continue;
                        }
                    }
                }
                // The connection was lost, and notifications with it: look at once.
                self.listener = None;
                self.db.own_events().notify_one();
                return;
            }
            match Box::pin(listen(&self.db)).await {
                Ok(listener) => (self.listener, self.heard) = (Some(listener), Instant::now()),
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
    }
}

/// The channels of this schema's queue and outbox: another schema of the database may hold other tenants.
async fn channels(session: &mut PgConnection) -> Result<[String; 2], sqlx::Error> {
    let names = sqlx::query!(
        r#"select 'posthaste_due_' || 'queue'::regclass::oid as "due!", 'posthaste_own_' || 'own_event'::regclass::oid as "own_events!""#
    );
    let names = names.fetch_one(session).await?;
    Ok([names.due, names.own_events])
}

/// A connection outside the pool that hears when something is due, and where it leads.
async fn listen(db: &Database) -> Result<(PgListener, Origin), sqlx::Error> {
    let (mut session, origin) = opener::open(db.hosts(), "posthaste-listener").await?;
    let channels = in_time(PING, channels(&mut session)).await?;
    // A pool of its own, since a listener that is dropped waits for an answer before it lets go of its place.
    let options = origin.options().application_name("posthaste-listener");
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(LISTEN_PATIENCE).connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    in_time(LISTEN_PATIENCE, listener.listen_all(channels.iter().map(String::as_str))).await?;
    in_time(PING, session.close()).await?;
    Ok((listener, origin))
}

/// Passes the news on to the other nodes, for as long as somebody holds the handle.
pub(crate) async fn tell_others(db: Weak<Database>) {
    while let Some(db) = db.upgrade() {
        let news = timeout(Duration::from_secs(5), db.due_elsewhere().notified()).await;
        if news.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
            // A lost NOTIFY costs others a poll interval and nothing else.
            let what = if db.take_task_due_elsewhere() { TASK } else { "" };
            sqlx::query!("select pg_notify('posthaste_due_' || 'queue'::regclass::oid, $1)", what).execute(db.pool()).await.ok();
        }
    }
}
