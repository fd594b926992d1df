//! One running server: its settings, the watcher that ends it with us, and the eviction of one that was left behind.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};

use super::{Durability, Error, binaries::Binaries, home::Home, last_line};

/// Part of the socket's name; nothing listens on TCP.
pub(super) const PORT: u16 = 5432;
/// How often we look whether something has come true that nobody tells us.
const GLANCE: Duration = Duration::from_millis(10);
/// How long a start may take, crash recovery included.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// How long a server may take to stop before it is killed. The watcher turns a fast stop into an immediate one sooner.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// What a leftover server is given before it is signalled: its own watcher is usually ending it already.
const LEFT_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the server as its child, and stops it when the pipe on standard input closes: because we said so, or because we
/// died, however suddenly. A line on the pipe names the signal; else it is SIGINT, a fast shutdown, and after five
/// seconds SIGQUIT, an immediate one, which is as safe as a crash.
const WATCHER: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    read -r signal <&3
    kill -s "${signal:-INT}" "$server"
    tries=0
    while kill -0 "$server" && [ "$tries" -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s QUIT "$server"
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Cut connections, write everything out, end.
    Fast,
    /// End; the next start recovers.
    Immediate,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pipe: Option<ChildStdin>,
    how: How,
    home: Home,
    socket_folder: String,
}

impl Server {
    /// Starts the server of this home; it does not take connections yet.
    pub(super) fn spawn(home: Home, binaries: &Binaries, socket_folder: &str, durability: Durability) -> Result<Self, Error> {
        let log = home.new_log()?;
        let failed = |error: io::Error| Error::Program { program: "postgres", last_line: error.to_string() };
        let mut command = Command::new("sh");
        command.arg("-c").arg(WATCHER).arg("posthaste-postgres").arg(binaries.program("postgres")).arg("-D").arg(home.data());
        for setting in settings(socket_folder, durability) {
            command.arg("-c").arg(setting);
        }
        home.owner().apply(&mut command);
        // A group of its own: the Ctrl-C that is meant for us must not stop the database under our feet.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        let mut child = command.spawn().map_err(failed)?;
        let pipe = child.stdin.take();
        // A relaxed cluster is thrown away afterwards: no time is spent on writing it out.
        let how = if durability == Durability::Full { How::Fast } else { How::Immediate };
        Ok(Self { child, pipe, how, home, socket_folder: socket_folder.to_owned() })
    }

    /// Returns once the server takes connections.
    pub(super) async fn wait_until_ready(&mut self, options: &PgConnectOptions) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let refusal = match options.connect().await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) => error,
            };
            let has_ended = !matches!(self.child.try_wait(), Ok(None));
            if has_ended || begun.elapsed() > START_PATIENCE {
                let said = fs::read_to_string(self.home.log()).unwrap_or_default();
                let last_line = if has_ended { last_line(&said) } else { refusal.to_string() };
                return Err(Error::NotStarted { last_line, log: self.home.log().display().to_string() });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Stops the server and returns once it is gone.
    pub(super) async fn stop(&mut self, how: How) {
        self.ask_to_stop(how);
        let begun = Instant::now();
        while !self.has_ended(begun) {
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn ask_to_stop(&mut self, how: How) {
        if let Some(mut pipe) = self.pipe.take()
            && how == How::Immediate
        {
            // If the watcher is gone there is nobody to tell, and `has_ended` sees to the server.
            let _ = pipe.write_all(b"QUIT\n");
        }
    }

    /// Whether everything is over; what lasts too long, or has lost its watcher, is killed.
    fn has_ended(&mut self, begun: Instant) -> bool {
        let is_late = begun.elapsed() > STOP_PATIENCE;
        let has_watcher_ended = !matches!(self.child.try_wait(), Ok(None));
        if is_late || has_watcher_ended {
            let left = processes_of(&self.home.data());
            signal_all(&left, Signal::KILL);
            return has_watcher_ended && left.is_empty();
        }
        false
    }
}

#[cfg(test)]
impl Server {
    pub(super) fn data(&self) -> std::path::PathBuf {
        self.home.data()
    }

    pub(super) fn watcher(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends as a killed process does: without stopping anything, but with its locks and pipes gone.
    pub(super) fn forget(self) {
        let mut server = std::mem::ManuallyDrop::new(self);
        server.pipe = None;
        let _ = server.child.wait();
        server.home.unlock();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ask_to_stop(self.how);
        let begun = Instant::now();
        while !self.has_ended(begun) {
            std::thread::sleep(GLANCE);
        }
        // Empty by now; it may be in /tmp, where nobody else would tidy up.
        let _ = fs::remove_dir(&self.socket_folder);
    }
}

fn settings(socket_folder: &str, durability: Durability) -> Vec<String> {
    let mut settings = vec![
        format!("unix_socket_directories={socket_folder}"),
        format!("port={PORT}"),
        "listen_addresses=".to_owned(),
        "unix_socket_permissions=0700".to_owned(),
        "max_connections=200".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
    ];
    if durability == Durability::Relaxed {
        settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned));
    }
    settings
}

/// Ends a server that an earlier process left on this home, so that there are never two; takes its pid file away.
pub(super) async fn evict(home: &Home) -> Result<(), Error> {
    let data = home.data();
    let begun = Instant::now();
    loop {
        let left = processes_of(&data);
        if left.is_empty() {
            break;
        }
        match begun.elapsed() {
            waited if waited > LEFT_OVER_PATIENCE + STOP_PATIENCE => return Err(Error::LeftOver(home.to_string())),
            waited if waited > LEFT_OVER_PATIENCE * 3 => signal_all(&left, Signal::KILL),
            waited if waited > LEFT_OVER_PATIENCE => signal_all(&left, Signal::QUIT),
            _ => {}
        }
        tokio::time::sleep(GLANCE).await;
    }
    // No process works in this cluster, so whoever has the process id in this file now is a stranger, and Postgres would
    // take that stranger for a server.
    match fs::remove_file(data.join("postmaster.pid")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Folder(data.display().to_string(), error)),
        _ => Ok(()),
    }
}

fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        // It may have ended by itself meanwhile.
        let _ = kill_process(*pid, signal);
    }
}

/// The server's processes: Postgres makes the cluster its working directory, and its children inherit that. Where there
/// is no `/proc`, the one whose arguments name the cluster.
fn processes_of(data: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return listed_by_ps(data) };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)).filter_map(Pid::from_raw).collect()
}

fn listed_by_ps(data: &Path) -> Vec<Pid> {
    let mut command = Command::new("ps");
    command.args(["-axo", "pid=,args="]);
    let Ok(output) = command.output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let marker = format!("postgres -D {} ", data.display());
    let lines = text.lines().filter(|line| line.contains(&marker) && !line.contains("posthaste-postgres"));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).filter_map(Pid::from_raw).collect()
}
