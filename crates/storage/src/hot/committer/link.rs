//! The committer's connection: how it is made again, and what an error on it means for a batch.

use std::time::Duration;

use sqlx::{AssertSqlSafe, types::Uuid};

use crate::{
    Db,
    connection::Connection,
    error::is_partition_missing,
    locks::{SESSION_LOCK, lock_id},
    session::Session,
};

/// How long to wait between tries to connect.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A write of no consequence. The session that was ended may have been waiting for a synchronous standby: its commit is then seen here
/// though the standby does not have it. This waits for the standby to have it, and all that came before.
const BARRIER: &str = "update installation set key_horizon = key_horizon";
/// No statement of the hot path waits for a lock that anybody keeps for a reason of ours; for one that is kept for another reason it waits
/// no longer than others can wait behind it.
pub(super) const LOCK_PATIENCE: &str = "set lock_timeout = '200ms'";

/// A connection that never runs anything but the hot path.
#[derive(Debug)]
pub(super) struct Link {
    session: Session,
    /// Held by the session for as long as its server process lives.
    lock: Uuid,
}

/// What an error means for the batch that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection broke: the batch may have been committed.
    Lost,
    /// A partition is missing; nothing was written.
    MissingPartition,
    /// It took longer than the server allows; nothing was written, and a part of it may be faster.
    TooSlow,
    /// Something in the batch cannot be stored; nothing was written.
    BadData,
    /// Somebody else locks a row that it needs, or won against it; nothing was written.
    Locked,
    /// The server has no room for all the locks of the batch; nothing was written, and a part of it may fit.
    TooLarge,
    /// Not now; nothing was written.
    NotNow,
}

impl Trouble {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        match error {
            error if is_partition_missing(error) => Self::MissingPartition,
            sqlx::Error::Database(database) => Self::of_state(database.code().as_deref().unwrap_or_default()),
            // An error of our own making is the data's; all others are the connection's.
            sqlx::Error::Encode(_) => Self::BadData,
            _ => Self::Lost,
        }
    }

    /// What an SQLSTATE means (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
    fn of_state(code: &str) -> Self {
        match code {
            // The statement was canceled: by its timeout, or by somebody who found it slow.
            "57014" => Self::TooSlow,
            // No lock in time, a deadlock, a serialization failure (of somebody's trigger): another try may do better.
            "55P03" | "40P01" | "40001" => Self::Locked,
            // The only memory that a statement of ours can run out of is that of the lock table.
            "53200" => Self::TooLarge,
            // The server is going away, takes no writes any more, or has ended a session that was silent in a transaction.
            "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "25P03" => Self::Lost,
            code => match code.get(..2) {
                Some("08") => Self::Lost,
                Some("22" | "23" | "54") => Self::BadData,
                _ => Self::NotNow,
            },
        }
    }
}

impl Link {
    /// Connects, however long it takes. If the connection takes the place of a broken one, it returns only when the server
    /// has ended the old session: what that had sent is then committed or gone for good.
    pub(super) async fn connect(db: &Db, broken: Option<Link>) -> Self {
        let broken = broken.map(|link| link.lock);
        loop {
            match Self::try_connect(db, broken).await {
                Ok(link) => return link,
                Err(error) => {
                    tracing::debug!(%error, "the committer cannot connect");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Connects, or says why not. The next one after a broken one is known by the same lock, and so is each try.
    pub(super) async fn try_connect(db: &Db, broken: Option<Uuid>) -> Result<Self, sqlx::Error> {
        let lock = broken.unwrap_or_else(|| Uuid::from_u128(rand::random()));
        let mut session = Session::connect(db, "posthaste-committer").await?;
        let connection = session.ready().await?;
        if broken.is_some() {
            sqlx::query!(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and datname = current_database()",
                name(lock)
            )
            .fetch_all(&mut *connection)
            .await?;
        }
        // From here on it is the next one's to end.
        sqlx::raw_sql(AssertSqlSafe(format!("set application_name = '{}'", name(lock)))).execute(&mut *connection).await?;
        sqlx::query!("select pg_advisory_lock($1)", session_lock(lock)).execute(&mut *connection).await?;
        if broken.is_some() {
            sqlx::raw_sql(BARRIER).execute(&mut *connection).await?;
        }
        sqlx::raw_sql(LOCK_PATIENCE).execute(&mut *connection).await?;
        Ok(Self { session, lock })
    }

    /// Whether it is there: asked when nothing else is, so that nobody has to find out by waiting in vain.
    pub(super) async fn is_there(&mut self) -> bool {
        self.session.ping().await.is_ok()
    }

    pub(super) async fn connection(&mut self) -> Result<&mut Connection, sqlx::Error> {
        self.session.ready().await
    }

    pub(super) async fn close(self) {
        self.session.close().await;
    }
}

fn name(lock: Uuid) -> String {
    format!("posthaste-committer-{}", lock.simple())
}

fn session_lock(lock: Uuid) -> i64 {
    lock_id(SESSION_LOCK, lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlstate_says_what_is_to_become_of_the_batch() {
        let table = [
            (Trouble::Lost, &["08006", "57P01", "57P02", "57P03", "57P05", "25006", "25P03"][..]),
            (Trouble::TooSlow, &["57014"]),
            (Trouble::Locked, &["55P03", "40P01", "40001"]),
            (Trouble::TooLarge, &["53200"]),
            (Trouble::BadData, &["22021", "23502", "23514", "54000"]),
            // A full disk, too many connections, a fault of the server, something that is not there yet.
            (Trouble::NotNow, &["53100", "53300", "XX000", "42883", ""]),
        ];
        for (trouble, codes) in table {
            for code in codes {
                assert_eq!(Trouble::of_state(code), trouble, "{code}");
            }
        }
    }
}
