//! How long a message's payload is kept, when its publisher says so.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Customer, Options, Receiver, Reply};

/// Publishes a message with this member; returns its id.
async fn publish(customer: &Customer, member: &str, value: Value) -> String {
    let mut body = support::customer::message(&json!({ "secret": 1 }));
    body[member] = value;
    customer.publish_raw(&body, None).await.expect(202).text("id")
}

async fn payload(customer: &Customer, message: &str) -> Value {
    customer.client.get(&customer.path(&format!("/msg/{message}"))).await.expect(200).json()["payload"].clone()
}

/// Brings the end of every payload's retention forward to now.
const LET_IT_END: &str = "update message set payload_expires_at = now() where payload_expires_at is not null";

#[tokio::test]
async fn days_and_hours_act_and_only_where_they_are_asked_for() {
    let app = App::start().await;
    let customer = app.customer().await;
    for (member, value, hours) in [
        ("payloadRetentionPeriod", json!(5), Some(120)),
        ("payloadRetentionPeriod", json!(1), Some(24)),
        ("payloadRetentionPeriod", json!(90), Some(2160)),
        ("payloadRetentionPeriod", json!(null), None),
        ("payloadRetentionHours", json!(1), Some(1)),
        ("payloadRetentionHours", json!(2160), Some(2160)),
        ("payloadRetentionHours", json!(null), None),
    ] {
        publish(&customer, member, value.clone()).await;
        let kept = "select coalesce(round(extract(epoch from payload_expires_at - now()) / 3600), -1)::bigint from message order by id desc limit 1";
        assert_eq!(app.database.number(kept).await, hours.unwrap_or(-1), "{member}: {value}");
    }
    let both = json!({ "eventType": "a", "payload": {}, "payloadRetentionPeriod": 5, "payloadRetentionHours": 5 });
    for (body, named) in [
        (json!({ "eventType": "a", "payload": {}, "payloadRetentionPeriod": 0 }), "payloadRetentionPeriod"),
        (json!({ "eventType": "a", "payload": {}, "payloadRetentionPeriod": 91 }), "payloadRetentionPeriod"),
        (json!({ "eventType": "a", "payload": {}, "payloadRetentionHours": 2161 }), "payloadRetentionHours"),
        (json!({ "eventType": "a", "payload": {}, "payloadRetentionHours": -1 }), "payloadRetentionHours"),
        (both, "payloadRetentionHours"),
    ] {
        let answer = customer.publish_raw(&body, None).await.expect(422);
        assert!(String::from_utf8_lossy(&answer.body).contains(named), "{answer:?}");
    }
    assert_eq!(customer.messages().await.len(), 7, "what was refused is not there");
}

#[tokio::test]
async fn a_payload_whose_time_is_over_is_neither_shown_nor_sent_and_is_soon_gone() {
    let app = App::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await;
    let other = app.second_node().await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let short = publish(&customer, "payloadRetentionHours", json!(1)).await;
    customer.attempts(&short, 1).await;
    let long = publish(&customer, "payloadRetentionPeriod", json!(null)).await;
    customer.attempts(&long, 1).await;
    assert_eq!(payload(&customer, &short).await, json!({ "secret": 1 }));
    app.database.execute(LET_IT_END).await;
    let elsewhere = customer.through(&other.client);
    assert_eq!(payload(&elsewhere, &short).await, json!({ "expired": true }), "at once, although upkeep has not been there");
    assert_eq!(payload(&elsewhere, &long).await, json!({ "secret": 1 }));
    let listed = customer.messages().await;
    assert_eq!([&listed[0]["payload"], &listed[1]["payload"]], [&json!({ "secret": 1 }), &json!({ "expired": true })]);
    let resend = customer.path(&format!("/msg/{short}/endpoint/{endpoint}/resend"));
    app.client.request("POST", &resend).send().await.expect(400);
    app.database.let_retries_fall_due().await;
    let ended = customer.attempts(&short, 2).await;
    assert!(ended[1].response().contains("has been removed"), "{:?}", ended[1]);
    let before = receiver.so_far().iter().filter(|webhook| webhook.id() == short).count();
    assert_eq!(before, 1, "the retry was not sent");
    let kept = async || app.database.number("select count(*) from message where payload is not null").await;
    assert_eq!(kept().await, 2);
    let _upkeep = app.second_node().await;
    support::eventually("upkeep removes it", async || (kept().await == 1).then_some(())).await;
    assert_eq!(payload(&customer, &short).await, json!({ "expired": true }));
    assert_eq!(payload(&customer, &long).await, json!({ "secret": 1 }));
}

#[tokio::test]
async fn a_repeat_of_a_request_whose_payload_has_expired_says_so_and_sends_nothing() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let mut body = support::customer::message(&json!({ "n": 1 }));
    body["payloadRetentionHours"] = json!(1);
    let first = customer.publish_raw(&body, Some("key")).await.expect(202).text("id");
    receiver.received(1).await;
    app.database.execute(LET_IT_END).await;
    let repeat = customer.publish_raw(&body, Some("key")).await.expect(202);
    assert!(repeat.is_replay());
    assert_eq!((repeat.text("id"), &repeat.json()["payload"]), (first, &json!({ "expired": true })));
    assert_eq!(receiver.so_far().len(), 1);
}
