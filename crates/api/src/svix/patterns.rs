//! What the API document says of a field or a parameter is what its reader takes: both are asked about thousands of texts.

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use domain::{application::check_name, idempotency::Key};
use jsonschema::{Draft, Validator};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::PartialSchema;

use super::fields::{
    ApplicationName, ApplicationUid, Channel, EndpointChannels, EndpointUid, EventId, EventTypeName, Label, MessageChannels, MessageKey,
    SigningSecret, Text, WebhookUrl,
};
use super::{
    application::CreateOptions,
    attempt::{AttemptFilter, OfEndpoint},
    delivery::WithLeftOut,
    endpoint_stats::Range,
    event_type::{DeleteOptions, ListOptions},
    filter::ListFilter,
    header_fields::CustomHeaders,
    idempotency, message,
    page::{InOrder, Paging},
    task::TaskFilter,
};
use crate::{
    routes,
    transport::query::{Query, Question},
};

/// How many texts each field is asked about.
const TEXTS: usize = 4000;
/// What texts are changed by: what patterns tend to forget.
const PIECES: [&str; 44] = [
    "a", "Z", "0", "9", "-", "_", ".", "..", "/", "//", "?", "#", "@", ":", ":0", ":65535", ":65536", "%", "%00", "[", "]", "=", "==", "+",
    "&", "!", "~", " ", "\t", "\n", "\r", "\0", "\u{7f}", "é", "１", "app_", "ep_", "msg_", "\"", "\\", "|", "^", "{", "$",
];
const URLS: [&str; 24] = [
    "https://example.com/webhook/",
    "http://example.com",
    "HTTPS://EXAMPLE.COM:8443/a?b=c#d",
    "http://a_b.internal:80/",
    "http://[::1]:8080/",
    "http://[2001:db8::1]",
    "http://[::ffff:127.0.0.1]/",
    "http://127.0.0.1",
    "http://127.1/",
    "http://2130706433",
    "http://0x7f.1",
    "http://1.2.3.4.5/",
    "http://xn--bcher-kva.example/",
    "http://xn--a/",
    "http://a..b/",
    "http://example.com./",
    "http:example.com",
    "http:///example.com",
    "http://@example.com/",
    "http://user:pw@example.com/",
    "ftp://example.com/",
    "http://-a-/",
    "http://a!b/",
    "http://256.1.1.1/",
];

fn changed(seed: &str, chance: &mut StdRng) -> String {
    let mut text: Vec<char> = seed.chars().collect();
    for _ in 0..chance.random_range(0..4) {
        let place = chance.random_range(0..=text.len());
        match chance.random_range(0..5) {
            0 if place < text.len() => drop(text.remove(place)),
            1 if place < text.len() => text.truncate(place),
            2 => {
                let again: Vec<_> = text[place..].iter().take(40).copied().collect();
                text.splice(place..place, again);
            }
            3 => text
                .splice(place..place, "x".repeat(*[1, 127, 128, 250, 255, 256, 2030].choose(chance).expect("a length")).chars())
                .for_each(drop),
            _ => text.splice(place..place, PIECES.choose(chance).expect("a piece").chars()).for_each(drop),
        }
    }
    text.into_iter().collect()
}

fn validator<T: PartialSchema>() -> Validator {
    let schema = serde_json::to_value(T::schema()).expect("a schema");
    jsonschema::options().with_draft(Draft::Draft202012).build(&schema).expect("a schema that can be used")
}

/// Asks both about values made of the seeds; the document may admit more only if it says so.
fn agree<T: PartialSchema + DeserializeOwned>(name: &str, seeds: &[&str], admits_more: bool, value: impl Fn(&str) -> Value) {
    let seed = rand::rng().random();
    let mut chance = StdRng::seed_from_u64(seed);
    let document = validator::<T>();
    let mut taken = 0;
    for turn in 0..TEXTS {
        let from = seeds[turn % seeds.len()];
        let text = if turn < seeds.len() { from.to_owned() } else { changed(from, &mut chance) };
        let value = value(&text);
        let (is_documented, is_taken) = (document.is_valid(&value), serde_json::from_value::<T>(value).is_ok());
        let agree = is_documented == is_taken || (admits_more && is_documented);
        assert!(agree, "{name}: the document says {is_documented} of {text:?}, the reader {is_taken} (seed {seed})");
        taken += usize::from(is_taken);
    }
    assert!(taken > TEXTS / 50 && taken < TEXTS, "{name}: {taken} of {TEXTS} texts were taken, too few or too many to tell");
}

