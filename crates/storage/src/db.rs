//! The handle on one Postgres database: pool, clock, seal and caches.

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
use sqlx::{
    ConnectOptions, Connection as _,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    types::Uuid,
};
use tokio::sync::Notify;

use crate::{
    Result,
    clock::Clock,
    committer::Progress,
    connect,
    connection::{Connection, PING, Pool, in_time},
    directory::Directory,
    idempotency::{
        Answer,
        flights::Flights,
        replays::{self, Replays},
    },
    main_secret,
    metrics::Metrics,
    sealed::Sealer,
    tenants::Tenants,
    wakeups,
};

/// The oldest server that we run on: `numeric` version 15.
const OLDEST_SERVER: i32 = 150_000;
/// How long a request may wait for a pooled connection.
const ACQUIRE_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How often the server's clock is measured, and the key horizon read again: until then, one that was set is not noticed.
const CLOCK_INTERVAL: Duration = Duration::from_secs(15);
/// The nearest key horizon: as a server raises the installation's before it accepts anything, and the others read it every
/// minute, none can miss an outcome that is older than this.
const NEAREST_HORIZON: Duration = Duration::from_hours(25);
/// What every session has, whatever the role's or the database's defaults are: limits, because a frozen client, one that the network
/// lost, or a long wait must
/// not hold locks that others need; and READ COMMITTED, because a look-up must see what the last holder of its lock committed.
const SESSION: &str = "set statement_timeout = '10s'; set lock_timeout = '5s'; set idle_in_transaction_session_timeout = '2s';
    set default_transaction_isolation = 'read committed'; set timezone = 'UTC';
    set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; set tcp_user_timeout = 15000";

/// How to reach the database, and the keys to what is sealed in it.
#[derive(Clone)]
pub struct Config {
    /// A `postgres://` URL.
    pub url: String,
    /// Seals secrets at rest.
    pub main_secret: String,
    /// Opens secrets that an earlier main secret sealed.
    pub previous_main_secret: Option<String>,
    /// The most pooled connections.
    pub max_connections: u32,
    /// How idempotency keys are treated, unless a tenant wants it otherwise.
    pub policy: Policy,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

/// The handle on the database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    options: PgConnectOptions,
    pub(crate) clock: Clock,
    pub(crate) sealer: Sealer,
    pub(crate) tenants: Tenants,
    pub(crate) directory: Directory,
    /// Something is due: wakes the claimer of this process.
    pub(crate) due: Arc<Notify>,
    /// Something is due: wakes the task that tells the other nodes.
    pub(crate) due_elsewhere: Notify,
    /// The committer has lost its connection: new messages are refused at once.
    pub(crate) is_down: AtomicBool,
    /// Another server seals with a main secret that this one does not have.
    pub(crate) is_strange: AtomicBool,
    /// What the committer is writing.
    pub(crate) writing: Progress,
    /// How far back saved outcomes are looked for, in seconds.
    key_horizon: AtomicU64,
    /// How idempotency keys are treated, unless a tenant wants it otherwise.
    pub(crate) policy: Policy,
    pub(crate) replays: Replays,
    /// The writes with keys that are being executed.
    pub(crate) flights: Arc<Flights<Answer>>,
    pub(crate) metrics: Metrics,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Connects, checks server and main secret, and measures the server's clock. The schema must be current.
    pub async fn connect(config: &Config) -> Result<Self> {
        let options = connect::options(config)?;
        connect::in_time(&options, Self::connect_with(config, options.clone())).await
    }

