//! The header itself: what is a key, where it counts, and what is refused.

use serde_json::json;
use support::{App, customer::message};

#[tokio::test]
async fn a_malformed_key_is_refused_by_name() {
    let app = App::start().await;
    let customer = app.customer().await;
    let long = "x".repeat(256);
    let bad: [(&str, &[&[u8]]); 9] = [
        ("idempotency_key_empty", &[b""]),
        ("idempotency_key_empty", &[b"\"\""]),
        ("idempotency_key_too_long", &[long.as_bytes()]),
        ("idempotency_key_duplicate", &[b"a", b"a"]),
        ("idempotency_key_duplicate", &[b"a", b"b"]),
        ("idempotency_key_invalid", &["schlüssel".as_bytes()]),
        ("idempotency_key_invalid", &[b"a\xff"]),
        ("idempotency_key_invalid", &[b"a\tb"]),
        ("idempotency_key_invalid", &[b"\"unterminated"]),
    ];
    for (code, lines) in bad {
        let post = customer.client.request("POST", &customer.path("/msg")).json(&message(&json!({})));
        let patch = customer.client.request("PATCH", &customer.path("")).json(&json!({ "name": "x" }));
        for request in [post, patch] {
            let request = lines.iter().fold(request, |request, line| request.header("idempotency-key", line));
            let answer = request.send().await.expect(400);
            assert_eq!(answer.text("code"), code);
            assert!(answer.text("detail").contains("Idempotency-Key"), "{answer:?}");
        }
    }
    assert!(customer.messages().await.is_empty());
    assert_eq!(customer.client.get(&customer.path("")).await.text("name"), "A customer");
}

#[tokio::test]
async fn the_longest_the_quoted_and_the_strangest_keys_are_keys() {
    let app = App::start().await;
    let customer = app.customer().await;
    let longest = "k".repeat(255);
    for key in [longest.as_str(), "auto_5b1c", "{{$guid}} ~!@#$%^&*()", "a"] {
        customer.publish_raw(&message(&json!({ "key": key })), Some(key)).await.expect(202);
        assert!(customer.publish_raw(&message(&json!({ "key": key })), Some(key)).await.is_replay());
    }
    assert!(customer.publish_raw(&message(&json!({ "key": "a" })), Some("\"a\"")).await.is_replay(), "quoted and raw are one key");
    let shouted = customer.client.request("POST", &customer.path("/msg")).header("IDEMPOTENCY-KEY", "a");
    assert!(shouted.json(&message(&json!({ "key": "a" }))).send().await.is_replay());
    assert_eq!(customer.messages().await.len(), 4);
}

#[tokio::test]
async fn a_key_means_nothing_on_get_put_and_delete() {
    let app = App::start().await;
    let customer = app.customer().await;
    let put = async |name: &str| {
        let request = customer.client.request("PUT", &customer.path("")).key("key").json(&json!({ "name": name }));
        request.send().await.expect(200)
    };
    put("a").await;
    assert_eq!(put("b").await.text("name"), "b");
    let get = async || customer.client.request("GET", &customer.path("")).key("key").send().await.expect(200);
    assert_eq!((get().await.text("name"), get().await.is_replay()), ("b".into(), false));
    let too_long = customer.client.request("GET", &customer.path("")).key(&"x".repeat(300)).send().await;
    assert_eq!(too_long.status, 200, "nor is a bad one looked at");
    let delete = async || customer.client.request("DELETE", &customer.path("")).key("key").send().await;
    delete().await.expect(204);
    assert_eq!(delete().await.status, 404);
}

#[tokio::test]
async fn one_key_may_be_used_once_for_each_operation() {
    let app = App::start().await;
    let (one, other) = (app.customer().await, app.customer().await);
    let first = one.publish_raw(&message(&json!({})), Some("key")).await.expect(202);
    let second = other.publish_raw(&message(&json!({})), Some("key")).await.expect(202);
    assert!(!second.is_replay());
    assert_ne!(first.text("id"), second.text("id"));
    let create = app.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await.expect(201);
    assert!(!create.is_replay());
    let without = one.publish_raw(&message(&json!({})), None).await.expect(202);
    assert!(!without.is_replay(), "without a key each request is one of its own");
    assert_eq!(one.messages().await.len(), 2);
}
