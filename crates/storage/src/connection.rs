//! A connection on which nothing is waited for without a deadline, however silent the network becomes.
//!
//! The server ends a statement that takes too long, and says so; a network that fell silent says nothing, for ever. So whoever
//! talks to Postgres does it through [`Connection`] and [`Pool`]: what is not answered in time is an error of the connection, which
//! is then not used again.

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures::{
    FutureExt, TryFutureExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use sqlx::{
    AssertSqlSafe, Connection as _, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a server lets a statement run, as [`crate::db`] tells it.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer we wait for its answer: by then it has come, or it never will.
const GRACE: Duration = Duration::from_secs(2);
/// How long a connection that nobody uses may take to say that it is well.
pub(crate) const PING: Duration = Duration::from_secs(1);

/// A connection, from the pool or apart from it.
pub struct Connection {
    held: Held,
    patience: Duration,
    /// A statement was begun, and its end has not been seen.
    is_busy: bool,
    /// How many transactions are open, one inside of the other; all but the first are savepoints.
    depth: usize,
    /// One of them was left open: what its effects were to become is unknown, so nothing more is done here.
    is_doomed: bool,
}

enum Held {
    Apart(Box<PgConnection>),
    Pooled(PoolConnection<Postgres>),
    /// Only while it is dropped.
    Nothing,
}

impl Held {
    fn raw(&mut self) -> &mut PgConnection {
        match self {
            Self::Apart(raw) => raw,
            Self::Pooled(raw) => raw,
            Self::Nothing => unreachable!("`drop` and `close` end it"),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_busy", &self.is_busy).field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl From<PgConnection> for Connection {
    fn from(raw: PgConnection) -> Self {
        Self::new(Held::Apart(Box::new(raw)))
    }
}

impl Connection {
    fn new(held: Held) -> Self {
        Self { held, patience: STATEMENT_TIMEOUT + GRACE, is_busy: false, depth: 0, is_doomed: false }
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
        if let Held::Apart(raw) = mem::replace(&mut self.held, Held::Nothing) {
            timeout(PING, raw.close()).await.ok();
        }
    }

    async fn deepen(&mut self) -> Result<usize, Error> {
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
    !matches!(
        error,
        None | Some(Error::Database(_) | Error::RowNotFound | Error::ColumnDecode { .. } | Error::Decode(_) | Error::Encode(_))
    )
}

/// What it is told who was not answered in time.
pub(crate) fn silence() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"))
}

fn left_open() -> Error {
    Error::Protocol("a transaction was left open on this connection".into())
}

/// The outcome, if it comes in time.
pub(crate) async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(silence()))
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Held::Pooled(mut pooled) = mem::replace(&mut self.held, Held::Nothing) else { return };
        let is_well = !self.is_busy;
        let is_open = self.depth > 0;
        match tokio::runtime::Handle::try_current() {
            // To come back takes an answer of the server, which may never come, and meanwhile the place in the pool is taken.
            Ok(runtime) if is_well => {
                let coming_back = async move {
                    if is_open && sqlx::raw_sql("ROLLBACK").execute(&mut *pooled).await.is_err() {
                        drop(pooled.detach());
                    } else {
                        pooled.return_to_pool().await;
                    }
                };
                drop(runtime.spawn(timeout(PING, coming_back)));
            }
            _ => drop(pooled.detach()),
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
        let Connection { held, patience, is_busy, .. } = self;
        *is_busy = true;
        let (rows, deadline) = (held.raw().fetch_many(query), Instant::now() + *patience);
        let next = move |(mut rows, is_busy): (BoxStream<'e, _>, &'c mut bool)| async move {
            let next = timeout_at(deadline, rows.try_next()).await.unwrap_or_else(|_| Err(silence()));
            match next {
                Ok(Some(row)) => Ok(Some((row, (rows, is_busy)))),
                Ok(None) => {
                    *is_busy = false;
                    Ok(None)
                }
                Err(error) => {
                    *is_busy = is_broken(Some(&error));
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
        let Connection { held, patience, is_busy, .. } = self;
        *is_busy = true;
        let row = in_time(*patience, held.raw().fetch_optional(query));
        row.inspect(move |row| *is_busy = is_broken(row.as_ref().err())).boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        let Connection { held, patience, .. } = self;
        in_time(*patience, held.raw().prepare_with(sql, parameters)).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        let Connection { held, patience, .. } = self;
        in_time(*patience, held.raw().describe(sql)).boxed()
    }
}

/// A transaction, or a savepoint. Unless it is committed, nothing has happened: one that is dropped goes with its connection, or with
/// the transaction that it is a part of.
#[derive(Debug)]
pub(crate) struct Transaction<'c> {
    connection: Used<'c>,
    level: usize,
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

/// The connections that requests share.
#[derive(Clone, Debug)]
pub(crate) struct Pool(PgPool);

impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self(pool)
    }
}

impl Pool {
    /// One of them, when one is free; it goes back when it is dropped.
    pub(crate) async fn acquire(&self) -> Result<Connection, Error> {
        Ok(Connection::new(Held::Pooled(self.0.acquire().await?)))
    }

    /// Begins a transaction on one of them.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static>, Error> {
        let mut connection = self.acquire().await?;
        let level = connection.deepen().await?;
        Ok(Transaction { connection: Used::Owned(connection), level })
    }
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        // All at once, so that a slow reader keeps no connection from others.
        let rows = async move { pool.acquire().await?.fetch_many(query).try_collect::<Vec<_>>().await };
        rows.map_ok(|rows| stream::iter(rows.into_iter().map(Ok))).try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.fetch_optional(query).await }.boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        async move { pool.acquire().await?.describe(sql).await }.boxed()
    }
}
