//! Where keys of incoming events were known to leak or to lose events elsewhere: each shown closed.

use serde_json::json;
use support::{App, Receiver, Reply};

use super::{Project, hex, hmac_sha256, is_duplicate};

#[tokio::test]
async fn an_event_without_the_field_is_never_swallowed() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let source = project.keyed(&["request.body.id", "request.header.x-id", "request.query.id"]).await;
    for body in [json!({ "n": 1 }), json!({ "n": 1 }), json!({ "id": null }), json!({ "ID": 1 }), json!([1]), json!("text")] {
        assert!(!is_duplicate(&source.send(&body).await), "{body}");
    }
    for body in ["", "not JSON", "{\"id\": "] {
        assert!(!is_duplicate(&source.request(body).send().await), "{body}");
        assert!(!is_duplicate(&source.request(body).send().await), "{body}");
    }
    app.database.nothing_owed().await;
    assert_eq!(receiver.received(12).await.len(), 12, "each is sent");
    assert!(project.events().await.iter().all(|event| event["idempotencyKey"].is_null()));
}

#[tokio::test]
async fn a_source_that_insists_on_a_key_refuses_what_has_none() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let definition =
        json!({ "name": "A source", "idempotency_keys": ["request.body.id", "request.query.id"], "reject_missing_idempotency_key": true });
    let source = project.source(&definition).await;
    let message = source.send(&json!({ "n": 1 })).await.expect(400).text("message");
    assert!(message.contains("request.body.id, request.query.id"), "{message}");
    assert!(!is_duplicate(&source.send(&json!({ "id": 1 })).await), "one of them is enough");
    assert!(is_duplicate(&source.send(&json!({ "id": 1 })).await));
    assert!(!is_duplicate(&source.with_query("id=1", json!({ "id": 1 }).to_string()).send().await), "the rest counts");
}

#[tokio::test]
async fn what_differs_makes_different_keys() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&["request.query.a", "request.query.b"]).await;
    for query in ["a=ab&b=c", "a=a&b=bc", "a=abc", "b=abc", "a=abc&b=", "a=&b=abc", "a=%FF&b=1", "a=%FE&b=1", "a=+&b=1", "a=%2B&b=1"] {
        assert!(!is_duplicate(&source.with_query(query, "{}").send().await), "{query}");
        assert!(is_duplicate(&source.with_query(query, "{}").send().await), "{query} again");
    }
    let source = project.keyed(&["request.body.a"]).await;
    for body in [
        r#"{"a": 1}"#,
        r#"{"a": "1"}"#,
        r#"{"a": ""}"#,
        r#"{"a": true}"#,
        r#"{"a": 9007199254740993}"#,
        r#"{"a": 9007199254740992}"#,
        r#"{"a": [1]}"#,
    ] {
        assert!(!is_duplicate(&source.request(body).send().await), "{body}");
        assert!(is_duplicate(&source.request(body.replace(' ', "  ")).send().await), "{body}, spelled otherwise");
    }
}

#[tokio::test]
async fn the_name_of_a_source_is_no_part_of_its_keys() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let (source, twin) = (project.keyed(&["request.body.id"]).await, project.keyed(&["request.body.id"]).await);
    assert!(!is_duplicate(&source.send(&json!({ "id": 1 })).await));
    assert!(!is_duplicate(&twin.send(&json!({ "id": 1 })).await), "two sources with one name keep their keys apart");
    project.update(&source, &json!({ "name": "Another name" })).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(is_duplicate(&source.send(&json!({ "id": 1 })).await), "a renamed one knows them still");
}

#[tokio::test]
async fn no_media_type_loses_an_event() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let source = project.keyed(&["request.body.id"]).await;
    let known = ["application/JSON", "application/cloudevents+json; charset=utf-8", "TEXT/JSON", ""];
    let unknown = ["text/xml", "application/octet-stream", "multipart/form-data"];
    for (place, media_type) in known.iter().chain(&unknown).enumerate() {
        let body = json!({ "id": place }).to_string();
        let request = || {
            let request = source.client.request("POST", source.path());
            if media_type.is_empty() {
                request.untyped(body.clone())
            } else {
                request.header("content-type", media_type).bytes(body.clone())
            }
        };
        assert!(!is_duplicate(&request().send().await), "{media_type}");
        assert_eq!(is_duplicate(&request().send().await), place < known.len(), "{media_type}");
    }
    let received = receiver.received(known.len() + 2 * unknown.len()).await;
    let types: Vec<_> = received.iter().map(|webhook| webhook.header("content-type")).collect();
    for media_type in known.iter().chain(&unknown).filter(|media_type| !media_type.is_empty()) {
        assert!(types.contains(media_type), "{media_type} in {types:?}");
    }
    assert!(types.contains(&"application/json"), "what says nothing of itself and is JSON");
}

