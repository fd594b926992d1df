//! Where a delivery stands, and why: what is known of a message and an endpoint, put into one word.

use chrono::{DateTime, Utc};

use crate::{delivery::Outcome, endpoint::Endpoint, health::State, id::AttemptId, message::Message, offer::Offer};

/// What is known of a message and an endpoint at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What is owed, if anything is.
    pub owed: Option<Owed>,
    /// The attempt that decides: one that succeeded, else the last one of the fan-out, else the last one of all.
    pub attempt: Option<Last>,
    /// What the circuit breaker says of the endpoint: since when it is as it is, and when it is probed.
    pub gate: Option<Gate>,
    /// When the endpoint's throttle permits the next send.
    pub token_at: Option<DateTime<Utc>>,
    /// The endpoint was deleted.
    pub is_deleted: bool,
    /// The message's fan-out is under way, and has not come to this endpoint.
    pub is_to_come: bool,
}

/// A delivery that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    /// When it is due; of one that is being sent, when its lease runs out.
    pub due_at: DateTime<Utc>,
    /// Somebody is sending it.
    pub is_leased: bool,
    /// How many attempts its run has had.
    pub attempts: i16,
}

/// An attempt.
#[derive(Clone, Debug)]
pub struct Last {
    /// Which.
    pub id: AttemptId,
    /// How it ended.
    pub outcome: Outcome,
    /// The status code; 0 if there was none.
    pub status_code: u16,
    /// What the receiver said, or our words.
    pub response: String,
}

/// A circuit breaker.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The endpoint's state.
    pub state: State,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When a delivery is sent to find out whether it is back.
    pub probe_at: Option<DateTime<Utc>>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The receiver took it.
    Delivered,
    /// It is being sent, or is about to be.
    Sending,
    /// It is sent as soon as a worker gets to it.
    Due,
    /// Its endpoint keeps failing: it waits for a probe to succeed. Or it is paused: it waits until that is activated.
    Held {
        /// Since when the endpoint is held.
        since: DateTime<Utc>,
        /// The next probe; none of a paused one.
        until: Option<DateTime<Utc>>,
    },
    /// It waits for its endpoint's throttle.
    Throttled {
        /// When the throttle permits a send, of this delivery or of one before it.
        until: DateTime<Utc>,
    },
    /// It failed and waits for its next attempt.
    Sleeping {
        /// When that is due.
        until: DateTime<Utc>,
    },
    /// Its attempts are used up.
    Failed,
    /// It ended without a request, since its endpoint was off or gone.
    Canceled,
    /// It ended without a request, since the content of its message was gone.
    Discarded,
    /// It was never owed.
    LeftOut(LeftOut),
}

/// Why a message is not owed to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The message is a duplicate, and was not released.
    Duplicate,
    /// The endpoint is younger than the message.
    Younger,
    /// The endpoint is disabled.
    Disabled,
    /// The message was published for another endpoint alone.
    Elsewhere,
    /// It has no subscription that the message could come by.
    Subscription,
    /// It asks for other event types.
    EventType,
    /// It asks for other channels.
    Channel,
    /// It asks for other payloads, or the payload is gone, so that nobody can tell any more.
    Content,
    /// It would get such a message now: it was changed since.
    Changed,
}

impl Standing {
    /// Puts what is known at `now` into one word. A success stands, whatever was asked for later; a resend that fails takes nothing back.
    pub fn of(facts: &Facts, message: &Message, endpoint: &Endpoint, now: DateTime<Utc>) -> Self {
        let outcome = facts.attempt.as_ref().map(|attempt| attempt.outcome);
        match (outcome, &facts.owed) {
            (Some(Outcome::Succeeded), _) => Self::Delivered,
            (_, Some(owed)) => Self::of_owed(*owed, facts, now),
            (Some(Outcome::Canceled), None) => Self::Canceled,
            (Some(Outcome::Discarded), None) => Self::Discarded,
            (Some(Outcome::Failed | Outcome::Unknown), None) => Self::Failed,
            (None, None) => match LeftOut::of(message, endpoint, now) {
                LeftOut::Changed if facts.is_to_come => Self::Due,
                why => Self::LeftOut(why),
            },
        }
    }

