//! Subscriptions: what endpoints want, and what they get by it.

use serde_json::{Value, json};
use support::{
    App, Project, Receiver,
    project::{items, uid},
};

/// A project with an endpoint of the owner `one`, which a receiver stands behind.
struct Subscribed {
    app: App,
    project: Project,
    receiver: Receiver,
    endpoint: String,
}

impl Subscribed {
    async fn new() -> Self {
        let app = App::start().await;
        let project = Project::of(&app.client).await;
        let receiver = Receiver::start().await;
        let authentication = json!({ "type": "api_key", "api_key": { "header_name": "X-Api-Key", "header_value": "let me in" } });
        let body = json!({ "name": "one", "url": receiver.url("/"), "owner_id": "one", "authentication": authentication });
        let endpoint = uid(&project.post("/endpoints", &body).await);
        Self { app, project, receiver, endpoint }
    }

    /// Publishes to the owner; returns the message's id.
    async fn publish(&self, event_type: &str, payload: &Value) -> String {
        let body = json!({ "eventType": event_type, "payload": payload });
        self.app.client.post("/api/v1/app/one/msg", &body).await.expect(202).text("id")
    }

    /// Which of some messages came, in the end: one that surely comes is published last.
    async fn came(&self, messages: &[(&str, Value)], last: (&str, Value)) -> Vec<bool> {
        let mut ids = Vec::new();
        for (event_type, payload) in messages {
            ids.push(self.publish(event_type, payload).await);
        }
        self.publish(last.0, &last.1).await;
        let owed = async |id: &String| {
            let sql = format!(
                "select (exists (select from queue where message_id = posthaste_id('{id}'))
                   or exists (select from attempt where message_id = posthaste_id('{id}')))::int"
            );
            self.app.database.number(&sql).await == 1
        };
        let mut came = Vec::new();
        for id in &ids {
            came.push(owed(id).await);
        }
        came
    }

    async fn subscribe(&self, more: &Value) -> Value {
        let mut body = json!({ "name": "a subscription", "endpoint_id": self.endpoint });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.project.post("/subscriptions", &body).await
    }
}

#[tokio::test]
async fn an_endpoint_gets_what_its_subscription_lets_through() {
    let it = Subscribed::new().await;
    assert_eq!(it.came(&[("paid", json!({}))], ("paid", json!({}))).await, [false], "nothing without a subscription");
    let config = json!({ "event_types": ["paid", "sent"], "filter": { "body": { "amount": { "$gte": 10 } } } });
    let made = it.subscribe(&json!({ "filter_config": config, "alert_config": { "count": 4, "threshold": "1h" } })).await;
    assert_eq!(
        (&made["filter_config"]["event_types"], &made["filter_config"]["filter"]["body"]),
        (&config["event_types"], &config["filter"]["body"])
    );
    assert_eq!((&made["endpoint_metadata"]["uid"], &made["source_metadata"]), (&json!(it.endpoint), &Value::Null));
    assert_eq!(
        (&made["type"], &made["delivery_mode"], &made["alert_config"]["count"]),
        (&json!("api"), &json!("at_least_once"), &json!(4))
    );
    let messages = [("paid", json!({ "amount": 10 })), ("paid", json!({ "amount": 9 })), ("other", json!({ "amount": 10 }))];
    assert_eq!(it.came(&messages, ("sent", json!({ "amount": 11 }))).await, [true, false, false]);
    let webhooks = it.receiver.received(2).await;
    assert_eq!(webhooks[0].header("x-api-key"), "let me in");
    assert!(webhooks[0].header("x-convoy-signature").starts_with("t="), "{webhooks:?}");

    let path = format!("/subscriptions/{}", uid(&made));
    let changed = it.project.put(&path, &json!({ "name": "renamed", "filter_config": { "event_types": ["*"] } })).await;
    assert_eq!((&changed["name"], &changed["filter_config"]["filter"]["body"]), (&json!("renamed"), &config["filter"]["body"]));
    assert_eq!(
        it.came(&[("other", json!({ "amount": 10 })), ("other", json!({}))], ("paid", json!({ "amount": 10 }))).await,
        [true, false]
    );
    assert_eq!(it.project.get(&path).await, changed);
    it.project.done("PUT", &format!("{path}/toggle_status"), &json!("{}"), 202).await;
    assert_eq!(it.project.get(&path).await, changed, "it changes nothing");
    it.project.delete(&path).await;
    it.project.refused("GET", &path, &Value::Null, 404).await;
    assert_eq!(it.came(&[("paid", json!({ "amount": 10 }))], ("paid", json!({}))).await, [false]);
}

