//! Messages: published once, shown as they were published.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use support::{App, Receiver};
use svix::{
    api::{MessageCreateOptions, MessageGetOptions, MessageListOptions},
    models::MessageIn,
};

use super::status_of;

#[tokio::test]
async fn a_message_is_published_delivered_and_shown() {
    let app = App::start().await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let mut new = MessageIn::new("invoice.paid".into(), json!({ "invoice": 42, "für": "René" }));
    new.event_id = Some("evt-1".into());
    new.channels = Some(["berlin".to_owned()].into());
    let with_content = Some(MessageCreateOptions { with_content: Some(true), ..Default::default() });
    let created = api.message().create(customer.id.clone(), new.clone(), with_content).await.expect("a new message");
    assert_eq!(created.payload, new.payload);
    assert_eq!(receiver.received(1).await[0].json(), new.payload);
    assert_eq!(receiver.so_far()[0].id(), created.id);
    let full = || Some(MessageGetOptions { with_content: Some(true) });
    let by_id = api.message().get(customer.id.clone(), created.id.clone(), full()).await.expect("by its id");
    let by_event_id = api.message().get(customer.id.clone(), "evt-1".into(), full()).await.expect("by its event id");
    assert_eq!((&by_id, &by_event_id), (&created, &created));
    let options = MessageListOptions { with_content: Some(true), ..Default::default() };
    let listed = api.message().list(customer.id.clone(), Some(options)).await.expect("a list");
    assert_eq!(listed.data, std::slice::from_ref(&created));
    let bare = api.message().get(customer.id.clone(), created.id.clone(), None).await.expect("without content");
    assert_eq!(bare.payload, json!({}), "the SDK asks for no content by default");
    assert_eq!(status_of(api.message().get(customer.id.clone(), "evt-2".into(), None).await), 404);
    let age = Utc::now() - created.timestamp;
    assert!(age.abs() < TimeDelta::minutes(1), "{age}");
}

#[tokio::test]
async fn messages_are_found_by_type_channel_and_time() {
    let app = App::start().await;
    let customer = app.customer().await;
    let publish = async |event_type: &str, channels: Value| -> String {
        let body = json!({ "eventType": event_type, "payload": {}, "channels": channels });
        customer.publish_raw(&body, None).await.expect(202).text("id")
    };
    let first = publish("a", Value::Null).await;
    let second = publish("b", json!(["x"])).await;
    let third = publish("c", json!(["x", "y"])).await;
    let found = async |query: &str| -> Vec<String> {
        let items = customer.pages(&customer.path(&format!("/msg{query}"))).await;
        items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(found("").await, [third.clone(), second.clone(), first.clone()], "the newest first");
    assert_eq!(found("?event_types=a,b").await, [second.clone(), first.clone()]);
    assert_eq!(found("?event_types=c&channel=x").await, std::slice::from_ref(&third));
    assert_eq!(found("?channel=y").await, std::slice::from_ref(&third));
    let shown = customer.client.get(&customer.path(&format!("/msg/{second}"))).await.expect(200).text("timestamp");
    let at: DateTime<Utc> = shown.parse().expect("a time");
    let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    assert!(!found(&format!("?before={}", text(at))).await.contains(&third));
    let after = found(&format!("?after={}", text(at + TimeDelta::milliseconds(1)))).await;
    assert!(!after.contains(&first), "{after:?}");
    assert_eq!(found(&format!("?after={}", text(Utc::now() + TimeDelta::hours(1)))).await, [""; 0]);
    let single = customer.client.get(&customer.path("/msg?limit=1")).await.expect(200).json();
    assert_eq!((single["data"].as_array().map(Vec::len), &single["done"]), (Some(1), &json!(false)));
}

#[tokio::test]
async fn the_publishers_bytes_are_the_delivered_bytes() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let payload = "{ \"b\":1.0,  \"a\" : [1e2, 9007199254740993],\n\t\"text\":\"\\u00e9\\/\", \"a2\":{}, \"b\":2 }";
    let body = format!("{{\"eventType\": \"invoice.paid\", \"payload\": {payload} }}");
    let answer = customer.client.request("POST", &customer.path("/msg")).bytes(body).send().await.expect(202);
    assert_eq!(receiver.received(1).await[0].body, payload.as_bytes());
    assert!(String::from_utf8_lossy(&answer.body).contains(payload), "the answer shows the same bytes");
    assert_eq!(receiver.so_far()[0].header("content-type"), "application/json");
}

#[tokio::test]
async fn a_name_that_changed_hands_means_its_new_owner_on_every_node() {
    let app = App::start().await;
    let other = app.second_node().await;
    let receiver = Receiver::start().await;
    let acme = json!({ "name": "ACME", "uid": "acme" });
    let message = json!({ "eventType": "invoice.paid", "payload": { "a": 1 } });
    app.client.post("/api/v1/app", &acme).await.expect(201);
    let first = other.client.post("/api/v1/app/acme/msg", &message).await.expect(202).json();
    app.client.delete("/api/v1/app/acme").await.expect(204);
    app.client.post("/api/v1/app", &acme).await.expect(201);
    app.client.post("/api/v1/app/acme/endpoint", &json!({ "url": receiver.url("/") })).await.expect(201);
    let second = other.client.post("/api/v1/app/acme/msg", &message).await.expect(202).json();
    assert_eq!(receiver.received(1).await[0].id(), second["id"].as_str().expect("an id"));
    let listed = app.client.get("/api/v1/app/acme/msg").await.expect(200).json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "the new owner has its own message alone, not {}", first["id"]);
}