#[test]
fn fields_of_text_take_what_the_document_says() {
    let text = |text: &str| json!(text);
    let name = ["user.signup", "a", "x-1_Y.z", ""];
    agree::<Text>("Text", &["An example", ""], false, text);
    agree::<ApplicationName>("ApplicationName", &["An example", ""], false, text);
    agree::<ApplicationUid>("ApplicationUid", &["app-1", "app_1", "xapp_1", "ep_1", "APP_1"], false, text);
    agree::<EndpointUid>("EndpointUid", &["ep-1", "ep_1", "eep_1", "app_1"], false, text);
    agree::<EventId>("EventId", &["msg-1", "msg_1", "mmsg_1", "app_1"], false, text);
    agree::<EventTypeName>("EventTypeName", &name, false, text);
    agree::<Label>("Label", &name, false, text);
    agree::<Channel>("Channel", &name, false, text);
    agree::<MessageKey>("MessageKey", &["order-4711", "a b", " a", "a ", "\"a\""], false, text);
}

#[test]
fn a_signing_secret_is_what_the_document_says() {
    let seeds = [
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
        "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=",
        "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "whsec_short",
    ];
    agree::<SigningSecret>("SigningSecret", &seeds, false, |text| json!(text));
    let pairs = ["whsk_AAAA", &format!("whsk_{}==", "A".repeat(86)), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
    agree::<SigningSecret>("SigningSecret", &pairs, true, |text| json!(text));
}

#[test]
fn the_document_admits_every_url_that_is_taken() {
    agree::<WebhookUrl>("WebhookUrl", &URLS, true, |text| json!(text));
    let document = validator::<WebhookUrl>();
    for wrong in [
        "",
        "example.com",
        "ftp://example.com/",
        "javascript:alert(1)",
        "https://a b/",
        "https://bücher.example/",
        " https://a/",
        "https://a/\n",
    ] {
        assert!(!document.is_valid(&json!(wrong)), "{wrong:?} is left out by the document, too");
    }
}

#[test]
fn lists_are_as_long_as_the_document_says() {
    let list = |text: &str| Value::from(text.split(',').filter(|name| !name.is_empty()).collect::<Vec<_>>());
    let seeds = ["a", "", "a,b,c,d,e", "a,b,c,d,e,f", "a,a,a,a,a,a", "1,2,3,4,5,6,7,8,9,10", "1,2,3,4,5,6,7,8,9,10,10"];
    agree::<MessageChannels>("MessageChannels", &seeds, false, list);
    agree::<EndpointChannels>("EndpointChannels", &seeds, false, list);
}

#[test]
fn custom_headers_are_what_the_document_says() {
    let names = [
        "X-Team",
        "Authorization",
        "Host",
        "HOST",
        "Hosts",
        "hos",
        "Webhook-Id",
        "webhook",
        "svix-",
        "Content-Type",
        "x-amz-date",
        "Date",
        "dates",
        "TE",
    ];
    agree::<CustomHeaders>("a header's name", &names, false, |name| json!({ name: "a" }));
    agree::<CustomHeaders>(
        "a header's value",
        &["billing", "", "a b\tc", "Bearer x", &"x".repeat(4090)],
        false,
        |value| json!({ "X-Team": value }),
    );
}

/// What the values of parameters are made of.
const VALUES: [&str; 30] = [
    "",
    "a",
    "user.signup",
    "..",
    "0",
    "250",
    "251",
    "-1",
    "+2",
    "007",
    "4",
    "200",
    "500",
    "true",
    "false",
    "True",
    "ascending",
    "descending",
    "running",
    "endpoint.recover",
    "2026-08-21T12:00:00Z",
    "order-4711",
    " a ",
    "\"a\"",
    "\"a\\\"b\\\\\"; x=1",
    "\"a\" ",
    "\"\"",
    "\"a",
    "a\"b",
    "app_1",
];
/// Of these the document admits more than is taken, and says so in words: a place in a list is one that a page named, a moment has a form.
const WIDER: [&str; 5] = ["iterator", "before", "after", "since", "until"];

/// Whether the server takes this value of a parameter.
fn is_taken(place: &str, name: &str, kind: &Value, text: &str) -> bool {
    let raw = format!("{name}={}", utf8_percent_encode(text, NON_ALPHANUMERIC));
    let query = Query::parse(&raw).expect("a query");
    let is_key = |text: &str| matches!(Key::parse([text.as_bytes()].into_iter()), Ok(Some(_)));
    match (place, name) {
        ("path", _) => check_name(text).is_ok(),
        ("header", "idempotency-key") => is_key(text),
        ("query", "key") => idempotency::OfKey::read(&query).is_ok(),
        ("query", "limit" | "iterator") => Paging::read(&query).and_then(|paging| paging.of_names(true)).is_ok(),
        ("query", "order") => InOrder::read(&query).is_ok(),
        ("query", "task") => TaskFilter::read(&query).is_ok(),
        // A number for deliveries, a word for tasks.
        ("query", "status") if kind == "string" => TaskFilter::read(&query).is_ok(),
        ("query", "status" | "status_code_class" | "with_content" | "expanded_statuses") => AttemptFilter::read(&query).is_ok(),
        ("query", "channel" | "tag" | "before" | "after" | "event_types") => ListFilter::read(&query).is_ok(),
        ("query", "since" | "until") => Range::read(&query).is_ok(),
        ("query", "with_left_out") => WithLeftOut::read(&query).is_ok(),
        ("query", "endpoint_id") => OfEndpoint::read(&query).is_ok(),
        ("query", "idempotency_key") => message::OfKey::read(&query).is_ok(),
        ("query", "get_if_exists") => CreateOptions::read(&query).is_ok(),
        ("query", "include_archived") => ListOptions::read(&query).is_ok(),
        ("query", "expunge") => DeleteOptions::read(&query).is_ok(),
        _ => panic!("the parameter {name} ({place}) is not known to this test"),
    }
}

/// The value as the document sees it; `None` if it cannot be sent there as one value.
fn documented(place: &str, kind: &Value, text: &str) -> Option<Value> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (place, kind.as_str()) {
        // Spaces around the value of a header do not belong to it.
        ("header", _) => (HeaderValue::from_str(text).is_ok() && text.trim_ascii() == text).then(|| json!(text)),
        (_, Some("integer")) if is_number => Some(text.parse::<u64>().map_or(json!(1e30), |number| json!(number))),
        (_, Some("boolean")) => Some(text.parse::<bool>().map_or(json!(text), |flag| json!(flag))),
        (_, Some("array")) => (!text.is_empty() && !text.contains(',')).then(|| json!([text])),
        _ => Some(json!(text)),
    }
}