#[tokio::test]
async fn nested_fields_of_forms_are_found_and_break_nothing() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&["request.body.a.b"]).await;
    let form = async |body: &'static str| {
        let request = source.client.request("POST", source.path()).header("content-type", "application/x-www-form-urlencoded");
        is_duplicate(&request.bytes(body).send().await)
    };
    for body in ["a=x", "a=x%3Dy", "a[]=1", "a[b=1", "=", "%"] {
        assert!(!form(body).await && !form(body).await, "{body}");
    }
    assert!(!form("a[b]=1").await && form("c=2&a[b]=1").await && form("a.b=1").await);
    let multipart = |id: &str| {
        let body = format!("--x\r\nContent-Disposition: form-data; name=\"a[b]\"\r\n\r\n{id}\r\n--x--\r\n");
        source.client.request("POST", source.path()).header("content-type", "multipart/form-data; boundary=x").bytes(body)
    };
    assert!(is_duplicate(&multipart("1").send().await), "a field is a field");
    assert!(!is_duplicate(&multipart("2").send().await));
}

#[tokio::test]
async fn an_event_that_nobody_got_can_be_delivered_after_all() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(410), Reply::status(200)]);
    let project = Project::of(&app).await;
    let source = project.keyed(&["request.body.id"]).await;
    assert!(!is_duplicate(&source.send(&json!({ "id": 1 })).await), "there is no endpoint yet");
    project.customer.endpoint(&receiver.url("/late")).await;
    assert!(is_duplicate(&source.send(&json!({ "id": 1 })).await), "the producer's repeat is a duplicate");
    let duplicate = project.events().await[0]["id"].as_str().expect("an id").to_owned();
    project.client.request("POST", &project.customer.path(&format!("/msg/{duplicate}/deliver"))).send().await.expect(202);
    assert_eq!(receiver.received_at("/late", 1).await[0].id(), duplicate, "and whoever wants it has it released");
}

#[tokio::test]
async fn who_is_not_verified_is_told_nothing_of_keys_and_claims_none() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let definition = json!({
        "name": "github", "provider": "github", "verifier": { "type": "hmac", "hmac": { "secret": "s" } },
        "idempotency_keys": ["request.body.id"], "reject_missing_idempotency_key": true,
    });
    let source = project.source(&definition).await;
    let body = r#"{"id": 1}"#;
    for body in [body, "{}", "no JSON"] {
        let refused = source.request(body).header("x-hub-signature-256", format!("sha256={}", "0".repeat(64))).send().await.expect(400);
        assert!(refused.text("message").contains("could not be verified"), "not that a key is missing: {}", refused.text("message"));
        assert_eq!(refused.header("posthaste-duplicate"), None);
    }
    assert!(project.events().await.is_empty());
    let signature = format!("sha256={}", hex(&hmac_sha256("s", &[body.as_bytes()])));
    let genuine = async || source.request(body).header("x-hub-signature-256", &signature).send().await;
    assert!(!is_duplicate(&genuine().await), "the forged one claimed nothing");
    source.request(body).header("x-hub-signature-256", "sha256=00").send().await.expect(400);
    assert!(is_duplicate(&genuine().await));
}

#[tokio::test]
async fn a_custom_response_hides_no_duplicate() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let response = json!({ "body": "<ok/>", "content_type": "text/xml" });
    let source = project.source(&json!({ "name": "A source", "custom_response": response, "idempotency_keys": ["request.body.id"] })).await;
    let send = async || source.request(r#"{"id": 1}"#).unchecked().send().await.expect(200);
    for is_duplicate in ["false", "true"] {
        let answer = send().await;
        assert_eq!((&answer.body[..], answer.header("content-type")), (&b"<ok/>"[..], Some("text/xml")));
        assert_eq!(answer.header("posthaste-duplicate"), Some(is_duplicate));
    }
    let plain = json!({ "custom_response": { "body": "ok" } });
    assert_eq!(project.update(&source, &plain).await["custom_response"]["content_type"], "text/plain; charset=utf-8");
}
