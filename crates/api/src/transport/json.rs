//! Bodies in JSON: told from others by their headers, and read so that whatever is wrong with it is reported with the name of the field.

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, error::Category};
use serde_path_to_error::Segment;

use crate::error::{ApiError, ApiResult, Problem};

/// The media type of every body that we render.
pub(crate) const MEDIA_TYPE: &str = "application/json";
/// The deepest nesting that we accept; one less than the parser's own limit, so that ours is the one that is reported.
const MAX_DEPTH: usize = 127;
/// The most names that the place of a problem is told with: hostile bodies nest deep.
const MAX_PLACE: usize = 8;

/// Whether a body with these headers is plain JSON; one that says nothing of itself is taken for it.
pub(crate) fn is_announced(headers: &HeaderMap) -> bool {
    let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // Of several JSON texts the operations that take several have a use; the others find that something follows.
        matches!(essence.as_str(), "application/json" | "application/x-ndjson" | "application/ndjson")
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    });
    let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    is_json && is_plain
}

/// Reads a JSON object.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> ApiResult<T> {
    parse_as(body, b'{', "object")
}

/// Reads a JSON array.
pub(crate) fn parse_list<'a, T: Deserialize<'a>>(body: &'a [u8]) -> ApiResult<Vec<T>> {
    parse_as(body, b'[', "array")
}

/// Reads what begins so, and is called so.
fn parse_as<'a, T: Deserialize<'a>>(body: &'a [u8], begins: u8, name: &str) -> ApiResult<T> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::malformed(&["body"], "is not valid UTF-8"))?;
    let first = text.trim_ascii_start().bytes().next();
    if let Some(field) = field_nested_too_deep(body) {
        let loc = if field.is_empty() { vec!["body"] } else { vec!["body", &field] };
        return Err(ApiError::malformed(&loc, format!("is nested deeper than {MAX_DEPTH} levels")));
    }
    if first.is_none() {
        return Err(ApiError::malformed(&["body"], format!("is empty: a JSON {name} is required")));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if first != Some(begins) {
        serde::de::IgnoredAny::deserialize(&mut deserializer).map_err(|error| ApiError::malformed(&["body"], error.to_string()))?;
        return Err(ApiError::malformed(&["body"], format!("must be a JSON {name}")));
    }
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| report(&error))?;
    deserializer.end().map_err(|error| ApiError::malformed(&["body"], error.to_string()))?;
    Ok(value)
}

/// Turns the parser's complaint into one that names the field.
fn report(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let mut place = vec!["body".to_owned()];
    place.extend(error.path().iter().take(MAX_PLACE).filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }));
    let text = error.inner().to_string();
    if error.inner().classify() != Category::Data {
        return ApiError::Invalid(Problem { place, why: text, is_malformed: true });
    }
    let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why).to_owned();
    for complaint in ["missing field `", "duplicate field `"] {
        if let Some(name) = why.strip_prefix(complaint).and_then(|rest| rest.strip_suffix('`'))
            && place.last().is_none_or(|last| last != name)
        {
            place.push(name.to_owned());
        }
    }
    // These are serde's own words; our field types find other ones.
    let is_malformed = ["missing field", "duplicate field", "invalid type", "invalid value", "invalid length", "unknown variant"]
        .iter()
        .any(|words| why.starts_with(words));
    ApiError::Invalid(Problem { place, why, is_malformed })
}

/// The name of the field in which the text nests deeper than [`MAX_DEPTH`], if one does; empty if it is in none.
fn field_nested_too_deep(json: &[u8]) -> Option<String> {
    let mut depth = 0_usize;
    let mut field = 0..0;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let start = at + 1;
                at = end_of_string(json, start);
                if depth == 1 {
                    field = start..at.min(json.len());
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(String::from_utf8_lossy(&json[field]).chars().take(64).collect());
        }
        at += 1;
    }
    None
}

/// Where the closing quote of the string that starts at `at` is, or would be.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// Reads a field that may be absent but not null.
pub(crate) fn present<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a field of a patch: absent keeps, null unsets.
#[expect(clippy::option_option, reason = "a field of a patch has three cases: keep, unset, set")]
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Whether a NUL character is anywhere in it: Postgres holds none.
pub(crate) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Sample {
        name: String,
        #[serde(default)]
        channels: Vec<String>,
        #[serde(default)]
        metadata: BTreeMap<String, String>,
    }

    fn problem(body: &str) -> (String, String, bool) {
        match parse::<Sample>(body.as_bytes()) {
            Err(ApiError::Invalid(problem)) => (problem.place.join("."), problem.why, problem.is_malformed),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn problems_are_told_with_the_place_where_they_are() {
        for (body, loc) in [
            ("", "body"),
            ("  ", "body"),
            ("[1]", "body"),
            ("\"x\"", "body"),
            ("{", "body"),
            ("{\"name\":", "body.name"),
            ("{}", "body.name"),
            ("{\"name\":1}", "body.name"),
            ("{\"name\":null}", "body.name"),
            ("{\"name\":\"a\",\"name\":\"b\"}", "body.name"),
            ("{\"name\":\"a\",\"channels\":[\"a\",1]}", "body.channels.1"),
            ("{\"name\":\"a\",\"metadata\":{\"k\":{}}}", "body.metadata.k"),
            ("{\"name\":\"a\"} x", "body"),
        ] {
            let (found, _, is_malformed) = problem(body);
            assert_eq!((found.as_str(), is_malformed), (loc, true), "{body}");
        }
        assert_eq!(problem("{\"name\":1}").1, "invalid type: integer `1`, expected a string");
    }

    #[test]
    fn deep_nesting_is_refused_by_name_wherever_it_is() {
        let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
        for (body, loc) in [
            (format!("{{\"name\":{deep}}}"), "body.name"),
            (format!("{{\"name\":\"a\",\"unknown\":{deep}}}"), "body.unknown"),
            (deep.clone(), "body"),
            (format!("{{\"a\\\"[\":1,\"x\":{}", "{\"y\":".repeat(600)), "body.x"),
        ] {
            let (found, msg, _) = problem(&body);
            assert_eq!(found, loc);
            assert!(msg.contains("nested"), "{msg}");
        }
        assert!(parse::<Sample>(b"{\"name\":\"[[[[\\\"[[[\",\"more\":[[[]]]}").is_ok());
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        assert!(matches!(parse::<Sample>(b"{\"name\":\"\xff\"}"), Err(ApiError::Invalid(_))));
    }

    #[test]
    fn only_plain_json_is_read() {
        let check = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value.parse().expect("a value"))]);
            is_announced(&headers)
        };
        assert!(is_announced(&HeaderMap::new()));
        assert!(check("content-type", "application/json"));
        assert!(check("content-type", "Application/JSON; charset=utf-8"));
        assert!(check("content-type", "application/merge-patch+json"));
        assert!(!check("content-type", "text/plain"));
        assert!(!check("content-type", ""));
        assert!(!check("content-encoding", "gzip"));
    }
}
