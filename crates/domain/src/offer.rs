//! A message as endpoints are asked whether they want it.

use std::cell::OnceCell;

use chrono::{DateTime, Utc};
use serde_json::Value;
use url::form_urlencoded;

use crate::{
    content_filter::{ContentFilter, Subject},
    id::{EndpointId, SourceId},
    message::{Message, Particulars},
};

/// A message as endpoints are asked whether they want it. What is in it is parsed when the first filter looks into it, and once.
#[derive(Debug)]
pub struct Offer<'a> {
    event_type: &'a str,
    channels: &'a [String],
    payload: &'a [u8],
    particulars: Option<&'a Particulars>,
    at: DateTime<Utc>,
    body: OnceCell<Option<Value>>,
    query: OnceCell<Vec<(String, String)>>,
}

impl<'a> Offer<'a> {
    /// A message of this type in these channels, with nothing in it.
    pub fn new(event_type: &'a str, channels: &'a [String]) -> Self {
        let (body, query) = (OnceCell::new(), OnceCell::new());
        Self { event_type, channels, payload: &[], particulars: None, at: DateTime::<Utc>::MAX_UTC, body, query }
    }

    /// A stored message.
    pub fn of_message(message: &'a Message) -> Self {
        let offer = Self::new(&message.event_type, &message.channels).of(message.payload.as_deref().unwrap_or_default());
        offer.with(message.particulars.as_deref())
    }

    /// The same with this payload.
    #[must_use]
    pub fn of(self, payload: &'a [u8]) -> Self {
        Self { payload, body: OnceCell::new(), ..self }
    }

    /// The same with these particulars.
    #[must_use]
    pub fn with(self, particulars: Option<&'a Particulars>) -> Self {
        Self { particulars, query: OnceCell::new(), ..self }
    }

    /// The same, asked at this moment. What is to count from some time on counts if nobody says.
    #[must_use]
    pub fn asked_at(self, at: DateTime<Utc>) -> Self {
        Self { at, ..self }
    }

    pub(crate) fn event_type(&self) -> &str {
        self.event_type
    }

    pub(crate) fn channels(&self) -> &[String] {
        self.channels
    }

    pub(crate) fn at(&self) -> DateTime<Utc> {
        self.at
    }

    pub(crate) fn source(&self) -> Option<SourceId> {
        self.particulars?.source
    }

    /// Whether it names the one endpoint that may get it, and that is another one.
    pub fn is_for_another_than(&self, endpoint_id: EndpointId) -> bool {
        self.particulars.and_then(|particulars| particulars.only).is_some_and(|only| only != endpoint_id)
    }

    /// Whether the endpoint that it names gets it whatever that asks for.
    pub fn is_example(&self) -> bool {
        self.particulars.is_some_and(|particulars| particulars.is_example && particulars.only.is_some())
    }

    /// Whether what is in it satisfies a filter.
    pub(crate) fn satisfies(&self, filter: &ContentFilter) -> bool {
        let body = if filter.needs_body() { self.body() } else { None };
        let Some(particulars) = self.particulars else { return filter.matches(&Subject { body, ..Subject::default() }) };
        let query = self.query(particulars);
        let text = |pairs: &'a [(String, String)]| pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
        let query: Vec<_> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        filter.matches(&Subject {
            body,
            headers: &text(&particulars.headers),
            query: &query,
            path: particulars.path.as_deref().unwrap_or_default(),
        })
    }

    fn body(&self) -> Option<&Value> {
        self.body.get_or_init(|| serde_json::from_slice(self.payload).ok()).as_ref()
    }

    fn query(&self, particulars: &Particulars) -> &[(String, String)] {
        self.query.get_or_init(|| {
            let written = particulars.query.as_deref().unwrap_or_default();
            form_urlencoded::parse(written.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn content(document: Value) -> ContentFilter {
        ContentFilter::parse(document).expect("a filter")
    }

    #[test]
    fn a_payload_is_parsed_once_and_only_if_somebody_looks_into_it() {
        let large = content(json!({"body": {"n": {"$gt": 5}}}));
        let signed = content(json!({"headers": {"x-signed": {"$exist": false}}}));
        let offer = Offer::new("paid", &[]).of(br#"{"n": 6}"#);
        assert!(offer.satisfies(&signed));
        assert_eq!((offer.body.get(), offer.query.get()), (None, None));
        assert!(offer.satisfies(&large));
        assert_eq!(offer.body.get(), Some(&Some(json!({"n": 6}))));
        assert!(!Offer::new("paid", &[]).of(br#"{"n": 5}"#).satisfies(&large));
        assert!(!Offer::new("paid", &[]).of(b"no JSON").satisfies(&large));
    }

    #[test]
    fn headers_query_and_path_are_looked_into() {
        let particulars = Particulars {
            headers: vec![("X-Event".to_owned(), "push".to_owned())],
            query: Some("team=a%20b&n=5".to_owned()),
            path: Some("/ingest/x".to_owned()),
            ..Particulars::default()
        };
        let fits = |written: &Value, particulars| Offer::new("x", &[]).with(particulars).satisfies(&content(written.clone()));
        for (right, wrong) in [
            (json!({"headers": {"x-event": "push"}}), json!({"headers": {"x-event": "pull"}})),
            (json!({"query": {"team": "a b", "n": 5}}), json!({"query": {"team": "a%20b"}})),
            (json!({"path": {"path": "/ingest/x"}}), json!({"path": {"path": "/ingest/y"}})),
        ] {
            assert!(fits(&right, Some(&particulars)) && !fits(&wrong, Some(&particulars)) && !fits(&right, None), "{right}");
        }
    }
}
