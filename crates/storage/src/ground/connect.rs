//! The first contact with the database: it answers in time or is named, and each connection is a session of its own.

use std::{fmt::Display, sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, Connection, PgConnection};

use crate::{
    Config, Error, Result,
    hosts::{Hosts, Origin},
};

/// How long a server may take to accept a connection, and to answer the first questions.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take before somebody is told what is being waited for.
const SILENCE: Duration = Duration::from_secs(1);
/// What such a session calls itself.
const NAME: &str = "posthaste";
/// What is said of a proxy that lends sessions by the transaction.
const SHARED: &str =
    "the database URL leads through a proxy that pools transactions or statements: connect to Postgres directly, or use session pooling";
/// In which order three sessions begin transactions: whatever a pooler prefers, the session that was used last or the one
/// that has rested longest, one of them gets another's.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [0, 1, 2], [2, 0, 1], [1, 0, 2]];

/// Where the database is.
pub(crate) fn hosts(config: &Config) -> Result<Arc<Hosts>> {
    Hosts::parse(&config.url).map(Arc::new).map_err(|why| refuse(format!("the database URL cannot be used: {why}")))
}

/// Connects within the time that a server may take.
pub(crate) async fn open(hosts: &Arc<Hosts>, name: &str) -> Result<(PgConnection, Origin)> {
    // Each may take all of the time, since the next is tried meanwhile.
    in_time(hosts, async { hosts.open(name, PATIENCE * 2).await.map_err(explained) }).await
}

/// Waits for answers of the server no longer than it may take, and says for whom if it takes long.
pub(crate) async fn in_time<T>(hosts: &Hosts, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let places = hosts.places();
    let telling = async {
        tokio::time::sleep(SILENCE).await;
        tracing::info!("waiting for an answer of Postgres at {places}");
        std::future::pending::<()>().await;
    };
    let answer = tokio::time::timeout(PATIENCE, answer);
    tokio::select! {
        biased;
        answer = answer => answer.unwrap_or_else(|_| {
            Err(Error::Unusable(format!("Postgres at {places} did not answer within {} seconds", PATIENCE.as_secs())))
        }),
        () = telling => unreachable!("it tells once and then waits for ever"),
    }
}

fn explained(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Io(error) => Error::Unusable(error.to_string()),
        error => error.into(),
    }
}

/// Refuses a way to the server on which a connection is not one session from its beginning to its end. Locks, settings, prepared
/// statements and notifications belong to a session. This comes first and is asked in the simplest protocol, since all others
/// would fail on such a way in words that nobody understands.
pub(crate) async fn refuse_shared_sessions(config: &Config) -> Result<()> {
    let hosts = hosts(config)?;
    tracing::info!("connecting to Postgres at {}", hosts.places());
    let (first, origin) = open(&hosts, NAME).await?;
    let again = async || in_time(&hosts, async { origin.options().application_name(NAME).connect().await.map_err(Error::from) }).await;
    let mut sessions = [first, again().await?, again().await?];
    let asking = async { is_shared(&mut sessions).await.map_err(|error| unless_pooled(&error).unwrap_or_else(|| error.into())) };
    if in_time(&hosts, asking).await? {
        return Err(Error::Unusable(SHARED.into()));
    }
    for session in sessions {
        session.close().await?;
    }
    Ok(())
}

/// Begins transactions on all sessions at once, in several orders, and looks whether each keeps its server process; and whether
/// an advisory lock of one keeps the others out.
async fn is_shared(sessions: &mut [PgConnection; 3]) -> std::result::Result<bool, sqlx::Error> {
    let mut known = [None; 3];
    for order in ORDERS {
        let mut locks = 0;
        for place in order {
            let session = &mut sessions[place];
            run(session, "begin").await?;
            let pid = number(session, "select pg_backend_pid()").await?;
            locks += number(session, "select pg_try_advisory_xact_lock(0)::integer").await?;
            if known[place].is_some_and(|known| known != pid) {
                return Ok(true);
            }
            known[place] = Some(pid);
        }
        for place in order {
            run(&mut sessions[place], "rollback").await?;
        }
        if locks > 1 || known[0] == known[1] || known[1] == known[2] || known[0] == known[2] {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn run(session: &mut PgConnection, sql: &'static str) -> std::result::Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(session).await.map(drop)
}

async fn number(session: &mut PgConnection, sql: &'static str) -> std::result::Result<i32, sqlx::Error> {
    use sqlx::Row as _;

    sqlx::raw_sql(sql).fetch_one(session).await?.try_get(0)
}

/// What a pooler of statements says when a transaction begins.
fn unless_pooled(error: &sqlx::Error) -> Option<Error> {
    let message = error.as_database_error()?.message();
    message.contains("statement pooling").then(|| Error::Unusable(SHARED.into()))
}

/// That a server is too old, or the like.
pub(crate) fn refuse(reason: impl Display) -> Error {
    Error::Unusable(reason.to_string())
}
