//! The shipped program as a real process: started, watched, signalled, killed.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
};

use crate::{Client, JWT_SECRET, MAIN_SECRET, receiver::PATIENCE};

#[derive(Debug, Default)]
struct Log {
    text: Mutex<String>,
    lines: watch::Sender<usize>,
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Arc<Log>,
    readers: JoinSet<()>,
}

/// The ports below those that the system hands out by itself, so that nobody takes one between our look and its use.
const PORTS: std::ops::Range<u32> = 10_000..32_000;
/// How many ports have been looked at.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// A free port of loopback, which no other test of this run is given.
pub fn free_address() -> SocketAddr {
    loop {
        let step = std::process::id().wrapping_mul(131).wrapping_add(LOOKED_AT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + step % (PORTS.end - PORTS.start)).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
}

/// A command with nothing in its environment but PATH and these variables.
pub fn command(program: impl AsRef<Path>, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
    command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// What every command that speaks to this database needs; a server listens on a free port.
pub fn environment(database_url: &str) -> [(&str, &str); 4] {
    [
        ("POSTHASTE_DATABASE_URL", database_url),
        ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
        ("POSTHASTE_JWT_SECRET", JWT_SECRET),
        ("POSTHASTE_LISTEN", "127.0.0.1:0"),
    ]
}

/// Runs a command to its end; returns its status, its standard output and its standard error.
pub async fn run(mut command: Command) -> (ExitStatus, String, String) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    run_as_it_is(command).await
}

/// The same of a command whose output may go elsewhere.
pub async fn run_as_it_is(mut command: Command) -> (ExitStatus, String, String) {
    let child = command.spawn().expect("it starts");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").expect("it is waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

impl Process {
    /// Starts a command and keeps all that it prints.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let log = Arc::<Log>::default();
        let mut readers = JoinSet::new();
        readers.spawn(keep(child.stdout.take().expect("a pipe"), log.clone()));
        readers.spawn(keep(child.stderr.take().expect("a pipe"), log.clone()));
        Self { child, log, readers }
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        self.log.text.lock().clone()
    }

    /// Waits until it has printed `text`, and returns the line.
    pub async fn printed(&mut self, text: &str) -> String {
        let mut lines = self.log.lines.subscribe();
        let line = || self.log.text.lock().lines().find(|line| line.contains(text)).map(str::to_owned);
        let found = tokio::time::timeout(PATIENCE, lines.wait_for(|_| line().is_some())).await.is_ok();
        line().filter(|_| found).unwrap_or_else(|| panic!("it never printed `{text}`:\n{}", self.log()))
    }

    /// Its process id.
    pub fn id(&self) -> Pid {
        self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("a running process")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it is running");
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = end.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log.text.lock())).expect("it can be waited for");
        // Its last words may still be in the pipe.
        while self.readers.join_next().await.is_some() {}
        status
    }

    /// Whether it has ended already.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be looked at").is_some()
    }
}

async fn keep(output: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = log.text.lock();
        text.push_str(&line);
        text.push('\n');
        drop(text);
        log.lines.send_modify(|lines| *lines += 1);
    }
}

/// The server as a process.
#[derive(Debug)]
pub struct ServerProcess {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// Asks it.
    pub client: Client,
}

impl ServerProcess {
    /// Starts `program role` on this database; `more` adds to or overrides the environment.
    pub fn spawn(program: &str, role: &str, database_url: &str, tenant: &str, address: SocketAddr, more: &[(&str, &str)]) -> Self {
        let listen = address.to_string();
        let mut environment = vec![
            ("POSTHASTE_DATABASE_URL", database_url),
            ("POSTHASTE_JWT_SECRET", JWT_SECRET),
            ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
            ("POSTHASTE_EGRESS_ALLOW", "127.0.0.0/8"),
            ("POSTHASTE_LISTEN", &listen),
        ];
        environment.extend_from_slice(more);
        let process = Process::spawn(command(program, &[role], &environment));
        let client = Client::new(&format!("http://{address}"), Some(&crate::token(tenant)));
        Self { process, address, client }
    }

    /// Starts it on a free port and waits until it answers.
    pub async fn start(program: &str, role: &str, database_url: &str, tenant: &str, more: &[(&str, &str)]) -> Self {
        let mut server = Self::spawn(program, role, database_url, tenant, free_address(), more);
        server.ready().await;
        server
    }

    /// Waits until it answers; fails at once if it has ended instead.
    pub async fn ready(&mut self) {
        let client = self.client.clone();
        let process = &mut self.process;
        crate::eventually("the server answers", async || {
            assert!(!process.has_ended(), "it ended:\n{}", process.log());
            client.request("GET", "/api/v1/health/ping").try_send().await.ok()
        })
        .await;
    }
}
