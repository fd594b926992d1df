//! The handle on one Postgres database: pool, clock, seal and caches.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use domain::idempotency::{MAX_TTL, Policy};
use sqlx::{
    Acquire, ConnectOptions, PgConnection, PgPool,
    migrate::{Migrate, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    types::Uuid,
};
use tokio::sync::Notify;

use crate::{
    Error, Result,
    clock::Clock,
    directory::Directory,
    idempotency::{
        Answer,
        flights::Flights,
        replays::{self, Replays},
    },
    metrics::Metrics,
    partitions,
    sealed::Sealer,
    tenants::Tenants,
    wakeups,
};

/// The schema's migrations, forward only.
static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");
/// The oldest server that we run on: `numeric` version 15.
const OLDEST_SERVER: i32 = 150_000;
/// How long a request may wait for a pooled connection.
const ACQUIRE_PATIENCE: Duration = Duration::from_secs(3);
/// How often the server's clock is measured, and the key horizon read again.
const CLOCK_INTERVAL: Duration = Duration::from_mins(1);
/// The nearest key horizon: as a server raises the installation's before it accepts anything, and the others read it every
/// minute, none can miss an outcome that is older than this.
const NEAREST_HORIZON: Duration = Duration::from_hours(25);
/// What the installation's seal check says once opened.
const SEAL_CHECK: &[u8] = b"posthaste";
/// What every session has, whatever the role's or the database's defaults are: limits, because a frozen client or a long wait must
/// not hold locks that others need; and READ COMMITTED, because a look-up must see what the last holder of its lock committed.
const SESSION: &str = "set statement_timeout = '10s'; set lock_timeout = '5s'; set idle_in_transaction_session_timeout = '2s';
    set default_transaction_isolation = 'read committed'; set timezone = 'UTC'";

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

/// Whether the schema is the one that this program was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// It is.
    Current,
    /// Migrations are missing: `posthaste migrate` applies them.
    Behind,
    /// A newer release has migrated it.
    Ahead,
}

