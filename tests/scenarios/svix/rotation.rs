//! Signing secrets that are rotated to one that signs already.

use serde_json::json;
use support::{App, Customer, Received, Receiver};
use svix::webhooks::Webhook;

const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECOND: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

async fn rotate(customer: &Customer, endpoint: &str, body: serde_json::Value) -> String {
    let path = customer.path(&format!("/endpoint/{endpoint}/secret/rotate"));
    let key = customer.client.post(&path, &body).await.expect(200).text("key");
    assert_eq!(customer.secret(endpoint).await, key, "the answer names the secret that signs from now on");
    key
}

/// The `n`th webhook, and how many signatures it carries.
async fn next(customer: &Customer, receiver: &Receiver, n: usize) -> (Received, usize) {
    customer.publish(&json!({ "n": n })).await;
    let webhook = receiver.received(n).await.remove(n - 1);
    let count = webhook.header("webhook-signature").split(' ').count();
    (webhook, count)
}

fn verifies(webhook: &Received, secret: &str) -> bool {
    Webhook::new(secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).is_ok()
}

#[tokio::test]
async fn rotating_to_a_secret_that_signs_already_makes_no_second_copy_of_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "secret": FIRST })).await;
    for body in [json!({ "key": FIRST }), json!({ "key": FIRST, "gracePeriodSeconds": 0 }), json!({ "key": FIRST })] {
        assert_eq!(rotate(&customer, &endpoint, body).await, FIRST);
    }
    let (webhook, count) = next(&customer, &receiver, 1).await;
    assert_eq!((count, verifies(&webhook, FIRST)), (1, true), "the present one: nothing happens");
    assert_eq!(app.database.number("select count(*) from endpoint_secret").await, 1);

    assert_eq!(rotate(&customer, &endpoint, json!({ "key": SECOND })).await, SECOND);
    assert_eq!(rotate(&customer, &endpoint, json!({ "key": FIRST })).await, FIRST, "one that still signs beside it");
    let (webhook, count) = next(&customer, &receiver, 2).await;
    assert_eq!((count, verifies(&webhook, FIRST), verifies(&webhook, SECOND)), (2, true, true));
    assert_eq!(app.database.number("select count(*) from endpoint_secret").await, 2);

    assert_eq!(rotate(&customer, &endpoint, json!({ "key": SECOND, "gracePeriodSeconds": 0 })).await, SECOND);
    let (webhook, count) = next(&customer, &receiver, 3).await;
    assert_eq!((count, verifies(&webhook, FIRST), verifies(&webhook, SECOND)), (1, false, true), "without grace the other one ends");
}

#[tokio::test]
async fn however_many_still_sign_one_of_them_can_become_the_current_one() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "secret": FIRST })).await;
    for _ in 0..10 {
        rotate(&customer, &endpoint, json!({})).await;
    }
    let path = customer.path(&format!("/endpoint/{endpoint}/secret/rotate"));
    assert_eq!(customer.client.post(&path, &json!({})).await.expect(400).text("code"), "limit_reached");
    rotate(&customer, &endpoint, json!({ "key": FIRST })).await;
    let (webhook, count) = next(&customer, &receiver, 1).await;
    assert_eq!((count, verifies(&webhook, FIRST)), (11, true));
    assert_eq!(app.database.number("select count(*) from endpoint_secret").await, 11);
}

#[tokio::test]
async fn under_a_key_a_rotation_that_is_repeated_names_the_same_secret() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let path = customer.path(&format!("/endpoint/{endpoint}/secret/rotate"));
    let rotate = async || customer.client.request("POST", &path).key("key").json(&json!({})).send().await.expect(200);
    let (first, second) = (rotate().await, rotate().await);
    crate::idempotency::same(&first, &second);
    assert_eq!(customer.secret(&endpoint).await, second.text("key"));
    assert_eq!(app.database.number("select count(*) from endpoint_secret").await, 2);
}
