//! What is special about a message, as its table holds it: a JSON object, or nothing.

use std::sync::Arc;

use domain::message::Particulars;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

/// A field that the message does not have is absent.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    only: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(rename = "example", skip_serializing_if = "std::ops::Not::not")]
    is_example: bool,
}

/// Reads them.
pub(crate) fn read(written: Option<Json<Value>>) -> Option<Arc<Particulars>> {
    let Written { source, only, headers, query, path, tags, is_example } = serde_json::from_value(written?.0).unwrap_or_default();
    let uuid = |text: Option<String>| text?.parse::<Uuid>().ok();
    Some(Arc::new(Particulars {
        source: uuid(source).map(Into::into),
        only: uuid(only).map(Into::into),
        headers,
        query,
        path,
        tags,
        is_example,
    }))
}

/// Writes them as the text of a `jsonb`.
pub(crate) fn write(particulars: &Particulars) -> String {
    // No text of Postgres has a NUL in it; nor can a header or a URL have one.
    let text = |text: &String| text.replace('\0', "\u{fffd}");
    let written = Written {
        source: particulars.source.map(|id| Uuid::from(id).to_string()),
        only: particulars.only.map(|id| Uuid::from(id).to_string()),
        headers: particulars.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
        query: particulars.query.as_ref().map(text),
        path: particulars.path.as_ref().map(text),
        tags: particulars.tags.iter().map(text).collect(),
        is_example: particulars.is_example,
    };
    serde_json::to_string(&written).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let read_back = |particulars: &Particulars| {
            let text = write(particulars);
            read(Some(Json(serde_json::from_str(&text).expect("JSON"))))
        };
        let all = Particulars {
            source: Some(Uuid::from_u128(1).into()),
            only: Some(Uuid::from_u128(2).into()),
            headers: vec![("X-A".into(), "1".into()), ("x-a".into(), "\"2\"".into())],
            query: Some("a=1&b=%00".into()),
            path: Some("/ingest/x".into()),
            tags: vec!["a".into(), "b\\#".into()],
            is_example: true,
        };
        for particulars in [all, Particulars::default()] {
            assert_eq!(read_back(&particulars).as_deref(), Some(&particulars));
        }
        assert_eq!(write(&Particulars::default()), "{}");
        assert!(!write(&Particulars { query: Some("a\0b".into()), ..Particulars::default() }).contains("u0000"));
        assert_eq!(read(None), None);
    }
}
