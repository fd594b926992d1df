//! When an endpoint that keeps failing is held, how it is let go on, and when it is given up.

use std::time::Duration;

/// So many sends must fail in a row before an endpoint is held.
pub const OPENS_AFTER: u32 = 20;
/// How long an endpoint is held before a first probe is sent; doubled each time that a probe fails.
pub const FIRST_COOL_DOWN: Duration = Duration::from_secs(30);
/// The longest time between two probes.
pub const LONGEST_COOL_DOWN: Duration = Duration::from_mins(5);
/// How many sends at a time a process may have to an endpoint whose probe succeeded; doubled each second in which sends
/// succeed and none fails.
pub const FIRST_SLOTS: u32 = 2;
/// An endpoint that may have so many sends at a time is well again.
pub const CLOSES_AT: u32 = 64;
/// An endpoint is disabled when all sends to it have failed for so long.
pub const DISABLES_AFTER: Duration = Duration::from_hours(5 * 24);
/// After a silence of so long, [`DISABLES_AFTER`] is counted anew: two failures with nothing between them do not say that the
/// receiver was down all the time.
pub const FORGETS_AFTER: Duration = Duration::from_hours(2 * 24);
/// How much of its allowance a throttled endpoint may catch up on, so that no pause between two claims makes it slower
/// than its rate.
pub const THROTTLE_SLACK: Duration = Duration::from_millis(250);

/// How an endpoint is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The last send to it succeeded, or nothing was sent.
    Healthy,
    /// The last sends to it failed; it is sent to like any other.
    Failing,
    /// It failed so often that its deliveries wait, but for a probe now and then.
    Held,
    /// A probe succeeded: it is sent to in growing numbers.
    Recovering,
    /// Its owner has paused it: its deliveries wait until it is activated.
    Paused,
    /// It gets nothing.
    Disabled,
}

impl State {
    /// The state of an endpoint with a gate (0 for open, 1 for shut, 2 for half open, 3 for paused, as they are stored) and so many failures in a row.
    pub fn of(is_disabled: bool, gate: i16, failures: i32) -> Self {
        match (is_disabled, gate, failures) {
            (true, ..) => Self::Disabled,
            (_, 3, _) => Self::Paused,
            (_, 1, _) => Self::Held,
            (_, 2, _) => Self::Recovering,
            (_, _, 1..) => Self::Failing,
            _ => Self::Healthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_word_wins() {
        let states = [(true, 1, 20), (false, 3, 20), (false, 1, 20), (false, 2, 0), (false, 0, 3), (false, 0, 0)]
            .map(|(off, gate, n)| State::of(off, gate, n));
        assert_eq!(states, [State::Disabled, State::Paused, State::Held, State::Recovering, State::Failing, State::Healthy]);
    }
}
