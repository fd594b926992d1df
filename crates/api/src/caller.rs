//! Who is calling: bearer tokens (JWT, HS256) with the claims that Svix tokens carry, and API keys. No other file looks into a token.
//!
//! A token of an organisation has it in `sub` (`org_…`); one of an application has that in `sub` (`app_…`) and the organisation in
//! `org`. Svix tokens may say in `feature_flags` which event types an application gets to see.
//! A token that was handed out for an application (`appsk_…`) is looked up, too, at each request.
//! An API key (`CO.…`) is looked up, and remembered for as long as a token is: so one that was revoked opens nothing ten seconds later.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Days, Utc};
use domain::{
    api_key::{ApiKey, Role},
    caller::{Caller, Kind, Permissions},
    id::{ApplicationId, Id, PortalAccessId, TenantId},
    portal::PortalToken,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use storage::{Database, api_keys, portal_access};

use crate::error::ApiError;

/// For how long a token of an organisation is valid, in days: ten years, as `svix-server jwt generate` has it.
const TOKEN_LIFETIME: Days = Days::new(3650);
/// For how long a token of an application is valid, in days, as Svix has it for those that it hands to customers: none can be
/// taken back.
const APPLICATION_TOKEN_LIFETIME: Days = Days::new(28);
/// By how much the clocks of the token's maker and ours may differ, in seconds (as in svix-server).
const LEEWAY: u64 = 900;
/// For how long a token or key that was found good is taken for good without another look; far less than the leeway.
const MEMORY: Duration = Duration::from_secs(10);
/// How many such tokens are remembered.
const REMEMBERED: usize = 1024;
/// The most characters of a tenant's name after its prefix.
const MAX_SUBJECT: usize = 100;
/// The prefix of the subjects that are tenants.
const TENANT_PREFIX: &str = "org_";

#[derive(Serialize)]
struct MintedClaims<'a> {
    iat: i64,
    nbf: i64,
    exp: i64,
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<&'a str>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    org: Option<String>,
    feature_flags: Option<Vec<String>>,
}

/// A bearer token for a tenant (`org_…`), valid for ten years from `now`.
pub fn mint_token(secret: &str, tenant: &str, now: DateTime<Utc>) -> String {
    mint(secret, tenant, None, now, TOKEN_LIFETIME)
}

/// A bearer token for one application of a tenant, valid for 28 days from `now`.
pub fn mint_application_token(secret: &str, tenant: &str, application: ApplicationId, now: DateTime<Utc>) -> String {
    mint(secret, &application.public(), Some(tenant), now, APPLICATION_TOKEN_LIFETIME)
}

fn mint(secret: &str, subject: &str, organisation: Option<&str>, now: DateTime<Utc>, lifetime: Days) -> String {
    let issued = now.timestamp();
    let expires = now.checked_add_days(lifetime).unwrap_or(now).timestamp();
    let claims = MintedClaims { iat: issued, nbf: issued, exp: expires, iss: "posthaste", sub: subject, org: organisation };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("HS256 signs with a secret of any length")
}