    async fn connect_with(config: &Config, options: PgConnectOptions) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE_PATIENCE)
            .test_before_acquire(false)
            .before_acquire(|connection, _| Box::pin(async move { in_time(PING, connection.ping()).await.map(|()| true) }))
            .after_connect(|connection, _| Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) }))
            .connect_with(options.clone())
            .await?;
        let inner = Inner {
            pool: pool.into(),
            options,
            clock: Clock::new(),
            sealer: Sealer::new(&config.main_secret, config.previous_main_secret.as_deref()),
            tenants: Tenants::default(),
            directory: Directory::default(),
            due: Arc::default(),
            due_elsewhere: Notify::new(),
            is_down: AtomicBool::new(false),
            is_strange: AtomicBool::new(false),
            writing: Progress::default(),
            key_horizon: AtomicU64::new(MAX_TTL.as_secs()),
            policy: config.policy,
            replays: Replays::default(),
            flights: Arc::default(),
            metrics: Metrics::new(),
        };
        let db = Self { inner: Arc::new(inner) };
        db.check().await?;
        db.inner.clock.measure(&mut db.pool().acquire().await?).await?;
        tokio::spawn(keep_time(Arc::downgrade(&db.inner)));
        tokio::spawn(replays::keep_adding(Arc::downgrade(&db.inner)));
        tokio::spawn(wakeups::tell_others(Arc::downgrade(&db.inner)));
        Ok(db)
    }

    /// The database's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    /// What this server counts.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Whether the database answers within `patience`, new messages can be written, and what other servers seal can be opened.
    pub async fn is_healthy(&self, patience: Duration) -> bool {
        let answer = sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(self.pool());
        let answers = tokio::time::timeout(patience, answer).await.is_ok_and(|answer| answer.is_ok());
        answers && self.is_writable() && !self.inner.is_strange.load(Ordering::Relaxed)
    }

    /// Whether new messages can be written, as far as the committer knows: it is connected, and gets on with its batch.
    pub(crate) fn is_writable(&self) -> bool {
        !self.inner.is_down.load(Ordering::Relaxed) && !self.inner.writing.is_overdue()
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
        self.inner.read_key_horizon().await
    }

    /// How far back saved outcomes are looked for.
    pub(crate) fn key_horizon(&self) -> Duration {
        self.inner.key_horizon()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(crate) fn new_id(&self) -> Uuid {
        self.inner.clock.new_id()
    }

    /// A connection outside the pool that hears what is notified on a channel.
    pub(crate) async fn listen(&self, channel: &str) -> std::result::Result<PgListener, sqlx::Error> {
        // A pool of its own, since a listener that is dropped waits for an answer before it lets go of its place.
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_PATIENCE).connect_lazy_with(self.inner.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        in_time(CONNECT_PATIENCE, listener.listen(channel)).await.map(|()| listener)
    }

    /// A connection outside the pool, for a task that keeps it.
    pub(crate) async fn connect_apart(&self, name: &str) -> std::result::Result<Connection, sqlx::Error> {
        let options = self.inner.options.clone().application_name(name);
        let mut connection = Connection::from(in_time(CONNECT_PATIENCE, options.connect()).await?);
        sqlx::raw_sql(SESSION).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Refuses servers on which our promises would not hold, and a main secret that cannot open what is sealed.
    async fn check(&self) -> Result<()> {
        let version =
            sqlx::query_scalar!(r#"select current_setting('server_version_num')::int as "version!""#).fetch_one(self.pool()).await?;
        if version < OLDEST_SERVER {
            return Err(connect::refuse("Postgres 15 or later is needed"));
        }
        main_secret::check(self).await
    }
}

impl Inner {
    pub(crate) fn key_horizon(&self) -> Duration {
        Duration::from_secs(self.key_horizon.load(Ordering::Relaxed))
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
async fn keep_time(db: Weak<Inner>) {
    loop {
        tokio::time::sleep(CLOCK_INTERVAL).await;
        let Some(inner) = db.upgrade() else { return };
        let measured = async {
            inner.clock.measure(&mut inner.pool.acquire().await?).await?;
            inner.read_key_horizon().await
        };
        if let Err(error) = measured.await {
            tracing::debug!(?error, "the server's clock could not be measured");
        }
    }
}
