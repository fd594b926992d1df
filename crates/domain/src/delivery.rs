//! What is owed to an endpoint, what one attempt brought, and what follows from it.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{
    id::{ApplicationId, AttemptId, EndpointId, MessageId},
    retry::{Asked, RetrySchedule},
};

/// How many times in a row a worker may die while it sends a delivery, before the delivery is given up.
pub const MAX_UNKNOWN_IN_A_ROW: i16 = 3;
/// How much of a response is read and kept, in bytes.
pub const MAX_RESPONSE: usize = 16 * 1024;

/// How an attempt ended. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered 2xx.
    Succeeded = 0,
    /// The receiver answered something else, or nothing in time, or could not be called.
    Failed = 1,
    /// The worker died while it was sending: the request may have been sent.
    Unknown = 2,
    /// Ended without a request: the endpoint is deleted or disabled.
    Canceled = 3,
    /// Ended without a request: the message is expunged or past its retention.
    Discarded = 4,
}

impl Outcome {
    /// The stored number.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Reads the stored number; the schema's CHECK admits no other.
    pub fn from_code(code: i16) -> Self {
        match code {
            0 => Self::Succeeded,
            2 => Self::Unknown,
            3 => Self::Canceled,
            4 => Self::Discarded,
            _ => Self::Failed,
        }
    }
}

/// Why a delivery is being made. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The fan-out of a message (run 0): follows the retry schedule.
    Scheduled = 0,
    /// Somebody asked for it (a later run): one attempt, which never makes the delivery fail.
    Manual = 1,
}

impl Trigger {
    /// The stored number.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Reads the stored number; the schema's CHECK admits no other.
    pub fn from_code(code: i16) -> Self {
        if code == 1 { Self::Manual } else { Self::Scheduled }
    }
}

/// One HTTP request to an endpoint and what came back, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// What was sent.
    pub message_id: MessageId,
    /// For which customer.
    pub application_id: ApplicationId,
    /// To whom.
    pub endpoint_id: EndpointId,
    /// The URL that was called.
    pub url: String,
    /// Which go at delivering: 0 is the fan-out.
    pub run: i32,
    /// Which attempt of the run: the first is 1.
    pub number: i16,
    /// Why it was made.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: Outcome,
    /// The response's status code; 0 if there was none.
    pub status_code: u16,
    /// The first [`MAX_RESPONSE`] bytes of the response, or our words on why there was none.
    pub response: Bytes,
    /// How long the exchange took.
    pub duration: Duration,
    /// When the next attempt is due, if one follows.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Whether it was sent once more on a new connection, because the kept one turned out to be closed.
    pub is_resent: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What came of one exchange with a receiver. Never an `Err`: what a receiver did is a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The status code; 0 if no response came.
    pub status_code: u16,
    /// The first [`MAX_RESPONSE`] bytes of the response, or our words on why there was none.
    pub response: Bytes,
    /// From the first byte out to the last byte in.
    pub duration: Duration,
    /// What the receiver asked for in `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Why no response came; `None` if one did.
    pub silence: Option<Silence>,
    /// What went wrong, in words for the operator, who may know more than the customer does.
    pub remark: Option<String>,
    /// Whether the request was sent twice: the kept connection was closed under the first, which may have been taken or not.
    pub is_resent: bool,
}

/// Why no response came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The deadline passed.
    Timeout,
    /// The receiver's machine refused the connection.
    Refused,
    /// The egress policy forbids the address.
    Blocked,
    /// All else: the name was not found, TLS failed, the connection broke.
    Other,
}

/// How an attempt went, seen from afar: a closed set, so that it can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptClass {
    /// The receiver answered 200 to 299.
    Success,
    /// The receiver answered 300 to 399; redirects are not followed.
    Redirect,
    /// The receiver answered 400 to 499.
    ClientError,
    /// The receiver answered 500 to 599.
    ServerError,
    /// [`Silence::Timeout`].
    Timeout,
    /// [`Silence::Refused`].
    Refused,
    /// [`Silence::Blocked`].
    Blocked,
    /// [`Silence::Other`], or a status code that HTTP does not know.
    Other,
    /// The worker died while it was sending.
    Unknown,
}

