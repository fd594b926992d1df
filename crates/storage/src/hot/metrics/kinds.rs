//! The closed sets of label values.

use domain::delivery::{AttemptClass, Outcome};

use super::instruments::Kind;

impl Kind for AttemptClass {
    const LABEL: &'static str = "class";
    const VALUES: &'static [&'static str] = &["2xx", "3xx", "4xx", "5xx", "timeout", "refused", "blocked", "other", "unknown"];

    fn place(self) -> usize {
        match self {
            Self::Success => 0,
            Self::Redirect => 1,
            Self::ClientError => 2,
            Self::ServerError => 3,
            Self::Timeout => 4,
            Self::Refused => 5,
            Self::Blocked => 6,
            Self::Other => 7,
            Self::Unknown => 8,
        }
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    Succeeded,
    Failed,
    Canceled,
    Discarded,
}

impl Ending {
    /// How a delivery ends whose last attempt had this outcome; none ends with an unknown one.
    pub(super) fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Succeeded => Some(Self::Succeeded),
            Outcome::Failed => Some(Self::Failed),
            Outcome::Canceled => Some(Self::Canceled),
            Outcome::Discarded => Some(Self::Discarded),
            Outcome::Unknown => None,
        }
    }
}

impl Kind for Ending {
    const LABEL: &'static str = "result";
    const VALUES: &'static [&'static str] = &["succeeded", "failed", "canceled", "discarded"];

    fn place(self) -> usize {
        self as usize
    }
}

/// Why a message that was in order was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// Too much was waiting.
    Overloaded,
    /// The database was away, or too slow.
    Unavailable,
    /// It could not be stored.
    Failed,
}

impl Kind for Refusal {
    const LABEL: &'static str = "reason";
    const VALUES: &'static [&'static str] = &["overloaded", "unavailable", "failed"];

    fn place(self) -> usize {
        self as usize
    }
}

/// The class of an HTTP status code.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusClass(pub(super) u16);

impl Kind for StatusClass {
    const LABEL: &'static str = "status";
    const VALUES: &'static [&'static str] = &["1xx", "2xx", "3xx", "4xx", "5xx"];

    fn place(self) -> usize {
        usize::from(self.0.clamp(100, 599) / 100 - 1)
    }
}
