//! The header itself: what is refused as a key, and by which name.

use serde_json::json;
use support::{App, customer::message};

#[tokio::test]
async fn a_malformed_key_is_refused_by_name() {
    let app = App::start().await;
    let customer = app.customer().await;
    let long = "x".repeat(256);
    let bad: [(&str, &[&[u8]]); 14] = [
        ("idempotency_key_empty", &[b""]),
        ("idempotency_key_empty", &[b"  "]),
        ("idempotency_key_empty", &[b"\"\""]),
        ("idempotency_key_too_long", &[long.as_bytes()]),
        ("idempotency_key_duplicate", &[b"a", b"a"]),
        ("idempotency_key_duplicate", &[b"a", b"b"]),
        ("idempotency_key_duplicate", &[b"", b"a"]),
        ("idempotency_key_invalid", &["schlüssel".as_bytes()]),
        ("idempotency_key_invalid", &[b"a\xff"]),
        ("idempotency_key_invalid", &[b"a\tb"]),
        ("idempotency_key_invalid", &[b"\"unterminated"]),
        ("idempotency_key_invalid", &[b"\"a\" b"]),
        ("idempotency_key_invalid", &[b"\"a\\n\""]),
        ("idempotency_key_invalid", &["\"ä\"".as_bytes()]),
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
