//! A connection on which nothing is waited for without a deadline, however silent the network becomes.
//!
//! The server ends a statement that takes too long, and says so; a network that fell silent says nothing, for ever. So whoever
//! talks to Postgres does it through [`Connection`] and [`crate::pool::Pool`]: what is not answered in time is an error of the connection, which
//! is then not used again.

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    time::Duration,
};

use deadpool::managed::Object;
use futures::{
    FutureExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use sqlx::{
    AssertSqlSafe, Connection as _, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    deadline::{PING, in_time, silence},
    error,
    hosts::Origin,
    opener::Opener,
};

/// How long a server lets a statement run: [`crate::opener`] tells each session.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer we wait for its answer: by then it has come, or it never will.
const GRACE: Duration = Duration::from_secs(2);

/// A connection, from the pool or apart from it.
pub struct Connection {
    raw: Raw,
    origin: Origin,
    patience: Duration,
    /// A statement was begun, and its end has not been seen.
    is_busy: bool,
    /// How many transactions are open, one inside of the other; all but the first are savepoints.
    depth: usize,
    /// One of them was left open: what its effects were to become is unknown, so nothing more is done here.
    is_doomed: bool,
}

/// The session, by who gets it back.
enum Raw {
    Apart(Box<PgConnection>),
    Pooled(Object<Opener>),
    /// Only while it is dropped.
    Nothing,
}

impl Raw {
    fn get(&mut self) -> &mut PgConnection {
        match self {
            Self::Apart(raw) => raw,
            Self::Pooled(pooled) => &mut pooled.raw,
            Self::Nothing => unreachable!("`drop` and `close` end it"),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_busy", &self.is_busy).field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Connection {
    /// One that belongs to whoever opened it.
    pub(crate) fn apart(raw: PgConnection, origin: Origin) -> Self {
        Self::new(Raw::Apart(Box::new(raw)), origin)
    }

    /// One that goes back into its pool.
    pub(crate) fn pooled(pooled: Object<Opener>) -> Self {
        let origin = pooled.origin.clone();
        Self::new(Raw::Pooled(pooled), origin)
    }

    fn new(raw: Raw, origin: Origin) -> Self {
        Self { raw, origin, patience: STATEMENT_TIMEOUT + GRACE, is_busy: false, depth: 0, is_doomed: false }
    }

    /// Asks whether it is well, and takes no long silence for an answer.
    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        let answer = in_time(PING, self.raw.get().ping()).await;
        note(&self.origin, answer.as_ref().err());
        answer
    }

    /// For a session whose server was told to let statements run for so long.
    pub(crate) fn be_patient(&mut self, statement_timeout: Duration) {
        self.patience = statement_timeout + GRACE;
    }

    /// Begins a transaction, or inside of one a savepoint.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        let level = self.deepen().await?;
        Ok(Transaction { connection: Used::Borrowed(self), level })
    }

    /// Ends it in order.
    pub(crate) async fn close(mut self) {
        if let Raw::Apart(raw) = mem::replace(&mut self.raw, Raw::Nothing) {
            timeout(PING, raw.close()).await.ok();
        }
    }

    pub(crate) async fn deepen(&mut self) -> Result<usize, Error> {
        let level = self.depth;
        self.run(if level == 0 { "BEGIN".to_owned() } else { format!("SAVEPOINT level_{level}") }).await?;
        self.depth = level + 1;
        Ok(level)
    }

    async fn run(&mut self, statement: String) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(self).await.map(drop)
    }
}

/// Whether a connection is of no use after such an end of a statement.
fn is_broken(error: Option<&Error>) -> bool {
    match error {
        Some(error @ Error::Database(_)) => error::takes_no_writes(error),
        None | Some(Error::RowNotFound | Error::ColumnDecode { .. } | Error::Decode(_) | Error::Encode(_)) => false,
        Some(_) => true,
    }
}

