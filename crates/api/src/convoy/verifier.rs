//! How a source's sender proves itself, on the wire. What is secret is taken and never shown.

use std::time::Duration;

use domain::{
    convoy_signature::Version,
    mac::{Encoding, Hash, SharedSecret},
    source::{
        Provider, location,
        verifier::{ApiKeyPlace, SignedBody, TOLERANCE, Verifier, standard_secret},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::Text;

/// The longest prefix of a signature.
const MAX_PREFIX: usize = 64;
/// The longest tolerance, in seconds: a day.
const MAX_TOLERANCE: u64 = 86_400;
/// What is wrong with a field, and which.
pub(super) type Wrong = (&'static str, String);

/// How a sender proves itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConvoySourceVerifierType)]
enum VerifierType {
    /// Not at all
    #[default]
    #[serde(alias = "")]
    Noop,
    /// By an HMAC
    Hmac,
    /// By a user name and a password
    BasicAuth,
    /// By a key
    ApiKey,
}

/// How a source's sender proves itself. Where the provider of the source is named, `hmac` with the secret is all that is wanted.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoySourceVerifierIn)]
pub(super) struct VerifierIn {
    #[serde(rename = "type", default)]
    kind: VerifierType,
    hmac: Option<HmacIn>,
    basic_auth: Option<BasicAuthIn>,
    api_key: Option<ApiKeyIn>,
}

/// An HMAC of the body in a header.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoySourceHmacIn)]
struct HmacIn {
    #[schema(example = "X-Signature")]
    header: Option<Text>,
    /// `SHA256` or `SHA512`
    #[schema(example = "SHA256")]
    hash: Option<Text>,
    /// `hex` or `base64`
    #[schema(example = "hex")]
    encoding: Option<Text>,
    /// What stands before the HMAC in the header, such as `sha256=`
    prefix: Option<Text>,
    /// The secret. In an update that changes nothing else of it, it may be left out, and stays
    secret: Option<Text>,
    /// How many seconds the time in a signature may be from ours, where the provider signs one; 300 if absent
    #[schema(minimum = 1, maximum = 86_400)]
    tolerance_seconds: Option<u64>,
}

/// A user name and a password in `Authorization`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoySourceBasicAuthIn)]
struct BasicAuthIn {
    username: Option<Text>,
    /// In an update that changes nothing else of it, it may be left out, and stays
    password: Option<Text>,
}

/// A key that is sent along.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoySourceApiKeyIn)]
struct ApiKeyIn {
    /// The name of the header, or of the parameter
    header_name: Option<Text>,
    /// The key. In an update that changes nothing else of it, it may be left out, and stays
    header_value: Option<Text>,
    /// Where it is sent: `header` (the whole value of `header_name`), `bearer` (behind `Bearer` in `Authorization`) or `query`
    #[serde(rename = "in")]
    place: Option<Text>,
}

/// How a source's sender proves itself, without what is secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySourceVerifier)]
pub(super) struct VerifierOut {
    #[serde(rename = "type")]
    kind: VerifierType,
    #[schema(required)]
    hmac: Option<HmacOut>,
    #[schema(required)]
    basic_auth: Option<BasicAuthOut>,
    #[schema(required)]
    api_key: Option<ApiKeyOut>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySourceHmac)]
struct HmacOut {
    header: String,
    hash: &'static str,
    encoding: &'static str,
    prefix: String,
    /// Null where no time is signed
    #[schema(required)]
    tolerance_seconds: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySourceBasicAuth)]
struct BasicAuthOut {
    username: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySourceApiKey)]
struct ApiKeyOut {
    header_name: String,
    #[serde(rename = "in")]
    place: &'static str,
}

impl VerifierIn {
    /// The one that only says by whom it is: all else is known.
    pub(super) fn of_a_provider() -> Self {
        Self { kind: VerifierType::Hmac, ..Self::default() }
    }

    /// The verifier that is meant. A secret that is not given stays as it was, if there was one of the same kind.
    pub(super) fn read(self, provider: Option<Provider>, was: Option<&Verifier>) -> Result<Verifier, Wrong> {
        match (provider, self.kind) {
            (Some(provider), VerifierType::Hmac) => self.hmac.unwrap_or_default().of(provider, was),
            (Some(provider), _) => {
                Err(("verifier.type", format!("must be `hmac`, with the secret, for the provider `{}`", provider.name())))
            }
            (None, VerifierType::Noop) => Ok(Verifier::None),
            (None, VerifierType::Hmac) => self.hmac.ok_or(("verifier.hmac", "is missing".to_owned()))?.read(was),
            (None, VerifierType::BasicAuth) => self.basic_auth.ok_or(("verifier.basic_auth", "is missing".to_owned()))?.read(was),
            (None, VerifierType::ApiKey) => self.api_key.ok_or(("verifier.api_key", "is missing".to_owned()))?.read(was),
        }
    }
}

