//! What one node changes, the very next message that another accepts respects: no cache is ever stale.

use serde_json::{Value, json};
use support::{App, Received, Receiver, customer::message};

/// A change on one node: what is asked of it, and what the next message of the other brings.
struct Step {
    method: &'static str,
    /// Below the application.
    path: &'static str,
    body: Value,
    /// The paths at which the next message arrives.
    arrives: &'static [&'static str],
    /// The value of the header `x-set` there.
    x_set: Option<&'static str>,
}

fn step(method: &'static str, path: &'static str, body: Value, arrives: &'static [&'static str]) -> Step {
    Step { method, path, body, arrives, x_set: None }
}

#[tokio::test]
async fn whatever_one_node_changes_the_next_message_of_another_respects() {
    let app = App::start().await;
    let other = app.second_node().await;
    let receiver = Receiver::start().await;
    app.client.post("/api/v1/event-type", &json!({ "name": "other.type", "description": "" })).await.expect(201);
    let customer = app.customer().await;
    let there = customer.through(&other.client);
    let url = |path: &str| receiver.url(path);
    let steps = [
        step("GET", "", Value::Null, &[]),
        step("POST", "/endpoint", json!({ "uid": "a", "url": url("/a") }), &["/a"]),
        step("POST", "/endpoint", json!({ "uid": "b", "url": url("/b") }), &["/a", "/b"]),
        step("PATCH", "/endpoint/a", json!({ "disabled": true }), &["/b"]),
        step("PATCH", "/endpoint/a", json!({ "disabled": false }), &["/a", "/b"]),
        step("PATCH", "/endpoint/b", json!({ "eventTypes": ["other.type"] }), &["/a"]),
        step("PATCH", "/endpoint/a", json!({ "url": url("/moved") }), &["/moved"]),
        Step { x_set: Some("1"), ..step("PUT", "/endpoint/a/headers", json!({ "headers": { "x-set": "1" } }), &["/moved"]) },
        Step { x_set: Some("2"), ..step("PATCH", "/endpoint/a/headers", json!({ "headers": { "x-set": "2" } }), &["/moved"]) },
        Step { x_set: Some("2"), ..step("POST", "/endpoint/a/secret/rotate", json!({ "gracePeriodSeconds": 0 }), &["/moved"]) },
        step("PUT", "/endpoint/b", json!({ "url": url("/b"), "uid": "b", "disabled": true }), &["/moved"]),
        step("PUT", "/endpoint/b", json!({ "url": url("/b"), "uid": "b" }), &["/b", "/moved"]),
        step("DELETE", "/endpoint/a", Value::Null, &["/b"]),
        step("DELETE", "/endpoint/b", Value::Null, &[]),
    ];
    for Step { method, path, body, arrives, x_set } in steps {
        let request = app.client.request(method, &customer.path(path));
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        let id = there.publish(&json!({ "after": [method, path] })).await;
        app.database.nothing_owed().await;
        let mut arrived: Vec<Received> = receiver.so_far().into_iter().filter(|webhook| webhook.id() == id).collect();
        arrived.sort_by(|one, other| one.path.cmp(&other.path));
        assert_eq!(arrived.iter().map(|webhook| webhook.path.as_str()).collect::<Vec<_>>(), arrives, "after {method} {path} {body}");
        if let Some(expected) = x_set {
            assert_eq!(arrived[0].header("x-set"), expected, "after {method} {path}");
        }
        if !arrived.is_empty() && path.starts_with("/endpoint/a/") {
            let verifier = standardwebhooks::Webhook::new(&there.secret("a").await).expect("a secret");
            verifier.verify(&arrived[0].body, &arrived[0].header_map()).expect("the secret of this moment signs");
        }
    }
    app.client.delete(&customer.path("")).await.expect(204);
    let after = other.client.post(&customer.path("/msg"), &message(&json!({}))).await;
    assert_eq!(after.status, 404, "a deleted application takes no more messages");
}
