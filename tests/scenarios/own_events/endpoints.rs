//! What is told of endpoints, and to whom.

use serde_json::{Value, json};
use support::{App, Customer, Options, Receiver, Reply, Roles, new_tenant, token};
use svix::webhooks::Webhook;

use super::{LIST, NOTED, SECRET, all_is_published, listen, listening, published, types};

/// A server that publishes nothing of what it notes, whose tenant wants to hear everything.
async fn noting() -> (App, Customer) {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    listen(&app.client, "https://example.com/").await;
    let customer = app.customer().await;
    (app, customer)
}

#[tokio::test]
async fn each_change_is_told_once_signed_and_in_order() {
    let (app, receiver, customer) = listening().await;
    app.client.put(&customer.path(""), &json!({ "name": "A customer", "uid": "acme" })).await.expect(200);
    let endpoint = customer.endpoint_with(&json!({ "url": "https://example.com/", "uid": "main" })).await;
    let path = customer.path("/endpoint/main");
    app.client.patch(&path, &json!({ "description": "x" })).await.expect(200);
    app.client.patch(&path, &json!({ "disabled": true })).await.expect(200);
    app.client.put(&path, &json!({ "url": "https://example.com/" })).await.expect(200);
    app.client.put(&customer.path("/endpoint/other"), &json!({ "url": "https://example.com/" })).await.expect(201);
    app.client.put(&customer.path("/endpoint/main/headers"), &json!({ "headers": {} })).await.expect(204);
    app.client.delete(&path).await.expect(204);

    let webhooks = receiver.received(8).await;
    let verifier = Webhook::new(SECRET).expect("a secret");
    for webhook in &webhooks {
        verifier.verify(&webhook.body, &webhook.header_map()).expect("a good signature");
    }
    all_is_published(&app.database).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 8, "once each; headers are not told of");
    let told = published(&app.database).await;
    let order: Vec<_> = told.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    let expected = [
        "endpoint.created",
        "endpoint.updated",
        "endpoint.updated",
        "endpoint.disabled",
        "endpoint.updated",
        "endpoint.enabled",
        "endpoint.created",
        "endpoint.deleted",
    ];
    assert_eq!(order, expected);
    let place = json!({ "appId": customer.id, "appUid": "acme", "endpointId": endpoint, "endpointUid": "main" });
    for (number, event) in told.iter().enumerate() {
        match number {
            3 => assert_eq!((&event["data"]["trigger"], &event["data"]["failSince"]), (&json!("manual"), &Value::Null)),
            6 => assert_eq!(event["data"]["endpointUid"], "other"),
            _ => assert_eq!(event["data"], place, "{event}"),
        }
    }
}