impl HmacIn {
    fn secret(&self, kept: Option<&SharedSecret>) -> Result<SharedSecret, Wrong> {
        secret(self.secret.as_ref(), kept, "verifier.hmac.secret")
    }

    fn of(self, provider: Provider, was: Option<&Verifier>) -> Result<Verifier, Wrong> {
        let tolerance = match self.tolerance_seconds {
            None => TOLERANCE,
            Some(seconds) if (1..=MAX_TOLERANCE).contains(&seconds) => Duration::from_secs(seconds),
            Some(_) => return Err(("verifier.hmac.tolerance_seconds", format!("must be from 1 to {MAX_TOLERANCE}"))),
        };
        let signed = |form: SignedBody| {
            let kept = was.and_then(|was| if let Verifier::Body(known, secret) = was { (*known == form).then_some(secret) } else { None });
            Ok(Verifier::Body(form, self.secret(kept)?))
        };
        match (provider, was) {
            (Provider::Github, _) => signed(SignedBody::github()),
            (Provider::Shopify, _) => signed(SignedBody::shopify()),
            (Provider::Twitter, _) => signed(SignedBody::x()),
            (Provider::Stripe, Some(Verifier::Stripe(kept, _))) => Ok(Verifier::Stripe(self.secret(Some(kept))?, tolerance)),
            (Provider::Stripe, _) => Ok(Verifier::Stripe(self.secret(None)?, tolerance)),
            (Provider::Slack, Some(Verifier::Slack(kept, _))) => Ok(Verifier::Slack(self.secret(Some(kept))?, tolerance)),
            (Provider::Slack, _) => Ok(Verifier::Slack(self.secret(None)?, tolerance)),
            (Provider::Convoy, was) => {
                let version = self.version()?;
                let kept = if let Some(Verifier::Convoy(_, kept, _)) = was { Some(kept) } else { None };
                Ok(Verifier::Convoy(version, self.secret(kept)?, tolerance))
            }
            (Provider::StandardWebhooks, was) => {
                let kept = if let Some(Verifier::Standard(kept, _)) = was { Some(kept.clone()) } else { None };
                let given = self.secret.as_ref().filter(|secret| !secret.0.is_empty());
                let why = "must be `whsec_` and base64, or base64 alone".to_owned();
                let secret = given.map_or(kept, |secret| standard_secret(&secret.0)).ok_or(("verifier.hmac.secret", why))?;
                Ok(Verifier::Standard(secret, tolerance))
            }
        }
    }

    fn version(&self) -> Result<Version, Wrong> {
        let hash = match self.hash.as_ref().map(|hash| hash.0.to_ascii_uppercase()).as_deref() {
            None | Some("SHA256" | "SHA-256" | "") => Hash::Sha256,
            Some("SHA512" | "SHA-512") => Hash::Sha512,
            Some(_) => return Err(("verifier.hmac.hash", "must be `SHA256` or `SHA512`".to_owned())),
        };
        let encoding = match self.encoding.as_ref().map(|encoding| encoding.0.to_ascii_lowercase()).as_deref() {
            None | Some("hex" | "") => Encoding::Hex,
            Some("base64") => Encoding::Base64,
            Some(_) => return Err(("verifier.hmac.encoding", "must be `hex` or `base64`".to_owned())),
        };
        Ok(Version { hash, encoding })
    }

    fn read(self, was: Option<&Verifier>) -> Result<Verifier, Wrong> {
        let Version { hash, encoding } = self.version()?;
        let header = header_name(self.header.as_ref(), "verifier.hmac.header")?;
        let prefix = self.prefix.as_ref().map(|prefix| prefix.0.clone()).unwrap_or_default();
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("verifier.hmac.prefix", format!("must be at most {MAX_PREFIX} visible characters of ASCII")));
        }
        let kept = was.and_then(|was| if let Verifier::Body(_, secret) = was { Some(secret) } else { None });
        Ok(Verifier::Body(SignedBody { header, prefix, hash, encoding }, self.secret(kept)?))
    }
}