#[tokio::test]
async fn an_endpoint_has_one_subscription_unless_its_project_says_otherwise() {
    let it = Subscribed::new().await;
    let first = it.subscribe(&json!({ "name": "First" })).await;
    let body = json!({ "name": "second", "endpoint_id": it.endpoint });
    let refused = it.project.refused("POST", "/subscriptions", &body, 400).await;
    assert!(refused.contains("already"), "{refused}");
    it.project.put("", &json!({ "config": { "multiple_endpoint_subscriptions": true } })).await;
    let second = it.subscribe(&json!({ "name": "second" })).await;
    let other = it.project.post("/endpoints", &json!({ "name": "other", "url": "https://example.com/" })).await;
    let third = it.project.post("/subscriptions", &json!({ "name": "third", "endpoint_id": uid(&other) })).await;
    let listed = async |query: &str| items(&it.project.get(&format!("/subscriptions{query}")).await).iter().map(uid).collect::<Vec<_>>();
    assert_eq!(listed("").await, [uid(&third), uid(&second), uid(&first)]);
    assert_eq!(listed(&format!("?endpointId={}", it.endpoint)).await, [uid(&second), uid(&first)]);
    assert_eq!(listed(&format!("?endpointId={}&endpointId={}", it.endpoint, uid(&other))).await.len(), 3);
    assert_eq!(listed("?name=first&endpointId=").await, [uid(&first)]);
    assert_eq!(listed("?endpointId=x").await, Vec::<String>::new());
    assert_eq!(listed("?perPage=1&sort=ASC").await, [uid(&first)]);
    it.publish("a", &json!({})).await;
    it.publish("b", &json!({})).await;
    let types: Vec<_> = it.receiver.received(2).await.iter().map(support::Received::id).map(str::to_owned).collect();
    assert_ne!(types[0], types[1], "once each, though two subscriptions let it through");
}

#[tokio::test]
async fn a_type_may_have_a_filter_of_its_own() {
    let it = Subscribed::new().await;
    let subscription = it.subscribe(&Value::Null).await;
    let filters = format!("/subscriptions/{}/filters", uid(&subscription));
    let made = it.project.post(&filters, &json!({ "event_type": "paid", "body": { "amount": { "$gt": 5 } } })).await;
    assert_eq!((&made["body"], &made["raw_body"], &made["headers"]), (&json!({ "amount": { "$gt": 5 } }), &made["body"], &json!({})));
    assert!(made["enabled_at"].is_string(), "{made}");
    let messages = [("paid", json!({ "amount": 6 })), ("paid", json!({ "amount": 5 })), ("sent", json!({}))];
    assert_eq!(it.came(&messages, ("sent", json!({}))).await, [true, false, true]);
    let test = async |event_type: &str, body: &Value| {
        it.project.done("POST", &format!("{filters}/test/{event_type}"), body, 200).await["is_match"].clone()
    };
    assert_eq!(test("paid", &json!({ "payload": { "amount": 6 } })).await, true);
    assert_eq!(test("paid", &json!({ "request": { "body": { "amount": 5 } } })).await, false);
    assert_eq!(test("sent", &json!({})).await, true);

    let path = format!("{filters}/{}", uid(&made));
    let changed = it.project.done("PUT", &path, &json!({ "enabled_at": null }), 200).await;
    assert_eq!((&changed["enabled_at"], &changed["body"]), (&Value::Null, &made["body"]));
    assert_eq!(it.project.get(&path).await, changed);
    assert_eq!(it.came(&[("paid", json!({ "amount": 1 }))], ("sent", json!({}))).await, [true], "it is off");

    let more = json!([{ "event_type": "*", "query": { "a": "b" } }, { "event_type": "sent", "enabled_at": { "set": true, "time": "2026-01-01T00:00:00Z" } }]);
    let bulk = it.project.done("POST", &format!("{filters}/bulk"), &more, 201).await;
    assert_eq!((&bulk[0]["query"], &bulk[1]["enabled_at"]), (&json!({ "a": "b" }), &json!("2026-01-01T00:00:00.000000Z")));
    for method in ["PUT", "POST"] {
        let changes =
            json!([{ "uid": uid(&bulk[0]), "query": { "a": method } }, { "uid": uid(&made), "enabled_at": "2026-01-01T00:00:00Z" }]);
        let changed = it.project.done(method, &format!("{filters}/bulk_update"), &changes, 200).await;
        assert_eq!((&changed[0]["query"], &changed[1]["body"]), (&json!({ "a": method }), &made["body"]));
    }
    assert_eq!(test("anything", &json!({ "request": { "query": { "a": "POST" } } })).await, true);
    assert_eq!(test("anything", &json!({ "request": { "query": { "a": "PUT" } } })).await, false);
    assert_eq!(it.project.get(&filters).await.as_array().map(Vec::len), Some(3));
    it.project.delete(&path).await;
    assert_eq!(it.project.get(&filters).await.as_array().map(Vec::len), Some(2));

    // All of several, or none.
    let clash = json!([{ "event_type": "new" }, { "event_type": "sent" }]);
    let refused = it.project.refused("POST", &format!("{filters}/bulk"), &clash, 400).await;
    assert!(refused.contains("already"), "{refused}");
    assert_eq!(it.project.get(&filters).await.as_array().map(Vec::len), Some(2));
    for (method, rest, body, field) in [
        ("POST", "", json!({}), "body.event_type"),
        ("POST", "", json!({ "event_type": "a b" }), "body.event_type"),
        ("POST", "", json!({ "event_type": "x", "body": { "a": { "$b": 1 } } }), "body"),
        ("POST", "", json!({ "event_type": "x", "enabled_at": "now" }), "body.enabled_at"),
        ("POST", "/bulk", json!([]), "body"),
        ("POST", "/bulk", json!({}), "body"),
        ("POST", "/bulk", json!([{ "event_type": "x" }, {}]), "body.1.event_type"),
        ("PUT", "/bulk_update", json!([{ "event_type": "x" }]), "body.0.uid"),
    ] {
        let why = it.project.refused(method, &format!("{filters}{rest}"), &body, 400).await;
        assert!(why.starts_with(&format!("{field}: ")), "{field}: {why}");
    }
    it.project.refused("PUT", &path, &json!({}), 404).await;
    it.project.refused("GET", &format!("{filters}/x"), &Value::Null, 404).await;
}

