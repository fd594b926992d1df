//! What is at a location of a request.

use std::{borrow::Cow, collections::HashMap};

use serde_json::value::RawValue;

use super::{
    Content, Incoming,
    location::{Location, Place},
};
use crate::idempotency::canonical;

/// What is at a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Nothing, or the null of JSON.
    Absent,
    /// Bytes of a header, a parameter or a field.
    Bytes(Cow<'a, [u8]>),
    /// A value of JSON in its one spelling, so that `1` is not `"1"`, and no number is rounded.
    Json(Vec<u8>),
}

impl<'a> Found<'a> {
    pub(super) fn at(place: &Place, request: &Incoming<'a>, content: Content<'a>) -> Self {
        let bytes = |found: Option<&'a [u8]>| found.map_or(Self::Absent, |bytes| Self::Bytes(bytes.into()));
        match (place, content) {
            (Place::Header(name), _) => joined(&request.header(name).collect::<Vec<_>>()),
            (Place::Query(name), _) => bytes(request.parameter(name).map(str::as_bytes)),
            (Place::Body(parts), Content::Json(text)) => {
                in_json(parts, text).map_or(Self::Absent, |value| Self::Json(canonical(value.as_bytes()).into_owned()))
            }
            (Place::Body(parts), Content::Form(pairs)) => bytes(field(parts, &pairs.iter().map(|(name, value)| (*name, value.as_bytes())))),
            (Place::Body(parts), Content::Multipart(fields)) => bytes(field(parts, &fields.iter().copied())),
            (Place::Body(_), Content::Opaque) => Self::Absent,
        }
    }
}

/// The text at a location: that of a header, a parameter or a field, and of JSON a text, a number or a truth.
pub fn text_at(location: &Location, request: &Incoming<'_>, content: Content<'_>) -> Option<String> {
    if let (Place::Body(parts), Content::Json(text)) = (&location.place, content) {
        let value = in_json(parts, text)?.trim_ascii();
        return match value.as_bytes().first()? {
            b'"' => serde_json::from_str(value).ok(),
            b'{' | b'[' => None,
            _ => Some(value.to_owned()),
        };
    }
    match Found::at(&location.place, request, content) {
        Found::Bytes(bytes) => String::from_utf8(bytes.into_owned()).ok(),
        Found::Absent | Found::Json(_) => None,
    }
}

/// Several lines of a header mean what one line with commas between them means (RFC 9110 §5.2).
fn joined<'a>(lines: &[&'a [u8]]) -> Found<'a> {
    match lines {
        [] => Found::Absent,
        [one] => Found::Bytes((*one).into()),
        several => Found::Bytes(several.join(b", ".as_slice()).into()),
    }
}

/// The first field that is called `a.b`, or else the first that is called `a[b]`.
fn field<'a>(parts: &[String], fields: &(impl Iterator<Item = (&'a str, &'a [u8])> + Clone)) -> Option<&'a [u8]> {
    let dotted = parts.join(".");
    let (first, rest) = parts.split_first()?;
    let bracketed = rest.iter().fold(first.clone(), |name, part| format!("{name}[{part}]"));
    let called = |wanted: &str| fields.clone().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    called(&dotted).or_else(|| called(&bracketed))
}