#[tokio::test]
async fn an_endpoint_hears_what_it_asked_for() {
    let (app, _, customer) = listening().await;
    let receiver = Receiver::start().await;
    let wanted = json!({ "url": receiver.url("/"), "eventTypes": ["endpoint.deleted", "endpoint.disabled"] });
    app.client.post(LIST, &wanted).await.expect(201);
    let endpoint = customer.endpoint("https://example.com/").await;
    customer.client.delete(&customer.path(&format!("/endpoint/{endpoint}"))).await.expect(204);
    receiver.received(1).await;
    all_is_published(&app.database).await;
    app.database.nothing_owed().await;
    assert_eq!(types(&receiver.so_far()), ["endpoint.deleted"]);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_or_fails_for_days_is_told_of() {
    let app = App::with(Options::retries(0)).await;
    let receiver = Receiver::start().await;
    let wanted = json!({ "url": receiver.url("/ops"), "eventTypes": ["endpoint.disabled"] });
    app.client.post(LIST, &wanted).await.expect(201);
    let customer = app.customer().await;
    receiver.on("/gone", [Reply::status(410)]);
    receiver.on("/broken", [Reply::status(500)]);
    let gone = customer.endpoint(&receiver.url("/gone")).await;
    customer.publish(&json!({ "n": 1 })).await;
    let heard = receiver.received_at("/ops", 1).await.remove(0).json();
    assert_eq!((&heard["data"]["endpointId"], &heard["data"]["trigger"]), (&json!(gone), &json!("automatic")));
    assert!(heard["data"]["failSince"].is_string(), "{heard}");

    let broken = customer.endpoint(&receiver.url("/broken")).await;
    customer.publish(&json!({ "n": 2 })).await;
    let failing = "select count(*) from endpoint_health where failing_since is not null";
    support::eventually("its failing is known", async || (app.database.number(failing).await == 1).then_some(())).await;
    app.database.execute("update endpoint_health set failing_since = '2026-01-02T03:04:05Z'").await;
    customer.publish(&json!({ "n": 3 })).await;
    let heard = receiver.received_at("/ops", 2).await.remove(1).json();
    assert_eq!((&heard["data"]["endpointId"], &heard["data"]["trigger"]), (&json!(broken), &json!("automatic")));
    assert_eq!(heard["data"]["failSince"], "2026-01-02T03:04:05.000000Z");
}

#[tokio::test]
async fn a_change_that_fails_leaves_nothing_and_a_repeat_adds_nothing() {
    let (app, customer) = noting().await;
    customer.endpoint_with(&json!({ "url": "https://example.com/", "uid": "one" })).await;
    customer.endpoint_with(&json!({ "url": "https://example.com/", "uid": "two" })).await;
    assert_eq!(app.database.number(NOTED).await, 2);
    let path = customer.path("/endpoint/two");
    app.client.patch(&path, &json!({ "uid": "one" })).await.expect(409);
    app.client.patch(&path, &json!({ "eventTypes": ["unknown"] })).await.expect(422);
    assert_eq!(app.database.number(NOTED).await, 2, "a conflict is no change");

    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
        create trigger refuse before insert on idempotency for each row execute function refuse()";
    app.database.execute(refuse).await;
    for (method, path) in [("POST", customer.path("/endpoint")), ("PUT", path.clone()), ("PUT", customer.path("/endpoint/three"))] {
        let request = app.client.request(method, &path).key("key").json(&json!({ "url": "https://example.com/other" }));
        assert!(request.send().await.status >= 500);
    }
    assert_eq!(app.database.number(NOTED).await, 2, "what is rolled back is not told of");
    app.database.execute("drop trigger refuse on idempotency").await;
    let create = async || {
        let request = app.client.request("POST", &customer.path("/endpoint")).key("key");
        request.json(&json!({ "url": "https://example.com/other" })).send().await.expect(201)
    };
    crate::idempotency::same(&create().await, &create().await);
    let patch = async || app.client.request("PATCH", &path).key("key").json(&json!({ "description": "x" })).send().await.expect(200);
    crate::idempotency::same(&patch().await, &patch().await);
    assert_eq!(app.database.number(NOTED).await, 4, "a replay is no change either");
}

#[tokio::test]
async fn nobody_hears_of_another_tenant_and_without_ears_nothing_is_noted() {
    let (app, customer) = noting().await;
    let deaf = app.client.with_token(&token(&new_tenant()));
    let theirs = Customer::create(&deaf).await;
    theirs.endpoint("https://example.com/").await;
    assert_eq!(app.database.number(NOTED).await, 0, "a tenant without operational endpoints writes no rows");

    let receiver = Receiver::start().await;
    listen(&deaf, &receiver.url("/theirs")).await;
    listen(&app.client, &receiver.url("/ours")).await;
    customer.endpoint("https://example.com/").await;
    let theirs = theirs.endpoint("https://example.com/").await;
    let ids = app.database.number("select count(distinct tenant_id) from own_event").await;
    assert_eq!((app.database.number(NOTED).await, ids), (2, 2));
    let worker = app.node_with(&Options { roles: Roles::Worker, ..Options::default() }).await;
    let heard = receiver.received_at("/theirs", 1).await.remove(0).json();
    assert_eq!(heard["data"]["endpointId"], theirs);
    receiver.received_at("/ours", 1).await;
    all_is_published(&app.database).await;
    assert_eq!(receiver.so_far().len(), 2);
    worker.stop().await;

    for endpoint in deaf.get(LIST).await.expect(200).json()["data"].as_array().expect("a page") {
        let path = format!("{LIST}/{}", endpoint["id"].as_str().expect("an id"));
        deaf.put(&path, &json!({ "url": receiver.url("/theirs"), "disabled": true })).await.expect(200);
    }
    customer.endpoint("https://example.com/").await;
    assert_eq!(app.database.number(NOTED).await, 1);
    Customer::create(&deaf).await.endpoint("https://example.com/").await;
    assert_eq!(app.database.number(NOTED).await, 1, "all of its endpoints are off");
}
