//! The key of a request from another service: what makes a repeat of it known.

use sha2::{Digest, Sha256};

use super::{Content, Incoming, found::Found, location::Locations};
use crate::{id::SourceId, mac::Encoding};

/// What the locations of a source bring for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The key: 64 hexadecimal digits. None, if nothing is at any location (or there are no locations): such requests have nothing that
    /// makes them the same, so none is a repeat of another.
    pub key: Option<String>,
    /// The locations, in their one spelling, at which there is nothing.
    pub missing: Vec<String>,
}

/// Looks up all locations and makes the key of what is there.
///
/// The key is the SHA-256 of `src1`, the 16 bytes of the source's id, and for each location in order: its spelling, one byte that says what was
/// found (0 nothing, 1 bytes, 2 JSON), and what was found; spelling and find each behind their length as eight bytes, the highest first. So
/// no two lists of finds make the same key: not `ab` and `c` beside `a` and `bc`, not an empty field beside an absent one, not
/// the number 1 beside the text `1`, and not two sources, whatever they are called.
pub fn extract(source: SourceId, locations: &Locations, request: &Incoming<'_>, content: Content<'_>) -> Extracted {
    let mut hash = Sha256::new();
    let mut missing = Vec::new();
    hash.update(b"src1");
    hash.update(source.0.as_bytes());
    for location in locations.iter() {
        let found = Found::at(&location.place, request, content);
        let (tag, bytes): (u8, &[u8]) = match &found {
            Found::Absent => (0, b""),
            Found::Bytes(bytes) => (1, bytes),
            Found::Json(spelled) => (2, spelled),
        };
        let spelling = location.text();
        with_length(&mut hash, spelling.as_bytes());
        hash.update([tag]);
        with_length(&mut hash, bytes);
        if found == Found::Absent {
            missing.push(spelling);
        }
    }
    let is_something_there = missing.len() < locations.iter().count();
    Extracted { key: is_something_there.then(|| Encoding::Hex.encode(&hash.finalize())), missing }
}

fn with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const SOURCE: SourceId = SourceId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));

    fn query(source: SourceId, locations: &[&str], query: &[(&str, &str)]) -> Extracted {
        let locations = Locations::parse(locations).expect("locations");
        extract(source, &locations, &Incoming { query, ..Incoming::default() }, Content::Opaque)
    }

    /// Computed with Python's `hashlib` from the definition above.
    #[test]
    fn the_definition_is_kept() {
        let locations = Locations::parse(&["request.header.X-Id", "request.body.order.id", "request.query.q"]).expect("locations");
        let request = Incoming { headers: &[("x-id", b"abc")], ..Incoming::default() };
        let extracted = extract(SOURCE, &locations, &request, Content::Json(r#"{"order": {"id": 7}}"#));
        assert_eq!(extracted.key.as_deref(), Some("ae413b6ee9b6ec6f26732c43c1438bca6672afca0390a1dc8c918545fb8b2aed"));
        assert_eq!(extracted.missing, ["request.query.q"]);
    }

    #[test]
    fn where_nothing_is_found_there_is_no_key() {
        assert_eq!(query(SOURCE, &[], &[("a", "1")]), Extracted { key: None, missing: vec![] });
        assert_eq!(query(SOURCE, &["request.query.a", "request.body.b"], &[]).key, None);
        assert_eq!(query(SOURCE, &["request.query.a", "request.body.b"], &[]).missing, ["request.query.a", "request.body.b"]);
        assert!(query(SOURCE, &["request.query.a"], &[("a", "")]).key.is_some(), "empty is not absent");
        let locations = Locations::parse(&["request.body.a"]).expect("a location");
        let key = |text| extract(SOURCE, &locations, &Incoming::default(), Content::Json(text)).key;
        assert_eq!(key(r#"{"a": null}"#), None);
        assert_eq!(key(r#"{"b": 1}"#), None);
    }

    #[test]
    fn what_differs_makes_different_keys() {
        let both = ["request.query.a", "request.query.b"];
        let other = SourceId(Uuid::from_u128(2));
        let mut keys: Vec<_> = [
            query(SOURCE, &both, &[("a", "ab"), ("b", "c")]),
            query(SOURCE, &both, &[("a", "a"), ("b", "bc")]),
            query(SOURCE, &both, &[("a", "abc"), ("b", "")]),
            query(SOURCE, &both, &[("a", "abc")]),
            query(SOURCE, &both, &[("b", "abc")]),
            query(SOURCE, &["request.query.b", "request.query.a"], &[("a", "ab"), ("b", "c")]),
            query(other, &both, &[("a", "ab"), ("b", "c")]),
        ]
        .map(|extracted| extracted.key.expect("a key"))
        .to_vec();
        let body = Locations::parse(&["request.body.a"]).expect("a location");
        let content = [
            Content::Json(r#"{"a": 1}"#),
            Content::Json(r#"{"a": "1"}"#),
            Content::Form(&[("a", "1")]),
            Content::Json(r#"{"a": ""}"#),
            Content::Json(r#"{"a": 9007199254740993}"#),
            Content::Json(r#"{"a": 9007199254740992}"#),
        ];
        keys.extend(content.map(|content| extract(SOURCE, &body, &Incoming::default(), content).key.expect("a key")));
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        let spelled = |text| extract(SOURCE, &body, &Incoming::default(), Content::Json(text)).key;
        assert_eq!(spelled(r#"{"a": {"x": 1, "y": [2]}}"#), spelled(r#"{ "a":{"y":[ 2 ],"x":1}, "b": 5 }"#), "spelling does not count");
    }

    proptest! {
        #[test]
        fn keys_are_equal_when_all_finds_are(one in prop::collection::vec(prop::option::of("[ab]{0,2}"), 3), two in prop::collection::vec(prop::option::of("[ab]{0,2}"), 3)) {
            let locations = ["request.query.0", "request.query.1", "request.query.2"];
            let names = ["0", "1", "2"];
            let key = |finds: &[Option<String>]| {
                let pairs: Vec<_> = names.iter().zip(finds).filter_map(|(name, find)| Some((*name, find.as_deref()?))).collect();
                query(SOURCE, &locations, &pairs).key
            };
            prop_assert_eq!(key(&one).is_none(), one.iter().all(Option::is_none));
            prop_assert_eq!(key(&one) == key(&two), one == two);
        }
    }
}
