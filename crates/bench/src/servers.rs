//! The programs that are measured: started as processes, watched, and killed at the end of a run.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin},
};

use crate::{Error, Result, process, wire::Connection};

/// How long a server may take to answer for the first time, migrations included.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// How often we look whether it does.
const GLANCE: Duration = Duration::from_millis(20);

/// Prints the program's process id, and kills it when the pipe on standard input closes: because we said so, or because we
/// died, however suddenly.
const WATCHER: &str = r#"
exec 3<&0 </dev/null
log=$1
shift
"$@" 3<&- >"$log" 2>&1 &
server=$!
echo "$server"
(
    read -r _ <&3
    kill -s KILL "$server"
) >/dev/null 2>&1 &
exec 3<&-
wait "$server"
"#;

/// Makes the command that runs a server on a database, listening on an address.
pub type Start = Box<dyn Fn(&str, SocketAddr) -> Command + Send + Sync>;

/// How the programs are started. What they read from their environment is not for this crate to know.
pub struct Launcher {
    /// The server with its defaults, on a database, listening on an address; it brings the schema up to date first.
    pub serve: Start,
    /// The null server, listening on an address.
    pub null_server: Box<dyn Fn(SocketAddr) -> Command + Send + Sync>,
    /// A bearer token of the servers.
    pub token: String,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Launcher")
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    watcher: Child,
    /// Closed, it ends the server.
    pipe: Option<ChildStdin>,
    pid: u32,
    pub(crate) address: SocketAddr,
    token: String,
    log: PathBuf,
}

impl Server {
    /// Starts one and waits until it answers. What it logs goes to a file of this folder, as it would in production.
    pub(crate) async fn start(launch: impl FnOnce(SocketAddr) -> Command, token: &str, folder: &Path) -> Result<Self> {
        let failed = |error| Error::Io("cannot start a server", error);
        let address = free_address().map_err(failed)?;
        let log = folder.join(format!("server-{}.log", address.port()));
        let mut watcher = tokio::process::Command::from(watched(&launch(address), &log)).spawn().map_err(failed)?;
        let pipe = watcher.stdin.take();
        let mut line = String::new();
        if let Some(output) = watcher.stdout.take() {
            BufReader::new(output).read_line(&mut line).await.map_err(failed)?;
        }
        let pid = line.trim().parse().map_err(|_| Error::Server("it could not be started".to_owned()))?;
        let mut server = Self { watcher, pipe, pid, address, token: token.to_owned(), log };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < START_PATIENCE {
            if matches!(self.call("GET", "/api/v1/health", &Value::Null).await, Ok((200..=299, _))) {
                return Ok(());
            }
            if let Ok(Some(_)) = self.watcher.try_wait() {
                return Err(Error::Server(self.last_words()));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Err(Error::Server(self.last_words()))
    }

    /// Makes something, and returns it.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        self.change("POST", path, body).await
    }

    /// Asks for a change, which must succeed.
    pub(crate) async fn change(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.call(method, path, body).await.map_err(|error| Error::Io("the server does not answer", error))?;
        if (200..=299).contains(&status) {
            Ok(answer)
        } else {
            Err(Error::Server(format!("{method} {path} was answered {status}: {answer}")))
        }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len(),
        );
        let mut connection = Connection::open(self.address).await?;
        let (status, answer) = tokio::time::timeout(START_PATIENCE, connection.call(request.as_bytes())).await??;
        Ok((status, serde_json::from_slice(answer).unwrap_or(json!({}))))
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu(&self) -> Option<f64> {
        process::cpu(self.pid)
    }

    /// Megabytes of memory: as it is, and the most so far.
    pub(crate) fn memory(&self) -> Option<(f64, f64)> {
        process::memory(self.pid)
    }

    /// Kills it.
    pub(crate) async fn stop(mut self) {
        drop(self.pipe.take());
        // An error means that it has ended already.
        let _ = self.watcher.wait().await;
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().next_back().unwrap_or("the server ended and said nothing").to_owned()
    }
}

/// The same command under the watcher.
fn watched(command: &Command, log: &Path) -> Command {
    let mut watched = Command::new("sh");
    watched.arg("-c").arg(WATCHER).arg("posthaste-bench").arg(log).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => watched.env(name, value),
            None => watched.env_remove(name),
        };
    }
    watched.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    watched
}

/// A port of loopback that nobody listens on at this moment.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr())
}
