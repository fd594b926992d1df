//! When a failed delivery is tried again.

use std::time::Duration;

/// By how much a wait may vary, as a share of it: retries of a burst spread out instead of arriving as one.
const JITTER: f64 = 0.2;
/// How long a receiver that is busy may have us wait, however short the scheduled wait is: longer ones are cut to this.
pub const LONGEST_BUSY: Duration = Duration::from_hours(1);

/// The waits between attempts. A delivery is tried once more than there are waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(pub Vec<Duration>);

impl Default for RetrySchedule {
    fn default() -> Self {
        Self([5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600].map(Duration::from_secs).to_vec())
    }
}

impl RetrySchedule {
    /// How long to wait after failed attempt number `attempt` (the first is 1), or `None` at the end of the schedule.
    ///
    /// `dice` in 0..1 chooses the jitter, uniformly within ±20 %. What the receiver asks for in `asked` prolongs the wait as
    /// far as [`Asked`] says; it never shortens it.
    pub fn wait_after(&self, attempt: u32, asked: Option<Asked>, dice: f64) -> Option<Duration> {
        let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
        let scheduled = *self.0.get(index)?;
        let jittered = jittered(scheduled, dice);
        Some(asked.map_or(jittered, |asked| jittered.max(asked.wait.min(asked.bound(scheduled)))))
    }

    /// How long the schedule may go on once attempt number `attempt` (the first is 1) has begun, if this attempt and all that
    /// follow fail: the longest jitter in each wait that is left, and `timeout` for each attempt, this one and the last included.
    ///
    /// A `Retry-After` can prolong it, since nobody knows yet what the receiver will ask for.
    pub fn longest_from(&self, attempt: u32, timeout: Duration) -> Duration {
        let done = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        self.0.iter().skip(done).fold(timeout, |sum, wait| sum.saturating_add(jittered(*wait, 1.0)).saturating_add(timeout))
    }

    /// The longest that the whole schedule can take, jitter and `Retry-After` included.
    pub fn horizon(&self) -> Duration {
        self.longest_waits().sum()
    }

    /// The longest that a single wait of it can take, likewise.
    pub fn longest_wait(&self) -> Duration {
        self.longest_waits().max().unwrap_or_default()
    }

    fn longest_waits(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().map(|wait| Asked { wait: Duration::MAX, is_busy: true }.bound(*wait))
    }
}

/// What a receiver asked for in `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The wait.
    pub wait: Duration,
    /// Whether it said that it takes nothing until then (429, 503).
    pub is_busy: bool,
}

impl Asked {
    /// The most that is granted where `scheduled` is the wait of the schedule: twice that, and an hour to one that is busy.
    fn bound(self, scheduled: Duration) -> Duration {
        let twice = scheduled.saturating_mul(2);
        if self.is_busy { twice.max(LONGEST_BUSY) } else { twice }
    }
}

/// A wait within ±20 % of the scheduled one, as `dice` in 0..1 falls.
fn jittered(scheduled: Duration, dice: f64) -> Duration {
    scheduled.mul_f64(1.0 - JITTER + 2.0 * JITTER * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_followed_with_jitter_until_its_end() {
        let schedule = RetrySchedule(vec![Duration::from_secs(10), Duration::from_secs(100)]);
        assert_eq!(schedule.wait_after(1, None, 0.0), Some(Duration::from_secs(8)));
        assert_eq!(schedule.wait_after(1, None, 1.0), Some(Duration::from_secs(12)));
        assert_eq!(schedule.wait_after(2, None, 0.5), Some(Duration::from_secs(100)));
        assert_eq!(schedule.wait_after(3, None, 0.5), None);
        assert_eq!(schedule.wait_after(0, None, 0.5), None);
    }

    #[test]
    fn what_is_left_of_the_schedule_shrinks_to_one_attempt() {
        let schedule = RetrySchedule(vec![Duration::from_secs(10), Duration::from_secs(100)]);
        let left = [1, 2, 3, 4].map(|attempt| schedule.longest_from(attempt, Duration::from_secs(3)));
        assert_eq!(left, [141, 126, 3, 3].map(Duration::from_secs));
        for attempt in 1..=2 {
            let longest = schedule.wait_after(attempt, None, 1.0).expect("a wait") + schedule.longest_from(attempt + 1, Duration::ZERO);
            assert_eq!(longest, schedule.longest_from(attempt, Duration::ZERO), "no roll of the dice takes longer");
        }
        assert_eq!(RetrySchedule(vec![Duration::from_secs(1 << 50); 9]).longest_from(1, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn retry_after_prolongs_a_wait_up_to_twice_and_never_shortens_it() {
        let schedule = RetrySchedule(vec![Duration::from_secs(10), Duration::from_hours(5)]);
        let wait = |attempt, asked, is_busy| {
            schedule.wait_after(attempt, Some(Asked { wait: Duration::from_secs(asked), is_busy }), 0.5).expect("a wait").as_secs()
        };
        assert_eq!([1, 15, 20, 21, 3600].map(|asked| wait(1, asked, false)), [10, 15, 20, 20, 20]);
        assert_eq!([1, 15, 21, 3599, 3601, u64::MAX].map(|asked| wait(1, asked, true)), [10, 15, 21, 3599, 3600, 3600], "an hour");
        for is_busy in [false, true] {
            assert_eq!([3600, 20_000, 36_000, u64::MAX].map(|asked| wait(2, asked, is_busy)), [18_000, 20_000, 36_000, 36_000]);
        }
    }

    #[test]
    fn no_answer_makes_the_schedule_take_longer_than_its_horizon() {
        let schedule = RetrySchedule::default();
        let asked = Asked { wait: Duration::MAX, is_busy: true };
        let waits = (1..=7).filter_map(|attempt| schedule.wait_after(attempt, Some(asked), 1.0));
        assert_eq!(waits.sum::<Duration>(), schedule.horizon());
        assert_eq!(schedule.horizon(), Duration::from_hours(3 + 4 + 10 + 20 + 20));
        assert_eq!(schedule.longest_wait(), Duration::from_hours(20));
    }
}
