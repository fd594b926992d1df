//! A Postgres and its synchronous standby, to be failed over.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use embedded::{Cluster, Durability, Options};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    cluster::{place_of, url_through},
    database::{self, Database},
    eventually,
    proxy::Proxy,
};

/// The database of the test.
const NAME: &str = "failed_over";

/// One of the two servers.
#[derive(Debug)]
struct Server {
    cluster: Cluster,
    proxy: Proxy,
    folder: TempDir,
}

impl Server {
    async fn start(folder: TempDir) -> Self {
        let options = Options { durability: Durability::Full, ..Options::default() };
        let cluster = Cluster::start_with(folder.path(), &options).await.expect("a cluster");
        let proxy = Proxy::to(place_of(&cluster.url("postgres"))).await;
        Self { cluster, proxy, folder }
    }

    fn url(&self) -> String {
        self.cluster.url(NAME)
    }

    /// Kills each of its processes, as the end of its machine does.
    fn kill(&self) {
        let data = data_of(&self.folder).canonicalize().expect("a cluster");
        for entry in fs::read_dir("/proc").expect("a list of processes").flatten() {
            if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data) {
                let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
                // It may have ended by itself meanwhile.
                kill_process(pid.expect("a number"), Signal::KILL).ok();
            }
        }
    }
}

/// The two of them. What commits on the first is on the second before anybody hears of it.
#[derive(Debug)]
pub struct Pair {
    first: Server,
    second: Server,
    /// The way by which the second gets what the first writes.
    pub replication: Proxy,
}

impl Pair {
    /// Starts both, with a migrated database.
    pub async fn start() -> Self {
        let first = Server::start(folder()).await;
        first.cluster.create_database(NAME, None).await.expect("a new database");
        storage::Db::migrate(&database::config(&first.url())).await.expect("a new database can be migrated");
        let replication = Proxy::to(place_of(&first.url())).await;
        let copy = folder();
        copy_cluster(&first, replication.address, &copy).await;
        let second = Server::start(copy).await;
        // Not before it is copied: the second has no standby of its own to wait for.
        let database = Database::existing(&first.url());
        database.execute("alter system set synchronous_standby_names = '*'").await;
        database.execute("select pg_reload_conf()").await;
        let standbys = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        eventually("the standby is synchronous", async || (database.number(standbys).await == 1).then_some(())).await;
        Self { first, second, replication }
    }

    /// The database, on whichever server takes writes.
    pub fn url(&self) -> String {
        let hosts = format!("{},{}", self.first.proxy.address, self.second.proxy.address);
        let one = url_through(&self.first.url(), self.first.proxy.address);
        one.replace(&self.first.proxy.address.to_string(), &hosts) + "&target_session_attrs=read-write"
    }

    /// The database on the first server.
    pub fn first(&self) -> Database {
        Database::existing(&self.first.url())
    }

    /// The database on the second server.
    pub fn second(&self) -> Database {
        Database::existing(&self.second.url())
    }

    /// Where the second server alone is.
    pub fn second_url(&self) -> String {
        url_through(&self.second.url(), self.second.proxy.address)
    }

    /// Kills the first server and makes the second the one that takes writes.
    pub async fn fail_over(&self) {
        self.first.kill();
        self.second().execute("select pg_promote()").await;
    }
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("posthaste-pair-").tempdir().expect("a temporary folder");
    // Postgres runs as another user if we are root.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).expect("a folder of ours");
    folder
}

fn data_of(folder: &TempDir) -> PathBuf {
    folder.path().join("postgres/data")
}

/// Makes the cluster of `copy` a standby of `first`, which it reaches at `address`.
async fn copy_cluster(first: &Server, address: SocketAddr, copy: &TempDir) {
    let data = data_of(&first.folder);
    let owner = fs::metadata(&data).expect("a cluster");
    let home = copy.path().join("postgres");
    fs::create_dir(&home).expect("an empty folder");
    fs::set_permissions(&home, Permissions::from_mode(0o700)).expect("a folder of ours");
    chown(&home, Some(owner.uid()), Some(owner.gid())).expect("we may give it away");
    let version = fs::read_to_string(data.join("PG_VERSION")).expect("a version");
    let mut command = Command::new(program(version.trim(), "pg_basebackup"));
    command.args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--username=postgres", "--pgdata"]).arg(data_of(copy));
    command.args(["--host=127.0.0.1", &format!("--port={}", address.port())]);
    command.uid(owner.uid()).gid(owner.gid()).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let copied = command.output().await.expect("pg_basebackup starts");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

/// A program of this version of Postgres: where Debian, Fedora or nobody in particular has it.
fn program(version: &str, name: &str) -> PathBuf {
    let folders = [format!("/usr/lib/postgresql/{version}/bin"), format!("/usr/pgsql-{version}/bin")];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|program| program.exists());
    found.unwrap_or_else(|| name.into())
}
