//! What is counted of an endpoint over time, and in which buckets.

use std::time::Duration;

use crate::delivery::{AttemptClass, Outcome};

/// The bounds of the buckets of response times, in milliseconds: powers of two, so that one that is read from a bucket is at most twice
/// what it was. What takes as long as the last one, or longer, has a bucket of its own.
pub const LATENCY_BOUNDS_MS: [u64; 11] = [16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384];
/// How many buckets there are.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;
/// How many ends of attempts and deliveries are told apart.
pub const ENDS: usize = 11;
/// The counts of an endpoint: deliveries that came to be owed, ends, and response times.
pub const COUNTS: usize = 1 + ENDS + LATENCY_BUCKETS;
/// How many event types of one application have counts of their own in a span of time; all others are counted under the empty name.
pub const NAMED_TYPES: usize = 100;

/// How an attempt went or a delivery ended without one: a closed set. The numbers are places in lists of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An attempt, by its class.
    Attempt(AttemptClass),
    /// Ended without a request: [`Outcome::Canceled`].
    Canceled,
    /// Ended without a request: [`Outcome::Discarded`].
    Discarded,
}

impl End {
    /// How what had this outcome ended; `class` is that of its exchange, if there was one.
    pub fn of(outcome: Outcome, class: AttemptClass) -> Self {
        match outcome {
            Outcome::Canceled => Self::Canceled,
            Outcome::Discarded => Self::Discarded,
            Outcome::Unknown => Self::Attempt(AttemptClass::Unknown),
            Outcome::Succeeded | Outcome::Failed => Self::Attempt(class),
        }
    }

    /// Its place among [`ENDS`].
    pub fn place(self) -> usize {
        match self {
            Self::Attempt(AttemptClass::Success) => 0,
            Self::Attempt(AttemptClass::Redirect) => 1,
            Self::Attempt(AttemptClass::ClientError) => 2,
            Self::Attempt(AttemptClass::ServerError) => 3,
            Self::Attempt(AttemptClass::Timeout) => 4,
            Self::Attempt(AttemptClass::Refused) => 5,
            Self::Attempt(AttemptClass::Blocked) => 6,
            Self::Attempt(AttemptClass::Other) => 7,
            Self::Attempt(AttemptClass::Unknown) => 8,
            Self::Canceled => 9,
            Self::Discarded => 10,
        }
    }
}

/// The bucket of a response that took so long.
pub fn latency_bucket(took: Duration) -> usize {
    LATENCY_BOUNDS_MS.iter().position(|bound| took.as_millis() < u128::from(*bound)).unwrap_or(LATENCY_BOUNDS_MS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_in_the_first_bucket_that_it_is_under() {
        let buckets = [0, 15, 16, 31, 16_383, 16_384, 3_600_000].map(|ms| latency_bucket(Duration::from_millis(ms)));
        assert_eq!(buckets, [0, 0, 1, 1, 10, 11, 11]);
        assert_eq!(latency_bucket(Duration::from_micros(15_999)), 0, "as recorded, in whole milliseconds");
    }

    #[test]
    fn what_ended_without_a_request_has_no_class() {
        assert_eq!(End::of(Outcome::Canceled, AttemptClass::Other), End::Canceled);
        assert_eq!(End::of(Outcome::Failed, AttemptClass::Timeout), End::Attempt(AttemptClass::Timeout));
        assert_eq!(End::of(Outcome::Unknown, AttemptClass::Success).place(), 8);
        assert!(End::Discarded.place() < ENDS);
    }
}
