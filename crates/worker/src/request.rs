//! What one attempt says: URL, headers, body and signature.

use std::{
    collections::HashMap,
    ptr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::{
    id::{EndpointId, Id, MessageId},
    signing,
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
    /// What every request to `target` says.
    pub(crate) fn of(&self, target: &Arc<Target>) -> Result<Arc<Prepared>, Uncallable> {
        let endpoint_id = target.endpoint.id;
        if let Some(known) = self.0.lock().get(&endpoint_id).filter(|known| known.is_of(target)) {
            return Ok(Arc::clone(known));
        }
        let prepared = Arc::new(Prepared::new(target)?);
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
}

impl Prepared {
    fn new(target: &Arc<Target>) -> Result<Self, Uncallable> {
        // They were checked when they were stored.
        let header = |(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
        let custom = target.headers.iter().filter_map(header).collect();
        Ok(Self { target: Arc::downgrade(target), uri: uri(target.endpoint.url.as_str())?, custom })
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
        sign(&mut headers, webhook, target, now, names);
        headers.insert(DELIVERY_KEY, key_value(webhook.delivery_key));
        headers.insert(ATTEMPT, attempt_value(webhook.number, sending));
        if let Some(until) = webhook.redelivery_until {
            headers.insert(REDELIVERY_UNTIL, time_value(until));
        }
        for (name, value) in &self.custom {
            // The endpoint's own headers never replace one of ours.
            headers.entry(name).or_insert_with(|| value.clone());
        }
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

fn sign(headers: &mut HeaderMap, webhook: &Webhook<'_>, target: &Target, now: DateTime<Utc>, names: SignatureHeaders) {
    let id = webhook.message_id.public();
    let seconds = now.timestamp();
    let signature = signing::signature_header(&target.live_secrets(now), &id, seconds, &webhook.payload);
    let ascii = |text: &str| HeaderValue::from_str(text).expect("ids and signatures are ASCII");
    let values = [ascii(&id), HeaderValue::from(seconds), ascii(&signature)];
    for names in names.names() {
        headers.extend(names.into_iter().zip(values.clone()));
    }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::SystemTime};

    use domain::{
        endpoint::{Endpoint, EndpointUrl, Headers},
        filter::Filter,
        id::{ApplicationId, EndpointId, TenantId},
        signing::Secret,
    };
    use http_body_util::BodyExt;
    use standardwebhooks::Webhook as Verifier;

    use super::*;

    const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const NEW: &str = "whsec_GBkaGxwdHh8gISIjJCUmJygpKissLS4v";

    fn target(url: &str, headers: &[(&str, &str)], old_signs_until: DateTime<Utc>) -> Target {
        let made = DateTime::UNIX_EPOCH;
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a uuid");
        Target {
            endpoint: Endpoint {
                id: EndpointId(uuid),
                tenant_id: TenantId(uuid),
                application_id: ApplicationId(uuid),
                uid: None,
                url: EndpointUrl::stored(url.into()),
                description: String::new(),
                version: 1,
                throttle_rate: None,
                is_disabled: false,
                filter: Filter::default(),
                metadata: BTreeMap::new(),
                created_at: made,
                updated_at: made,
            },
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Headers>(),
            secrets: vec![(Secret::parse(NEW).expect("a secret"), None), (Secret::parse(OLD).expect("a secret"), Some(old_signs_until))],
            since_version: 1,
            is_unreadable: false,
        }
    }

    fn build(webhook: &Webhook<'_>, target: Target, now: DateTime<Utc>, names: SignatureHeaders) -> Request<Full<Bytes>> {
        let target = Arc::new(target);
        Preparations::default().of(&target).expect("a URL that can be called").request(webhook, &target, now, names, Sending::First)
    }

    fn webhook<'a>(payload: &'static [u8], delivery_key: &'a str) -> Webhook<'a> {
        Webhook {
            message_id: MessageId("01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a uuid")),
            number: 3,
            redelivery_until: None,
            payload: Bytes::from_static(payload),
            content_type: "application/json",
            delivery_key,
        }
    }

    /// The verifier judges by the system's clock.
    fn now() -> DateTime<Utc> {
        SystemTime::now().into()
    }

    fn header<'a>(request: &'a Request<Full<Bytes>>, name: &str) -> &'a str {
        request.headers().get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    #[tokio::test]
    async fn the_bytes_that_are_signed_are_the_bytes_that_are_sent() {
        let payload = b"{ \"b\" :1.10,  \"a\": \"\\u00e9\" }";
        let now = now();
        let target = target("https://example.com/hook", &[], now + TimeDelta::hours(1));
        let request = build(&webhook(payload, "key"), target, now, SignatureHeaders::Both);
        let headers = request.headers().clone();
        assert_eq!(header(&request, "webhook-timestamp"), now.timestamp().to_string());
        assert_eq!(header(&request, "webhook-id"), webhook(b"", "").message_id.public());
        for part in ["id", "timestamp", "signature"] {
            assert_eq!(header(&request, &format!("webhook-{part}")), header(&request, &format!("svix-{part}")));
        }
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.as_ref(), payload);
        for secret in [NEW, OLD] {
            Verifier::new(secret).expect("a secret").verify(&body, &headers).expect("a valid signature");
        }
    }

    #[test]
    fn a_superseded_secret_stops_signing_when_its_grace_is_over() {
        let now = now();
        let target = target("https://example.com/", &[], now);
        let request = build(&webhook(b"{}", "key"), target, now, SignatureHeaders::Standard);
        assert_eq!(header(&request, "webhook-signature").split(' ').count(), 1);
        Verifier::new(NEW).expect("a secret").verify(b"{}", request.headers()).expect("a valid signature");
        Verifier::new(OLD).expect("a secret").verify(b"{}", request.headers()).expect_err("the old secret signs no longer");
    }

    #[test]
    fn signature_headers_have_the_names_that_were_asked_for() {
        for (names, has_standard, has_svix) in
            [(SignatureHeaders::Standard, true, false), (SignatureHeaders::Svix, false, true), (SignatureHeaders::Both, true, true)]
        {
            let request = build(&webhook(b"{}", "key"), target("https://example.com/", &[], now()), now(), names);
            for part in ["id", "timestamp", "signature"] {
                assert_eq!(request.headers().contains_key(format!("webhook-{part}")), has_standard, "{names:?}");
                assert_eq!(request.headers().contains_key(format!("svix-{part}")), has_svix, "{names:?}");
            }
        }
    }

    #[test]
    fn custom_headers_are_added_and_never_replace_ours() {
        let custom = [
            ("X-Team", "billing"),
            ("Authorization", "Bearer abc"),
            ("User-Agent", "evil"),
            ("Content-Type", "text/plain"),
            ("Webhook-Id", "msg_forged"),
            ("X-Convoy-Idempotency-Key", "forged"),
            ("Posthaste-Attempt", "99"),
            ("Bad Name", "x"),
            ("X-Bad-Value", "a\r\nHost: b"),
        ];
        let target = target("https://example.com/", &custom, now());
        let request = build(&webhook(b"{}", "order-42"), target, now(), SignatureHeaders::Both);
        let expected = [
            ("x-team", "billing"),
            ("authorization", "Bearer abc"),
            ("user-agent", concat!("Posthaste/", env!("CARGO_PKG_VERSION"))),
            ("content-type", "application/json"),
            ("x-convoy-idempotency-key", "order-42"),
            ("posthaste-attempt", "3"),
            ("x-bad-value", ""),
        ];
        for (name, value) in expected {
            assert_eq!(header(&request, name), value, "{name}");
        }
        assert_eq!(header(&request, "webhook-id"), webhook(b"", "").message_id.public());
    }

    #[test]
    fn the_end_of_the_redeliveries_is_told_in_whole_seconds_rounded_up() {
        let told = |text: &str| {
            let until = text.parse::<DateTime<Utc>>().expect("a time");
            let webhook = Webhook { redelivery_until: Some(until), ..webhook(b"{}", "key") };
            let request = build(&webhook, target("https://example.com/", &[], now()), now(), SignatureHeaders::Both);
            header(&request, "posthaste-redelivery-until").to_owned()
        };
        assert_eq!(told("2026-11-23T15:18:12Z"), "2026-11-23T15:18:12Z");
        assert_eq!(told("2026-11-23T15:18:12.000000001Z"), "2026-11-23T15:18:13Z");
        assert_eq!(told("2026-12-31T23:59:59.9Z"), "2027-01-01T00:00:00Z");
    }

    #[test]
    fn what_was_read_of_an_endpoint_is_used_until_the_endpoint_changes() {
        let preparations = Preparations::default();
        let first = Arc::new(target("https://example.com/1", &[], now()));
        let prepared = preparations.of(&first).expect("a URL");
        assert!(Arc::ptr_eq(&prepared, &preparations.of(&first).expect("a URL")));
        let changed = Arc::new(target("https://example.com/2", &[("x-new", "1")], now()));
        drop(first);
        let prepared = preparations.of(&changed).expect("a URL");
        let request = prepared.request(&webhook(b"{}", "key"), &changed, now(), SignatureHeaders::Both, Sending::First);
        assert_eq!((request.uri().path(), header(&request, "x-new")), ("/2", "1"));
        let uncallable = Arc::new(target("no url", &[], now()));
        assert_eq!(preparations.of(&uncallable).err(), Some(Uncallable));
    }

    #[test]
    fn every_notation_of_an_address_becomes_the_plain_one() {
        for text in ["http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.1./"] {
            assert_eq!(uri(text).expect("a URI").host(), Some("127.0.0.1"), "{text}");
        }
        assert_eq!(uri("https://example.com/a?b=c#d").expect("a URI").to_string(), "https://example.com/a?b=c");
        assert_eq!(uri("http://münchen.example/").expect("a URI").host(), Some("xn--mnchen-3ya.example"));
        assert_eq!(uri("no url"), Err(Uncallable));
    }

    #[test]
    fn any_delivery_key_can_be_sent() {
        assert_eq!(key_value("a\nb\0").as_bytes(), b"a%0Ab%00");
        assert_eq!(key_value("schlüssel").as_bytes(), "schlüssel".as_bytes());
    }
}
