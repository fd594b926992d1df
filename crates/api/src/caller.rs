//! Who is calling: bearer tokens (JWT, HS256) with the claims that Svix tokens carry.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Days, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// For how long a minted token is valid, in days: ten years, as `svix-server jwt generate` has it.
const TOKEN_LIFETIME: Days = Days::new(3650);
/// By how much the clocks of the token's maker and ours may differ, in seconds (as in svix-server).
const LEEWAY: u64 = 900;
/// For how long a token that was found good is taken for good without another look; far less than the leeway.
const MEMORY: Duration = Duration::from_secs(10);
/// How many such tokens are remembered.
const REMEMBERED: usize = 1024;
/// The most characters of a subject after its prefix.
const MAX_SUBJECT: usize = 100;
/// The prefix of the subjects that are tenants.
const TENANT_PREFIX: &str = "org_";
/// The prefix of the subjects that are one application of a tenant.
const APPLICATION_PREFIX: &str = "app_";

#[derive(Serialize)]
struct MintedClaims<'a> {
    iat: i64,
    nbf: i64,
    exp: i64,
    iss: &'a str,
    sub: &'a str,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
}

/// A bearer token for a tenant (`org_…`), valid for ten years from `now`.
///
/// # Panics
/// Never: the claims always serialise, and HS256 takes a secret of any length.
pub fn mint_token(secret: &str, subject: &str, now: DateTime<Utc>) -> String {
    let issued = now.timestamp();
    let expires = now.checked_add_days(TOKEN_LIFETIME).unwrap_or(now).timestamp();
    let claims = MintedClaims { iat: issued, nbf: issued, exp: expires, iss: "posthaste", sub: subject };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("HS256 signs with a secret of any length")
}

/// Whether a tenant can have this subject: `org_` and 1 to 100 letters, digits, `-` or `_`.
fn is_tenant(subject: &str) -> bool {
    subject.strip_prefix(TENANT_PREFIX).is_some_and(|name| {
        (1..=MAX_SUBJECT).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}

/// Tells the tokens that we signed from those that we did not.
pub(crate) struct Verifier {
    keys: Vec<DecodingKey>,
    validation: Validation,
    /// What was verified a moment ago: a backend sends the same token with every request.
    known: RwLock<HashMap<Box<str>, Known>>,
}

/// Whose a verified token is, and when it was verified.
struct Known {
    subject: Arc<str>,
    since: Instant,
}

impl Verifier {
    /// Accepts what any of `secrets` signed.
    pub(crate) fn new(secrets: &[String]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self {
            keys: secrets.iter().map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect(),
            validation,
            known: RwLock::default(),
        }
    }

    /// The subject of the request's token: a tenant's `org_…`.
    pub(crate) fn subject(&self, headers: &HeaderMap) -> Result<Arc<str>, ApiError> {
        let value = headers.get(header::AUTHORIZATION).ok_or(ApiError::Unauthenticated("the request carries no token"))?;
        let token = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or(ApiError::Unauthenticated("the Authorization header is not a bearer token"))?;
        if let Some(known) = self.known.read().get(token).filter(|known| known.since.elapsed() < MEMORY) {
            return Ok(Arc::clone(&known.subject));
        }
        let subject = self.verify(token)?;
        if is_tenant(&subject) {
            Ok(self.remember(token, subject.into()))
        } else if subject.starts_with(APPLICATION_PREFIX) {
            Err(ApiError::Forbidden("tokens of a single application (`sub` app_…) are not supported yet: use a token of the organisation"))
        } else {
            Err(ApiError::Unauthenticated("the token's subject is not `org_` and 1 to 100 letters, digits, `-` or `_`"))
        }
    }

    fn remember(&self, token: &str, subject: Arc<str>) -> Arc<str> {
        let mut known = self.known.write();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(token.into(), Known { subject: Arc::clone(&subject), since: Instant::now() });
        subject
    }

    fn verify(&self, token: &str) -> Result<String, ApiError> {
        use jsonwebtoken::errors::ErrorKind;

        let mut reason = "the token is not valid";
        for key in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(data) => return data.claims.sub.ok_or(ApiError::Unauthenticated("the token names no subject")),
                Err(error) => match error.kind() {
                    ErrorKind::ExpiredSignature => reason = "the token has expired",
                    ErrorKind::ImmatureSignature => reason = "the token is not valid yet",
                    _ => {}
                },
            }
        }
        Err(ApiError::Unauthenticated(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of the first house";
    const OTHER: &str = "a secret of the second house";
    const NOW: i64 = 1_790_000_000;

    fn read(verifier: &Verifier, token: &str) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a header value"));
        verifier.subject(&headers).map(|subject| subject.to_string()).map_err(|error| error.status().as_u16())
    }

    fn signed(claims: &serde_json::Value, algorithm: Algorithm) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
    }

    #[test]
    fn a_minted_token_names_its_tenant() {
        let verifier = Verifier::new(&[OTHER.into(), SECRET.into()]);
        let now = DateTime::from_timestamp(NOW, 0).expect("a time");
        assert_eq!(read(&verifier, &mint_token(SECRET, "org_acme", now)), Ok("org_acme".into()));
        assert_eq!(read(&Verifier::new(&[OTHER.into()]), &mint_token(SECRET, "org_acme", now)), Err(401));
    }

    #[test]
    fn times_are_checked_when_they_are_there() {
        let verifier = Verifier::new(&[SECRET.into()]);
        let token = |claims| read(&verifier, &signed(&claims, Algorithm::HS256));
        assert_eq!(token(serde_json::json!({"sub": "org_a", "aud": "anyone", "iss": 7})), Ok("org_a".into()));
        assert_eq!(token(serde_json::json!({"sub": "org_a", "exp": 1_000_000_000})), Err(401));
        assert_eq!(token(serde_json::json!({"sub": "org_a", "exp": "never"})), Err(401));
        assert_eq!(token(serde_json::json!({"sub": "org_a", "nbf": 99_000_000_000_u64})), Err(401));
    }

    #[test]
    fn foreign_subjects_and_algorithms_are_refused() {
        let verifier = Verifier::new(&[SECRET.into()]);
        let token = |sub: &str| read(&verifier, &signed(&serde_json::json!({ "sub": sub }), Algorithm::HS256));
        assert_eq!(token("app_1srOrx2ZWZBpBUvZwXKQmoEYga2"), Err(403));
        for subject in ["", "org_", "user_1", "org_a b", "org_a\u{0}", &format!("org_{}", "x".repeat(101))] {
            assert_eq!(token(subject), Err(401), "{subject:?}");
        }
        assert_eq!(read(&verifier, &signed(&serde_json::json!({"sub": "org_a"}), Algorithm::HS384)), Err(401));
        assert_eq!(read(&verifier, &signed(&serde_json::json!({}), Algorithm::HS256)), Err(401));
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJvcmdfYSJ9.";
        assert_eq!(read(&verifier, unsigned), Err(401));
        for garbage in ["", "x", "a.b.c", SECRET] {
            assert_eq!(read(&verifier, garbage), Err(401), "{garbage}");
        }
    }
}
