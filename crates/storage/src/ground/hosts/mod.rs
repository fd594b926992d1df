//! Where the database is: one server, or several, of which the one that takes writes is looked for.
//!
//! Everything that speaks to Postgres connects by [`Hosts::open`]. Which server it found is remembered for all, so that a process
//! follows a failover as a whole: a session that was opened before, or on another server, is not used again.

mod url;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use sqlx::{ConnectOptions as _, Error, PgConnection, Row as _, postgres::PgConnectOptions};

use crate::deadline::in_time;

/// How long a server may be silent before the next one is tried beside it.
const STAGGER: Duration = Duration::from_secs(1);
/// What a session is asked by which only writes are wanted, and what if the server's role alone counts. In the simplest protocol,
/// which every pooler takes.
const IS_READ_ONLY: &str = "select current_setting('transaction_read_only')::boolean";
const IS_STANDBY: &str = "select pg_is_in_recovery()";

/// What a server must be like, as `target_session_attrs` of Postgres' own clients names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// As it is.
    Any,
    /// Its sessions can write.
    ReadWrite,
    /// No standby.
    Primary,
}

/// The servers of one database.
pub(crate) struct Hosts {
    each: Vec<PgConnectOptions>,
    wanted: Wanted,
    /// Which of them was found to be the right one.
    found: AtomicUsize,
    /// Goes up when sessions turn out to be of no use: those that were opened before are not used again.
    epoch: AtomicU64,
}

/// Where and when a session was opened.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    hosts: Arc<Hosts>,
    host: usize,
    epoch: u64,
}

impl Origin {
    /// How to connect there, for what must do it by itself.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.hosts.each[self.host].clone()
    }

    /// Whether the session may be used again.
    pub(crate) fn is_current(&self) -> bool {
        self.host == self.hosts.found.load(Ordering::Relaxed) && self.epoch == self.hosts.epoch.load(Ordering::Relaxed)
    }

    /// The session fell silent, or takes no writes any more: all others of that time are likely to be no better.
    pub(crate) fn distrust(&self) {
        self.hosts.epoch.compare_exchange(self.epoch, self.epoch + 1, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("places", &self.places()).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Hosts {
    /// Reads a `postgres://` URL, or says why it cannot be used, in words that hold no part of it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (urls, wanted) = url::split(text)?;
        let each = urls.iter().map(|url| url.parse::<PgConnectOptions>());
        let each = each.collect::<Result<Vec<_>, _>>().map_err(|_| "Postgres' client cannot read it")?;
        // What a pooler might refuse is not asked for: floats are exchanged as bytes, whatever `extra_float_digits` is.
        let each = each.into_iter().map(|options| options.extra_float_digits(None).disable_statement_logging()).collect();
        Ok(Self { each, wanted, found: AtomicUsize::new(0), epoch: AtomicU64::new(0) })
    }

    /// Hosts and ports, or sockets, without anything that is secret.
    pub(crate) fn places(&self) -> String {
        self.each.iter().map(place).collect::<Vec<_>>().join(" and ")
    }

    /// Connects to the first server that will do: first the one that did the last time is tried, then the others in their order, each
    /// for so long. One that is silent keeps the next waiting for a second.
    pub(crate) async fn open(self: &Arc<Self>, name: &str, patience: Duration) -> Result<(PgConnection, Origin), Error> {
        let (first, epoch) = (self.found.load(Ordering::Relaxed), self.epoch.load(Ordering::Relaxed));
        let mut next = std::iter::once(first).chain((0..self.each.len()).filter(|host| *host != first)).peekable();
        let mut trying = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            if let Some(host) = next.next() {
                trying.push(async move { (host, self.try_to_open(host, name, patience).await) });
            }
            tokio::select! {
                Some((host, opened)) = trying.next() => match opened {
                    Ok(connection) => {
                        self.follow(host);
                        return Ok((connection, Origin { hosts: Arc::clone(self), host, epoch }));
                    }
                    Err(error) => failures.push(error),
                },
                () = tokio::time::sleep(STAGGER), if next.peek().is_some() => {}
                else => return Err(all_of(failures)),
            }
        }
    }

    async fn try_to_open(&self, host: usize, name: &str, patience: Duration) -> Result<PgConnection, Error> {
        let options = &self.each[host];
        let opening = async {
            let mut connection = options.clone().application_name(name).connect().await?;
            let question = match self.wanted {
                Wanted::Any => return Ok(connection),
                Wanted::ReadWrite => IS_READ_ONLY,
                Wanted::Primary => IS_STANDBY,
            };
            if sqlx::raw_sql(question).fetch_one(&mut connection).await?.try_get(0)? {
                return Err(Error::Io(io::Error::other("it takes no writes")));
            }
            Ok(connection)
        };
        in_time(patience, opening).await.map_err(|error| match error {
            Error::Io(error) => Error::Io(io::Error::new(error.kind(), format!("Postgres at {} cannot be used: {error}", place(options)))),
            error => error,
        })
    }

    fn follow(&self, host: usize) {
        let before = self.found.swap(host, Ordering::Relaxed);
        if before != host {
            tracing::info!("the database is now the one at {}, and was the one at {}", place(&self.each[host]), place(&self.each[before]));
        }
    }
}

/// Host and port, or the socket.
fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => format!("{}/.s.PGSQL.{}", folder.display(), options.get_port()),
        None if options.get_host().starts_with('/') => format!("{}/.s.PGSQL.{}", options.get_host(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Why none would do.
fn all_of(mut failures: Vec<Error>) -> Error {
    if failures.len() == 1
        && let Some(error) = failures.pop()
    {
        return error;
    }
    // What the driver puts before the words of an error that is not its own is left out.
    let words = failures.iter().map(|error| match error {
        Error::Io(error) => error.to_string(),
        error => error.to_string(),
    });
    Error::Io(io::Error::other(words.collect::<Vec<_>>().join("; ")))
}
