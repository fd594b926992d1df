//! What is in a body, as far as the keys of a source look into it.
//!
//! A body that is not what its media type says is no mistake of ours to report: nothing is found in it, and it goes on as it came.

use std::{convert::Infallible, future};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use domain::source::Content;
use futures::stream;
use multer::Multipart;

use super::pairs;

/// What a body is called that does not say what it is, and is no JSON.
const UNKNOWN: &str = "application/octet-stream";
/// What a body is called that does not say what it is, and is JSON.
const JSON: &str = "application/json";

/// A body that was read.
#[derive(Debug)]
pub(super) enum Parsed {
    /// JSON, perhaps: whoever looks into it finds out.
    Json,
    /// Pairs, decoded.
    Form(Vec<(String, String)>),
    /// Fields with their bytes.
    Multipart(Vec<(String, Bytes)>),
    /// Anything else.
    Opaque,
}

impl Parsed {
    /// Reads a body of this media type.
    pub(super) async fn read(media_type: &str, body: &Bytes) -> Self {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Self::Form(pairs::decoded(body)),
            "multipart/form-data" => fields(media_type, body).await.map_or(Self::Opaque, Self::Multipart),
            JSON | "text/json" => Self::Json,
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Opaque,
        }
    }

    /// Shows it as the domain looks at it.
    pub(super) fn look<T>(&self, body: &[u8], look: impl FnOnce(Content<'_>) -> T) -> T {
        match self {
            Self::Json => look(std::str::from_utf8(body).map_or(Content::Opaque, Content::Json)),
            Self::Form(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                look(Content::Form(&pairs))
            }
            Self::Multipart(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
                look(Content::Multipart(&fields))
            }
            Self::Opaque => look(Content::Opaque),
        }
    }
}

async fn fields(media_type: &str, body: &Bytes) -> Option<Vec<(String, Bytes)>> {
    // The names of types are the same in any size of letters; the boundary is not.
    let (_, parameters) = media_type.split_once(';')?;
    let boundary = multer::parse_boundary(format!("multipart/form-data;{parameters}")).ok()?;
    let whole = stream::once(future::ready(Ok::<_, Infallible>(body.clone())));
    let mut form = Multipart::new(whole, boundary);
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.ok()? {
        let name = field.name().map(str::to_owned);
        let value = field.bytes().await.ok()?;
        fields.extend(name.map(|name| (name, value)));
    }
    Some(fields)
}

/// What the sender says that the body is; of one who says nothing, what it is.
pub(super) fn media_type(headers: &HeaderMap, body: &[u8]) -> String {
    match headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) {
        Some(Ok(text)) => text.to_owned(),
        None if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => JSON.to_owned(),
        Some(Err(_)) | None => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use domain::source::{Incoming, location::Location, text_at};

    use super::*;

    async fn at(media_type: &str, body: &'static str, location: &str) -> Option<String> {
        let body = Bytes::from_static(body.as_bytes());
        let location = Location::parse(location).expect("a location");
        Parsed::read(media_type, &body).await.look(&body, |content| text_at(&location, &Incoming::default(), content))
    }

    #[tokio::test]
    async fn any_json_media_type_is_json() {
        for media_type in
            ["application/json", "APPLICATION/JSON; charset=UTF-8", "application/cloudevents+json", "text/json", "application/Ld+Json"]
        {
            assert_eq!(at(media_type, r#"{"a": {"b": "c"}}"#, "request.body.a.b").await.as_deref(), Some("c"), "{media_type}");
        }
        for (media_type, body) in [("text/plain", r#"{"a": {"b": "c"}}"#), ("application/json", "{\"a\": {\"b\""), ("application/json", "")]
        {
            assert_eq!(at(media_type, body, "request.body.a.b").await, None, "{media_type}: {body}");
        }
    }

    #[tokio::test]
    async fn forms_are_read_and_broken_ones_are_opaque() {
        assert_eq!(at("application/x-www-form-urlencoded", "a[b]=c+d&e=f", "request.body.a.b").await.as_deref(), Some("c d"));
        let form = "--x\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n17\r\n--x\r\n\
                    Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: image/png\r\n\r\n\u{1}\u{2}\r\n--x--\r\n";
        assert_eq!(at("Multipart/Form-Data; boundary=x", form, "request.body.id").await.as_deref(), Some("17"));
        assert_eq!(at("multipart/form-data; boundary=\"x\"", form, "request.body.file").await.as_deref(), Some("\u{1}\u{2}"));
        for (media_type, body) in
            [("multipart/form-data", form), ("multipart/form-data; boundary=y", form), ("multipart/form-data; boundary=x", "--x\r\n")]
        {
            assert_eq!(at(media_type, body, "request.body.id").await, None, "{media_type}");
        }
    }
}
