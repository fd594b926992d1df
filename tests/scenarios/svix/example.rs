//! Messages that nobody published: an example for one endpoint. And whether anybody would get one.

use serde_json::json;
use support::{App, Receiver, application_token};

#[tokio::test]
async fn an_example_reaches_the_endpoint_it_names_whatever_that_asks_for_and_no_other() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let schema = |n: u64| json!({ "type": "object", "examples": [{ "n": n }, { "n": n + 1 }] });
    let paid = json!({ "name": "paid", "description": "", "schemas": { "1": schema(10), "2": schema(20) } });
    app.client.post("/api/v1/event-type", &paid).await.expect(201);
    app.client.post("/api/v1/event-type", &json!({ "name": "sent", "description": "" })).await.expect(201);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/all")).await;
    let named = json!({ "url": receiver.url("/named"), "eventTypes": ["sent"], "channels": ["c"], "filter": { "body": { "n": 5 } } });
    let named = customer.endpoint_with(&named).await;
    let path = customer.path(&format!("/endpoint/{named}/send-example"));
    let send = async |body| app.client.post(&path, &body).await;
    let first = send(json!({ "eventType": "paid" })).await.expect(202).json();
    assert_eq!((&first["eventType"], &first["payload"]), (&json!("paid"), &json!({ "n": 20 })), "of the newest version");
    send(json!({ "eventType": "paid", "exampleIndex": 1 })).await.expect(202);
    let received = receiver.received(2).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2);
    assert!(received.iter().all(|webhook| webhook.path == "/named"));
    let mut bodies: Vec<_> = received.iter().map(|webhook| webhook.json()["n"].clone()).collect();
    bodies.sort_unstable_by_key(serde_json::Value::as_u64);
    assert_eq!(bodies, [20, 21]);
    let attempts = customer.attempts(first["id"].as_str().expect("an id"), 1).await;
    assert_eq!(attempts[0].status(), "success", "it is a message like any other");
    for (wrong, why) in [
        (json!({ "eventType": "paid", "exampleIndex": 2 }), "no example 2"),
        (json!({ "eventType": "sent" }), "no example 0"),
        (json!({ "eventType": "nothing" }), "no event type"),
    ] {
        let refused = send(wrong).await.expect(422).json();
        assert_eq!(refused["detail"][0]["loc"], json!(["body", "eventType"]));
        assert!(refused["detail"][0]["msg"].as_str().is_some_and(|text| text.contains(why)), "{refused}");
    }
    let portal = app.client.with_token(&application_token(&app.tenant, &customer.id));
    let request = portal.request("POST", &path).header("Idempotency-Key", "example");
    let once = request.json(&json!({ "eventType": "paid" })).send().await.expect(202).text("id");
    let request = portal.request("POST", &path).header("Idempotency-Key", "example");
    assert_eq!(request.json(&json!({ "eventType": "paid" })).send().await.expect(202).text("id"), once);
    receiver.received(3).await;
    app.client.patch(&customer.path(&format!("/endpoint/{named}")), &json!({ "disabled": true })).await.expect(200);
    send(json!({ "eventType": "paid" })).await.expect(409);
}

#[tokio::test]
async fn whether_anybody_would_get_a_message_can_be_asked_before() {
    let app = App::start().await;
    for name in ["paid", "sent"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
    }
    let customer = app.customer().await;
    let is_active = async |body| app.client.post(&customer.path("/msg/precheck/active"), &body).await.expect(200).json()["active"].clone();
    assert_eq!(is_active(json!({ "eventType": "paid" })).await, false);
    let endpoint = json!({ "url": "http://127.0.0.1:9/", "eventTypes": ["paid"], "channels": ["c"] });
    let endpoint = customer.endpoint_with(&endpoint).await;
    assert_eq!(is_active(json!({ "eventType": "paid", "channels": ["c", "d"] })).await, true);
    assert_eq!(is_active(json!({ "eventType": "paid" })).await, false, "it listens to one channel");
    assert_eq!(is_active(json!({ "eventType": "sent", "channels": ["c"] })).await, false);
    app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": true })).await.expect(200);
    assert_eq!(is_active(json!({ "eventType": "paid", "channels": ["c"] })).await, false);
    assert_eq!(app.database.number("select count(*) from message").await, 0);
}