/// The handle on the database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) pool: PgPool,
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
        let options = PgConnectOptions::from_str(&config.url)?.application_name("posthaste").disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE_PATIENCE)
            .after_connect(|connection, _| Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) }))
            .connect_with(options.clone())
            .await?;
        let inner = Inner {
            pool,
            options,
            clock: Clock::new(),
            sealer: Sealer::new(&config.main_secret, config.previous_main_secret.as_deref()),
            tenants: Tenants::default(),
            directory: Directory::default(),
            due: Arc::default(),
            due_elsewhere: Notify::new(),
            is_down: AtomicBool::new(false),
            key_horizon: AtomicU64::new(MAX_TTL.as_secs()),
            policy: config.policy,
            replays: Replays::default(),
            flights: Arc::default(),
            metrics: Metrics::new(),
        };
        let db = Self { inner: Arc::new(inner) };
        db.check().await?;
        db.inner.clock.measure(&mut *db.pool().acquire().await?).await?;
        tokio::spawn(keep_time(Arc::downgrade(&db.inner)));
        tokio::spawn(replays::keep_adding(Arc::downgrade(&db.inner)));
        tokio::spawn(wakeups::tell_others(Arc::downgrade(&db.inner)));
        Ok(db)
    }

    /// Brings the schema up to date, makes the partitions of the next weeks, and binds the database to the main secret.
    pub async fn migrate(config: &Config) -> Result<()> {
        let mut connection = PgConnectOptions::from_str(&config.url)?.disable_statement_logging().connect().await?;
        MIGRATOR.run(&mut connection).await.map_err(|error| Error::Database(sqlx::Error::Migrate(Box::new(error))))?;
        partitions::make(&mut connection).await?;
        let sealer = Sealer::new(&config.main_secret, None);
        sqlx::query!("insert into installation (seal_check) values ($1) on conflict do nothing", sealer.seal(Uuid::nil(), SEAL_CHECK))
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Compares the schema with the one that this program was built for.
    pub async fn schema_state(config: &Config) -> Result<SchemaState> {
        let mut connection = PgConnectOptions::from_str(&config.url)?.disable_statement_logging().connect().await?;
        let exists =
            sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "exists!""#).fetch_one(&mut connection).await?;
        if !exists {
            return Ok(SchemaState::Behind);
        }
        let applied = connection
            .list_applied_migrations("_sqlx_migrations")
            .await
            .map_err(|error| Error::Database(sqlx::Error::Migrate(Box::new(error))))?;
        let newest = |versions: &mut dyn Iterator<Item = i64>| versions.max().unwrap_or(0);
        let (here, there) = (newest(&mut MIGRATOR.iter().map(|m| m.version)), newest(&mut applied.iter().map(|m| m.version)));
        Ok(match there.cmp(&here) {
            std::cmp::Ordering::Less => SchemaState::Behind,
            std::cmp::Ordering::Equal => SchemaState::Current,
            std::cmp::Ordering::Greater => SchemaState::Ahead,
        })
    }

    /// The database's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    /// What this server counts.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Whether the database answers within `patience`, and new messages can be written.
    pub async fn is_healthy(&self, patience: Duration) -> bool {
        let answer = sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(self.pool());
        let answers = tokio::time::timeout(patience, answer).await.is_ok_and(|answer| answer.is_ok());
        answers && !self.inner.is_down.load(Ordering::Relaxed)
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

    pub(crate) fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    pub(crate) fn new_id(&self) -> Uuid {
        self.inner.clock.new_id()
    }

    /// A connection outside the pool, for a task that keeps it.
    pub(crate) async fn connect_apart(&self, name: &str) -> std::result::Result<PgConnection, sqlx::Error> {
        let mut connection = self.inner.options.clone().application_name(name).connect().await?;
        sqlx::raw_sql(SESSION).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Refuses servers on which our promises would not hold, and a main secret that cannot open what is sealed.
    async fn check(&self) -> Result<()> {
        let mut one = self.pool().acquire().await?;
        let mut other = self.pool().acquire().await?;
        let version =
            sqlx::query_scalar!(r#"select current_setting('server_version_num')::int as "version!""#).fetch_one(&mut *one).await?;
        if version < OLDEST_SERVER {
            return Err(refuse("Postgres 15 or later is needed"));
        }
        // A pooler that shares one server session among clients would share our advisory locks too.
        let idle = sqlx::query_scalar!(r#"select pg_backend_pid() as "pid!""#).fetch_one(&mut *one).await?;
        let mut tx = one.begin().await?;
        let is_locked = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(0) as "is_locked!""#).fetch_one(&mut *tx).await?;
        let busy = sqlx::query_scalar!(r#"select pg_backend_pid() as "pid!""#).fetch_one(&mut *other).await?;
        let is_shared = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(0) as "is_locked!""#).fetch_one(&mut *other).await?;
        tx.rollback().await?;
        if idle == busy || (is_locked && is_shared) {
            return Err(refuse(
                "the database URL leads through a transaction-pooling proxy, or to a server without advisory locks: connect to Postgres directly, or use session pooling",
            ));
        }
        let seal_check = sqlx::query_scalar!("select seal_check from installation").fetch_optional(&mut *one).await?;
        let seal_check = seal_check.ok_or_else(|| refuse("the database is not set up: run `posthaste migrate`"))?;
        self.inner.sealer.open(Uuid::nil(), &seal_check).map(drop)
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

fn refuse(reason: &str) -> Error {
    Error::Database(sqlx::Error::Configuration(reason.into()))
}

/// Measures the server's clock and reads the key horizon again and again, for as long as somebody holds the handle.
async fn keep_time(db: Weak<Inner>) {
    loop {
        tokio::time::sleep(CLOCK_INTERVAL).await;
        let Some(inner) = db.upgrade() else { return };
        let measured = async {
            inner.clock.measure(&mut *inner.pool.acquire().await?).await?;
            inner.read_key_horizon().await
        };
        if let Err(error) = measured.await {
            tracing::debug!(?error, "the server's clock could not be measured");
        }
    }
}