/// Lets all others know what an end of a statement says of their sessions: silence, or a server that takes no writes any more, is
/// seldom the trouble of one alone.
fn note(origin: &Origin, error: Option<&Error>) -> bool {
    let is_silent = matches!(error, Some(Error::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut);
    if is_silent || error.is_some_and(error::takes_no_writes) {
        origin.distrust();
    }
    is_broken(error)
}

fn left_open() -> Error {
    Error::Protocol("a transaction was left open on this connection".into())
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What is dropped as it is goes back into its pool; what is taken out of it first is closed.
        let Raw::Pooled(mut pooled) = mem::replace(&mut self.raw, Raw::Nothing) else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(_) if !self.is_busy && self.depth == 0 => {}
            // To end its transaction takes an answer of the server, which may never come, and meanwhile its place is taken.
            Ok(runtime) if !self.is_busy => drop(runtime.spawn(async move {
                if in_time(PING, sqlx::raw_sql("ROLLBACK").execute(&mut pooled.raw)).await.is_err() {
                    drop(Object::take(pooled));
                }
            })),
            _ => drop(Object::take(pooled)),
        }
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if self.is_doomed {
            return stream::once(async { Err(left_open()) }).boxed();
        }
        let Connection { raw, origin, patience, is_busy, .. } = self;
        *is_busy = true;
        let origin = &*origin;
        let (rows, deadline) = (raw.get().fetch_many(query), Instant::now() + *patience);
        let next = move |(mut rows, is_busy): (BoxStream<'e, _>, &'c mut bool)| async move {
            let next = timeout_at(deadline, rows.try_next()).await.unwrap_or_else(|_| Err(silence()));
            match next {
                Ok(Some(row)) => Ok(Some((row, (rows, is_busy)))),
                Ok(None) => {
                    *is_busy = false;
                    Ok(None)
                }
                Err(error) => {
                    *is_busy = note(origin, Some(&error));
                    Err(error)
                }
            }
        };
        stream::try_unfold((rows, is_busy), next).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if self.is_doomed {
            return async { Err(left_open()) }.boxed();
        }
        let Connection { raw, origin, patience, is_busy, .. } = self;
        *is_busy = true;
        let row = in_time(*patience, raw.get().fetch_optional(query));
        row.inspect(move |row| *is_busy = note(origin, row.as_ref().err())).boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        let Connection { raw, patience, .. } = self;
        in_time(*patience, raw.get().prepare_with(sql, parameters)).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        let Connection { raw, patience, .. } = self;
        in_time(*patience, raw.get().describe(sql)).boxed()
    }
}

/// A transaction, or a savepoint. Unless it is committed, nothing has happened: one that is dropped goes with its connection, or with
/// the transaction that it is a part of.
#[derive(Debug)]
pub(crate) struct Transaction<'c> {
    connection: Used<'c>,
    level: usize,
}

impl From<Connection> for Transaction<'static> {
    /// The outermost, which was begun by [`Connection::deepen`].
    fn from(connection: Connection) -> Self {
        Self { connection: Used::Owned(connection), level: 0 }
    }
}

#[derive(Debug)]
enum Used<'c> {
    Owned(Connection),
    Borrowed(&'c mut Connection),
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match &self.connection {
            Used::Owned(connection) => connection,
            Used::Borrowed(connection) => connection,
        }
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        match &mut self.connection {
            Used::Owned(connection) => connection,
            Used::Borrowed(connection) => connection,
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Used::Borrowed(connection) = &mut self.connection {
            connection.is_doomed |= connection.depth > self.level;
        }
    }
}

impl Transaction<'_> {
    /// Makes it happen.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        let level = self.level;
        self.run(if level == 0 { "COMMIT".to_owned() } else { format!("RELEASE SAVEPOINT level_{level}") }).await?;
        self.depth = level;
        Ok(())
    }

    /// Undoes it.
    pub(crate) async fn rollback(mut self) -> Result<(), Error> {
        let level = self.level;
        self.run(if level == 0 { "ROLLBACK".to_owned() } else { format!("ROLLBACK TO SAVEPOINT level_{level}") }).await?;
        self.depth = level;
        Ok(())
    }
}
