//! The first contact with the database: it answers in time or is named, and each connection is a session of its own.

use std::{fmt::Display, str::FromStr, time::Duration};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{Config, Error, Result};

/// How long a server may take to accept a connection, and to answer the first questions.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take before somebody is told what is being waited for.
const SILENCE: Duration = Duration::from_secs(1);
/// What is said of a proxy that lends sessions by the transaction.
const SHARED: &str =
    "the database URL leads through a proxy that pools transactions or statements: connect to Postgres directly, or use session pooling";
/// In which order three sessions begin transactions: whatever a pooler prefers, the session that was used last or the one
/// that has rested longest, one of them gets another's.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [0, 1, 2], [2, 0, 1], [1, 0, 2]];

/// How to connect. What a pooler might refuse is not asked for: floats are exchanged as bytes, whatever `extra_float_digits` is.
pub(crate) fn options(config: &Config) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(&config.url)?;
    Ok(options.application_name("posthaste").extra_float_digits(None).disable_statement_logging())
}

/// Host and port, or the socket, without anything that is secret.
pub(crate) fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => format!("{}/.s.PGSQL.{}", folder.display(), options.get_port()),
        None if options.get_host().starts_with('/') => format!("{}/.s.PGSQL.{}", options.get_host(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Connects within the time that a server may take.
pub(crate) async fn open(options: &PgConnectOptions) -> Result<PgConnection> {
    in_time(options, async { options.connect().await.map_err(|error| explained(options, error)) }).await
}

/// Waits for answers of the server no longer than it may take, and says for whom if it takes long.
pub(crate) async fn in_time<T>(options: &PgConnectOptions, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let place = place(options);
    let telling = async {
        tokio::time::sleep(SILENCE).await;
        tracing::info!("waiting for an answer of Postgres at {place}");
        std::future::pending::<()>().await;
    };
    let answer = tokio::time::timeout(PATIENCE, answer);
    tokio::select! {
        biased;
        answer = answer => answer.unwrap_or_else(|_| {
            Err(Error::Unusable(format!("Postgres at {place} did not answer within {} seconds", PATIENCE.as_secs())))
        }),
        () = telling => unreachable!("it tells once and then waits for ever"),
    }
}

fn explained(options: &PgConnectOptions, error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Io(error) => Error::Unusable(format!("Postgres at {} cannot be reached: {error}", place(options))),
        error => error.into(),
    }
}

/// Refuses a way to the server on which a connection is not one session from its beginning to its end. Locks, settings, prepared
/// statements and notifications belong to a session. This comes first and is asked in the simplest protocol, since all others
/// would fail on such a way in words that nobody understands.
pub(crate) async fn refuse_shared_sessions(config: &Config) -> Result<()> {
    let options = options(config)?;
    tracing::info!("connecting to Postgres at {}", place(&options));
    let mut sessions = [open(&options).await?, open(&options).await?, open(&options).await?];
    let asking = async { is_shared(&mut sessions).await.map_err(|error| unless_pooled(&error).unwrap_or_else(|| error.into())) };
    if in_time(&options, asking).await? {
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