impl Exchange {
    /// Whether the receiver took the message.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status_code)
    }

    /// How it went, seen from afar.
    pub fn class(&self) -> AttemptClass {
        match (self.silence, self.status_code) {
            (Some(Silence::Timeout), _) => AttemptClass::Timeout,
            (Some(Silence::Refused), _) => AttemptClass::Refused,
            (Some(Silence::Blocked), _) => AttemptClass::Blocked,
            (None, 200..300) => AttemptClass::Success,
            (None, 300..400) => AttemptClass::Redirect,
            (None, 400..500) => AttemptClass::ClientError,
            (None, 500..600) => AttemptClass::ServerError,
            (Some(Silence::Other) | None, _) => AttemptClass::Other,
        }
    }

    /// Whether the receiver said that it will never want a message again (410).
    pub fn is_gone(&self) -> bool {
        self.status_code == 410
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the delivery is finished.
    Finished,
    /// Another attempt after this wait.
    Retry(Duration),
}

/// Decides what follows attempt number `number` of a run; `dice` in 0..1 is the jitter.
pub fn after(exchange: &Exchange, trigger: Trigger, number: i16, schedule: &RetrySchedule, dice: f64) -> (Outcome, Next) {
    if exchange.is_success() {
        return (Outcome::Succeeded, Next::Finished);
    }
    if trigger == Trigger::Manual || exchange.is_gone() {
        return (Outcome::Failed, Next::Finished);
    }
    let number = u32::try_from(number).unwrap_or(0);
    let is_busy = matches!(exchange.status_code, 429 | 503);
    let asked = exchange.retry_after.map(|wait| Asked { wait, is_busy });
    let next = schedule.wait_after(number, asked, dice).map_or(Next::Finished, Next::Retry);
    (Outcome::Failed, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status_code: u16) -> Exchange {
        Exchange {
            status_code,
            response: Bytes::new(),
            duration: Duration::ZERO,
            retry_after: None,
            silence: None,
            remark: None,
            is_resent: false,
        }
    }

    #[test]
    fn every_exchange_has_a_class() {
        use AttemptClass::{Blocked, ClientError, Other, Redirect, ServerError, Success, Timeout};
        let classes = [(204, Success), (307, Redirect), (410, ClientError), (599, ServerError), (101, Other), (999, Other)];
        for (status, class) in classes {
            assert_eq!(answered(status).class(), class, "{status}");
        }
        for (silence, class) in [(Silence::Timeout, Timeout), (Silence::Blocked, Blocked), (Silence::Other, Other)] {
            assert_eq!(Exchange { silence: Some(silence), ..answered(0) }.class(), class);
        }
    }

    #[test]
    fn a_delivery_is_retried_until_success_the_end_of_the_schedule_or_410() {
        let schedule = RetrySchedule(vec![Duration::from_secs(1)]);
        let next = |status, trigger, number| after(&answered(status), trigger, number, &schedule, 0.5);
        assert_eq!(next(204, Trigger::Scheduled, 1), (Outcome::Succeeded, Next::Finished));
        assert_eq!(next(500, Trigger::Scheduled, 1), (Outcome::Failed, Next::Retry(Duration::from_secs(1))));
        assert_eq!(next(307, Trigger::Scheduled, 1), (Outcome::Failed, Next::Retry(Duration::from_secs(1))));
        assert_eq!(next(500, Trigger::Scheduled, 2), (Outcome::Failed, Next::Finished));
        assert_eq!(next(410, Trigger::Scheduled, 1), (Outcome::Failed, Next::Finished));
        assert_eq!(next(500, Trigger::Manual, 1), (Outcome::Failed, Next::Finished));
    }
}
