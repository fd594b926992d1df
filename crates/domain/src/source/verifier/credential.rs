//! Senders that send the secret itself along: a password, or a key.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Incoming, Refusal, malformed, one_header};
use crate::mac::SharedSecret;

/// Where a sender puts its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeyPlace {
    /// The whole value of this header.
    Header(String),
    /// `Authorization`, behind the word `Bearer` or another scheme.
    Bearer,
    /// The first value of this parameter.
    Query(String),
}

const AUTHORIZATION: &str = "authorization";

pub(super) fn basic(user: &str, password: &SharedSecret, request: &Incoming<'_>) -> Result<(), Refusal> {
    let expected = "`Basic` and the base64 of user name, colon and password";
    let value = one_header(request, AUTHORIZATION)?;
    let encoded = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).map(|(_, encoded)| encoded.trim_ascii());
    let pair = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok()).ok_or_else(|| malformed(AUTHORIZATION, expected))?;
    // The name has no colon, the password may have some (RFC 7617 §2).
    let colon = pair.iter().position(|byte| *byte == b':').ok_or_else(|| malformed(AUTHORIZATION, expected))?;
    let fits = SharedSecret::new(user).is(&pair[..colon]) & password.is(&pair[colon + 1..]);
    if fits { Ok(()) } else { Err(Refusal::Mismatch(AUTHORIZATION.to_owned())) }
}

pub(super) fn api_key(place: &ApiKeyPlace, key: &SharedSecret, request: &Incoming<'_>) -> Result<(), Refusal> {
    let (name, value) = match place {
        ApiKeyPlace::Header(name) => (name.as_str(), one_header(request, name)?),
        ApiKeyPlace::Bearer => {
            let value = one_header(request, AUTHORIZATION)?;
            let (_, value) = value.split_once(' ').ok_or_else(|| malformed(AUTHORIZATION, "`Bearer` and the key"))?;
            (AUTHORIZATION, value.trim_ascii())
        }
        ApiKeyPlace::Query(name) => (name.as_str(), request.parameter(name).ok_or_else(|| Refusal::Missing(name.clone()))?),
    };
    if key.is(value.as_bytes()) { Ok(()) } else { Err(Refusal::Mismatch(name.to_owned())) }
}
