//! What happened to a tenant's own things: its endpoints, and what is sent to them. The tenant can have endpoints of its own that hear of it.

use chrono::{DateTime, Utc};

use crate::{
    delivery::{Next, Outcome, Trigger},
    id::{ApplicationId, AttemptId, EndpointId, MessageId},
    task::Task,
};

/// At which failed attempt of a delivery it is said that it keeps failing (as svix-server does).
pub const FAILING_AT: i16 = 4;

/// What happened, in a word. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An endpoint was made.
    EndpointCreated = 0,
    /// Something of an endpoint was changed.
    EndpointUpdated = 1,
    /// An endpoint was removed.
    EndpointDeleted = 2,
    /// An endpoint was switched on.
    EndpointEnabled = 3,
    /// An endpoint was switched off, by its owner or by us.
    EndpointDisabled = 4,
    /// A delivery has failed [`FAILING_AT`] times, and is tried again.
    AttemptFailing = 5,
    /// A delivery has failed for good.
    AttemptExhausted = 6,
    /// A delivery that kept failing has succeeded.
    AttemptRecovered = 7,
    /// Long work that somebody asked for is over: done, failed or stopped.
    TaskFinished = 8,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::EndpointCreated,
        Self::EndpointUpdated,
        Self::EndpointDeleted,
        Self::EndpointEnabled,
        Self::EndpointDisabled,
        Self::AttemptFailing,
        Self::AttemptExhausted,
        Self::AttemptRecovered,
        Self::TaskFinished,
    ];

    /// The stored number.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// What there is to tell of an attempt. Of a resend nothing: it never makes a delivery fail.
    pub fn of_attempt(trigger: Trigger, number: i16, outcome: Outcome, next: Next) -> Option<Self> {
        match (trigger, outcome, next) {
            (Trigger::Scheduled, Outcome::Failed, Next::Finished) => Some(Self::AttemptExhausted),
            (Trigger::Scheduled, Outcome::Failed, Next::Retry(_)) if number == FAILING_AT => Some(Self::AttemptFailing),
            (Trigger::Scheduled, Outcome::Succeeded, _) if number > FAILING_AT => Some(Self::AttemptRecovered),
            _ => None,
        }
    }

    /// Reads a stored number; a newer release may have stored one that we do not know.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Something that happened, with what is told of it: as it was at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnEvent {
    /// What happened.
    pub kind: Kind,
    /// In which application.
    pub application_id: Option<ApplicationId>,
    /// The tenant's own name for that.
    pub application_uid: Option<String>,
    /// To which endpoint, if it happened to one.
    pub endpoint_id: Option<EndpointId>,
    /// What else there is to say.
    pub about: About,
}

/// What is told of an event beside where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Of an endpoint.
    Endpoint {
        /// The tenant's own name for it.
        uid: Option<String>,
        /// If it was switched off: how that came.
        disabled: Option<Disabled>,
    },
    /// Of a delivery.
    Attempt {
        /// What was to be delivered.
        message_id: MessageId,
        /// The publisher's own name for that.
        event_id: Option<String>,
        /// The attempt that brought it about.
        attempt_id: AttemptId,
        /// The receiver's status code; 0 if there was none.
        status_code: u16,
    },
    /// Of long work.
    Task(Box<Task>),
}

/// How an endpoint came to be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// We did it, because its receiver is gone or has been failing for days.
    pub is_automatic: bool,
    /// Since when it has been failing.
    pub failing_since: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_attempts_the_fourth_failure_the_last_one_and_a_late_success_are_told() {
        let retry = Next::Retry(Duration::ZERO);
        let of = |number, outcome, next| Kind::of_attempt(Trigger::Scheduled, number, outcome, next);
        assert_eq!([1, 2, 3, 4, 5].map(|number| of(number, Outcome::Failed, retry)), [None, None, None, Some(Kind::AttemptFailing), None]);
        assert_eq!([1, 4, 8].map(|number| of(number, Outcome::Failed, Next::Finished)), [Some(Kind::AttemptExhausted); 3]);
        assert_eq!([1, 4, 5].map(|number| of(number, Outcome::Succeeded, Next::Finished)), [None, None, Some(Kind::AttemptRecovered)]);
        assert_eq!(of(9, Outcome::Canceled, Next::Finished), None);
        assert_eq!(Kind::of_attempt(Trigger::Manual, 1, Outcome::Failed, Next::Finished), None);
    }

    #[test]
    fn each_kind_has_a_number_of_its_own() {
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!((kind.code(), Kind::from_code(number)), (number, Some(kind)));
        }
        assert_eq!(Kind::from_code(-1), None);
        assert_eq!(Kind::from_code(99), None);
    }
}
