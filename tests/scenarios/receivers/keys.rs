//! What the two keys of a webhook tell apart: the table in docs/receivers.md, column by column.

use serde_json::{Value, json};
use support::{App, Customer, Received, Receiver, customer::message};

/// Publishes under a message key; returns the message.
async fn publish(customer: &Customer, order: u32) -> Value {
    let mut body = message(&json!({ "order": order }));
    body["idempotency_key"] = format!("order-{order}-paid").into();
    customer.publish_raw(&body, None).await.expect(202).json()
}

/// `webhook-id` and `X-Convoy-Idempotency-Key`.
fn keys(webhook: &Received) -> (&str, &str) {
    (webhook.id(), webhook.header("x-convoy-idempotency-key"))
}

#[tokio::test]
async fn a_publishers_key_outlives_the_message_and_a_released_duplicate_is_another_one() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;

    let first = publish(&customer, 17).await["id"].as_str().expect("an id").to_owned();
    customer.attempts(&first, 1).await;
    app.client.request("POST", &customer.path(&format!("/msg/{first}/endpoint/{endpoint}/resend"))).send().await.expect(202);
    let received = receiver.received(2).await;
    assert_eq!(received.iter().map(keys).collect::<Vec<_>>(), [(first.as_str(), "order-17-paid"); 2], "a resend keeps both");

    let twin = publish(&customer, 17).await;
    assert_eq!(twin["isDuplicate"], true);
    let twin = twin["id"].as_str().expect("an id");
    app.client.request("POST", &customer.path(&format!("/msg/{twin}/deliver"))).send().await.expect(202);
    let released = receiver.received(3).await.remove(2);
    assert_eq!(keys(&released), (twin, twin), "what is released is meant to be processed");
    assert_eq!(released.all("posthaste-redelivery-until").len(), 1, "and is retried");

    // As after the end of its retention, or after a failover that lost it.
    app.database.execute("delete from message_key").await;
    let again = publish(&customer, 17).await["id"].as_str().expect("an id").to_owned();
    let repeated = receiver.received(4).await.remove(3);
    assert_eq!(keys(&repeated), (again.as_str(), "order-17-paid"), "the publisher's key is all that the two have in common");
    assert_ne!(again, first);
}
