//! The signature that receivers of Convoy's webhooks verify, beside ours: over the same bytes, with the same secrets.

use chrono::{DateTime, Utc};
use domain::{
    convoy_signature::{Version, advanced, simple},
    endpoint::{Settings, SignatureStyle},
    mac::SharedSecret,
    project::Rules,
    signing::Secret,
};
use http::{HeaderName, HeaderValue};

/// How the requests to an endpoint are signed once more.
#[derive(Debug)]
pub(super) struct OtherSignature {
    header: HeaderName,
    style: SignatureStyle,
    versions: Vec<Version>,
}

impl OtherSignature {
    /// How those to an endpoint with these settings are, by the rules of its tenant; most are not.
    pub(super) fn of(settings: &Settings, rules: &Rules) -> Option<Self> {
        let header = HeaderName::try_from(rules.signature_header.as_str()).ok()?;
        Some(Self { header, style: settings.signature?, versions: rules.signature_versions.clone() })
    }

    /// The header, given the secrets that are live, the current one first. A key pair signs in our own headers alone.
    pub(super) fn sign(&self, secrets: &[Secret], now: DateTime<Utc>, body: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        let oldest_first: Vec<SharedSecret> = secrets.iter().rev().filter_map(Secret::shared).collect();
        let signature = match self.style {
            SignatureStyle::Simple => simple(&self.versions, &oldest_first, body),
            SignatureStyle::Advanced => advanced(&self.versions, &oldest_first, now.timestamp(), body),
        };
        Some((self.header.clone(), HeaderValue::try_from(signature?).ok()?))
    }
}