    fn of_owed(owed: Owed, facts: &Facts, now: DateTime<Utc>) -> Self {
        if owed.is_leased {
            return Self::Sending;
        }
        if owed.due_at > now {
            return Self::Sleeping { until: owed.due_at };
        }
        match (facts.gate, facts.token_at) {
            (Some(Gate { state: State::Held | State::Paused, since, probe_at }), _) => Self::Held { since, until: probe_at },
            (_, Some(until)) if until > now => Self::Throttled { until },
            _ => Self::Due,
        }
    }
}

impl LeftOut {
    fn of(message: &Message, endpoint: &Endpoint, now: DateTime<Utc>) -> Self {
        let filter = &endpoint.filter;
        let offer = Offer::new(&message.event_type, &message.channels).of(message.payload.as_deref().unwrap_or_default());
        let offer = offer.with(message.particulars.as_deref()).asked_at(now);
        if message.is_duplicate() && message.released_at.is_none() {
            Self::Duplicate
        } else if endpoint.created_at > message.created_at {
            Self::Younger
        } else if endpoint.is_disabled {
            Self::Disabled
        } else if offer.is_for_another_than(endpoint.id) {
            Self::Elsewhere
        } else if !filter.wants_source(&offer) {
            Self::Subscription
        } else if !filter.wants_type(&offer) {
            Self::EventType
        } else if !filter.wants_kind(&offer) {
            Self::Channel
        } else if filter.wants_content(&offer) {
            Self::Changed
        } else {
            Self::Content
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::{
        content_filter::ContentFilter,
        endpoint::{EndpointUrl, Settings},
        filter::Filter,
        message::Particulars,
        subscription::Wanted,
    };

    fn message() -> Message {
        Message {
            id: Uuid::nil().into(),
            tenant_id: Uuid::nil().into(),
            application_id: Uuid::nil().into(),
            event_type: "invoice.paid".into(),
            event_id: None,
            channels: vec!["berlin".into()],
            payload: None,
            content_type: "application/json".into(),
            message_key: None,
            duplicate_of: None,
            released_at: None,
            payload_mismatch: false,
            particulars: None,
            created_at: at(0),
        }
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            id: Uuid::nil().into(),
            tenant_id: Uuid::nil().into(),
            application_id: Uuid::nil().into(),
            uid: None,
            url: EndpointUrl::stored("https://example.com/".into()),
            description: String::new(),
            version: 1,
            throttle_rate: None,
            is_disabled: false,
            filter: Filter::default(),
            settings: Settings::default(),
            metadata: crate::application::Metadata::new(),
            created_at: at(-60),
            updated_at: at(-60),
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + seconds)
    }

    fn attempt(outcome: Outcome) -> Last {
        Last { id: Uuid::nil().into(), outcome, status_code: 0, response: String::new() }
    }

    fn standing(facts: &Facts) -> Standing {
        Standing::of(facts, &message(), &endpoint(), at(0))
    }

    #[test]
    fn what_is_owed_says_for_what_it_waits() {
        let owed = |due: i64, is_leased| Facts { owed: Some(Owed { due_at: at(due), is_leased, attempts: 1 }), ..Facts::default() };
        assert_eq!(standing(&owed(30, true)), Standing::Sending);
        assert_eq!(standing(&owed(30, false)), Standing::Sleeping { until: at(30) });
        assert_eq!(standing(&owed(-1, false)), Standing::Due);
        let gate = |state| Some(Gate { state, since: at(-9), probe_at: Some(at(5)) });
        let held = Facts { gate: gate(State::Held), token_at: Some(at(1)), ..owed(-1, false) };
        assert_eq!(standing(&held), Standing::Held { since: at(-9), until: Some(at(5)) });
        let paused = Some(Gate { state: State::Paused, since: at(-9), probe_at: None });
        assert_eq!(standing(&Facts { gate: paused, ..owed(-1, false) }), Standing::Held { since: at(-9), until: None });
        assert_eq!(standing(&Facts { gate: gate(State::Recovering), ..owed(-1, false) }), Standing::Due);
        assert_eq!(standing(&Facts { token_at: Some(at(1)), ..owed(-1, false) }), Standing::Throttled { until: at(1) });
        assert_eq!(standing(&Facts { token_at: Some(at(-1)), ..owed(-1, false) }), Standing::Due);
        assert_eq!(standing(&Facts { gate: gate(State::Held), ..owed(30, true) }), Standing::Sending, "the probe");
    }

    #[test]
    fn a_success_stands_and_all_else_is_what_is_still_owed_or_how_it_ended() {
        let owed = Some(Owed { due_at: at(-1), is_leased: false, attempts: 0 });
        let of = |outcome, owed| standing(&Facts { owed, attempt: Some(attempt(outcome)), ..Facts::default() });
        assert_eq!(of(Outcome::Succeeded, owed), Standing::Delivered, "it is being resent");
        assert_eq!(of(Outcome::Failed, owed), Standing::Due);
        let ends = [Outcome::Failed, Outcome::Unknown, Outcome::Canceled, Outcome::Discarded].map(|outcome| of(outcome, None));
        assert_eq!(ends, [Standing::Failed, Standing::Failed, Standing::Canceled, Standing::Discarded]);
    }

    #[test]
    fn what_is_not_owed_says_why() {
        let why = |message: &Message, endpoint: &Endpoint| Standing::of(&Facts::default(), message, endpoint, at(0));
        let asks = |event_types: Option<&str>, channels: Option<&str>| {
            let names = |name: Option<&str>| name.map(|name| vec![name.to_owned()]);
            let filter = Filter { event_types: names(event_types), channels: names(channels), ..Filter::default() };
            Endpoint { filter, ..endpoint() }
        };
        let duplicate = Message { duplicate_of: Some(Uuid::nil().into()), ..message() };
        assert_eq!(why(&duplicate, &endpoint()), Standing::LeftOut(LeftOut::Duplicate));
        assert_eq!(why(&message(), &Endpoint { created_at: at(1), ..endpoint() }), Standing::LeftOut(LeftOut::Younger));
        assert_eq!(why(&message(), &Endpoint { is_disabled: true, ..endpoint() }), Standing::LeftOut(LeftOut::Disabled));
        assert_eq!(why(&message(), &asks(Some("user.signup"), None)), Standing::LeftOut(LeftOut::EventType));
        assert_eq!(why(&message(), &asks(Some("user.signup"), Some("paris"))), Standing::LeftOut(LeftOut::EventType));
        assert_eq!(why(&message(), &asks(None, Some("paris"))), Standing::LeftOut(LeftOut::Channel));
        let content = ContentFilter::parse(serde_json::json!({"body": {"n": 5}})).expect("a filter");
        let choosy = Endpoint { filter: Filter { content: Some(content), ..Filter::default() }, ..endpoint() };
        let with = |payload: &'static str| Message { payload: Some(payload.into()), ..message() };
        assert_eq!(why(&with(r#"{"n": 4}"#), &choosy), Standing::LeftOut(LeftOut::Content));
        assert_eq!(why(&with(r#"{"n": 5}"#), &choosy), Standing::LeftOut(LeftOut::Changed));
        assert_eq!(why(&Message { payload: None, ..message() }, &choosy), Standing::LeftOut(LeftOut::Content));
        assert_eq!(why(&message(), &endpoint()), Standing::LeftOut(LeftOut::Changed));
    }

    #[test]
    fn what_is_for_others_or_was_not_subscribed_says_so() {
        let why = |particulars: Particulars, subscriptions: Option<Vec<Wanted>>| {
            let message = Message { particulars: Some(particulars.into()), ..message() };
            let endpoint = Endpoint { filter: Filter { subscriptions, ..Filter::default() }, ..endpoint() };
            match Standing::of(&Facts::default(), &message, &endpoint, at(0)) {
                Standing::LeftOut(why) => why,
                other => panic!("{other:?}"),
            }
        };
        let only = |number| Particulars { only: Some(Uuid::from_u128(number).into()), ..Particulars::default() };
        assert_eq!(why(only(5), None), LeftOut::Elsewhere);
        assert_eq!(why(only(0), None), LeftOut::Changed);
        let by = Particulars { source: Some(Uuid::from_u128(1).into()), ..Particulars::default() };
        let wanted = |source: u128, event_type: &str| {
            let (filter, filters) = (None, Vec::new());
            let source_id = Some(Uuid::from_u128(source).into());
            Some(vec![Wanted { id: Uuid::nil().into(), source_id, event_types: vec![event_type.to_owned()], filter, filters }])
        };
        assert_eq!(why(by.clone(), Some(Vec::new())), LeftOut::Subscription);
        assert_eq!(why(by.clone(), wanted(2, "*")), LeftOut::Subscription);
        assert_eq!(why(by.clone(), wanted(1, "user.signup")), LeftOut::EventType);
        assert_eq!(why(by, wanted(1, "*")), LeftOut::Changed);
    }
}
