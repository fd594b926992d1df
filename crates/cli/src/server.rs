//! Puts the rooms together: database, committer, API and worker; and takes them apart in order.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use domain::{egress_policy::EgressPolicy, url_policy::UrlPolicy};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use storage::{Ahead, Db, SchemaState, committer, committer::Committer, hand_off, main_secret, outbox::Outbox, workers};
use tokio::net::TcpListener;

use crate::config::Config;
pub use crate::roles::Roles;

/// By how much a stop may outlast the request timeout.
const STOP_PATIENCE: Duration = Duration::from_millis(4500);
/// How long the worker's stop waits for the API's handlers, whose messages it could still send. Those that take longer
/// are not cut off: their messages are stored for whoever claims them.
const HANDLER_PATIENCE: Duration = Duration::from_secs(1);

/// The fewest and the most clients that may be connected if nobody says.
const FEWEST_CONNECTIONS: usize = 16;
const MOST_CONNECTIONS: usize = 10_000;

const CANNOT_USE: &str = "cannot use the database of POSTHASTE_DATABASE_URL";

/// A running server. Without [`Running::stop`] it is as if it had crashed.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens; with [`Roles::Worker`], health and metrics alone.
    pub address: SocketAddr,
    /// Base of the URLs that are handed out.
    pub public_url: String,
    request_timeout: Duration,
    server: api::Server,
    metrics: Option<api::Server>,
    worker: Option<worker::Worker>,
    committer: Committer,
}

/// Starts what these roles need. The schema must be current.
pub async fn start(config: &Config, roles: Roles) -> Result<Running> {
    allow_many_files();
    let listener = bind(config).await?;
    // Boxed, so that the futures of all that start a server stay small.
    let db = Box::pin(connect(&config.database)).await?;
    main_secret::take_part(&db).await.context(CANNOT_USE)?;
    let metrics_listener = match config.metrics_listen {
        Some(address) => Some(listen(address, "POSTHASTE_METRICS_LISTEN").await?),
        None => None,
    };
    db.remember_keys_for(config.database.policy.ttl).await.context(CANNOT_USE)?;
    if roles != Roles::Worker {
        workers::watch(&db);
    }
    let request_timeout = config.worker.request_timeout;
    let lease = worker::lease(request_timeout);
    let (committer, worker) = if roles == Roles::Api {
        (committer::start(&db, committer::Options { lease, hand_off: None }), None)
    } else {
        let (hand_off, jobs) = hand_off::channel(worker::limits());
        let committer = committer::start(&db, committer::Options { lease, hand_off: Some(hand_off.clone()) });
        let outbox = Outbox::new(&db, committer.publisher.clone(), api::own_event);
        let worker = worker::start(config.worker.clone(), db.clone(), committer.completer.clone(), hand_off, jobs, outbox);
        (committer, Some(worker))
    };
    let address = listener.local_addr().context("cannot learn the listen address")?;
    let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{}", crate::reachable(address)));
    let takes = api::ListenerConfig {
        max_connections: config.max_client_connections.unwrap_or_else(connections_that_files_permit),
        has_metrics: metrics_listener.is_none(),
    };
    let metrics = metrics_listener.map(|listener| api::start_metrics(db.clone(), listener));
    let server = if roles == Roles::Worker {
        api::start_probes(db, listener, takes)
    } else {
        let config = api::Config {
            jwt_secrets: config.jwt_secrets.clone(),
            max_payload: config.max_payload,
            max_body_memory: config.max_body_memory,
            public_url: public_url.clone(),
            has_playground: config.has_playground,
            listener: takes,
            urls: UrlPolicy::new(config.is_https_only, EgressPolicy::new(config.worker.egress_allow.clone())),
        };
        api::start(config, db, committer.publisher.clone(), listener)
    };
    tracing::info!(?roles, %address, "started");
    Ok(Running { address, public_url, request_timeout, server, metrics, worker, committer })
}

impl Running {
    /// Stops in order: the listener, then the handlers, then the worker, which hands back what it has not begun and
    /// finishes the rest, then the committer. Takes at most the request timeout and five seconds.
    pub async fn stop(self) {
        let deadline = Instant::now() + self.request_timeout + STOP_PATIENCE;
        let mut handlers = Some(tokio::spawn(self.server.stop()));
        if let Some(running) = &mut handlers
            && tokio::time::timeout(HANDLER_PATIENCE, &mut *running).await.is_ok()
        {
            handlers = None;
        }
        if let Some(worker) = self.worker {
            worker.stop().await;
        }
        if let Some(running) = handlers
            && tokio::time::timeout_at(deadline.into(), running).await.is_err()
        {
            tracing::warn!("requests that did not end in time were cut off");
        }
        if tokio::time::timeout_at(deadline.into(), self.committer.stop()).await.is_err() {
            tracing::error!("the last results could not be written in time: those deliveries will be repeated");
        }
        if let Some(metrics) = self.metrics {
            let _ = tokio::time::timeout_at(deadline.into(), metrics.stop()).await;
        }
    }
}

/// Raises the number of open files to what the system permits: each send in flight and each idle connection is one, and the
/// usual 1024 are for programs that do not know better.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the number of open files: see `ulimit -n`");
    }
}

/// How many clients may be connected if nobody says: half of the files that may be open; the other half is for what is sent to
/// receivers, and for the database.
fn connections_that_files_permit() -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    (files / 2).saturating_sub(api::SPARE_CONNECTIONS).clamp(FEWEST_CONNECTIONS, MOST_CONNECTIONS)
}

async fn bind(config: &Config) -> Result<TcpListener> {
    match listen(config.listen, "POSTHASTE_LISTEN").await {
        Err(error) if config.may_take_another_port && is_taken(&error) => {
            TcpListener::bind((config.listen.ip(), 0)).await.context("cannot listen on any port")
        }
        bound => bound,
    }
}

async fn listen(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}: set {setting} to another address"))
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Connects to a database whose schema lets this program run on it.
pub(crate) async fn connect(database: &storage::Config) -> Result<Db> {
    match Db::schema_state(database).await.context(CANNOT_USE)? {
        SchemaState::Current => {}
        SchemaState::Behind => {
            bail!("the database's schema is older than this release: run `posthaste migrate` once, or start one server with --migrate")
        }
        SchemaState::Ahead(ahead) if ahead.is_allowed() => {
            tracing::info!(
                schema = ahead.schema,
                program = ahead.program,
                "a newer release has migrated the schema, and lets this one run on it"
            );
        }
        SchemaState::Ahead(ahead) => bail!("{}", too_old(ahead)),
    }
    match Db::connect(database).await {
        Err(storage::Error::Sealed) => bail!(
            "POSTHASTE_MAIN_SECRET is not the secret that this database was set up with: set it to that one (or, after a rotation, POSTHASTE_MAIN_SECRET_PREVIOUS)"
        ),
        connected => connected.context(CANNOT_USE),
    }
}

/// What is said of a schema that does not let this program run on it.
pub(crate) fn too_old(Ahead { schema, program, oldest_program }: Ahead) -> String {
    format!(
        "the database's schema was migrated by a newer release of Posthaste and needs one that knows migration {oldest_program}: it is at {schema}, and this release knows {program}; start a newer release"
    )
}
