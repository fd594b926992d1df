//! What one attempt says: URL, headers, body and signature.

mod other_signature;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ptr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::{
    endpoint::is_reserved_header,
    id::{EndpointId, Id, MessageId},
    project::Rules,
    signing::{self, Secret},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;
use parking_lot::Mutex;
use storage::directory::Target;
use thiserror::Error;
use url::Url;

use self::other_signature::OtherSignature;

/// Who we say we are.
const OUR_NAME: HeaderValue = HeaderValue::from_static(concat!("Posthaste/", env!("CARGO_PKG_VERSION")));
/// What the payload is, if its own media type cannot be sent.
const UNKNOWN_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Names of id, time and signature in the Standard Webhooks specification.
const STANDARD: [HeaderName; 3] =
    [HeaderName::from_static("webhook-id"), HeaderName::from_static("webhook-timestamp"), HeaderName::from_static("webhook-signature")];
/// Their names in what came before it: the same values, for verifiers that know only these.
const SVIX: [HeaderName; 3] =
    [HeaderName::from_static("svix-id"), HeaderName::from_static("svix-timestamp"), HeaderName::from_static("svix-signature")];
/// Carries the key by which a receiver can tell a duplicate.
const DELIVERY_KEY: HeaderName = HeaderName::from_static("x-convoy-idempotency-key");
/// Carries the number of the attempt: the first is 1, and 1.1 if it is sent once more.
const ATTEMPT: HeaderName = HeaderName::from_static("posthaste-attempt");
/// Carries the time after which no automatic attempt of the delivery is under way, if nothing out of the ordinary happens.
const REDELIVERY_UNTIL: HeaderName = HeaderName::from_static("posthaste-redelivery-until");

/// For how many endpoints URL and headers are kept ready.
const REMEMBERED: usize = 20_000;
/// How many headers a request has before it must make room for more.
const HEADERS: usize = 16;

/// Under which names id, time and signature are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureHeaders {
    /// `webhook-*` alone.
    Standard,
    /// `svix-*` alone.
    Svix,
    /// Both, with the same values.
    Both,
}

impl SignatureHeaders {
    fn names(self) -> impl Iterator<Item = [HeaderName; 3]> {
        let standard = (self != Self::Svix).then_some(STANDARD);
        let svix = (self != Self::Standard).then_some(SVIX);
        standard.into_iter().chain(svix)
    }
}

/// Which time an attempt is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// The first time, and mostly the only one.
    First,
    /// Once more on another connection, since the first one was closed before an answer: the receiver may have got it or not.
    Again,
}

/// What is sent, whoever gets it.
#[derive(Debug)]
pub(crate) struct Webhook<'a> {
    /// The message, whose id never changes across attempts.
    pub(crate) message_id: MessageId,
    /// Which attempt this is.
    pub(crate) number: i16,
    /// When the last automatic attempt ends at the latest; none if this attempt is not automatic.
    pub(crate) redelivery_until: Option<DateTime<Utc>>,
    /// The publisher's bytes, which are signed and sent as they are.
    pub(crate) payload: Bytes,
    /// What they are.
    pub(crate) content_type: &'a str,
    /// Headers that the message brings along, a name as often as it came.
    pub(crate) headers: &'a [(String, String)],
    /// What `X-Convoy-Idempotency-Key` says.
    pub(crate) delivery_key: &'a str,
}

/// The endpoint's URL passed the checks when it was stored, and yet cannot be called.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("invalid url: the endpoint's URL cannot be called")]
pub(crate) struct Uncallable;

/// What the attempts of an endpoint have in common, read once for as long as the endpoint stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Preparations(Mutex<HashMap<EndpointId, Arc<Prepared>>>);

impl Preparations {
    /// What every request to `target` says, by the rules of its tenant: both are of one version of its application.
    pub(crate) fn of(&self, target: &Arc<Target>, rules: &Rules) -> Result<Arc<Prepared>, Uncallable> {
        let endpoint_id = target.endpoint.id;
        if let Some(known) = self.0.lock().get(&endpoint_id).filter(|known| known.is_of(target)) {
            return Ok(Arc::clone(known));
        }
        let prepared = Arc::new(Prepared::new(target, rules)?);
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(endpoint_id, Arc::clone(&prepared));
        Ok(prepared)
    }
}

/// What every request to one endpoint says.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Each version of an endpoint is an allocation of its own, and none takes the place of one that is still pointed at.
    target: Weak<Target>,
    uri: Uri,
    custom: Vec<(HeaderName, HeaderValue)>,
    other_signature: Option<OtherSignature>,
}

