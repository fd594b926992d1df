//! The name of a request, under which its client and our log speak of it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::{Span, field::Empty};
use uuid::{Uuid, fmt::Hyphenated};

/// The header that carries it, both ways.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest name that we take over from a client.
const LONGEST: usize = 128;

/// The client's own name for a request, if it has one that can stand in a log as it is; else a new one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(&HEADER).iter();
    match (given.next(), given.next()) {
        (Some(name), None) if is_sane(name.as_bytes()) => name.clone(),
        _ => {
            let mut text = [0; Hyphenated::LENGTH];
            let name = Uuid::now_v7().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("-"))
        }
    }
}

fn is_sane(name: &[u8]) -> bool {
    let is_harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(byte);
    (1..=LONGEST).contains(&name.len()) && name.iter().all(is_harmless)
}

/// What surrounds each line that is logged for a request: whose it is and what it names are added as they become known.
pub(crate) fn span(name: &HeaderValue) -> Span {
    let request_id = name.to_str().unwrap_or_default();
    tracing::info_span!("request", request_id, tenant = Empty, application = Empty, endpoint = Empty, message = Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> HeaderValue {
        of(&names.iter().map(|name| (HEADER, name.parse().expect("a header value"))).collect())
    }

    #[test]
    fn a_sane_name_is_taken_over() {
        for name in ["0199b9a4-5a2e-7c31-9a3e-2f6f3a1c8d5e", "a", "Root=1-67891233-abcdef012345678912345678", &"x".repeat(128)] {
            assert_eq!(named(&[name]), name);
        }
    }

    #[test]
    fn any_other_is_replaced() {
        for names in [&[][..], &[""], &["a b"], &["a\"b"], &["<x>"], &["a", "b"], &[&"x".repeat(129)]] {
            let name = named(names);
            assert!(Uuid::parse_str(name.to_str().expect("text")).is_ok(), "{names:?}: {name:?}");
        }
    }
}
