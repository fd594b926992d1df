//! One request, one effect: the syntax of keys, the scope they hold in, and the fingerprint of a request.
//!
//! Then: `canonical` one spelling for all spellings of a JSON text · `policy` which requests, which outcomes, for how long.

mod canonical;
mod policy;

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

pub use self::{
    canonical::canonical,
    policy::{MAX_TTL, MAX_WAIT, MIN_TTL, Override, Policy, Preset, Saves},
};

/// The longest key, in bytes.
pub const MAX_KEY: usize = 255;
/// The version of [`Operation::fingerprint`], stored beside each: one of another version says nothing about equality.
pub const FINGERPRINT_VERSION: i16 = 1;
/// Keys that a mistake in a client makes of no value at all: the same one for every request.
const MISTAKES: [&str; 6] = ["undefined", "null", "None", "nil", "[object Object]", "{{$guid}}"];

/// Why an `Idempotency-Key` header is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidKey {
    /// Nothing in it.
    #[error("the Idempotency-Key header is empty: send a unique value, or leave the header out")]
    Empty,
    /// Over 255 bytes.
    #[error("the Idempotency-Key header is longer than {MAX_KEY} characters: send a shorter unique value, such as a UUID")]
    TooLong,
    /// Not visible ASCII, or an unterminated string.
    #[error("the Idempotency-Key header may contain only visible ASCII characters: send a UUID, for example")]
    Invalid,
    /// More than one header line.
    #[error("the Idempotency-Key header was sent more than once: send it once")]
    Duplicate,
}

impl InvalidKey {
    /// The stable code of the error body.
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty => "idempotency_key_empty",
            Self::TooLong => "idempotency_key_too_long",
            Self::Invalid => "idempotency_key_invalid",
            Self::Duplicate => "idempotency_key_duplicate",
        }
    }
}

/// An `Idempotency-Key`, 1 to 255 bytes of visible ASCII. `Debug` does not show it: keys may hold personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Key {
    /// Reads the values of all `Idempotency-Key` lines of a request; none is no key. The raw form and the quoted one
    /// (RFC 8941 §3.3.3 String) are the same key.
    pub fn parse<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<Self>, InvalidKey> {
        let Some(line) = lines.next() else { return Ok(None) };
        if lines.next().is_some() {
            return Err(InvalidKey::Duplicate);
        }
        let raw = line.trim_ascii();
        let key = if raw.first() == Some(&b'"') { unquote(raw)? } else { raw.to_vec() };
        if key.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if !key.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(InvalidKey::Invalid);
        }
        if key.len() > MAX_KEY {
            return Err(InvalidKey::TooLong);
        }
        String::from_utf8(key).map(Self).map(Some).map_err(|_| InvalidKey::Invalid)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is what a client's mistake looks like, such as `undefined`: every request would carry the same key.
    pub fn is_mistake(&self) -> bool {
        MISTAKES.contains(&self.as_str())
    }

    /// The range of [`Operation::scope`]s that a tenant's uses of this key have, in whatever operation: first and last.
    pub fn scopes(&self, tenant: Uuid) -> (Uuid, Uuid) {
        let (mut first, mut last) = ([0; 16], [u8::MAX; 16]);
        let half = self.half_of_tenant(tenant);
        first[..8].copy_from_slice(&half);
        last[..8].copy_from_slice(&half);
        (Uuid::from_bytes(first), Uuid::from_bytes(last))
    }

    fn half_of_tenant(&self, tenant: Uuid) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(b"key2");
        hash.update(tenant.as_bytes());
        hash.update(&self.0);
        first_half(hash)
    }
}

