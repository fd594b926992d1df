//! What filters look at: conditions by scope, and samples to try them on.

use domain::{
    content_filter::{ContentFilter, Subject},
    message::Particulars,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    error::{ApiError, ApiResult},
    transport::json::has_nul,
};

/// The name of the one field of a path.
const PATH: &str = "path";

/// Conditions on each part of an event. `docs/filters.md` says what they can be; what is absent or empty asks for nothing.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoyFilterScopes)]
pub(crate) struct ScopesIn {
    #[schema(value_type = Option<Object>)]
    pub(super) body: Option<Value>,
    #[serde(alias = "header")]
    #[schema(value_type = Option<Object>)]
    pub(super) headers: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub(super) query: Option<Value>,
    #[schema(value_type = Option<Object>)]
    pub(super) path: Option<Value>,
}

impl ScopesIn {
    /// The filter that has these conditions, at this place of the request.
    pub(super) fn filter(self, place: &[&str]) -> ApiResult<ContentFilter> {
        let mut written = Map::new();
        for (scope, conditions) in [("body", self.body), ("headers", self.headers), ("query", self.query), (PATH, self.path)] {
            if let Some(conditions) = conditions.filter(|conditions| !is_nothing(conditions)) {
                written.insert(scope.to_owned(), conditions);
            }
        }
        let written = Value::Object(written);
        if has_nul(&written) {
            return Err(ApiError::invalid(place, "must not contain NUL characters"));
        }
        ContentFilter::parse(written).map_err(|error| ApiError::invalid(place, error.to_string()))
    }

    /// These conditions, and those of a filter where there are none.
    pub(super) fn or(self, filter: &ContentFilter) -> Self {
        let known = |scope: &str| filter.written().get(scope).cloned();
        Self {
            body: self.body.or_else(|| known("body")),
            headers: self.headers.or_else(|| known("headers")),
            query: self.query.or_else(|| known("query")),
            path: self.path.or_else(|| known(PATH)),
        }
    }
}

/// Whether conditions ask for nothing.
fn is_nothing(conditions: &Value) -> bool {
    conditions.is_null() || conditions.as_object().is_some_and(Map::is_empty)
}

/// Conditions on each part of an event; empty where there are none.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ConvoyFilterSchema)]
pub(crate) struct ScopesOut {
    #[schema(value_type = Object)]
    pub(super) body: Value,
    #[schema(value_type = Object)]
    pub(super) headers: Value,
    #[schema(value_type = Object)]
    pub(super) query: Value,
    #[schema(value_type = Object)]
    pub(super) path: Value,
}

impl From<&ContentFilter> for ScopesOut {
    fn from(filter: &ContentFilter) -> Self {
        let scope = |name: &str| filter.written().get(name).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        Self { body: scope("body"), headers: scope("headers"), query: scope("query"), path: scope(PATH) }
    }
}

/// An event to try filters on.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoySampleEvent)]
pub(crate) struct Sample {
    /// The payload
    pub(super) body: Option<Value>,
    /// Names and values
    #[serde(alias = "header")]
    #[schema(value_type = Option<Object>)]
    headers: Option<Map<String, Value>>,
    /// Names and values
    #[schema(value_type = Option<Object>)]
    query: Option<Map<String, Value>>,
    /// The path, as a text or as `{"path": text}`
    path: Option<Value>,
}

impl Sample {
    /// Whether a filter takes it.
    pub(super) fn satisfies(&self, filter: &ContentFilter) -> bool {
        let (headers, query, path) = (pairs(self.headers.as_ref()), pairs(self.query.as_ref()), self.path());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let query: Vec<_> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        filter.matches(&Subject { body: self.body.as_ref(), headers: &headers, query: &query, path: path.as_deref().unwrap_or_default() })
    }

    /// What of it goes along with a message.
    pub(super) fn particulars(&self) -> Particulars {
        let query = Some(url_encoded(&pairs(self.query.as_ref()))).filter(|query| !query.is_empty());
        Particulars { headers: pairs(self.headers.as_ref()), query, path: self.path(), ..Particulars::default() }
    }

    fn path(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        path.as_str().or_else(|| path.get(PATH)?.as_str()).map(str::to_owned)
    }
}

/// Names and values, a name as often as it has values.
fn pairs(written: Option<&Map<String, Value>>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut pairs = Vec::new();
    for (name, value) in written.into_iter().flatten() {
        match value {
            Value::Array(values) => pairs.extend(values.iter().map(|value| (name.clone(), text(value)))),
            value => pairs.push((name.clone(), text(value))),
        }
    }
    pairs
}

fn url_encoded(pairs: &[(String, String)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Sample {
        let written = json!({ "body": { "n": 6 }, "header": { "X-Kind": ["a", "b"] }, "query": { "page": 2, "q": "a b&c" }, "path": { "path": "/in" } });
        serde_json::from_value(written).expect("a sample")
    }

    #[test]
    fn a_sample_has_all_that_filters_look_at() {
        let takes = |conditions: Value| {
            let scopes: ScopesIn = serde_json::from_value(conditions.clone()).expect("scopes");
            sample().satisfies(&scopes.filter(&["body"]).unwrap_or_else(|error| panic!("{conditions}: {error:?}")))
        };
        for conditions in [
            json!({}),
            json!({ "body": { "n": { "$gt": 5 } }, "headers": null, "query": {} }),
            json!({ "header": { "x-kind": "b" } }),
            json!({ "query": { "page": 2 }, "path": { "path": "/in" } }),
        ] {
            assert!(takes(conditions.clone()), "{conditions}");
        }
        for conditions in [json!({ "body": { "n": 5 } }), json!({ "headers": { "x-kind": "c" } }), json!({ "path": { "path": "/out" } })] {
            assert!(!takes(conditions.clone()), "{conditions}");
        }
        let particulars = sample().particulars();
        assert_eq!(particulars.query.as_deref(), Some("page=2&q=a%20b%26c"));
        assert_eq!((particulars.headers.len(), particulars.path.as_deref()), (2, Some("/in")));
    }

    #[test]
    fn what_is_no_filter_is_refused_and_what_is_kept_is_shown() {
        let scopes = |conditions| serde_json::from_value::<ScopesIn>(conditions).expect("scopes");
        assert!(scopes(json!({ "body": { "n": { "$much": 1 } } })).filter(&["body"]).is_err());
        assert!(scopes(json!({ "body": { "n": "\u{0}" } })).filter(&["body"]).is_err());
        let filter = scopes(json!({ "body": { "n": 1 } })).filter(&["body"]).expect("a filter");
        let merged = scopes(json!({ "query": { "a": "b" } })).or(&filter).filter(&["body"]).expect("a filter");
        assert_eq!(json!(ScopesOut::from(&merged)), json!({ "body": { "n": 1 }, "headers": {}, "query": { "a": "b" }, "path": {} }));
        let none = scopes(json!({ "body": {} })).or(&filter).filter(&["body"]).expect("a filter");
        assert_eq!(*none.written(), json!({}));
    }
}
