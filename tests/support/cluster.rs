//! The Postgres of the tests: one cluster for all scenarios of a run, and clusters of their own for those that crash it.

use std::{
    env,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use embedded::{Cluster, Durability, Error, Options};
use tempfile::TempDir;

/// How many test runs may go on at once on one machine.
const RUNS: usize = 16;

/// Where a Postgres can be reached.
#[derive(Clone, Debug)]
pub enum Place {
    /// A TCP port.
    Port(SocketAddr),
    /// A Unix socket.
    Socket(PathBuf),
}

/// The cluster that the scenarios of one run share; it is used again by the next run.
#[derive(Debug)]
pub enum Shared {
    /// Ours. It forgets its commits in a crash of the machine, which makes it fast.
    Embedded(Cluster),
    /// The one that `POSTHASTE_DATABASE_URL` names; its user must be allowed to create databases.
    External(url::Url),
}

impl Shared {
    /// Finds or starts it.
    pub async fn start() -> Self {
        if let Ok(url) = env::var("POSTHASTE_DATABASE_URL") {
            return Self::External(url.parse().expect("POSTHASTE_DATABASE_URL is a URL"));
        }
        let options = Options { durability: Durability::Relaxed, ..Options::default() };
        let user = rustix::process::geteuid().as_raw();
        for run in 0..RUNS {
            let folder = env::temp_dir().join(format!("posthaste-tests-{user}-{run}"));
            match Cluster::start_with(&folder, &options).await {
                Ok(cluster) => return Self::Embedded(cluster),
                Err(Error::InUse(_)) => {}
                Err(error) => panic!("the tests need a Postgres: {error}"),
            }
        }
        panic!("{RUNS} test runs are going on at once");
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        match self {
            Self::Embedded(cluster) => cluster.url(database),
            Self::External(url) => {
                let mut url = url.clone();
                url.set_path(database);
                url.into()
            }
        }
    }
}

/// The name of the database that a URL names.
pub fn database_of(url: &str) -> String {
    url::Url::parse(url).expect("a database URL").path().trim_start_matches('/').to_owned()
}

/// Where the server of a database URL listens.
pub fn place_of(url: &str) -> Place {
    let url = url::Url::parse(url).expect("a database URL");
    let port = url.port().unwrap_or(5432);
    let folder = url.query_pairs().find(|(name, _)| name == "host").map(|(_, folder)| folder.into_owned());
    if let Some(folder) = folder {
        return Place::Socket(Path::new(&folder).join(format!(".s.PGSQL.{port}")));
    }
    let addresses = (url.host_str().unwrap_or("localhost"), port).to_socket_addrs();
    Place::Port(addresses.ok().and_then(|mut found| found.next()).expect("the database's host has an address"))
}

/// The URL of the same database by way of a proxy.
pub fn url_through(url: &str, proxy: SocketAddr) -> String {
    let mut url = url::Url::parse(url).expect("a database URL");
    let kept: Vec<_> = url.query_pairs().filter(|(name, _)| name != "host").map(|(name, value)| format!("{name}={value}")).collect();
    url.set_query(Some(&kept.join("&")));
    url.set_host(Some("127.0.0.1")).expect("an address is a host");
    url.set_port(Some(proxy.port())).expect("a port");
    url.into()
}

/// A durable cluster that a test may crash.
#[derive(Debug)]
pub struct Own {
    folder: TempDir,
    cluster: Option<Cluster>,
}

impl Own {
    /// Starts one in a folder of its own.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("posthaste-own-").tempdir().expect("a temporary folder");
        let mut own = Self { folder, cluster: None };
        own.restart().await;
        own
    }

    /// Starts it again, through recovery if it was stopped at once.
    pub async fn restart(&mut self) {
        let options = Options { durability: Durability::Full, ..Options::default() };
        self.cluster = Some(Cluster::start_with(self.folder.path(), &options).await.expect("a cluster"));
    }

    /// Stops it as a crash would: nothing is written out.
    pub async fn crash(&mut self) {
        self.cluster.take().expect("a running cluster").stop_at_once().await;
    }

    /// Makes a database and migrates it; returns its URL.
    pub async fn database(&self, name: &str) -> String {
        let cluster = self.cluster.as_ref().expect("a running cluster");
        cluster.create_database(name, None).await.expect("a new database");
        let url = cluster.url(name);
        storage::Db::migrate(&crate::database::config(&url)).await.expect("a new database can be migrated");
        url
    }

    /// Makes an empty database; returns its URL.
    pub async fn empty_database(&self, name: &str) -> String {
        let cluster = self.cluster.as_ref().expect("a running cluster");
        cluster.create_database(name, None).await.expect("a new database");
        cluster.url(name)
    }
}
