//! Which endpoints a message is owed to.

use std::cell::OnceCell;

use serde_json::Value;

use crate::content_filter::{ContentFilter, Subject};

/// What an endpoint asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these event types; all, if absent.
    pub event_types: Option<Vec<String>>,
    /// Only messages in one of these channels; all, if absent.
    pub channels: Option<Vec<String>>,
    /// Only messages that this takes; all, if absent.
    pub content: Option<ContentFilter>,
}

/// The payload of one message, which is parsed when the first filter looks into it, and once.
#[derive(Debug)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    parsed: OnceCell<Option<Value>>,
}

impl<'a> Payload<'a> {
    /// A payload of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, parsed: OnceCell::new() }
    }

    fn parsed(&self) -> Option<&Value> {
        self.parsed.get_or_init(|| serde_json::from_slice(self.bytes).ok()).as_ref()
    }
}

impl Filter {
    /// Whether a message of `event_type` in `channels` with this payload is wanted. The content is looked at last, since that costs most.
    pub fn wants(&self, event_type: &str, channels: &[String], payload: &Payload<'_>) -> bool {
        self.wants_kind(event_type, channels) && self.wants_content(payload)
    }

    /// Whether messages of `event_type` in `channels` may be wanted. A message without channels never matches an endpoint that names some (the
    /// Svix contract).
    pub fn wants_kind(&self, event_type: &str, channels: &[String]) -> bool {
        let type_fits = self.event_types.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == event_type));
        type_fits && self.channels.as_ref().is_none_or(|wanted| wanted.iter().any(|name| channels.contains(name)))
    }

    /// Whether messages with this payload may be wanted.
    pub fn wants_content(&self, payload: &Payload<'_>) -> bool {
        self.content.as_ref().is_none_or(|content| {
            let body = if content.needs_body() { payload.parsed() } else { None };
            content.matches(&Subject { body, ..Subject::default() })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_gets_what_it_asks_for() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wants = |filter: &Filter, event_type, channels: &[String]| filter.wants(event_type, channels, &Payload::new(b"{}"));
        let all = Filter::default();
        let paid = Filter { event_types: Some(names(&["invoice.paid"])), ..Filter::default() };
        let berlin = Filter { channels: Some(names(&["berlin"])), ..Filter::default() };
        assert!(wants(&all, "user.created", &[]));
        assert!(wants(&all, "user.created", &names(&["paris"])));
        assert!(wants(&paid, "invoice.paid", &[]));
        assert!(!wants(&paid, "invoice.sent", &[]));
        assert!(wants(&berlin, "x", &names(&["paris", "berlin"])));
        assert!(!wants(&berlin, "x", &names(&["paris"])));
        assert!(!wants(&berlin, "x", &[]));
    }

    #[test]
    fn a_payload_is_parsed_once_and_only_if_somebody_looks_into_it() {
        let content = |document| Some(ContentFilter::parse(document).expect("a filter"));
        let large =
            Filter { event_types: Some(vec!["paid".to_owned()]), content: content(json!({"body": {"n": {"$gt": 5}}})), channels: None };
        let signed = Filter { content: content(json!({"headers": {"x-signed": {"$exist": false}}})), ..Filter::default() };
        let payload = Payload::new(br#"{"n": 6}"#);
        assert!(!large.wants("sent", &[], &payload));
        assert!(signed.wants("paid", &[], &payload));
        assert_eq!(payload.parsed.get(), None);
        assert!(large.wants("paid", &[], &payload));
        assert_eq!(payload.parsed.get(), Some(&Some(json!({"n": 6}))));
        assert!(!large.wants("paid", &[], &Payload::new(br#"{"n": 5}"#)));
        assert!(!large.wants("paid", &[], &Payload::new(b"no JSON")));
    }
}