/// Each parameter of this dialect once, with what the document says of it.
fn parameters(document: &Value) -> BTreeMap<(String, String, String), Value> {
    let paths = document["paths"].as_object().expect("paths").iter();
    let ours = paths.filter(|(path, _)| !path.starts_with("/api/v1/projects") && !path.starts_with("/ingest/"));
    let operations = ours.flat_map(|(_, path)| path.as_object().expect("operations").values());
    let all = operations.flat_map(|operation| operation["parameters"].as_array().into_iter().flatten());
    all.map(|parameter| {
        let [place, name] = ["in", "name"].map(|key| parameter[key].as_str().expect("a text").to_owned());
        ((place, name, parameter["schema"].to_string()), parameter["schema"].clone())
    })
    .collect()
}

#[test]
fn parameters_take_what_the_document_says() {
    let document = serde_json::to_value(routes::document()).expect("a document");
    let seed = rand::rng().random();
    let mut chance = StdRng::seed_from_u64(seed);
    let parameters = parameters(&document);
    assert!(parameters.keys().any(|(_, name, _)| name == "idempotency-key") && parameters.len() >= 20, "{:?}", parameters.keys());
    for ((place, name, _), mut schema) in parameters {
        schema["components"] = document["components"].clone();
        let kind = schema["type"].clone();
        let validator = jsonschema::options().with_draft(Draft::Draft202012).build(&schema).expect("a schema that can be used");
        let mut counts = [0, 0];
        for turn in 0..TEXTS {
            let from = VALUES[turn % VALUES.len()];
            let text = if turn < VALUES.len() { from.to_owned() } else { changed(from, &mut chance) };
            let Some(value) = documented(&place, &kind, &text) else { continue };
            let (says, takes) = (validator.is_valid(&value), is_taken(&place, &name, &kind, &text));
            let agree = says == takes || (WIDER.contains(&name.as_str()) && says);
            assert!(agree, "{place} {name}: the document says {says} of {text:?}, the reader {takes} (seed {seed})");
            counts[usize::from(takes)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 0), "{place} {name}: {counts:?} texts were refused and taken, which tells nothing");
    }
}
