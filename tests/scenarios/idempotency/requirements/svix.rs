//! Svix's document on idempotency, sentence by sentence.

use domain::idempotency::Policy;
use serde_json::json;
use support::{App, Clock, Options, Receiver, customer::message};
use svix::{api::MessageCreateOptions, models::MessageIn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{idempotency::same, svix::status_of};

/// "To perform an idempotent request, pass the idempotency key in the Idempotency-Key header to the request."
#[tokio::test]
async fn the_key_is_in_the_idempotency_key_header_however_its_name_is_written() {
    let app = App::start().await;
    let customer = app.customer().await;
    let (path, token) = (customer.path("/msg"), app.client.token.clone().expect("a token"));
    let body = message(&json!({ "n": 1 })).to_string();
    let mut is_first = true;
    for name in ["Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY", "iDEMPOTENCY-kEY"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{name}: key\r\n");
        let request = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut connection = TcpStream::connect(app.node.address).await.expect("a connection");
        connection.write_all(request.as_bytes()).await.expect("an open connection");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 202 "), "{name}: {answer}");
        assert_eq!(answer.to_lowercase().contains("idempotency-replay: true"), !is_first, "{name}: {answer}");
        is_first = false;
    }
    assert_eq!(customer.messages().await.len(), 1);
}

/// "You can create the key in however way you like, though we suggest using UUID v4, or any other string with enough entropy
/// to avoid collisions."
#[tokio::test]
async fn a_key_is_a_uuid_or_any_other_string() {
    let app = App::start().await;
    let customer = app.customer().await;
    let keys = [
        "fd56a56b-838d-4456-8b83-390802672895",
        "FD56A56B-838D-4456-8B83-390802672895",
        "fd56a56b838d44568b83390802672895",
        "auto_0e31b18c-23b5-4b3a-a2f2-2e1ea4cf1d6b",
        "dGhlIG9yZGVyIG9mIHRoZSBkYXk=",
        "order 4711, paid",
        "{{$guid}} ~!@#$%^&*()_+-=[]{}|;':,./<>?`",
        "a",
        "0",
    ];
    for key in keys {
        let body = message(&json!({ "key": key }));
        let first = customer.publish_raw(&body, Some(key)).await.expect(202);
        same(&first, &customer.publish_raw(&body, Some(key)).await);
    }
    assert_eq!(customer.messages().await.len(), keys.len(), "no two of them are one");
}

/// "Svix's idempotency works by saving the resulting status code and body of the first request made for any given idempotency
/// key for any successful request."
#[tokio::test]
async fn a_successful_request_is_executed_once_and_answered_with_the_same_status_and_body() {
    for policy in [Policy::default(), Policy::svix()] {
        let app = App::with(Options { policy, ..Options::default() }).await;
        let other_node = app.second_node().await;
        let receiver = Receiver::start().await;
        let customer = app.customer().await;
        customer.endpoint(&receiver.url("/")).await;
        let body = json!({ "eventType": "invoice.paid", "payload": { "n": 1 }, "eventId": "evt-1", "channels": ["b", "a"] });
        let first = customer.publish_raw(&body, Some("key-1")).await.expect(202);
        same(&first, &customer.publish_raw(&body, Some("key-1")).await);
        same(&first, &customer.through(&other_node.client).publish_raw(&body, Some("key-1")).await);
        let reordered = "{\"channels\":[\"b\",\"a\"], \"eventId\":\"evt-1\",\n\"payload\":{\"n\":1},\"eventType\":\"invoice\\u002epaid\"}";
        let respelled = customer.client.request("POST", &customer.path("/msg")).key("key-1").bytes(reordered).send().await;
        same(&first, &respelled);
        receiver.received(1).await;
        app.database.nothing_owed().await;
        assert_eq!((receiver.so_far().len(), customer.messages().await.len()), (1, 1));
        let fresh = customer.publish_raw(&message(&json!({ "n": 2 })), Some("key-2")).await.expect(202);
        assert!(!fresh.is_replay(), "another key is another request");
    }
}

/// "Subsequent requests with the same key return the same result for a period of up to 12 hours."
#[tokio::test]
async fn the_result_stays_the_same_for_twelve_hours() {
    for policy in [Policy::svix(), Policy::default()] {
        let app = App::with(Options { policy, ..Options::default() }).await;
        let clock = Clock::of(&app.database).await;
        let node = app.second_node().await;
        let customer = app.customer().await.through(&node.client);
        let body = message(&json!({ "n": 1 }));
        let first = customer.publish_raw(&body, Some("key")).await.expect(202);
        clock.advance("11:59:59.999999").await;
        same(&first, &customer.publish_raw(&body, Some("key")).await);
        clock.advance("00:00:00.000001").await;
        let later = customer.publish_raw(&body, Some("key")).await.expect(202);
        assert_eq!(later.is_replay(), policy == Policy::default(), "under the preset it is forgotten then, by default not yet");
    }
}

/// "Please note that idempotency is only supported for POST requests."
#[tokio::test]
async fn under_the_svix_preset_a_key_means_nothing_but_on_post() {
    let app = App::with(Options { policy: Policy::svix(), ..Options::default() }).await;
    let customer = app.customer().await;
    let too_long = "k".repeat(300);
    for method in ["PATCH", "PUT"] {
        for key in ["key", &too_long, ""] {
            for name in ["a", "b"] {
                let request = app.client.request(method, &customer.path("")).key(key).json(&json!({ "name": name }));
                let answer = request.send().await.expect(200);
                assert_eq!((answer.text("name").as_str(), answer.is_replay()), (name, false), "{method} takes effect each time");
            }
        }
    }
    let create = async || app.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await.expect(201);
    same(&create().await, &create().await);
}

/// The example of the document, which gives a message an `eventId` and its request a key: "await svix.message.create(…)".
#[tokio::test]
async fn the_example_runs_as_it_is_written_and_its_event_id_is_used_once() {
    let app = App::with(Options { policy: Policy::svix(), ..Options::default() }).await;
    let api = app.sdk().await;
    let customer = app.customer().await;
    let publish = async |key: &str| {
        let payload = json!({ "type": "invoice.paid", "id": "invoice_WF7WtCLFFtd8ubcTgboSFNql", "status": "paid", "attempt": 2 });
        let mut new = MessageIn::new("invoice.paid".into(), payload);
        new.event_id = Some("evt_Wqb1k73rXprtTm7Qdlr38G".into());
        let options = MessageCreateOptions { idempotency_key: Some(key.into()), ..Default::default() };
        api.message().create(customer.id.clone(), new, Some(options)).await
    };
    let first = publish("fd56a56b-838d-4456-8b83-390802672895").await.expect("accepted");
    let again = publish("fd56a56b-838d-4456-8b83-390802672895").await.expect("accepted");
    assert_eq!(first, again);
    assert_eq!(first.event_id.as_deref(), Some("evt_Wqb1k73rXprtTm7Qdlr38G"));
    assert_eq!(status_of(publish("0b0b8a43-52c5-4b93-9fa3-30dfb2ec3d4e").await), 409, "under another key the event id is taken");
    assert_eq!(publish("fd56a56b-838d-4456-8b83-390802672895").await.expect("accepted"), first, "the first key still has its answer");
    assert_eq!(customer.messages().await.len(), 1);
}

/// The command of the document, which ends its path with a slash: "curl \"https://api.svix.com/api/v1/app/…/msg/\"".
#[tokio::test]
async fn with_and_without_a_slash_at_its_end_a_path_is_one_operation() {
    let app = App::start().await;
    app.client.post("/api/v1/app", &json!({ "name": "Acme", "uid": "acme" })).await.expect(201);
    let id = app.client.get("/api/v1/app/acme").await.expect(200).text("id");
    let body = json!({ "eventType": "invoice.paid", "eventId": "evt_Wqb1k73rXprtTm7Qdlr38G",
        "payload": { "type": "event.type", "id": "invoice_WF7WtCLFFtd8ubcTgboSFNql", "status": "paid", "attempt": 2 } });
    let post = async |path: &str| app.client.request("POST", path).key("fd56a56b-838d-4456-8b83-390802672895").json(&body).send().await;
    let first = post("/api/v1/app/acme/msg/").await.expect(202);
    for path in ["/api/v1/app/acme/msg", "/api/v1/app/acme/msg/", &format!("/api/v1/app/{id}/msg"), &format!("/api/v1/app/{id}/msg/")] {
        same(&first, &post(path).await);
    }
    let create = async |path: &str| app.client.request("POST", path).key("key").json(&json!({ "name": "x" })).send().await;
    same(&create("/api/v1/app/").await.expect(201), &create("/api/v1/app").await);
}