/// Reads an RFC 8941 String; parameters after it are ignored.
fn unquote(raw: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let mut key = Vec::with_capacity(raw.len());
    let mut rest = raw[1..].iter();
    loop {
        match rest.next().ok_or(InvalidKey::Invalid)? {
            b'"' => break,
            b'\\' => match rest.next() {
                Some(byte @ (b'"' | b'\\')) => key.push(*byte),
                _ => return Err(InvalidKey::Invalid),
            },
            byte => key.push(*byte),
        }
    }
    match rest.as_slice().trim_ascii_start().first() {
        None | Some(b';') => Ok(key),
        Some(_) => Err(InvalidKey::Invalid),
    }
}

/// The operation that a key belongs to: never the token, so that a rotated one still replays.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Whose request it is.
    pub tenant: Uuid,
    /// The HTTP method.
    pub method: &'a str,
    /// The route's template, such as `/api/v1/app/{app_id}/msg`.
    pub route: &'a str,
    /// The internal ids in the path, in order: a uid and an id of the same thing are one operation.
    pub ids: &'a [Uuid],
}

impl Operation<'_> {
    /// The stored name of `key` in this operation: 64 bits of a SHA-256 of tenant and key, so that all uses of a key can be
    /// found, and 64 of one of operation and key.
    pub fn scope(&self, key: &Key) -> Uuid {
        let mut hash = self.begin(b"idem2");
        hash.update(key.as_str());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.half_of_tenant(self.tenant));
        bytes[8..].copy_from_slice(&first_half(hash));
        Uuid::from_bytes(bytes)
    }

    /// The fingerprint of a request: equal for equal requests. The query's order does not matter, nor do the order of a
    /// JSON body's members or its white space; numbers compare by their spelling.
    pub fn fingerprint(&self, query: &str, is_json: bool, body: &[u8]) -> Uuid {
        let mut hash = self.begin(b"fp1");
        let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        hash.update(pairs.join("&"));
        hash.update([0, u8::from(is_json)]);
        hash.update(if is_json { canonical(body) } else { Cow::Borrowed(body) });
        truncate(hash)
    }

    fn begin(&self, label: &[u8]) -> Sha256 {
        let mut hash = Sha256::new();
        for part in [label, self.tenant.as_bytes(), self.method.as_bytes(), self.route.as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        for id in self.ids {
            hash.update(id.as_bytes());
        }
        hash.update([0]);
        hash
    }
}

/// The stored name of something unique in a scope (an event id, a message key): 128 bits of a SHA-256.
pub fn scope_hash(label: &str, scope: Uuid, text: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(label);
    hash.update([0]);
    hash.update(scope.as_bytes());
    hash.update(text);
    truncate(hash)
}

/// The digest by which two payloads under one message key are compared.
pub fn payload_digest(payload: &[u8]) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"payload1");
    hash.update(canonical(payload));
    truncate(hash)
}

fn truncate(hash: Sha256) -> Uuid {
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(bytes)
}

fn first_half(hash: Sha256) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&hash.finalize()[..8]);
    half
}

/// The text cannot be a message key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("must be 1 to {MAX_KEY} visible ASCII characters, without spaces at the ends")]
pub struct InvalidMessageKey;