/// Whether a tenant can have this name: `org_` and 1 to 100 letters, digits, `-` or `_`.
fn is_tenant(name: &str) -> bool {
    name.strip_prefix(TENANT_PREFIX).is_some_and(|name| {
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

/// What a token that we signed says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The tenant's name.
    pub(crate) tenant: Box<str>,
    /// Of event types that are behind a flag, only those with one of these are shown; absent: all are.
    pub(crate) feature_flags: Option<Arc<[String]>>,
    kind: Kind,
    permissions: Permissions,
    access: Option<PortalAccessId>,
}

impl Token {
    /// One with everything that such callers may.
    fn new(tenant: &str, kind: Kind, feature_flags: Option<Arc<[String]>>) -> Self {
        Self { tenant: tenant.into(), feature_flags, kind, permissions: kind.permissions(), access: None }
    }

    fn read(claims: Claims) -> Result<Self, ApiError> {
        let Claims { sub, org, feature_flags } = claims;
        let subject = sub.ok_or(ApiError::Unauthenticated("the token names no subject"))?;
        if is_tenant(&subject) {
            return Ok(Self::new(&subject, Kind::Organisation, None));
        }
        if !ApplicationId::has_prefix(&subject) {
            let wrong = "the token's subject is neither `org_` and 1 to 100 letters, digits, `-` or `_`, nor the id of an application";
            return Err(ApiError::Unauthenticated(wrong));
        }
        let application = ApplicationId::parse(&subject);
        let application =
            application.map_err(|_| ApiError::Unauthenticated("the token's subject is not the id of an application of ours"))?;
        let tenant = org.filter(|org| is_tenant(org));
        let tenant = tenant.ok_or(ApiError::Unauthenticated("the token of an application must name its organisation in `org`"))?;
        Ok(Self::new(&tenant, Kind::Application(application), feature_flags.map(Arc::from)))
    }

    /// The key that this is, if it opens anything.
    async fn of_key(db: &Database, text: &str) -> Result<Self, ApiError> {
        let unknown = ApiError::Unauthenticated("there is no such API key");
        let key = ApiKey::parse(text).ok_or(ApiError::Unauthenticated("an API key is `CO.`, 16 letters and digits, `.`, and 64 more"))?;
        let found = api_keys::find(db, &key).await?.ok_or(unknown)?;
        if found.key.revoked_at.is_some() {
            return Err(ApiError::Unauthenticated("the API key was revoked"));
        }
        if found.key.expires_at.is_some_and(|at| at <= db.now()) {
            return Err(ApiError::Unauthenticated("the API key has expired"));
        }
        let kind = match found.key.role {
            Role::Admin => Kind::Organisation,
            Role::Viewer => Kind::Viewer,
        };
        Ok(Self::new(&found.tenant, kind, None))
    }

    /// What was handed out for an application, if it opens anything.
    async fn of_portal(db: &Database, text: &str) -> Result<Self, ApiError> {
        let unknown = ApiError::Unauthenticated("there is no such token");
        let token = PortalToken::parse(text).ok_or(unknown.clone())?;
        let found = portal_access::find(db, &token).await?.ok_or(unknown)?;
        if found.is_revoked {
            return Err(ApiError::Unauthenticated("the token was taken back"));
        }
        if found.expires_at.is_some_and(|at| at <= db.now()) {
            return Err(ApiError::Unauthenticated("the token has expired"));
        }
        let token = Self::new(&found.tenant, Kind::Application(found.application_id), found.feature_flags.map(Arc::from));
        Ok(Self { permissions: found.capabilities.permissions(), access: Some(found.id), ..token })
    }

    /// Why its bearer may not do a thing, and who may.
    pub(crate) fn refusal(&self) -> &'static str {
        match self.kind {
            _ if self.access.is_some() => {
                "this token may not do this: another one could be handed out that may, or use a token of its organisation"
            }
            Kind::Viewer => "this API key may only look: use one that was made without `--viewer`, or a token of the organisation",
            Kind::Organisation | Kind::Application(_) => "the token of an application may not do this: use a token of its organisation",
        }
    }

    /// What its bearer may.
    pub(crate) fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Who asks with it, once it is known which tenant is meant.
    pub(crate) fn caller(&self, tenant_id: TenantId) -> Caller {
        Caller { permissions: self.permissions, access: self.access, ..Caller::new(tenant_id, self.kind) }
    }
}

/// A verified token, and when it was verified.
struct Known {
    token: Arc<Token>,
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

    /// The token of a request, or what its key stands for.
    pub(crate) async fn token(&self, db: &Database, headers: &HeaderMap) -> Result<Arc<Token>, ApiError> {
        let text = bearer(headers)?;
        if let Some(known) = self.known(text) {
            return Ok(known);
        }
        if PortalToken::is_claimed_by(text) {
            // Looked up each time: one that is taken back opens nothing from then on, whichever process is asked.
            return Ok(Arc::new(Box::pin(Token::of_portal(db, text)).await?));
        }
        if !ApiKey::is_claimed_by(text) {
            return self.signed(text);
        }
        // Boxed, so that every other request's future stays small.
        let token = Arc::new(Box::pin(Token::of_key(db, text)).await?);
        self.remember(text, &token);
        Ok(token)
    }

    fn known(&self, text: &str) -> Option<Arc<Token>> {
        self.known.read().get(text).filter(|known| known.since.elapsed() < MEMORY).map(|known| Arc::clone(&known.token))
    }

    /// What one of our secrets signed.
    fn signed(&self, text: &str) -> Result<Arc<Token>, ApiError> {
        let token = Arc::new(self.verify(text).and_then(Token::read)?);
        self.remember(text, &token);
        Ok(token)
    }

    fn remember(&self, text: &str, token: &Arc<Token>) {
        let mut known = self.known.write();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(text.into(), Known { token: Arc::clone(token), since: Instant::now() });
    }

    fn verify(&self, token: &str) -> Result<Claims, ApiError> {
        use jsonwebtoken::errors::ErrorKind;

        let mut reason = "the token is not valid";
        for key in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(data) => return Ok(data.claims),
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

/// What a request carries to say who asks.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let value = headers.get(header::AUTHORIZATION).ok_or(ApiError::Unauthenticated("the request carries no token"))?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(ApiError::Unauthenticated("the Authorization header is not a bearer token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of the first house";
    const OTHER: &str = "a secret of the second house";
    const NOW: i64 = 1_790_000_000;

    fn token(verifier: &Verifier, text: &str) -> Result<Arc<Token>, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {text}").parse().expect("a header value"));
        bearer(&headers).and_then(|text| verifier.signed(text)).map_err(|error| error.status().as_u16())
    }

    fn read(verifier: &Verifier, text: &str) -> Result<String, u16> {
        token(verifier, text).map(|token| token.tenant.to_string())
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
    fn a_token_of_an_application_names_it_and_its_tenant() {
        let verifier = Verifier::new(&[SECRET.into()]);
        let application = ApplicationId(uuid::Uuid::now_v7());
        let now = DateTime::from(std::time::SystemTime::now());
        let minted = mint_application_token(SECRET, "org_acme", application, now);
        let found = token(&verifier, &minted).expect("a good token");
        assert_eq!((&*found.tenant, found.kind), ("org_acme", Kind::Application(application)));
        let id = application.public();
        for claims in [
            serde_json::json!({ "sub": id }),
            serde_json::json!({ "sub": id, "org": "acme" }),
            serde_json::json!({ "sub": "app_1srOrx2ZWZBpBUvZwXKQmoEYga2", "org": "org_acme" }),
            serde_json::json!({ "sub": "app_acme", "org": "org_acme" }),
            serde_json::json!({ "org": "org_acme" }),
        ] {
            assert_eq!(token(&verifier, &signed(&claims, Algorithm::HS256)), Err(401), "{claims}");
        }
        let claims = serde_json::json!({ "sub": id, "org": "org_acme", "feature_flags": ["beta"] });
        let found = token(&verifier, &signed(&claims, Algorithm::HS256)).expect("a good token");
        assert_eq!(found.feature_flags.as_deref(), Some(["beta".to_owned()].as_slice()));
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