#[tokio::test]
async fn a_filter_is_tried_on_a_sample() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let test = async |schema: Value| {
        let request = json!({ "header": { "x-kind": "a" }, "body": { "amount": 7 }, "query": { "page": "1" }, "path": { "path": "/in" } });
        project.done("POST", "/subscriptions/test_filter", &json!({ "request": request, "schema": schema }), 200).await
    };
    assert_eq!(test(json!({ "body": { "amount": { "$gte": 7 } }, "header": { "X-Kind": "a" }, "query": null, "path": {} })).await, true);
    assert_eq!(test(json!({ "body": { "amount": { "$lt": 7 } } })).await, false);
    let broken = json!({ "request": {}, "schema": { "body": { "amount": { "$regex": "(" } } } });
    let why = project.refused("POST", "/subscriptions/test_filter", &broken, 400).await;
    assert!(why.starts_with("body.schema: "), "{why}");
}

#[tokio::test]
async fn what_is_no_subscription_is_refused_by_name() {
    let it = Subscribed::new().await;
    let with = |more: Value| {
        let mut body = json!({ "name": "x", "endpoint_id": it.endpoint });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    for (body, field) in [
        (json!({ "name": "x" }), "endpoint_id"),
        (json!({ "endpoint_id": it.endpoint }), "name"),
        (with(json!({ "endpoint_id": "x" })), "endpoint_id"),
        (with(json!({ "source_id": "x" })), "source_id"),
        (with(json!({ "filter_config": { "event_types": ["a b"] } })), "filter_config.event_types.0"),
        (with(json!({ "filter_config": { "filter": { "body": { "a": { "$b": 1 } } } } })), "filter_config.filter"),
        (with(json!({ "delivery_mode": "at_most_once" })), "delivery_mode"),
        (with(json!({ "rate_limit_config": { "count": 1, "duration": 1 } })), "rate_limit_config"),
        (with(json!({ "retry_config": { "type": "linear", "retry_count": 1 } })), "retry_config"),
    ] {
        let why = it.project.refused("POST", "/subscriptions", &body, 400).await;
        assert!(why.starts_with(&format!("body.{field}: ")), "{field}: {why}");
    }
    it.project.refused("POST", "/subscriptions", &with(json!({ "function": "x" })), 501).await;
    let nothing = "01J0000000E008000000000001";
    assert_eq!(it.project.refused("POST", "/subscriptions", &with(json!({ "endpoint_id": nothing })), 404).await, "endpoint not found");
    assert_eq!(it.project.refused("POST", "/subscriptions", &with(json!({ "source_id": nothing })), 404).await, "source not found");
    for (method, rest, body) in
        [("GET", "", Value::Null), ("PUT", "", json!({ "name": "x" })), ("DELETE", "", Value::Null), ("PUT", "/toggle_status", Value::Null)]
    {
        assert_eq!(it.project.refused(method, &format!("/subscriptions/{nothing}{rest}"), &body, 404).await, "subscription not found");
    }
    assert!(items(&it.project.get("/subscriptions").await).is_empty());
    let refused = {
        it.app.client.delete("/api/v1/app/one").await.expect(204);
        it.project.put("", &json!({ "type": "incoming" })).await;
        let own = it.project.post("/endpoints", &json!({ "name": "own", "url": "https://example.com/", "owner_id": "one" })).await;
        assert_eq!(own["owner_id"], "one", "noted");
        it.project.refused("POST", "/subscriptions", &json!({ "name": "x", "endpoint_id": uid(&own) }), 400).await
    };
    assert!(refused.starts_with("body.source_id: "), "{refused}");
    let refused = it.project.refused("PUT", "", &json!({ "type": "outgoing" }), 400).await;
    assert!(refused.starts_with("body.type: "), "{refused}");
}
