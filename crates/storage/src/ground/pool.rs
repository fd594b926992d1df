//! The connections that requests share: so many, made when they are needed, and looked at before each use.

use std::{fmt, sync::Arc, time::Duration};

use deadpool::managed::{self, PoolError};
use futures::{
    FutureExt, TryFutureExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use sqlx::{
    Either, Error, Execute, Executor, Postgres, SqlStr,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use crate::{
    connection::{Connection, Transaction},
    hosts::Hosts,
    opener::Opener,
};

/// How long a request may wait for a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one is kept that nobody needs.
const REST: Duration = Duration::from_mins(10);

/// Connections that requests share.
#[derive(Clone)]
pub(crate) struct Pool(managed::Pool<Opener>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.status()).finish()
    }
}

impl Pool {
    /// An empty one, of so many.
    pub(crate) fn new(hosts: &Arc<Hosts>, size: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let pool = managed::Pool::builder(Opener::new(hosts)).max_size(size).build();
        Self(pool.expect("nothing is asked of it that it cannot do"))
    }

    /// One of them, when one is free; it goes back when it is dropped.
    pub(crate) async fn acquire(&self) -> Result<Connection, Error> {
        let acquired = tokio::time::timeout(PATIENCE, self.0.get()).await;
        match acquired.map_err(|_| Error::PoolTimedOut)? {
            Ok(object) => Ok(Connection::pooled(object)),
            Err(PoolError::Backend(error)) => Err(error),
            Err(_) => Err(Error::PoolClosed),
        }
    }

    /// Begins a transaction on one of them.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static>, Error> {
        let mut connection = self.acquire().await?;
        connection.deepen().await?;
        Ok(connection.into())
    }

    /// Closes those that nobody has needed for long.
    pub(crate) fn let_go(&self) {
        self.0.retain(|_, metrics| metrics.last_used() < REST);
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
