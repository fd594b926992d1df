//! A private Postgres cluster for `dev` and for the tests.
//!
//! [`binaries`] finds the server's programs · `download` brings them, if this was built with that · [`home`] the cluster's folder and its owner · [`server`] one
//! running server and the watcher that ends it with us.
//!
//! The cluster listens on a Unix socket in a folder that only its owner may enter, and on no TCP port: so several run side
//! by side, and nobody else on the machine can connect although no password is asked.

mod binaries;
#[cfg(feature = "download")]
mod download;
mod home;
mod server;

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, postgres::PgConnectOptions};
use thiserror::Error;

use binaries::Binaries;
use home::Home;
use server::{How, Server};

/// Why there is no cluster. Each text is one sentence for the person who typed the command.
#[derive(Debug, Error)]
pub enum Error {
    /// No server programs, and none could be downloaded. The text says why not, if it was tried.
    #[error(
        "no Postgres server (version 15 or later) was found{0}: install it with `apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora) or `brew install postgresql@17` (macOS)"
    )]
    NoBinaries(String),
    /// The cluster was made by another major version than the ones at hand.
    #[error("the cluster in {home} was made by Postgres {major}, which was not found: install that version, or choose another data folder")]
    OtherVersion {
        /// Where it is.
        home: String,
        /// What made it.
        major: u32,
    },
    /// Another process runs this cluster.
    #[error("another process is running the cluster in {0}: stop it first, or choose another data folder")]
    InUse(String),
    /// A Postgres that an earlier process left behind does not end.
    #[error("a Postgres left over from an earlier run is still using {0} and does not stop: end it by hand")]
    LeftOver(String),
    /// A folder or file of the cluster cannot be used.
    #[error("cannot use {0} for the cluster: {1}")]
    Folder(String, #[source] io::Error),
    /// The path cannot be part of a connection URL.
    #[error("the path {0} cannot be used for a cluster: choose a data folder whose path is plain text, without control characters")]
    Path(String),
    /// One of Postgres' programs failed.
    #[error("{program} failed: {last_line}")]
    Program {
        /// Which one.
        program: &'static str,
        /// The end of what it said.
        last_line: String,
    },
    /// The server ended before it took connections, or took none in time.
    #[error("Postgres did not start: {last_line} (the whole log is {log})")]
    NotStarted {
        /// The end of its log.
        last_line: String,
        /// Where its log is.
        log: String,
    },
    /// A statement of ours failed.
    #[error("the cluster refused a statement: {0}")]
    Statement(#[source] sqlx::Error),
}

/// Where server programs are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Search {
    /// On PATH and in the folders of Debian, Fedora and Homebrew; the newest first.
    #[default]
    Usual,
    /// In these folders alone.
    Only(Vec<PathBuf>),
}

/// Whether commits survive a crash of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// They do: Postgres' defaults.
    #[default]
    Full,
    /// They do not (`fsync`, `full_page_writes` and `synchronous_commit` are off): fast, for tests that do not crash it.
    Relaxed,
}

/// How a cluster is found and run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to look for server programs.
    pub search: Search,
    /// Whether to download them if there are none (within 60 seconds).
    pub download: bool,
    /// Whether commits survive a crash of the machine.
    pub durability: Durability,
}

impl Default for Options {
    fn default() -> Self {
        Self { search: Search::Usual, download: true, durability: Durability::Full }
    }
}

/// A running cluster. It is stopped when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    socket_folder: String,
}

impl Cluster {
    /// Runs the cluster of this data folder with the default options; makes both if need be.
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        Self::start_with(data_dir, &Options::default()).await
    }

    /// Runs the cluster of this data folder; makes both if need be. As root the cluster belongs to an unprivileged user,
    /// because Postgres refuses to run as root.
    pub async fn start_with(data_dir: &Path, options: &Options) -> Result<Self, Error> {
        let home = Home::open(data_dir)?;
        let made_by = home.made_by()?;
        let binaries = Binaries::find(&home, options, made_by).await?;
        server::evict(&home).await?;
        if made_by.is_none() {
            initialise(&home, &binaries, options.durability).await?;
        }
        let socket_folder = home.socket_folder()?;
        let server = Server::spawn(home, &binaries, &socket_folder, options.durability)?;
        let mut cluster = Self { server, socket_folder };
        let probe = cluster.options("postgres")?;
        cluster.server.wait_until_ready(&probe).await?;
        Ok(cluster)
    }

    /// The URL of one of its databases; the same each time that the cluster of this folder runs.
    pub fn url(&self, database: &str) -> String {
        url(&self.socket_folder, database)
    }

    /// Makes a database, as a copy of `template` if one is named; nobody may be connected to the template meanwhile.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<(), Error> {
        let template = template.map(|template| format!(" template {}", quoted(template))).unwrap_or_default();
        self.execute(format!("create database {}{template}", quoted(name))).await
    }

    /// Whether there is a database of this name.
    pub async fn has_database(&self, name: &str) -> Result<bool, Error> {
        match self.options(name)?.connect().await {
            Ok(connection) => connection.close().await.map(|()| true).map_err(Error::Statement),
            // 3D000: invalid_catalog_name.
            Err(error) if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("3D000")) => Ok(false),
            Err(error) => Err(Error::Statement(error)),
        }
    }

    /// Stops the server in an orderly way: open connections are cut, everything is on disk.
    pub async fn stop(mut self) {
        self.server.stop(How::Fast).await;
    }

    /// Stops the server as a crash of Postgres would: the next start goes through recovery.
    pub async fn stop_at_once(mut self) {
        self.server.stop(How::Immediate).await;
    }

    async fn execute(&self, statement: String) -> Result<(), Error> {
        let mut connection = self.options("postgres")?.connect().await.map_err(Error::Statement)?;
        connection.execute(AssertSqlSafe(statement)).await.map_err(Error::Statement)?;
        connection.close().await.map_err(Error::Statement)
    }

    fn options(&self, database: &str) -> Result<PgConnectOptions, Error> {
        self.url(database).parse().map_err(Error::Statement)
    }
}

/// Makes the cluster beside its final place and then moves it there, so that one that was interrupted is never taken for
/// a whole one.
async fn initialise(home: &Home, binaries: &Binaries, durability: Durability) -> Result<(), Error> {
    let unfinished = home.new_unfinished_data()?;
    let mut command = Command::new(binaries.program("initdb"));
    command.args(["--username=postgres", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--pgdata"]);
    command.arg(&unfinished);
    if durability == Durability::Relaxed {
        command.arg("--no-sync");
    }
    home.owner().apply(&mut command);
    let output = tokio::task::spawn_blocking(move || command.output()).await.map_err(io::Error::other).flatten();
    let output = output.map_err(|error| Error::Program { program: "initdb", last_line: error.to_string() })?;
    if !output.status.success() {
        let last_line = last_line(&String::from_utf8_lossy(&output.stderr));
        return Err(Error::Program { program: "initdb", last_line });
    }
    home.accept_unfinished_data()
}

fn url(socket_folder: &str, database: &str) -> String {
    // The port is only part of the socket's name. It and sslmode are given so that PGPORT and PGSSLMODE do not matter.
    format!(
        "postgres://postgres@localhost:{}/{}?host={}&sslmode=disable",
        server::PORT,
        percent_encoded(database),
        percent_encoded(socket_folder)
    )
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;

    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String does not fail");
        }
        encoded
    })
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// The last line that says something, for an error of one sentence; a FATAL one if there is any.
fn last_line(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let fatal = lines().rfind(|line| line.contains("FATAL:") || line.contains("error:"));
    fatal.or_else(|| lines().next_back()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests;