impl BasicAuthIn {
    fn read(self, was: Option<&Verifier>) -> Result<Verifier, Wrong> {
        let user = self.username.map(|text| text.0).unwrap_or_default();
        if user.is_empty() || user.contains(':') {
            return Err(("verifier.basic_auth.username", "must be given, and cannot contain a colon".to_owned()));
        }
        let kept = was.and_then(|was| if let Verifier::Basic { password, .. } = was { Some(password) } else { None });
        let password = secret(self.password.as_ref(), kept, "verifier.basic_auth.password")?;
        Ok(Verifier::Basic { user, password })
    }
}

impl ApiKeyIn {
    fn read(self, was: Option<&Verifier>) -> Result<Verifier, Wrong> {
        const NAME: &str = "verifier.api_key.header_name";

        let place = match self.place.as_ref().map(|place| place.0.as_str()) {
            None | Some("header") => ApiKeyPlace::Header(header_name(self.header_name.as_ref(), NAME)?),
            Some("bearer") => ApiKeyPlace::Bearer,
            Some("query") => {
                let name = self.header_name.map(|text| text.0).filter(|name| !name.is_empty());
                ApiKeyPlace::Query(name.ok_or((NAME, "must name the parameter".to_owned()))?)
            }
            Some(_) => return Err(("verifier.api_key.in", "must be `header`, `bearer` or `query`".to_owned())),
        };
        let kept = was.and_then(|was| if let Verifier::ApiKey(_, key) = was { Some(key) } else { None });
        let key = secret(self.header_value.as_ref(), kept, "verifier.api_key.header_value")?;
        Ok(Verifier::ApiKey(place, key))
    }
}

/// The secret that is given, or else the one that there was.
fn secret(given: Option<&Text>, kept: Option<&SharedSecret>, field: &'static str) -> Result<SharedSecret, Wrong> {
    let given = given.filter(|text| !text.0.is_empty()).map(|text| SharedSecret::new(text.0.as_str()));
    given.or_else(|| kept.cloned()).ok_or((field, "is missing".to_owned()))
}

fn header_name(given: Option<&Text>, field: &'static str) -> Result<String, Wrong> {
    given.and_then(|text| location::header_name(&text.0)).ok_or((field, "must be the name of a header".to_owned()))
}

impl VerifierOut {
    /// Nothing, if what there is cannot be opened.
    pub(super) fn new(verifier: &Verifier) -> Option<Self> {
        let nothing = Self { kind: VerifierType::Noop, hmac: None, basic_auth: None, api_key: None };
        let signed = |header: &str, prefix: &str, version: Version, tolerance: Option<Duration>| {
            let hmac = HmacOut {
                header: header.to_owned(),
                hash: if version.hash == Hash::Sha256 { "SHA256" } else { "SHA512" },
                encoding: if version.encoding == Encoding::Hex { "hex" } else { "base64" },
                prefix: prefix.to_owned(),
                tolerance_seconds: tolerance.map(|tolerance| tolerance.as_secs()),
            };
            Self { kind: VerifierType::Hmac, hmac: Some(hmac), basic_auth: None, api_key: None }
        };
        let base64 = Version { encoding: Encoding::Base64, ..Version::default() };
        Some(match verifier {
            Verifier::Unreadable => return None,
            Verifier::None => nothing,
            Verifier::Body(SignedBody { header, prefix, hash, encoding }, _) => {
                signed(header, prefix, Version { hash: *hash, encoding: *encoding }, None)
            }
            Verifier::Basic { user, .. } => {
                let basic_auth = Some(BasicAuthOut { username: user.clone() });
                Self { kind: VerifierType::BasicAuth, basic_auth, ..nothing }
            }
            Verifier::ApiKey(place, _) => {
                let (header_name, place) = match place {
                    ApiKeyPlace::Header(name) => (name.clone(), "header"),
                    ApiKeyPlace::Bearer => ("authorization".to_owned(), "bearer"),
                    ApiKeyPlace::Query(name) => (name.clone(), "query"),
                };
                Self { kind: VerifierType::ApiKey, api_key: Some(ApiKeyOut { header_name, place }), ..nothing }
            }
            Verifier::Stripe(_, tolerance) => signed("stripe-signature", "", Version::default(), Some(*tolerance)),
            Verifier::Convoy(version, _, tolerance) => signed("x-convoy-signature", "", *version, Some(*tolerance)),
            Verifier::Slack(_, tolerance) => signed("x-slack-signature", "v0=", Version::default(), Some(*tolerance)),
            Verifier::Standard(_, tolerance) => signed("webhook-signature", "v1,", base64, Some(*tolerance)),
        })
    }
}
