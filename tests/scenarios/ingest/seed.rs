//! Convoy's document on idempotency, its part "Idempotency in Incoming Projects", sentence by sentence.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{App, Receiver};

use super::{Project, hex, is_duplicate};

/// "With Convoy, you can inspect parts of a request to extract the idempotency key. You can define idempotency keys in both the request body or
/// header."
#[tokio::test]
async fn a_key_is_taken_from_the_body_and_from_headers() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&["request.body.id", "request.header.X-Delivery"]).await;
    let send =
        async |body: Value, delivery: &str| is_duplicate(&source.request(body.to_string()).header("x-delivery", delivery).send().await);
    assert!(!send(json!({ "id": 1, "attempt": 1 }), "a").await);
    assert!(send(json!({ "attempt": 2, "id": 1 }), "a").await, "what else is in the body does not count");
    assert!(!send(json!({ "id": 1 }), "b").await);
    assert!(!send(json!({ "id": 2 }), "a").await);
}

/// "When creating a source you can specify the location of the idempotency key which convoy will use to generate a SHA256 checksum value."
#[tokio::test]
async fn the_key_of_an_event_is_a_sha256_in_hexadecimal_digits() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&["request.query.id"]).await;
    source.with_query("id=17", "{}").send().await.expect(200);
    let key = project.events().await[0]["idempotencyKey"].as_str().expect("a key").to_owned();
    // As docs/sources.md has it: the source's id, then each location and what was found there behind their lengths.
    let id = app.database.texts("select id::text from source where name = 'A source'").await.remove(0);
    let id: uuid::Uuid = id.parse().expect("an id");
    let mut hash = Sha256::new();
    let location = "request.query.id";
    hash.update([b"src1".as_slice(), id.as_bytes()].concat());
    hash.update([&(location.len() as u64).to_be_bytes(), location.as_bytes(), &[1], &2_u64.to_be_bytes(), b"17"].concat());
    assert_eq!(key, hex(&hash.finalize()));
}

/// "specify the idempotency key locations, this is an ordered set of locations— valid parts of the request where the keys might be found. The
/// locations include the request header, body and query params."
#[tokio::test]
async fn locations_are_ordered_and_all_three_parts_are_looked_at() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let locations = ["request.header.x-id", "request.body.order.items.0.id", "request.query.page"];
    let source = project.keyed(&locations).await;
    assert_eq!(source.shown["idempotency_keys"], json!(locations), "they are shown in their order");
    let send = async |header: &str, body: u32, query: &str| {
        let body = json!({ "order": { "items": [{ "id": body }] } }).to_string();
        is_duplicate(&source.with_query(&format!("page={query}"), body).header("x-id", header).send().await)
    };
    assert!(!send("1", 2, "3").await);
    assert!(send("1", 2, "3").await);
    for (header, body, query) in [("3", 2, "1"), ("2", 1, "3"), ("1", 2, "4"), ("1", 3, "3"), ("2", 2, "3")] {
        assert!(!send(header, body, query).await, "{header} {body} {query}");
    }
}

/// "For request body key: request.body.<field-in-body> For request header key: request.header.<header-name> For request query param key:
/// request.query.<query-param-name>"
#[tokio::test]
async fn there_are_three_forms_and_anything_else_is_refused_with_its_place() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    for wrong in
        ["req.body.id", "request.cookie.id", "request.body", "request.body.", "request.header.a b", "request.body.items.#.id", "id"]
    {
        let body = json!({ "name": "A source", "idempotency_keys": ["request.query.fine", wrong] });
        let refused = project.client.post(&project.path("/sources"), &body).await.expect(400);
        let message = refused.text("message");
        assert!(message.contains("idempotency_keys: entry 1") && message.contains(wrong), "{message}");
    }
    let many: Vec<_> = (0..17).map(|number| format!("request.query.{number}")).collect();
    let refused =
        project.client.post(&project.path("/sources"), &json!({ "name": "A source", "idempotency_keys": many })).await.expect(400);
    assert!(refused.text("message").contains("entry 16"), "{}", refused.text("message"));
}

/// "Using the key(s) you provide convoy will generate a SHA256 checksum, and use it to check for duplicates, this same key will be sent to your
/// endpoint which can also be used to de-duplicate events."
#[tokio::test]
async fn the_same_key_is_sent_to_every_endpoint() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    for path in ["/one", "/other"] {
        project.customer.endpoint(&receiver.url(path)).await;
    }
    let source = project.keyed(&["request.body.id"]).await;
    source.send(&json!({ "id": 1 })).await.expect(200);
    let received = receiver.received(2).await;
    let key = project.events().await[0]["idempotencyKey"].as_str().expect("a key").to_owned();
    assert_eq!(key.len(), 64);
    for webhook in received {
        assert_eq!(webhook.header("x-convoy-idempotency-key"), key);
    }
}

/// "Any duplicate event will be marked as a duplicate and be discarded."
#[tokio::test]
async fn a_duplicate_is_kept_marked_and_not_sent() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let source = project.keyed(&["request.body.id"]).await;
    let first = source.send(&json!({ "id": 1 })).await.expect(200);
    assert_eq!(first.json(), json!({ "status": true, "message": "Event received", "data": 8 }), "the length of its body");
    let second = source.send(&json!({ "id": 1 })).await.expect(200);
    let expected = json!({ "status": true, "message": "Duplicate event received, but will not be sent", "data": 8 });
    assert_eq!(second.json(), expected);
    app.database.nothing_owed().await;
    assert_eq!(receiver.received(1).await.len(), 1);
    let events = project.events().await;
    assert_eq!(events.len(), 2, "both are kept");
    assert_eq!((&events[0]["isDuplicate"], &events[0]["duplicateOf"]), (&json!(true), &events[1]["id"]));
    assert_eq!(events[1]["isDuplicate"], json!(false));
    assert_eq!(receiver.so_far()[0].id(), events[1]["id"]);
}