impl Prepared {
    fn new(target: &Arc<Target>, rules: &Rules) -> Result<Self, Uncallable> {
        // They were checked when they were stored.
        let header = |(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
        let custom = target.headers.iter().filter_map(header).collect();
        let other_signature = OtherSignature::of(&target.endpoint.settings, rules);
        Ok(Self { target: Arc::downgrade(target), uri: uri(target.endpoint.url.as_str())?, custom, other_signature })
    }

    fn is_of(&self, target: &Arc<Target>) -> bool {
        ptr::eq(self.target.as_ptr(), Arc::as_ptr(target))
    }

    /// Builds the request of one attempt, signed with every secret that is live at `now`.
    pub(crate) fn request(
        &self,
        webhook: &Webhook<'_>,
        target: &Target,
        now: DateTime<Utc>,
        names: SignatureHeaders,
        sending: Sending,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(webhook.payload.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(webhook.content_type).unwrap_or(UNKNOWN_TYPE));
        headers.insert(USER_AGENT, OUR_NAME);
        let secrets = target.live_secrets(now);
        sign(&mut headers, webhook, &secrets, now, names);
        if let Some(other) = &self.other_signature {
            headers.extend(other.sign(&secrets, now, &webhook.payload));
        }
        headers.insert(DELIVERY_KEY, key_value(webhook.delivery_key));
        headers.insert(ATTEMPT, attempt_value(webhook.number, sending));
        if let Some(until) = webhook.redelivery_until {
            headers.insert(REDELIVERY_UNTIL, time_value(until));
        }
        for (name, value) in &self.custom {
            // The endpoint's own headers never replace one of ours.
            headers.entry(name).or_insert_with(|| value.clone());
        }
        bring_along(&mut headers, webhook.headers);
        *request.headers_mut() = headers;
        request
    }
}

/// The form in which the connector sees the URL: the parser of the WHATWG standard turns every notation of an IPv4 address
/// (decimal, hexadecimal, octal, shortened) into the dotted one, so that nothing hides behind its spelling.
pub(crate) fn uri(text: &str) -> Result<Uri, Uncallable> {
    let mut url = Url::parse(text).map_err(|_| Uncallable)?;
    url.set_fragment(None);
    Uri::try_from(String::from(url)).map_err(|_| Uncallable)
}

fn sign(headers: &mut HeaderMap, webhook: &Webhook<'_>, secrets: &[Secret], now: DateTime<Utc>, names: SignatureHeaders) {
    let id = webhook.message_id.public();
    let seconds = now.timestamp();
    let signature = signing::signature_header(secrets, &id, seconds, &webhook.payload);
    let ascii = |text: &str| HeaderValue::from_str(text).expect("ids and signatures are ASCII");
    let values = [ascii(&id), HeaderValue::from(seconds), ascii(&signature)];
    for names in names.names() {
        headers.extend(names.into_iter().zip(values.clone()));
    }
}

/// Adds the headers of a message, but for those that are ours or the endpoint's, and those that belong to HTTP.
fn bring_along(headers: &mut HeaderMap, more: &[(String, String)]) {
    if more.is_empty() {
        return;
    }
    let mut brought = HeaderMap::new();
    for (name, value) in more {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else { continue };
        if !is_reserved_header(name.as_str()) && !headers.contains_key(&name) {
            // It fails when there are more than any receiver would take.
            let _ = brought.try_append(name, value);
        }
    }
    headers.extend(brought);
}

fn attempt_value(number: i16, sending: Sending) -> HeaderValue {
    match sending {
        Sending::First => HeaderValue::from(number),
        Sending::Again => HeaderValue::try_from(format!("{number}.1")).expect("digits and a dot"),
    }
}

/// RFC 3339 in whole seconds, rounded up.
fn time_value(time: DateTime<Utc>) -> HeaderValue {
    let begun = TimeDelta::nanoseconds(i64::from(time.timestamp_subsec_nanos()));
    let whole = time - begun;
    let whole = if begun.is_zero() { whole } else { whole.checked_add_signed(TimeDelta::seconds(1)).unwrap_or(whole) };
    HeaderValue::try_from(whole.to_rfc3339_opts(SecondsFormat::Secs, true)).expect("digits and letters")
}

/// The key as it is; only control characters, which no header can carry, are percent-encoded.
fn key_value(key: &str) -> HeaderValue {
    let encoded = |byte: u8| if byte.is_ascii_control() { format!("%{byte:02X}").into_bytes() } else { vec![byte] };
    HeaderValue::from_bytes(key.as_bytes())
        .or_else(|_| HeaderValue::from_bytes(&key.bytes().flat_map(encoded).collect::<Vec<_>>()))
        .expect("no control characters are left")
}
