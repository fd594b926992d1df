//! Senders that sign the time with the body, so that nobody can send the same request again later.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};

use super::{Incoming, Refusal, malformed, one_header};
use crate::{
    convoy_signature::Version,
    mac::{Encoding, Hash, SharedSecret},
};

/// Stripe (<https://docs.stripe.com/webhooks/signature>, "Verify webhook signatures manually"). Signed is `{t}.{body}`; schemes other than `v1` are
/// passed over.
pub(super) fn stripe(secret: &SharedSecret, tolerance: Duration, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
    let list = List { header: "stripe-signature", separator: b".", is_ours: |name| name == "v1", version: Version::default() };
    list.verify(secret, tolerance, request, now)
}

/// Convoy's advanced signatures, as [`crate::convoy_signature::advanced`] makes them. A receiver knows one version by its hash and spelling, not by
/// its number.
pub(super) fn convoy(
    version: Version,
    secret: &SharedSecret,
    tolerance: Duration,
    request: &Incoming<'_>,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    let is_numbered = |name: &str| name.strip_prefix('v').is_some_and(|number| number.parse::<u8>().is_ok());
    let list = List { header: "x-convoy-signature", separator: b",", is_ours: is_numbered, version };
    list.verify(secret, tolerance, request, now)
}

/// A header of `t=` and seconds, and one entry for each version and live secret, in any order.
struct List {
    header: &'static str,
    /// What stands between the time and the body in what is signed.
    separator: &'static [u8],
    /// Whether an entry of this name is a signature that we understand.
    is_ours: fn(&str) -> bool,
    version: Version,
}

impl List {
    fn verify(&self, secret: &SharedSecret, tolerance: Duration, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        let expected = "of the form t=1700000000,v1=… with the seconds since 1970 and at least one signature";
        let malformed = || malformed(self.header, expected);
        let value = one_header(request, self.header)?;
        let pairs = || value.split(',').filter_map(|pair| pair.trim_ascii().split_once('='));
        let stamp = pairs().find(|(name, _)| *name == "t").ok_or_else(malformed)?.1;
        let seconds = seconds(stamp).ok_or_else(malformed)?;
        let texts = pairs().filter(|(name, _)| (self.is_ours)(name)).map(|(_, text)| text);
        let macs: Vec<_> = texts.filter_map(|text| self.version.encoding.decode(text)).collect();
        if macs.is_empty() {
            return Err(malformed());
        }
        let parts = [stamp.as_bytes(), self.separator, request.body];
        one_fits(self.version.hash, secret, &parts, &macs, self.header)?;
        in_time(self.header, seconds, tolerance, now)
    }
}

/// Slack (<https://docs.slack.dev/authentication/verifying-requests-from-slack>). Signed is `v0:{timestamp}:{body}`.
pub(super) fn slack(secret: &SharedSecret, tolerance: Duration, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
    const NAME: &str = "x-slack-signature";
    const STAMP: &str = "x-slack-request-timestamp";
    let (value, stamp) = (one_header(request, NAME)?, one_header(request, STAMP)?);
    let mac = value.strip_prefix("v0=").and_then(|text| Encoding::Hex.decode(text));
    let mac = mac.ok_or_else(|| malformed(NAME, "`v0=` and hexadecimal digits"))?;
    let seconds = seconds(stamp).ok_or_else(|| malformed(STAMP, SECONDS))?;
    one_fits(Hash::Sha256, secret, &[b"v0:", stamp.as_bytes(), b":", request.body], &[mac], NAME)?;
    in_time(STAMP, seconds, tolerance, now)
}

/// Standard Webhooks (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, "Signature scheme"). Signed is
/// `{id}.{timestamp}.{body}`; of several signatures, spaces between them, one has to fit, and schemes other than `v1` are passed over.
pub(super) fn standard(secret: &SharedSecret, tolerance: Duration, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
    const FAMILIES: [[&str; 3]; 2] =
        [["webhook-id", "webhook-timestamp", "webhook-signature"], ["svix-id", "svix-timestamp", "svix-signature"]];
    let is_sent = |family: &&[&str; 3]| family.iter().any(|name| request.header(name).next().is_some());
    let [id_name, stamp_name, name] = *FAMILIES.iter().find(is_sent).unwrap_or(&FAMILIES[0]);
    let (id, stamp, value) = (one_header(request, id_name)?, one_header(request, stamp_name)?, one_header(request, name)?);
    let macs: Vec<_> = value.split(' ').filter_map(|one| Encoding::Base64.decode(one.strip_prefix("v1,")?)).collect();
    if macs.is_empty() {
        return Err(malformed(name, "`v1,` and base64, or several of them with spaces between"));
    }
    let seconds = seconds(stamp).ok_or_else(|| malformed(stamp_name, SECONDS))?;
    one_fits(Hash::Sha256, secret, &[id.as_bytes(), b".", stamp.as_bytes(), b".", request.body], &macs, name)?;
    in_time(stamp_name, seconds, tolerance, now)
}

/// Reads the secret of Standard Webhooks: `whsec_` and base64, or base64 alone.
pub fn standard_secret(text: &str) -> Option<SharedSecret> {
    let bytes = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()?;
    (!bytes.is_empty()).then(|| SharedSecret::new(bytes))
}

const SECONDS: &str = "whole seconds since 1970";

/// The seconds of a stamp that has nothing but digits. What is signed is the text, so there must be one spelling.
fn seconds(stamp: &str) -> Option<i64> {
    stamp.bytes().all(|byte| byte.is_ascii_digit()).then(|| stamp.parse().ok())?
}

fn one_fits(hash: Hash, secret: &SharedSecret, parts: &[&[u8]], macs: &[Vec<u8>], name: &str) -> Result<(), Refusal> {
    // A sender has a handful of live secrets: more signatures than that are an attempt to keep us busy.
    const MAX_SIGNATURES: usize = 16;
    let fits = macs.iter().take(MAX_SIGNATURES).any(|mac| hash.verifies(secret, parts, mac));
    if fits { Ok(()) } else { Err(Refusal::Mismatch(name.to_owned())) }
}

/// Asked last, so that only who has the secret hears what our clock says.
fn in_time(name: &str, seconds: i64, tolerance: Duration, now: DateTime<Utc>) -> Result<(), Refusal> {
    let away = now.timestamp().saturating_sub(seconds);
    let is_near = away.unsigned_abs() <= tolerance.as_secs();
    if is_near { Ok(()) } else { Err(Refusal::Stale { name: name.to_owned(), seconds: away, tolerance: tolerance.as_secs() }) }
}
