//! What is in a request, and what its receiver can verify.

use std::{collections::BTreeMap, time::SystemTime};

use domain::{
    endpoint::{Endpoint, EndpointUrl, Headers, Settings},
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
            settings: Settings::default(),
            metadata: BTreeMap::new(),
            created_at: made,
            updated_at: made,
        },
        headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Headers>(),
        secrets: vec![(Secret::parse(NEW).expect("a secret"), None), (Secret::parse(OLD).expect("a secret"), Some(old_signs_until))],
        since_version: 1,
        is_unreadable: false,
        is_paused: false,
    }
}

fn build(webhook: &Webhook<'_>, target: Target, now: DateTime<Utc>, names: SignatureHeaders) -> Request<Full<Bytes>> {
    let target = Arc::new(target);
    Preparations::default().of(&target, &Rules::default()).expect("a URL that can be called").request(
        webhook,
        &target,
        now,
        names,
        Sending::First,
    )
}

fn webhook<'a>(payload: &'static [u8], delivery_key: &'a str) -> Webhook<'a> {
    Webhook {
        message_id: MessageId("01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a uuid")),
        number: 3,
        redelivery_until: None,
        payload: Bytes::from_static(payload),
        content_type: "application/json",
        headers: &[],
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
fn what_a_message_brings_along_replaces_nothing() {
    let custom = [("X-Team", "billing"), ("Webhook-Id", "forged")];
    let brought = [
        ("x-github-event", "push"),
        ("X-GitHub-Event", "again"),
        ("x-team", "other"),
        ("Host", "evil"),
        ("Content-Length", "0"),
        ("transfer-encoding", "chunked"),
        ("User-Agent", "evil"),
        ("WEBHOOK-SIGNATURE", "v1,forged"),
        ("x-convoy-signature", "forged"),
        ("x-convoy-idempotency-key", "forged"),
        ("Bad Name", "x"),
        ("x-bad-value", "a\r\nHost: b"),
        ("x-text", "é"),
    ];
    let brought = brought.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let bare = build(&webhook(b"{}", "key"), target("https://example.com/", &custom, now()), now(), SignatureHeaders::Both);
    let webhook = Webhook { headers: &brought, ..webhook(b"{}", "key") };
    let request = build(&webhook, target("https://example.com/", &custom, now()), now(), SignatureHeaders::Both);
    let events: Vec<_> = request.headers().get_all("x-github-event").iter().collect();
    assert_eq!(events, ["push", "again"]);
    assert_eq!(header(&request, "x-team"), "billing");
    assert_eq!(request.headers().get("x-text").map(HeaderValue::as_bytes), Some("é".as_bytes()));
    let others: Vec<_> = request.headers().keys().filter(|name| !bare.headers().contains_key(*name)).map(HeaderName::as_str).collect();
    assert_eq!(others, ["x-github-event", "x-text"]);
    for name in bare.headers().keys().filter(|name| !name.as_str().ends_with("-signature") && !name.as_str().ends_with("-timestamp")) {
        assert_eq!(request.headers().get_all(name).iter().collect::<Vec<_>>(), bare.headers().get_all(name).iter().collect::<Vec<_>>());
    }
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
    let (preparations, rules) = (Preparations::default(), Rules::default());
    let first = Arc::new(target("https://example.com/1", &[], now()));
    let prepared = preparations.of(&first, &rules).expect("a URL");
    assert!(Arc::ptr_eq(&prepared, &preparations.of(&first, &rules).expect("a URL")));
    let changed = Arc::new(target("https://example.com/2", &[("x-new", "1")], now()));
    drop(first);
    let prepared = preparations.of(&changed, &rules).expect("a URL");
    let request = prepared.request(&webhook(b"{}", "key"), &changed, now(), SignatureHeaders::Both, Sending::First);
    assert_eq!((request.uri().path(), header(&request, "x-new")), ("/2", "1"));
    let uncallable = Arc::new(target("no url", &[], now()));
    assert_eq!(preparations.of(&uncallable, &rules).err(), Some(Uncallable));
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

#[test]
fn the_other_signature_is_over_the_same_bytes_with_the_same_secrets() {
    use domain::{
        convoy_signature::{Version, advanced, simple},
        endpoint::SignatureStyle::{Advanced, Simple},
        mac::{Encoding, Hash},
    };

    let now = now();
    let sent = |signature, rules: &Rules| {
        let mut target = target("https://example.com/", &[("X-Acme-Signature", "forged")], now + TimeDelta::hours(1));
        target.endpoint.settings.signature = signature;
        let target = Arc::new(target);
        let prepared = Preparations::default().of(&target, rules).expect("a URL that can be called");
        prepared.request(&webhook(b"{ }", "key"), &target, now, SignatureHeaders::Both, Sending::First)
    };
    let shared = [OLD, NEW].map(|text| Secret::parse(text).expect("a secret").shared().expect("bytes"));
    let rules = Rules::default();
    let versions = rules.signature_versions.clone();
    assert!(!sent(None, &rules).headers().contains_key("x-convoy-signature"));
    assert_eq!(header(&sent(Some(Simple), &rules), "x-convoy-signature"), simple(&versions, &shared[1..], b"{ }").expect("a signature"));
    let both = advanced(&versions, &shared, now.timestamp(), b"{ }").expect("a signature");
    assert_eq!(header(&sent(Some(Advanced), &rules), "x-convoy-signature"), both);
    assert_eq!(both.matches("v1=").count(), 2, "while the old secret lives");
    let other = Version { hash: Hash::Sha512, encoding: Encoding::Base64 };
    let rules = Rules { signature_header: "x-acme-signature".into(), signature_versions: vec![Version::default(), other], ..rules };
    let request = sent(Some(Simple), &rules);
    assert_eq!(header(&request, "x-acme-signature"), simple(&[other], &shared[1..], b"{ }").expect("a signature"));
    assert!(!request.headers().contains_key("x-convoy-signature") && request.headers().contains_key("webhook-signature"));
}
