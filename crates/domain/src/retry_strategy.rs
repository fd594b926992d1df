//! A retry schedule said in a line: so many attempts, with waits that stay the same or that double.

use std::time::Duration;

use thiserror::Error;

use crate::retry::RetrySchedule;

/// The most attempts.
pub const MAX_ATTEMPTS: u32 = 100;
/// The longest wait that doubling leads to, if nobody says otherwise: Convoy's `CONVOY_MAX_RETRY_SECONDS`.
pub const LONGEST_DOUBLED: Duration = Duration::from_hours(2);
/// The longest wait that may be asked for.
pub const LONGEST_INTERVAL: Duration = Duration::from_hours(30 * 24);

/// How waits follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// All are the same.
    Linear,
    /// Each is twice the one before it, up to [`LONGEST_DOUBLED`].
    Exponential,
}

/// So many attempts with such waits between them.
///
/// Convoy calls the number of attempts `retry_count`: a delivery is given up after its `retry_count`th attempt, the first included. There, waits after the first, second
/// and third attempt are the interval, and twice and four times as much. Jitter comes with the [`RetrySchedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryStrategy {
    growth: Growth,
    interval: Duration,
    attempts: u32,
}

/// Why a strategy is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidStrategy {
    /// No attempt, or too many.
    #[error("the number of attempts must be from 1 to {MAX_ATTEMPTS}, the first one included")]
    Attempts,
    /// No wait, or one that is too long.
    #[error("the wait between attempts must be from 1 s to {} s", LONGEST_INTERVAL.as_secs())]
    Interval,
}

impl Default for RetryStrategy {
    /// Ten attempts with 100 seconds between: what a project of Convoy has.
    fn default() -> Self {
        Self { growth: Growth::Linear, interval: Duration::from_secs(100), attempts: 10 }
    }
}

impl RetryStrategy {
    /// A strategy of `attempts` attempts, of which the second follows `interval` after the first.
    pub fn new(growth: Growth, interval: Duration, attempts: u32) -> Result<Self, InvalidStrategy> {
        if !(1..=MAX_ATTEMPTS).contains(&attempts) {
            return Err(InvalidStrategy::Attempts);
        }
        if !(Duration::from_secs(1)..=LONGEST_INTERVAL).contains(&interval) {
            return Err(InvalidStrategy::Interval);
        }
        Ok(Self { growth, interval, attempts })
    }

    /// How waits follow each other.
    pub fn growth(self) -> Growth {
        self.growth
    }

    /// The first wait.
    pub fn interval(self) -> Duration {
        self.interval
    }

    /// How often a delivery is attempted, the first time included.
    pub fn attempts(self) -> u32 {
        self.attempts
    }

    /// The waits, one after the other.
    pub fn schedule(self) -> RetrySchedule {
        // An interval that is longer than the bound was asked for by name, so it stays.
        let bound = LONGEST_DOUBLED.max(self.interval);
        let next = |wait: &Duration| match self.growth {
            Growth::Linear => Some(*wait),
            Growth::Exponential => Some(wait.saturating_mul(2).min(bound)),
        };
        let waits = usize::try_from(self.attempts - 1).unwrap_or(usize::MAX);
        RetrySchedule(std::iter::successors(Some(self.interval), next).take(waits).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(growth: Growth, seconds: u64, attempts: u32) -> Vec<u64> {
        let strategy = RetryStrategy::new(growth, Duration::from_secs(seconds), attempts).expect("a strategy");
        strategy.schedule().0.iter().map(Duration::as_secs).collect()
    }

    #[test]
    fn waits_stay_or_double_up_to_two_hours() {
        assert_eq!(waits(Growth::Linear, 10, 4), [10, 10, 10]);
        assert_eq!(waits(Growth::Exponential, 10, 5), [10, 20, 40, 80]);
        assert_eq!(waits(Growth::Exponential, 3000, 5), [3000, 6000, 7200, 7200]);
        assert_eq!(waits(Growth::Exponential, 9000, 3), [9000, 9000]);
        assert!(waits(Growth::Exponential, 10, 1).is_empty());
        assert_eq!(waits(Growth::Exponential, 1, MAX_ATTEMPTS).len(), 99);
        assert_eq!(RetryStrategy::default().schedule().0, [Duration::from_secs(100); 9]);
    }

    #[test]
    fn what_has_no_bounds_is_refused() {
        let new = |seconds, attempts| RetryStrategy::new(Growth::Exponential, Duration::from_secs(seconds), attempts).err();
        assert_eq!(new(10, 0), Some(InvalidStrategy::Attempts));
        assert_eq!(new(10, MAX_ATTEMPTS + 1), Some(InvalidStrategy::Attempts));
        assert_eq!(new(0, 1), Some(InvalidStrategy::Interval));
        assert_eq!(new(LONGEST_INTERVAL.as_secs() + 1, 1), Some(InvalidStrategy::Interval));
        assert_eq!(new(LONGEST_INTERVAL.as_secs(), MAX_ATTEMPTS), None);
    }
}
