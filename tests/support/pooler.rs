//! A real PgBouncer before a test's database.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    cluster::{self, Place},
    eventually,
    processes::{Process, command, free_address},
};

/// Where Debian puts it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A running pooler; it ends with this.
#[derive(Debug)]
pub struct Pooler {
    /// The URL of the database by way of it.
    pub url: String,
    /// Its process.
    pub process: Process,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one that lends sessions for a `session`, a `transaction` or a `statement`, with no other setting than it needs.
    pub async fn start(database_url: &str, pool_mode: &str) -> Self {
        let address = free_address();
        let folder = tempfile::Builder::new().prefix("posthaste-pooler-").tempdir().expect("a temporary folder");
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings(database_url, address, pool_mode)).expect("a file");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let process = Process::spawn(as_owner(database_url, &file));
        let is_up = async || TcpStream::connect(address).await.ok();
        eventually("the pooler listens (is Debian's package pgbouncer installed?)", is_up).await;
        Self { url: format!("postgres://posthaste@{address}/posthaste"), process, _folder: folder }
    }
}

fn settings(database_url: &str, address: SocketAddr, pool_mode: &str) -> String {
    let url = url::Url::parse(database_url).expect("a database URL");
    let (host, port) = match cluster::place_of(database_url) {
        Place::Socket(path) => (path.parent().expect("a folder").display().to_string(), url.port().unwrap_or(5432)),
        Place::Port(address) => (address.ip().to_string(), address.port()),
    };
    let password = url.password().map(|password| format!(" password={password}")).unwrap_or_default();
    let (database, user) = (cluster::database_of(database_url), url.username());
    format!(
        "[databases]\nposthaste = host={host} port={port} dbname={database} user={user}{password}\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n\
         max_client_conn = 200\ndefault_pool_size = 50\n",
        address.ip(),
        address.port()
    )
}

/// It refuses to run as root: then it runs as the user who may enter the folder of the cluster's socket.
fn as_owner(database_url: &str, file: &Path) -> tokio::process::Command {
    let file = file.display().to_string();
    if !rustix::process::geteuid().is_root() {
        return command(PROGRAM, &[&file], &[]);
    }
    let owner = match cluster::place_of(database_url) {
        Place::Socket(path) => fs::metadata(path.parent().expect("a folder")).map(|folder| (folder.uid(), folder.gid())).expect("a folder"),
        Place::Port(_) => (65_534, 65_534),
    };
    let (user, group) = (owner.0.to_string(), owner.1.to_string());
    command("setpriv", &["--reuid", &user, "--regid", &group, "--clear-groups", PROGRAM, &file], &[])
}
