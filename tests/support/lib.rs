//! The harness of the scenarios: a real server in this process, real receivers, a real Postgres.
//!
//! Reading order:
//! [`App`] a server with a database of its own · [`client`] asks it, and holds each answer against the contract ·
//! [`customer`] an application with endpoints · [`project`] a tenant as Convoy's clients know it · [`receiver`] gets the webhooks · [`database`] looks at rows and moves time ·
//! [`clock`] sets the database's time · [`processes`] the shipped program as a process · [`proxy`] cuts connections · [`pooler`] PgBouncer ·
//! [`outgoing`] is a proxy that webhooks go through · [`tls`] issues certificates · [`cluster`] Postgres itself · [`pair`] two of them ·
//! [`contract`] `openapi.yaml` · [`scrape`] reads the metrics.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use cli::{
    config::Config,
    server::{self, Running},
};
use domain::{idempotency::Policy, retry::RetrySchedule};
use rand::distr::{Alphanumeric, SampleString};

pub mod client;
pub mod clock;
pub mod cluster;
pub mod contract;
pub mod customer;
pub mod database;
pub mod outgoing;
pub mod pair;
pub mod pooler;
pub mod processes;
pub mod project;
pub mod proxy;
pub mod receiver;
mod record;
pub mod scrape;
pub mod tls;
pub mod witness;

pub use cli::server::Roles;
pub use client::{Answer, Client};
pub use clock::Clock;
pub use customer::{Attempt, Customer};
pub use database::Database;
pub use project::Project;
pub use receiver::{Gate, PATIENCE, Received, Receiver, Reply};

/// Signs the tokens of the tests.
pub const JWT_SECRET: &str = "a secret for the tests alone";
/// Seals the secrets of the tests.
pub const MAIN_SECRET: &str = "a main secret of forty characters, or so";

/// What every node of the tests calls itself in the URLs that it hands out.
pub const PUBLIC_URL: &str = "https://hooks.example.com";

/// Polls until `probe` brings something: for facts that nobody signals, such as rows.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// The subject of a tenant that nobody has used.
pub fn new_tenant() -> String {
    format!("org_{}", Alphanumeric.sample_string(&mut rand::rng(), 27))
}

/// A bearer token of a tenant.
pub fn token(tenant: &str) -> String {
    api::mint_token(JWT_SECRET, tenant, chrono::Utc::now())
}

/// A bearer token of one application of a tenant.
pub fn application_token(tenant: &str, application: &str) -> String {
    let application = domain::id::Id::parse(application).expect("the id of an application");
    api::mint_application_token(JWT_SECRET, tenant, application, chrono::Utc::now())
}

/// A key of a tenant.
pub async fn api_key(database: &Database, tenant: &str, role: domain::api_key::Role) -> String {
    let db = storage::Db::connect(&database::config(&database.url)).await.expect("a database");
    let (key, _) = storage::api_keys::create(&db, tenant, "of a test", role, None).await.expect("a key");
    key.expose().to_owned()
}

/// What differs from a server with its defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The waits between attempts.
    pub schedule: Vec<Duration>,
    /// The deadline of one attempt.
    pub request_timeout: Duration,
    /// Networks that may be called although they are private.
    pub egress_allow: Vec<&'static str>,
    /// The proxy through which receivers are called.
    pub egress_proxy: Option<worker::Proxy>,
    /// Whether endpoints must have https URLs.
    pub is_https_only: bool,
    /// How idempotency keys are treated.
    pub policy: Policy,
    /// Larger bodies are refused.
    pub max_payload: usize,
    /// How much of all bodies is held at a time.
    pub max_body_memory: usize,
    /// Which signature headers are sent.
    pub signature_headers: worker::SignatureHeaders,
    /// How long messages are kept.
    pub retention: Duration,
    /// Which halves run.
    pub roles: Roles,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schedule: RetrySchedule::default().0,
            request_timeout: Duration::from_secs(15),
            egress_allow: vec!["127.0.0.0/8"],
            egress_proxy: None,
            is_https_only: false,
            policy: Policy::default(),
            max_payload: 1024 * 1024,
            max_body_memory: 256 * 1024 * 1024,
            signature_headers: worker::SignatureHeaders::Both,
            retention: Duration::from_hours(90 * 24),
            roles: Roles::Both,
        }
    }
}

impl Options {
    /// A schedule of `n` retries, a moment apart each.
    pub fn retries(n: usize) -> Self {
        Self { schedule: vec![Duration::from_millis(10); n], ..Self::default() }
    }
}

/// One server in this process.
#[derive(Debug)]
pub struct Node {
    /// Asks it, as the app's tenant.
    pub client: Client,
    /// Where it listens.
    pub address: SocketAddr,
    running: Running,
}

impl Node {
    /// A server on a free port of loopback.
    pub async fn start(database_url: &str, options: &Options, token: &str) -> Self {
        let config = Config {
            database: storage::Config { policy: options.policy, ..database::config(database_url) },
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            metrics_listen: None,
            max_client_connections: None,
            may_take_another_port: false,
            jwt_secrets: vec![JWT_SECRET.into()],
            max_payload: options.max_payload,
            max_body_memory: options.max_body_memory,
            public_url: Some(PUBLIC_URL.into()),
            has_playground: false,
            is_https_only: options.is_https_only,
            worker: worker::Config {
                egress_allow: options.egress_allow.iter().map(|net| net.parse().expect("a network")).collect(),
                egress_ca: worker::Authorities::default(),
                egress_proxy: options.egress_proxy.clone(),
                schedule: RetrySchedule(options.schedule.clone()),
                request_timeout: options.request_timeout,
                signature_headers: options.signature_headers,
                retention: options.retention,
            },
        };
        let running = server::start(&config, options.roles).await.expect("the server starts");
        Self { client: Client::new(&format!("http://{}", running.address), Some(token)), address: running.address, running }
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// A server with a database of its own and one tenant.
#[derive(Debug)]
pub struct App {
    /// Asks the server as the tenant.
    pub client: Client,
    /// The tenant's subject.
    pub tenant: String,
    /// The server.
    pub node: Node,
    /// Its database.
    pub database: Database,
    options: Options,
}

impl App {
    /// A server with its defaults, except that loopback may be called.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A server with these options.
    pub async fn with(options: Options) -> Self {
        let database = Database::create().await;
        let tenant = new_tenant();
        let node = Node::start(&database.url, &options, &token(&tenant)).await;
        Self { client: node.client.clone(), tenant, node, database, options }
    }

    /// A second server on the same database.
    pub async fn second_node(&self) -> Node {
        self.node_with(&self.options).await
    }

    /// A further server on the same database, with other options.
    pub async fn node_with(&self, options: &Options) -> Node {
        Node::start(&self.database.url, options, &token(&self.tenant)).await
    }

    /// An API on the same database whose operator allows every address, so that endpoints may be written that others never call.
    pub async fn carefree_node(&self) -> Node {
        self.node_with(&Options { egress_allow: vec!["0.0.0.0/0", "::/0"], roles: Roles::Api, ..Options::default() }).await
    }

    /// A new application.
    pub async fn customer(&self) -> Customer {
        Customer::create(&self.client).await
    }

    /// The official SDK, pointed at this server through a witness that holds each answer against the contract.
    pub async fn sdk(&self) -> svix::api::Svix {
        witness::sdk(&self.client).await
    }
}

/// Bytes as `bytea` is shown, and as signatures are written: two small digits each.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
