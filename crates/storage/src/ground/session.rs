//! A connection that one task keeps, and whose plans do not outlive what they were made for.

use std::time::{Duration, Instant};

use crate::{Database, connection::Connection};

/// How long the first plans of a session are kept; each next ones twice as long, as tables grow ever more slowly.
const FIRST_REPLAN: Duration = Duration::from_secs(5);
/// The longest that plans are kept.
const LAST_REPLAN: Duration = Duration::from_mins(1);

/// After how long it is asked whether it is still there.
const REST: Duration = Duration::from_millis(250);

/// A connection outside the pool.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    /// When its plans are made anew, and how long it is then until the next time.
    replan_at: Instant,
    replan_after: Duration,
    /// When it was last asked for by [`Session::rested`].
    used_at: Instant,
}

impl Session {
    /// Connects, under a name that `pg_stat_activity` shows.
    pub(crate) async fn connect(db: &Database, name: &str) -> Result<Self, sqlx::Error> {
        let connection = db.connect_apart(name).await?;
        let now = Instant::now();
        Ok(Self { connection, replan_at: now + FIRST_REPLAN, replan_after: FIRST_REPLAN, used_at: now })
    }

    /// The connection. Now and then it lets go of its plans first: one that was made while a partition was empty may choose any
    /// of its indexes, and would be kept until something else makes the server think again.
    pub(crate) async fn ready(&mut self) -> Result<&mut Connection, sqlx::Error> {
        if self.replan_at <= Instant::now() {
            self.replan_after = (self.replan_after * 2).min(LAST_REPLAN);
            self.replan_at = Instant::now() + self.replan_after;
            sqlx::raw_sql("discard plans").execute(&mut self.connection).await?;
        }
        Ok(&mut self.connection)
    }

    /// The connection, which is asked first whether it is there if nobody has used it for a while: a short silence is then enough to
    /// know that it is not.
    pub(crate) async fn rested(&mut self) -> Result<&mut Connection, sqlx::Error> {
        if self.used_at.elapsed() > REST {
            self.ping().await?;
        }
        self.used_at = Instant::now();
        self.ready().await
    }

    pub(crate) async fn ping(&mut self) -> Result<(), sqlx::Error> {
        self.connection.ping().await
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}
