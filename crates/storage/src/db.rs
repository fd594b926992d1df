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
    Connection as _,
    postgres::{PgListener, PgPoolOptions},
    types::Uuid,
};
use tokio::sync::Notify;

use crate::{
    Result,
    clock::Clock,
    committer::Progress,
    connect,
    connection::{Connection, PING, in_time, open},
    directory::Directory,
    hosts::{Hosts, Origin},
    idempotency::{
        Answer,
        flights::Flights,
        replays::{self, Replays},
    },
    main_secret,
    metrics::Metrics,
    pool::Pool,
    sealed::Sealer,
    tenants::Tenants,
    wakeups,
};

/// The oldest server that we run on: `numeric` version 15.
const OLDEST_SERVER: i32 = 150_000;
/// How long it may take to listen.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
/// The connections of lists, beside those of the pool: a slow one keeps only others of its kind waiting.
const LISTS: u32 = 4;
/// How often the server's clock is measured, and the key horizon read again: until then, one that was set is not noticed.
const CLOCK_INTERVAL: Duration = Duration::from_secs(15);
/// The nearest key horizon: as a server raises the installation's before it accepts anything, and the others read it again within
/// a minute, none can miss an outcome that is older than this.
const NEAREST_HORIZON: Duration = Duration::from_hours(25);

/// How to reach the database, and the keys to what is sealed in it.
#[derive(Clone)]
pub struct Config {
    /// A `postgres://` URL, of one host or several.
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

impl Config {
    /// Says why a database URL cannot be used, if it cannot; the words hold no part of it.
    pub fn check_url(url: &str) -> std::result::Result<(), &'static str> {
        Hosts::parse(url).map(drop)
    }
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
    hosts: Arc<Hosts>,
    pub(crate) pool: Pool,
    lists: Pool,
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
        let hosts = connect::hosts(config)?;
        connect::in_time(&hosts, Self::connect_with(config, Arc::clone(&hosts))).await
    }

    async fn connect_with(config: &Config, hosts: Arc<Hosts>) -> Result<Self> {
        let metrics = Metrics::new();
        let inner = Inner {
            pool: Pool::new(&hosts, config.max_connections),
            lists: Pool::new(&hosts, LISTS),
            hosts,
            clock: Clock::new(),
            sealer: Sealer::new(&config.main_secret, config.previous_main_secret.as_deref()),
            tenants: Tenants::default(),
            directory: Directory::default(),
            due: Arc::default(),
            due_elsewhere: Notify::new(),
            is_down: AtomicBool::new(false),
            is_strange: AtomicBool::new(false),
            writing: Progress::new(metrics.batches_overdue()),
            key_horizon: AtomicU64::new(MAX_TTL.as_secs()),
            policy: config.policy,
            replays: Replays::default(),
            flights: Arc::default(),
            metrics,
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

    /// The connections of lists, which may read many rows.
    pub(crate) fn lists(&self) -> &Pool {
        &self.inner.lists
    }

    pub(crate) fn new_id(&self) -> Uuid {
        self.inner.clock.new_id()
    }

    /// A connection outside the pool that hears when something is due, and where it leads.
    pub(crate) async fn listen(&self) -> std::result::Result<(PgListener, Origin), sqlx::Error> {
        let (mut session, origin) = open(&self.inner.hosts, "posthaste-listener").await?;
        let channel = in_time(PING, wakeups::channel(&mut session)).await?;
        // A pool of its own, since a listener that is dropped waits for an answer before it lets go of its place.
        let options = origin.options().application_name("posthaste-listener");
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(LISTEN_PATIENCE).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        in_time(LISTEN_PATIENCE, listener.listen(&channel)).await?;
        in_time(PING, session.close()).await?;
        Ok((listener, origin))
    }

    /// A connection outside the pool, for a task that keeps it.
    pub(crate) async fn connect_apart(&self, name: &str) -> std::result::Result<Connection, sqlx::Error> {
        let (session, origin) = open(&self.inner.hosts, name).await?;
        Ok(Connection::apart(session, origin))
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
        inner.pool.let_go();
        inner.lists.let_go();
        let measured = async {
            inner.clock.measure(&mut inner.pool.acquire().await?).await?;
            inner.read_key_horizon().await
        };
        if let Err(error) = measured.await {
            tracing::debug!(?error, "the server's clock could not be measured");
        }
    }
}
