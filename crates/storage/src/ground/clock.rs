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

/// One look at the server's clock, all in microseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// When it was asked for, and when the answer was here, since this process began.
    asked: i64,
    answered: i64,
    /// The answer, since 1970.
    server: i64,
}

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
        let mut samples = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let asked = self.elapsed();
            let server = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&mut *connection).await?;
            samples.push(Sample { asked, answered: self.elapsed(), server: server.timestamp_micros() });
        }
        if let Some(offset) = offset(&samples) {
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

/// The server's time when this process began, by the sample that took the least time: in that one the least can have been wrong.
fn offset(samples: &[Sample]) -> Option<i64> {
    let best = samples.iter().min_by_key(|sample| sample.answered - sample.asked)?;
    Some(best.server - i64::midpoint(best.asked, best.answered))
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

    /// What the server's clock says when this process begins.
    const BEGUN: i64 = 1_700_000_000_000_000;

    /// A question that takes so long to get there, and its answer so long to come back.
    fn sample(asked: i64, there: i64, back: i64) -> Sample {
        Sample { asked, answered: asked + there + back, server: BEGUN + asked + there }
    }

    #[test]
    fn the_shortest_round_trip_says_what_time_it_is() {
        // A pause on the way there, on the way back, and none: wherever the good sample stands, it alone decides.
        let [late, slow, good] = [sample(0, 80_000, 200), sample(100_000, 200, 90_000), sample(200_000, 210, 190)];
        for samples in [[late, slow, good], [good, late, slow], [slow, good, late]] {
            assert_eq!(offset(&samples), Some(BEGUN + 10), "off by half of the difference of its ways");
        }
        assert_eq!(offset(&[late]), Some(BEGUN + 39_900));
        assert_eq!(offset(&[]), None);
    }
}
