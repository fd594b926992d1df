//! The handle on one Postgres database, with what this process remembers of it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Config, Database, Migrated, Result, SchemaState, connect,
    flights::Flights,
    hosts::Hosts,
    known_sources::KnownSources,
    known_tenants::KnownTenants,
    listeners::Listeners,
    main_secret,
    metrics::Metrics,
    progress::Progress,
    replays::{self, Replays},
    rollups::{self, Rollups},
    schema,
    subscribers::KnownSubscribers,
    wakeups,
};

/// The handle on the database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    database: Arc<Database>,
    pub(crate) node: Arc<Node>,
}

/// What a process keeps beside the database: caches and counts, of which none knows the others.
pub(crate) struct Node {
    pub(crate) tenants: KnownTenants,
    pub(crate) subscribers: KnownSubscribers,
    pub(crate) sources: KnownSources,
    pub(crate) listeners: Listeners,
    /// The committer has lost its connection: new messages are refused at once.
    is_down: AtomicBool,
    /// What the committer is writing.
    pub(crate) writing: Progress,
    pub(crate) replays: Arc<Replays>,
    /// What is counted by time, and not in the database yet.
    pub(crate) rollups: Arc<Rollups>,
    /// The requests with keys that are being executed.
    pub(crate) flights: Arc<Flights>,
    metrics: Metrics,
}

impl Deref for Db {
    type Target = Arc<Database>;

    fn deref(&self) -> &Arc<Database> {
        &self.database
    }
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
        let database = Database::connect(config, hosts).await?;
        main_secret::check(&database).await?;
        let metrics = Metrics::new();
        let node = Node {
            tenants: KnownTenants::default(),
            subscribers: KnownSubscribers::default(),
            sources: KnownSources::default(),
            listeners: Listeners::default(),
            is_down: AtomicBool::new(false),
            writing: Progress::new(metrics.batches_overdue()),
            replays: Arc::default(),
            rollups: Arc::new(Rollups::new(metrics.statistics_left_out())),
            flights: Arc::default(),
            metrics,
        };
        tokio::spawn(replays::keep_adding(Arc::downgrade(&database), Arc::clone(&node.replays)));
        tokio::spawn(rollups::keep_flushing(Arc::downgrade(&database), Arc::clone(&node.rollups)));
        tokio::spawn(wakeups::tell_others(Arc::downgrade(&database)));
        Ok(Self { database, node: Arc::new(node) })
    }

    /// Compares the schema with the one that this program was built for.
    pub async fn schema_state(config: &Config) -> Result<SchemaState> {
        schema::state(config).await
    }

    /// Brings the schema up to date, makes the partitions of the next weeks, and binds the database to the main secret. Does
    /// nothing at all to a schema that is newer than this program.
    pub async fn migrate(config: &Config) -> Result<Migrated> {
        schema::migrate(config).await
    }

    /// What this server counts.
    pub fn metrics(&self) -> &Metrics {
        &self.node.metrics
    }

    /// Everything that this server counts, in the OpenMetrics text format. It never fails: what the database does not tell in
    /// time is left out.
    pub async fn scrape(&self) -> String {
        let batch_age = self.node.writing.age().unwrap_or_default();
        self.metrics().scrape(self, self.is_writable(), batch_age).await
    }

    /// Whether the database answers within `patience`, new messages can be written, and what other servers seal can be opened.
    pub async fn is_ready(&self, patience: Duration) -> bool {
        self.answers(patience).await && self.is_writable() && !self.is_strange()
    }

    /// Whether new messages can be written, as far as the committer knows: it is connected, and gets on with its batch.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is_down() && !self.node.writing.is_overdue()
    }

    /// Whether the committer has lost its connection.
    pub(crate) fn is_down(&self) -> bool {
        self.node.is_down.load(Ordering::Relaxed)
    }

    /// The committer has lost its connection, or has one again.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.node.is_down.store(is_down, Ordering::Relaxed);
    }
}
