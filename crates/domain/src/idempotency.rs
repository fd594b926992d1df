//! One request, one effect: the syntax of keys, the scope they hold in, the fingerprint of a request, and the policies.

use std::{borrow::Cow, time::Duration};

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 255;
/// The longest that any policy may remember a key: look-ups prune partitions older than this.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);

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
    /// The stored name of `key` in this operation: 128 bits of a SHA-256.
    pub fn scope(&self, key: &Key) -> Uuid {
        let mut hash = self.begin(b"idem1");
        hash.update(key.as_str());
        truncate(hash)
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

/// One spelling for all spellings of a JSON text: members sorted by name, no white space, strings unescaped and length
/// prefixed, numbers as they were written (so `1` and `1.0` differ, and no two large integers coincide as they would in
/// RFC 8785). A text that is not JSON, or that repeats a member name, stands for itself.
pub fn canonical(json: &[u8]) -> Cow<'_, [u8]> {
    let mut scan = Scan { json, at: 0, out: Vec::with_capacity(json.len()) };
    let is_whole = scan.value(0).is_some() && scan.skip_white_space().is_none();
    if is_whole { Cow::Owned(scan.out) } else { Cow::Borrowed(json) }
}

/// Deeper texts stand for themselves; the parser in front refuses them anyway.
const MAX_DEPTH: usize = 256;

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Scan<'_> {
    /// The next byte that is not white space, without taking it.
    fn skip_white_space(&mut self) -> Option<u8> {
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let found = self.skip_white_space()? == byte;
        self.at += usize::from(found);
        found.then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.skip_white_space()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let text = self.string()?;
                self.write_string(&text);
                Some(())
            }
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take(b'{')?;
        let start = self.out.len();
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        while self.skip_white_space()? != b'}' {
            if !members.is_empty() {
                self.take(b',')?;
                self.skip_white_space()?;
            }
            let name = self.string()?;
            self.take(b':')?;
            self.value(depth + 1)?;
            members.push((name, self.out.split_off(start)));
        }
        self.take(b'}')?;
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        self.out.push(b'{');
        for (name, value) in members {
            self.write_string(&name);
            self.out.extend(value);
        }
        self.out.push(b'}');
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.out.push(b'[');
        let mut is_first = true;
        while self.skip_white_space()? != b']' {
            if !is_first {
                self.take(b',')?;
            }
            is_first = false;
            self.value(depth + 1)?;
        }
        self.take(b']')?;
        self.out.push(b']');
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.take(b'"')?;
        while *self.json.get(self.at)? != b'"' {
            self.at += 1 + usize::from(self.json[self.at] == b'\\');
        }
        self.at += 1;
        serde_json::from_slice(&self.json[start..self.at]).ok()
    }

    fn scalar(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.json.get(self.at), Some(b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.' | b'E')) {
            self.at += 1;
        }
        if start == self.at {
            return None;
        }
        self.out.extend(&self.json[start..self.at]);
        self.out.push(b',');
        Some(())
    }

    fn write_string(&mut self, text: &str) {
        self.out.extend(format!("\"{}:", text.len()).into_bytes());
        self.out.extend(text.as_bytes());
    }
}

/// Which outcomes are remembered under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saves {
    /// 2xx and 3xx alone.
    Successes,
    /// Every outcome that an execution reached: also a 404 or 409 that the effect itself answered.
    Executed,
}

/// How keys are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether PATCH takes a key as POST does.
    pub covers_patch: bool,
    /// What is remembered.
    pub saves: Saves,
    /// For how long.
    pub ttl: Duration,
    /// How long a second request waits for the first before it gets its 409.
    pub wait: Duration,
}

impl Default for Policy {
    /// POST and PATCH, executed outcomes, 24 hours and 1 minute, no wait.
    fn default() -> Self {
        Self { covers_patch: true, saves: Saves::Executed, ttl: Duration::from_mins(24 * 60 + 1), wait: Duration::ZERO }
    }
}

impl Policy {
    /// POST alone, successes alone, 12 hours, five seconds of wait: what Svix documents.
    pub fn svix() -> Self {
        Self { covers_patch: false, saves: Saves::Successes, ttl: Duration::from_hours(12), wait: Duration::from_secs(5) }
    }

    /// Whether a key on a request of this method means anything.
    pub fn covers(&self, method: &str) -> bool {
        method == "POST" || (self.covers_patch && method == "PATCH")
    }

    /// Whether an outcome with this status is remembered.
    pub fn saves_status(&self, status: u16) -> bool {
        match self.saves {
            Saves::Successes => (200..400).contains(&status),
            Saves::Executed => (200..500).contains(&status),
        }
    }
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
    fn canonical_text_keeps_structures_apart() {
        let texts = [
            "[[1],2]",
            "[[1,2]]",
            "[1,2]",
            "[12]",
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"["1"]"#,
            "null",
            "[null]",
            "[]",
            "{}",
            "[{}]",
        ];
        let forms: std::collections::HashSet<_> = texts.iter().map(|text| canonical(text.as_bytes()).into_owned()).collect();
        assert_eq!(forms.len(), texts.len());
    }
}