/// Checks a key that dedupes messages: it goes on in a header.
pub fn check_message_key(text: &str) -> Result<(), InvalidMessageKey> {
    let is_visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_trimmed = !text.starts_with(' ') && !text.ends_with(' ');
    if is_visible && is_trimmed && (1..=MAX_KEY).contains(&text.len()) { Ok(()) } else { Err(InvalidMessageKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<String>, InvalidKey> {
        Key::parse([line.as_bytes()].into_iter()).map(|key| key.map(|key| key.as_str().to_owned()))
    }

    #[test]
    fn raw_and_quoted_forms_are_one_key() {
        assert_eq!(parse("abc"), Ok(Some("abc".into())));
        assert_eq!(parse(" \"abc\" "), Ok(Some("abc".into())));
        assert_eq!(parse("\"a\\\"b\";p=1"), Ok(Some("a\"b".into())));
        assert_eq!(parse(&"x".repeat(255)), Ok(Some("x".repeat(255))));
        assert_eq!(Key::parse(std::iter::empty()), Ok(None));
    }

    #[test]
    fn bad_keys_have_distinct_errors() {
        assert_eq!(parse(""), Err(InvalidKey::Empty));
        assert_eq!(parse("\"\""), Err(InvalidKey::Empty));
        assert_eq!(parse(&"x".repeat(256)), Err(InvalidKey::TooLong));
        assert_eq!(parse("schlüssel"), Err(InvalidKey::Invalid));
        assert_eq!(parse("a\tb"), Err(InvalidKey::Invalid));
        assert_eq!(parse("\"abc"), Err(InvalidKey::Invalid));
        assert_eq!(parse("\"abc\"d"), Err(InvalidKey::Invalid));
        let twice = [b"a".as_slice(), b"a".as_slice()];
        assert_eq!(Key::parse(twice.into_iter()), Err(InvalidKey::Duplicate));
    }

    #[test]
    fn the_fingerprint_sees_what_a_request_means() {
        let operation = Operation { tenant: Uuid::nil(), method: "POST", route: "/app", ids: &[] };
        let fingerprint = |body: &str| operation.fingerprint("", true, body.as_bytes());
        let first = fingerprint(r#"{"a":1,"b":[1,{"c":"é"}]}"#);
        assert_eq!(first, fingerprint("{ \"b\" : [1, {\"c\":\"\\u00e9\"}],\n \"a\": 1 }"));
        for other in [r#"{"a":1.0,"b":[1,{"c":"é"}]}"#, r#"{"a":1,"b":[{"c":"é"},1]}"#, r#"{"a":"1","b":[1,{"c":"é"}]}"#, r#"{"a":1}"#] {
            assert_ne!(first, fingerprint(other), "{other}");
        }
        assert_ne!(fingerprint("9007199254740993"), fingerprint("9007199254740992"));
        assert_ne!(fingerprint(r#"["a","b"]"#), fingerprint(r#"["a,b"]"#));
        assert_ne!(fingerprint(r#"{"a":1,"a":2}"#), fingerprint(r#"{"a":2}"#));
        assert_eq!(operation.fingerprint("a=1&b=2", true, b"{}"), operation.fingerprint("b=2&a=1", true, b"{}"));
        assert_ne!(operation.fingerprint("a=1", true, b"{}"), operation.fingerprint("", true, b"{}"));
    }

    #[test]
    fn all_uses_of_a_key_lie_in_one_range_and_no_two_coincide() {
        let key = |text: &str| Key::parse([text.as_bytes()].into_iter()).ok().flatten().expect("a key");
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let scope = |tenant, method, route, ids: &[Uuid], text: &str| Operation { tenant, method, route, ids }.scope(&key(text));
        let uses = [
            scope(one, "POST", "/a", &[], "k"),
            scope(one, "PATCH", "/a", &[], "k"),
            scope(one, "POST", "/b", &[], "k"),
            scope(one, "POST", "/a", &[other], "k"),
        ];
        let (first, last) = key("k").scopes(one);
        assert!(uses.iter().all(|scope| (first..=last).contains(scope)));
        let strangers = [scope(other, "POST", "/a", &[], "k"), scope(one, "POST", "/a", &[], "l")];
        assert!(strangers.iter().all(|scope| !(first..=last).contains(scope)));
        let distinct: std::collections::HashSet<_> = uses.iter().chain(&strangers).map(|scope| &scope.as_bytes()[8..]).collect();
        assert_eq!(distinct.len(), 6, "the second half alone tells operations apart: locks are taken on it");
    }

    #[test]
    fn a_clients_mistake_is_a_key_and_known_as_one() {
        let is_mistake = |text: &str| Key::parse([text.as_bytes()].into_iter()).ok().flatten().expect("a key").is_mistake();
        assert!(is_mistake("undefined") && is_mistake("\"[object Object]\"") && !is_mistake("undefined-1"));
    }
}
