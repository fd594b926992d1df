//! One Postgres database as everything here needs it: its servers, its connections, its time, and what seals the secrets in it.
//!
//! What a process remembers of the rows is not here, but in [`crate::Db`].

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::idempotency::{MAX_TTL, Policy};
use parking_lot::Mutex;
use sqlx::types::Uuid;
use tokio::sync::Notify;

use crate::{Config, Result, clock::Clock, connect, connection::Connection, hosts::Hosts, opener, pool::Pool, sealed::Sealer};

/// The oldest server that we run on: `numeric` version 15.
const OLDEST_SERVER: i32 = 150_000;
/// The connections of lists, beside those of the pool: a slow one keeps only others of its kind waiting.
const LISTS: u32 = 4;
/// How often the server's clock is measured, and the key horizon read again: until then, one that was set is not noticed.
const CLOCK_INTERVAL: Duration = Duration::from_secs(15);
/// The nearest key horizon: as a server raises the installation's before it accepts anything, and the others read it again within
/// a minute, none can miss an outcome that is older than this.
const NEAREST_HORIZON: Duration = Duration::from_hours(25);

/// One Postgres database.
pub struct Database {
    hosts: Arc<Hosts>,
    pool: Pool,
    lists: Pool,
    clock: Clock,
    sealer: Sealer,
    /// Something is due: wakes the claimer of this process.
    due: Arc<Notify>,
    /// Long work is to be done: wakes the runner of this process.
    task_due: Notify,
    /// Something is due: wakes the task that tells the other nodes.
    due_elsewhere: Notify,
    /// Something was noted for a tenant, or somebody else wants to hear: wakes whoever empties the outbox.
    own_events: Notify,
    /// It is long work.
    is_task_due_elsewhere: AtomicBool,
    /// Another server seals with a main secret that this one does not have.
    is_strange: AtomicBool,
    /// How far back saved outcomes are looked for, in seconds.
    key_horizon: AtomicU64,
    policy: Policy,
    /// How many partitions are past their time and still there, once somebody has counted.
    expired_partitions: Mutex<Option<usize>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// Connects, refuses servers on which our promises would not hold, and measures the server's clock.
    pub(crate) async fn connect(config: &Config, hosts: Arc<Hosts>) -> Result<Arc<Self>> {
        let database = Arc::new(Self {
            pool: Pool::new(&hosts, config.max_connections),
            lists: Pool::new(&hosts, LISTS),
            hosts,
            clock: Clock::new(),
            sealer: Sealer::new(&config.main_secret, config.previous_main_secret.as_deref()),
            due: Arc::default(),
            task_due: Notify::new(),
            due_elsewhere: Notify::new(),
            own_events: Notify::new(),
            is_task_due_elsewhere: AtomicBool::new(false),
            is_strange: AtomicBool::new(false),
            key_horizon: AtomicU64::new(MAX_TTL.as_secs()),
            policy: config.policy,
            expired_partitions: Mutex::default(),
        });
        let version =
            sqlx::query_scalar!(r#"select current_setting('server_version_num')::int as "version!""#).fetch_one(database.pool()).await?;
        if version < OLDEST_SERVER {
            return Err(connect::refuse("Postgres 15 or later is needed"));
        }
        database.clock.measure(&mut database.pool.acquire().await?).await?;
        tokio::spawn(keep_time(Arc::downgrade(&database)));
        Ok(database)
    }

    /// The database's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Whether the database answers within `patience`.
    pub(crate) async fn answers(&self, patience: Duration) -> bool {
        let answer = sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(self.pool());
        tokio::time::timeout(patience, answer).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Says that this process remembers keys for up to `ttl`, before it saves the first one. Look-ups of all processes go
    /// back as far as the longest memory of any.
    pub async fn remember_keys_for(&self, ttl: Duration) -> Result<()> {
        sqlx::query!(
            "update installation set key_horizon = make_interval(secs => $1) where key_horizon < make_interval(secs => $1)",
            ttl.as_secs_f64()
        )
        .execute(self.pool())
        .await?;
        self.read_key_horizon().await
    }

    /// How far back saved outcomes are looked for.
    pub(crate) fn key_horizon(&self) -> Duration {
        Duration::from_secs(self.key_horizon.load(Ordering::Relaxed))
    }

    /// How idempotency keys are treated, unless a tenant wants it otherwise.
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The connections of lists, which may read many rows.
    pub(crate) fn lists(&self) -> &Pool {
        &self.lists
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    pub(crate) fn new_id(&self) -> Uuid {
        self.clock.new_id()
    }

    /// A connection outside the pool, for a task that keeps it.
    pub(crate) async fn connect_apart(&self, name: &str) -> std::result::Result<Connection, sqlx::Error> {
        let (session, origin) = opener::open(&self.hosts, name).await?;
        Ok(Connection::apart(session, origin))
    }

    /// Says that something is due, to this process and to the others.
    pub(crate) fn wake(&self) {
        self.due.notify_one();
        self.due_elsewhere.notify_one();
    }

    /// Says that long work is to be done, to this process and to the others.
    pub(crate) fn wake_runner(&self) {
        self.task_due.notify_one();
        self.is_task_due_elsewhere.store(true, Ordering::Relaxed);
        self.due_elsewhere.notify_one();
    }

    /// Notified when long work is to be done.
    pub(crate) fn task_due(&self) -> &Notify {
        &self.task_due
    }

    /// Whether the other nodes have not been told yet that long work is to be done; they are now.
    pub(crate) fn take_task_due_elsewhere(&self) -> bool {
        self.is_task_due_elsewhere.swap(false, Ordering::Relaxed)
    }

    /// Notified when something is due.
    pub(crate) fn due(&self) -> Arc<Notify> {
        Arc::clone(&self.due)
    }

    /// Notified when something is due, for the task that tells the other nodes.
    pub(crate) fn due_elsewhere(&self) -> &Notify {
        &self.due_elsewhere
    }

    /// Notified when something was noted for a tenant, or somebody else wants to hear.
    pub(crate) fn own_events(&self) -> &Notify {
        &self.own_events
    }

    /// Whether another server seals with a main secret that this one does not have.
    pub(crate) fn is_strange(&self) -> bool {
        self.is_strange.load(Ordering::Relaxed)
    }

    /// Says whether one does; returns whether that was so before.
    pub(crate) fn set_strange(&self, is_strange: bool) -> bool {
        self.is_strange.swap(is_strange, Ordering::Relaxed)
    }

    /// So many partitions are past their time and still there.
    pub(crate) fn note_expired_partitions(&self, count: usize) {
        *self.expired_partitions.lock() = Some(count);
    }

    /// How many partitions are, if this process has counted them.
    pub(crate) fn expired_partitions(&self) -> Option<usize> {
        *self.expired_partitions.lock()
    }

    async fn read_key_horizon(&self) -> Result<()> {
        let seconds = sqlx::query_scalar!(r#"select ceil(extract(epoch from key_horizon))::bigint as "seconds!" from installation"#)
            .fetch_one(&self.pool)
            .await?;
        let horizon = u64::try_from(seconds).unwrap_or(u64::MAX).clamp(NEAREST_HORIZON.as_secs(), MAX_TTL.as_secs());
        self.key_horizon.store(horizon, Ordering::Relaxed);
        Ok(())
    }
}

/// Measures the server's clock and reads the key horizon again and again, for as long as somebody holds the handle.
async fn keep_time(database: Weak<Database>) {
    loop {
        tokio::time::sleep(CLOCK_INTERVAL).await;
        let Some(database) = database.upgrade() else { return };
        database.pool.let_go();
        database.lists.let_go();
        let measured = async {
            database.clock.measure(&mut database.pool.acquire().await?).await?;
            database.read_key_horizon().await
        };
        if let Err(error) = measured.await {
            tracing::debug!(?error, "the server's clock could not be measured");
        }
    }
}
