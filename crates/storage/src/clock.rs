//! The database's time, and ids made with it, so that a node with a wrong clock does no harm.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use sqlx::{PgConnection, types::Uuid};
use uuid::{ContextV7, Timestamp};

use crate::Result;

/// The server's clock as seen from here.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Server minus node, in microseconds.
    offset: AtomicI64,
    /// Keeps the ids of this process in order, even when the clock steps back.
    sequence: Mutex<ContextV7>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { offset: AtomicI64::new(0), sequence: Mutex::new(ContextV7::new()) }
    }

    /// The server's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        node_time() + TimeDelta::microseconds(self.offset.load(Ordering::Relaxed))
    }

    /// A UUIDv7 of the server's time, larger than any before it in this process.
    pub(crate) fn new_id(&self) -> Uuid {
        let now = self.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let sequence = self.sequence.lock();
        Uuid::new_v7(Timestamp::from_unix(&*sequence, seconds, now.timestamp_subsec_nanos()))
    }

    /// Measures the offset: the server's answer is taken to be as old as half the round trip.
    pub(crate) async fn measure(&self, connection: &mut PgConnection) -> Result<()> {
        let before = node_time();
        let server = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(connection).await?;
        let middle = before + (node_time() - before) / 2;
        self.offset.store((server - middle).num_microseconds().unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the node's clock, to correct it")]
fn node_time() -> DateTime<Utc> {
    Utc::now()
}
