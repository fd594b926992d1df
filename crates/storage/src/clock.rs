//! The database's time, and ids made with it, so that a node with a wrong clock does no harm.
//!
//! Between two looks at the server's clock, time is counted by one that nobody sets: a node's time of day may jump.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use sqlx::types::Uuid;
use uuid::{ContextV7, Timestamp};

use crate::{Result, connection::Connection};

/// How often the server is asked in a row.
const SAMPLES: usize = 5;

/// The server's clock as seen from here.
#[derive(Debug)]
pub(crate) struct Clock {
    begun: Instant,
    /// The server's time when this process began, in microseconds since 1970.
    offset: AtomicI64,
    /// Keeps the ids of this process in order, even when the clock steps back.
    sequence: Mutex<ContextV7>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), offset: AtomicI64::new(0), sequence: Mutex::new(ContextV7::new()) }
    }

    /// The server's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::microseconds(self.offset.load(Ordering::Relaxed).saturating_add(self.elapsed()))
    }

    /// A UUIDv7 of the server's time, larger than any before it in this process.
    pub(crate) fn new_id(&self) -> Uuid {
        let now = self.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let sequence = self.sequence.lock();
        Uuid::new_v7(Timestamp::from_unix(&*sequence, seconds, now.timestamp_subsec_nanos()))
    }

    /// Measures the offset: the server's answer is taken to be as old as half the round trip. Of a few, the shortest says most.
    pub(crate) async fn measure(&self, connection: &mut Connection) -> Result<()> {
        let mut best: Option<(i64, i64)> = None;
        for _ in 0..SAMPLES {
            let before = self.elapsed();
            let server = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&mut *connection).await?;
            let round_trip = self.elapsed() - before;
            if best.is_none_or(|(shortest, _)| round_trip < shortest) {
                best = Some((round_trip, server.timestamp_micros() - before - round_trip / 2));
            }
        }
        if let Some((_, offset)) = best {
            self.offset.store(offset, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Microseconds since this process began.
    fn elapsed(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}
