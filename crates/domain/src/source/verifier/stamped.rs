//! Senders that sign the time with the body, so that nobody can send the same request again later.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};

use super::{Incoming, Refusal, malformed, one_header};
use crate::mac::{Encoding, Hash, SharedSecret};

/// Stripe (<https://docs.stripe.com/webhooks/signature>, "Verify webhook signatures manually"): `t=` and seconds, one `v1=` for each live secret; other schemes are
/// passed over. Signed is `{t}.{body}`.
pub(super) fn stripe(secret: &SharedSecret, tolerance: Duration, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
    const NAME: &str = "stripe-signature";
    let expected = "of the form t=1700000000,v1=… with hexadecimal digits";
    let value = one_header(request, NAME)?;
    let pairs = || value.split(',').filter_map(|pair| pair.trim_ascii().split_once('='));
    let stamp = pairs().find(|(name, _)| *name == "t").ok_or_else(|| malformed(NAME, expected))?.1;
    let macs: Vec<_> = pairs().filter(|(name, _)| *name == "v1").filter_map(|(_, text)| Encoding::Hex.decode(text)).collect();
    let seconds = seconds(stamp).filter(|_| !macs.is_empty()).ok_or_else(|| malformed(NAME, expected))?;
    one_fits(secret, &[stamp.as_bytes(), b".", request.body], &macs, NAME)?;
    in_time(NAME, seconds, tolerance, now)
}

/// Slack (<https://docs.slack.dev/authentication/verifying-requests-from-slack>). Signed is `v0:{timestamp}:{body}`.
pub(super) fn slack(secret: &SharedSecret, tolerance: Duration, request: &Incoming<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
    const NAME: &str = "x-slack-signature";
    const STAMP: &str = "x-slack-request-timestamp";
    let (value, stamp) = (one_header(request, NAME)?, one_header(request, STAMP)?);
    let mac = value.strip_prefix("v0=").and_then(|text| Encoding::Hex.decode(text));
    let mac = mac.ok_or_else(|| malformed(NAME, "`v0=` and hexadecimal digits"))?;
    let seconds = seconds(stamp).ok_or_else(|| malformed(STAMP, SECONDS))?;
    one_fits(secret, &[b"v0:", stamp.as_bytes(), b":", request.body], &[mac], NAME)?;
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
    one_fits(secret, &[id.as_bytes(), b".", stamp.as_bytes(), b".", request.body], &macs, name)?;
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

fn one_fits(secret: &SharedSecret, parts: &[&[u8]], macs: &[Vec<u8>], name: &str) -> Result<(), Refusal> {
    // A sender has a handful of live secrets: more signatures than that are an attempt to keep us busy.
    const MAX_SIGNATURES: usize = 16;
    let fits = macs.iter().take(MAX_SIGNATURES).any(|mac| Hash::Sha256.verifies(secret, parts, mac));
    if fits { Ok(()) } else { Err(Refusal::Mismatch(name.to_owned())) }
}

/// Asked last, so that only who has the secret hears what our clock says.
fn in_time(name: &str, seconds: i64, tolerance: Duration, now: DateTime<Utc>) -> Result<(), Refusal> {
    let away = now.timestamp().saturating_sub(seconds);
    let is_near = away.unsigned_abs() <= tolerance.as_secs();
    if is_near { Ok(()) } else { Err(Refusal::Stale { name: name.to_owned(), seconds: away, tolerance: tolerance.as_secs() }) }
}
