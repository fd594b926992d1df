//! What support asks: which request came under this key, what became of it, and how often was it repeated?

use domain::idempotency::Policy;
use serde_json::{Value, json};
use support::{App, Client, Options, customer::message, new_tenant, scrape::Scrape, token};

async fn records(client: &Client, key: &str) -> Vec<Value> {
    let found = client.get(&format!("/api/v1/idempotency/records?key={key}")).await.expect(200).json();
    found["data"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_key_tells_what_became_of_its_requests() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    assert!(records(&app.client, "order-17").await.is_empty());
    let published = customer.publish_raw(&message(&json!({})), Some("order-17")).await.expect(202);
    let [record] = records(&other.client, "order-17").await.try_into().expect("one record");
    assert_eq!(record["operation"], "POST /api/v1/app/{app_id}/msg");
    assert_eq!((&record["status"], &record["replays"]), (&json!(202), &json!(0)));
    assert_eq!(record["messageId"], published.text("id"));
    let age = "select count(*) from idempotency where created_at > now() - interval '1 minute'";
    assert_eq!(app.database.number(age).await, 1);
    let seen: chrono::DateTime<chrono::Utc> = record["firstSeenAt"].as_str().expect("a time").parse().expect("a time");
    let forgotten: chrono::DateTime<chrono::Utc> = record["expiresAt"].as_str().expect("a time").parse().expect("a time");
    assert_eq!((forgotten - seen).num_seconds(), 24 * 3600 + 60);

    for client in [&app.client, &app.client, &other.client] {
        assert!(customer.through(client).publish_raw(&message(&json!({})), Some("\"order-17\"")).await.is_replay());
    }
    let counted = async || (records(&app.client, "order-17").await[0]["replays"] == 3).then_some(());
    support::eventually("both replicas' replays are counted", counted).await;
}

#[tokio::test]
async fn one_key_in_several_operations_is_several_records() {
    let app = App::start().await;
    let (one, two) = (app.customer().await, app.customer().await);
    let first = one.publish_raw(&message(&json!({})), Some("k")).await.expect(202).text("id");
    let second = two.publish_raw(&message(&json!({})), Some("k")).await.expect(202).text("id");
    app.client.request("POST", "/api/v1/app").key("k").json(&json!({ "name": "x" })).send().await.expect(201);
    app.client.request("PATCH", &one.path("")).key("k").json(&json!({ "name": "y" })).send().await.expect(200);
    let found = records(&app.client, "k").await;
    let shown: Vec<_> = found.iter().map(|record| (record["operation"].as_str(), record["status"].as_u64())).collect();
    let message_creation = Some("POST /api/v1/app/{app_id}/msg");
    assert_eq!(
        shown,
        [
            (Some("PATCH /api/v1/app/{app_id}"), Some(200)),
            (Some("POST /api/v1/app"), Some(201)),
            (message_creation, Some(202)),
            (message_creation, Some(202))
        ]
    );
    assert_eq!((&found[2]["messageId"], &found[3]["messageId"]), (&json!(second), &json!(first)));
    let stranger = app.client.with_token(&token(&new_tenant()));
    assert!(records(&stranger, "k").await.is_empty(), "keys are the tenant's own");
    app.database.execute("update idempotency set expires_at = now()").await;
    assert!(records(&app.client, "k").await.is_empty(), "what is forgotten is not shown");
}

#[tokio::test]
async fn a_refusal_that_is_remembered_is_shown() {
    let app = App::start().await;
    let customer = app.customer().await;
    let body = json!({ "eventType": "a", "payload": {}, "eventId": "evt" });
    let holder = customer.publish_raw(&body, None).await.expect(202).text("id");
    customer.publish_raw(&body, Some("late")).await.expect(409);
    let [record] = records(&app.client, "late").await.try_into().expect("one record");
    assert_eq!((&record["status"], &record["messageId"]), (&json!(409), &json!(holder)));
}

#[tokio::test]
async fn a_repeat_of_a_remembered_refusal_is_counted_as_any_other() {
    let app = App::with(Options { policy: Policy::novu(), ..Options::default() }).await;
    let before = Scrape::of(&app.client).await;
    let publish = async || app.client.request("POST", "/api/v1/app/late/msg").key("p").json(&message(&json!({}))).send().await;
    let patch = async || app.client.request("PATCH", "/api/v1/app/late").key("c").json(&json!({ "name": "x" })).send().await;
    publish().await.expect(404);
    patch().await.expect(404);
    assert!(publish().await.expect(404).is_replay() && patch().await.expect(404).is_replay());
    app.client.post("/api/v1/app", &json!({ "name": "late", "uid": "late" })).await.expect(201);
    assert!(publish().await.expect(404).is_replay() && patch().await.expect(404).is_replay());
    for key in ["p", "c"] {
        let [record] = records(&app.client, key).await.try_into().expect("one record");
        assert_eq!((&record["status"], &record["replays"]), (&json!(404), &json!(2)));
    }
    let name = "posthaste_idempotency_replays_total";
    let counted = Scrape::of(&app.client).await.samples[name] - before.samples[name];
    assert_eq!(format!("{counted}"), "4");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let app = App::start().await;
    for query in ["", "?key=", "?key=%22open", "?key=a&key=b", &format!("?key={}", "x".repeat(256))] {
        let refusal = app.client.get(&format!("/api/v1/idempotency/records{query}")).await.expect(422);
        assert_eq!(refusal.json()["detail"][0]["loc"], json!(["query", "key"]), "{query}");
    }
}
