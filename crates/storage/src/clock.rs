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
use tokio::sync::Notify;
use uuid::{ContextV7, Timestamp};

use crate::{Result, connection::Connection};

/// How often the server is asked in a row.
const SAMPLES: usize = 5;
/// By how much the server's clock must differ from what was expected for it to have been set. Clocks that are merely kept in step
/// move by less between two looks.
const JUMP: TimeDelta = TimeDelta::seconds(10);

/// The server's clock as seen from here.
#[derive(Debug)]
pub(crate) struct Clock {
    begun: Instant,
    /// The server's time when this process began, in microseconds since 1970; 0 until it was first asked.
    offset: AtomicI64,
    /// Keeps the ids of this process in order, even when the clock goes back a little.
    sequence: Mutex<ContextV7>,
    /// Somebody may want to know that it went back by more.
    set_back: Notify,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), offset: AtomicI64::new(0), sequence: Mutex::new(ContextV7::new()), set_back: Notify::new() }
    }

    /// The server's time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::microseconds(self.offset.load(Ordering::Relaxed).saturating_add(self.elapsed()))
    }

    /// A UUIDv7 of the server's time, larger than any before it in this process unless the server's clock was set back.
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
            self.set(offset);
        }
        Ok(())
    }

    /// Waits until a look at the server's clock finds that it was set back.
    pub(crate) async fn set_back(&self) {
        self.set_back.notified().await;
    }

    fn set(&self, offset: i64) {
        let before = self.offset.swap(offset, Ordering::Relaxed);
        let jump = TimeDelta::microseconds(offset.saturating_sub(before));
        if before == 0 || jump.abs() < JUMP {
            return;
        }
        tracing::warn!(
            seconds = jump.num_seconds(),
            "the database's clock was set, and is followed: due times, leases and retention go by it"
        );
        if jump < TimeDelta::zero() {
            // In order with those before, the ids of weeks to come would all be of the moment when it was set back.
            *self.sequence.lock() = ContextV7::new();
            self.set_back.notify_one();
        }
    }

    /// Microseconds since this process began.
    fn elapsed(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[tokio::test]
    async fn ids_follow_a_clock_that_is_set_and_stay_in_order_on_one_that_trembles() {
        let clock = Clock::new();
        let at = |offset: i64| {
            clock.set(offset);
            clock.new_id()
        };
        let (first, trembled) = (at(100 * HOUR), at(100 * HOUR - 5_000_000));
        assert!(first < trembled);
        assert!(at(200 * HOUR) > trembled);
        assert!(futures::FutureExt::now_or_never(clock.set_back()).is_none());
        assert!(at(50 * HOUR) < first);
        clock.set_back().await;
    }
}
