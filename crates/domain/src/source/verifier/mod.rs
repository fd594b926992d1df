//! Whether a request is from whom it says, over its raw bytes.
//!
//! A verifier is asked before anything else is done with a request. Its answer says why a request is refused, in words that tell
//! a stranger nothing about the secret; how long it takes does not depend on where a signature is wrong.

mod credential;
mod signed;
mod stamped;
#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono::{DateTime, Utc};
use thiserror::Error;

pub use self::{
    credential::ApiKeyPlace,
    signed::{SignedBody, answer_to_challenge},
    stamped::standard_secret,
};
use super::{Incoming, forward::Credentials};
use crate::{convoy_signature::Version, mac::SharedSecret};

/// How far the time in a signature may be from ours, if nobody says otherwise: what Stripe, Slack and Standard Webhooks recommend.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// How a source's sender proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// Not at all: whoever knows the URL may send.
    None,
    /// By an HMAC of the body in a header.
    Body(SignedBody, SharedSecret),
    /// By a user name and a password in `Authorization` (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: SharedSecret,
    },
    /// By a secret that is sent along.
    ApiKey(ApiKeyPlace, SharedSecret),
    /// As Stripe signs: `Stripe-Signature: t=…,v1=…`.
    Stripe(SharedSecret, Duration),
    /// As Convoy signs, and we do for it: `X-Convoy-Signature: t=…,v1=…`. Its signatures without a time are those of [`Verifier::Body`].
    Convoy(Version, SharedSecret, Duration),
    /// As Slack signs: `X-Slack-Signature: v0=…` beside `X-Slack-Request-Timestamp`.
    Slack(SharedSecret, Duration),
    /// As Standard Webhooks says: `webhook-id`, `webhook-timestamp` and `webhook-signature`, or the same with `svix-`. The secret is of
    /// [`standard_secret`].
    Standard(SharedSecret, Duration),
    /// There is one, and its secret cannot be opened here: nobody can prove anything to it.
    Unreadable,
}

/// Why a request is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// What proves the sender is not there.
    #[error("`{0}` is missing: the sender has to sign its requests as this source expects it")]
    Missing(String),
    /// It is there, but not in the form that it should have.
    #[error("`{name}` must be {expected}")]
    Malformed {
        /// Which header or parameter.
        name: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// It is genuine and from another time: perhaps somebody sends what was sent before.
    #[error("`{name}` is {seconds} s away from our time, and more than {tolerance} s are not taken")]
    Stale {
        /// Which header.
        name: String,
        /// How far, in seconds; negative, if it lies ahead.
        seconds: i64,
        /// How far it may be, in seconds.
        tolerance: u64,
    },
    /// It does not fit the secret and the bytes that came.
    #[error("`{0}` does not fit: the secret of this source differs from the sender's, or the body was changed on its way")]
    Mismatch(String),
    /// It cannot be told.
    #[error("the secret of this source cannot be opened now: repeat the request in a while")]
    Unreadable,
}

impl Verifier {
    /// Whether `request`, which came at `now`, is from the one who shares the secret.
    pub fn verify(&self, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        match self {
            Self::None => Ok(()),
            Self::Body(signed, secret) => signed.verify(secret, request),
            Self::Basic { user, password } => credential::basic(user, password, request),
            Self::ApiKey(place, key) => credential::api_key(place, key, request),
            Self::Stripe(secret, tolerance) => stamped::stripe(secret, *tolerance, request, now),
            Self::Convoy(version, secret, tolerance) => stamped::convoy(*version, secret, *tolerance, request, now),
            Self::Slack(secret, tolerance) => stamped::slack(secret, *tolerance, request, now),
            Self::Standard(secret, tolerance) => stamped::standard(secret, *tolerance, request, now),
            Self::Unreadable => Err(Refusal::Unreadable),
        }
    }

    /// What of a request is the secret itself, and must not be kept. A signature is none: it says nothing without its body.
    pub fn credentials(&self) -> Credentials {
        match self {
            Self::Basic { .. } | Self::ApiKey(ApiKeyPlace::Bearer, _) => {
                Credentials { headers: vec!["authorization".to_owned()], parameters: vec![] }
            }
            Self::ApiKey(ApiKeyPlace::Header(name), _) => Credentials { headers: vec![name.to_ascii_lowercase()], parameters: vec![] },
            Self::ApiKey(ApiKeyPlace::Query(name), _) => Credentials { headers: vec![], parameters: vec![name.clone()] },
            _ => Credentials::default(),
        }
    }
}

/// The one value of a header. Of two nobody could say which one counts.
fn one_header<'a>(request: &Incoming<'a>, name: &str) -> Result<&'a str, Refusal> {
    let mut values = request.header(name);
    let value = values.next().ok_or_else(|| Refusal::Missing(name.to_owned()))?;
    if values.next().is_some() {
        return Err(malformed(name, "sent once"));
    }
    std::str::from_utf8(value).map(str::trim_ascii).map_err(|_| malformed(name, "visible ASCII"))
}

fn malformed(name: &str, expected: &'static str) -> Refusal {
    Refusal::Malformed { name: name.to_owned(), expected }
}