/// The value that the parts lead to, as it is spelled, unless it is null. The text is looked at, not parsed: a number that no double
/// holds stays whole.
fn in_json<'a>(parts: &[String], text: &'a str) -> Option<&'a str> {
    let Some(first) = parts.first() else {
        return (text.trim_ascii() != "null").then_some(text);
    };
    match text.trim_ascii_start().as_bytes().first()? {
        b'{' => {
            let members: HashMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(text).ok()?;
            // A name may contain dots itself, so it can use up several parts.
            (1..=parts.len()).find_map(|used| {
                let member = members.get(parts[..used].join(".").as_str())?;
                in_json(&parts[used..], member.get())
            })
        }
        b'[' => {
            let is_position = first.bytes().all(|byte| byte.is_ascii_digit()) && (first == "0" || !first.starts_with('0'));
            let position: usize = is_position.then(|| first.parse().ok())??;
            let items: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
            in_json(&parts[1..], items.get(position)?.get())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::location::Location, *};

    fn found<'a>(location: &str, request: &Incoming<'a>, content: Content<'a>) -> Option<String> {
        let location = Location::parse(location).expect("a location");
        match Found::at(&location.place, request, content) {
            Found::Absent => None,
            Found::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Found::Json(spelled) => Some(format!("json {}", String::from_utf8_lossy(&spelled))),
        }
    }

    #[test]
    fn headers_and_parameters_are_found() {
        let request = Incoming {
            headers: &[("X-Id", b"a"), ("x-id", b"b"), ("x-empty", b"")],
            query: &[("q", "1"), ("q", "2"), ("Q", "3")],
            body: b"",
        };
        let at = |location: &str| found(location, &request, Content::Opaque);
        assert_eq!(at("request.header.X-ID").as_deref(), Some("a, b"));
        assert_eq!(at("request.header.x-empty").as_deref(), Some(""));
        assert_eq!(at("request.header.x-other"), None);
        assert_eq!(at("request.query.q").as_deref(), Some("1"));
        assert_eq!(at("request.query.other"), None);
        assert_eq!(at("request.body.q"), None);
    }

    #[test]
    fn fields_of_json_are_found_without_rounding() {
        let text = r#" {"a": {"b": [ {"id": 18446744073709551617}, {"id": "x"}, null ]}, "a.c": 1.0, "é": "\u0041", "n": null, "z": {"y": 2, "x": 1}} "#;
        let at = |location: &str| found(location, &Incoming::default(), Content::Json(text));
        assert_eq!(at("request.body.a.b.0.id").as_deref(), Some("json 18446744073709551617,"));
        assert_eq!(at("request.body.a.b.1.id").as_deref(), Some("json \"1:x"));
        assert_eq!(at("request.body.a.c").as_deref(), Some("json 1.0,"), "a name with dots in it is found too");
        assert_eq!(at("request.body.é").as_deref(), Some("json \"1:A"));
        assert_eq!(at("request.body.z").as_deref(), Some("json {\"1:x1,\"1:y2,}"));
        for absent in ["n", "a.b.2", "a.b.3", "a.b.00", "a.b.id", "a.x", "n.x", "a.c.x", "b"] {
            assert_eq!(at(&format!("request.body.{absent}")), None, "{absent}");
        }
        for odd in ["", "null", "7", "[1", "{\"a\":", "not json"] {
            assert_eq!(found("request.body.a", &Incoming::default(), Content::Json(odd)), None, "{odd}");
        }
        assert_eq!(found("request.body.1", &Incoming::default(), Content::Json("[1, [2]]")).as_deref(), Some("json [2,]"));
    }

    #[test]
    fn texts_are_told_as_they_are_meant() {
        let text = r#"{"type": "a.\u0062", "n": 7.0, "is": true, "o": {}, "no": null}"#;
        let at = |location: &str, content| {
            let request = Incoming { headers: &[("x-event", b"push")], query: &[("q", "1")], body: b"" };
            text_at(&Location::parse(location).expect("a location"), &request, content)
        };
        for (location, told) in [
            ("request.header.X-Event", Some("push")),
            ("request.query.q", Some("1")),
            ("request.body.type", Some("a.b")),
            ("request.body.n", Some("7.0")),
            ("request.body.is", Some("true")),
            ("request.body.o", None),
            ("request.body.no", None),
            ("request.body.none", None),
        ] {
            assert_eq!(at(location, Content::Json(text)).as_deref(), told, "{location}");
        }
        assert_eq!(at("request.body.a", Content::Form(&[("a", "b")])).as_deref(), Some("b"));
        assert_eq!(at("request.body.a", Content::Multipart(&[("a", b"\xff")])), None);
    }

    #[test]
    fn fields_of_forms_are_found_by_both_spellings() {
        let form = Content::Form(&[("a[b][0]", "nested"), ("c.d", "dotted"), ("c[d]", "second"), ("e", "first"), ("e", "later")]);
        let at = |location: &str| found(location, &Incoming::default(), form);
        assert_eq!(at("request.body.a.b.0").as_deref(), Some("nested"));
        assert_eq!(at("request.body.c.d").as_deref(), Some("dotted"));
        assert_eq!(at("request.body.e").as_deref(), Some("first"));
        assert_eq!(at("request.body.a"), None);
        let multipart = Content::Multipart(&[("file", b"\x00\xff"), ("a.b", b"x")]);
        assert_eq!(found("request.body.a.b", &Incoming::default(), multipart).as_deref(), Some("x"));
    }
}
