//! The endpoints that hear, as the official SDK handles them.

use serde_json::{Value, json};
use support::{App, Receiver, application_token, new_tenant, token};
use svix::models::{
    OperationalWebhookEndpointHeadersIn, OperationalWebhookEndpointIn, OperationalWebhookEndpointSecretIn,
    OperationalWebhookEndpointUpsertIn,
};
use svix::webhooks::Webhook;

use super::{LIST, SECRET, listen};

#[tokio::test]
async fn the_official_sdk_makes_shows_changes_and_removes_them() {
    let app = App::start().await;
    let sdk = app.sdk().await;
    let webhooks = sdk.operational_webhook();
    let api = webhooks.endpoint();
    assert!(api.list(None).await.expect("a list of none").data.is_empty());
    let mut new = OperationalWebhookEndpointIn::new("https://example.com/one".into());
    new.uid = Some("one".into());
    new.event_types = Some(["endpoint.disabled".to_owned()].into());
    new.headers = Some([("x-one".to_owned(), "1".to_owned())].into());
    new.secret = Some(SECRET.into());
    let made = api.create(new, None).await.expect("a new endpoint");
    assert_eq!(api.get("one".into()).await.expect("by its uid"), made);
    assert_eq!(made.event_types, Some(["endpoint.disabled".to_owned()].into()));
    assert_eq!(api.get_headers("one".into()).await.expect("its headers").headers["x-one"], "1");
    assert_eq!(api.get_secret(made.id.clone()).await.expect("its secret").key, SECRET);

    let wanted = OperationalWebhookEndpointUpsertIn::new("https://example.com/two".into());
    let changed = api.upsert("one".into(), wanted.clone()).await.expect("a replacement");
    assert_eq!((changed.id.as_str(), changed.url.as_str(), changed.event_types), (made.id.as_str(), "https://example.com/two", None));
    let other = api.upsert("two".into(), wanted).await.expect("another one");
    let listed = api.list(None).await.expect("a list");
    assert_eq!(listed.data.iter().map(|endpoint| &endpoint.id).collect::<Vec<_>>(), [&other.id, &made.id]);
    let headers = OperationalWebhookEndpointHeadersIn::new([("x-two".to_owned(), "2".to_owned())].into());
    api.set_headers("one".into(), headers).await.expect("other headers");
    assert!(!api.get_headers("one".into()).await.expect("its headers").headers.contains_key("x-one"));
    api.rotate_secret("one".into(), OperationalWebhookEndpointSecretIn::new(), None).await.expect("another secret");
    assert_ne!(api.get_secret("one".into()).await.expect("its secret").key, SECRET);

    api.delete("one".into()).await.expect("its end");
    assert!(api.get(made.id).await.is_err());
    assert_eq!(api.list(None).await.expect("a list").data.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_makes_nothing() {
    let app = App::start().await;
    for (body, field) in [
        (json!({}), "url"),
        (json!({ "url": "https://10.0.0.1/" }), "url"),
        (json!({ "url": "https://example.com/", "eventTypes": ["user.signup"] }), "eventTypes"),
        (json!({ "url": "https://example.com/", "eventTypes": [] }), "eventTypes"),
        (json!({ "url": "https://example.com/", "uid": "ep_1" }), "uid"),
    ] {
        let refused = app.client.post(LIST, &body).await.expect(422).json();
        assert_eq!(refused["detail"][0]["loc"][1], field, "{refused}");
    }
    for path in [format!("{LIST}/none"), format!("{LIST}/ep_1srOrx2ZWZBpBUvZwXKQmoEYga2"), format!("{LIST}/none/secret")] {
        assert_eq!(app.client.get(&path).await.expect(404).code(), "not_found");
    }
    let unknown = format!("{LIST}/ep_1srOrx2ZWZBpBUvZwXKQmoEYga2");
    app.client.put(&unknown, &json!({ "url": "https://example.com/" })).await.expect(404);
    app.client.delete(&unknown).await.expect(404);
    assert_eq!(app.database.number("select count(*) from application").await, 0, "what is refused makes no application either");

    let customer = app.customer().await;
    let bearer = app.client.with_token(&application_token(&app.tenant, &customer.id));
    bearer.get(LIST).await.expect(403);
    bearer.post(LIST, &json!({ "url": "https://example.com/" })).await.expect(403);
}

#[tokio::test]
async fn a_repeat_under_a_key_makes_one_and_other_tenants_see_none() {
    let app = App::start().await;
    let make = async || app.client.request("POST", LIST).key("key").json(&json!({ "url": "https://example.com/" })).send().await;
    let first = make().await.expect(201);
    crate::idempotency::same(&first, &make().await);
    assert_eq!(app.client.get(LIST).await.expect(200).json()["data"].as_array().expect("a page").len(), 1);
    let put =
        async || app.client.request("PUT", &format!("{LIST}/new")).key("key").json(&json!({ "url": "https://example.com/" })).send().await;
    let first = put().await.expect(201);
    crate::idempotency::same(&first, &put().await);
    let rotate = async || app.client.request("POST", &format!("{LIST}/new/secret/rotate")).key("key").json(&json!({})).send().await;
    crate::idempotency::same(&rotate().await.expect(204), &rotate().await);
    assert_eq!(app.database.number("select count(*) from endpoint_secret").await, 3, "rotated once");
    let stranger = app.client.with_token(&token(&new_tenant()));
    assert_eq!(stranger.get(LIST).await.expect(200).json()["data"], Value::Array(Vec::new()));
    stranger.get(&format!("{LIST}/new")).await.expect(404);
}

#[tokio::test]
async fn the_next_webhook_carries_its_headers_and_is_signed_with_its_secret() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let endpoint = listen(&app.client, &receiver.url("/")).await;
    app.client.put(&format!("{LIST}/{endpoint}/headers"), &json!({ "headers": { "x-team": "ops" } })).await.expect(204);
    let customer = app.customer().await;
    customer.endpoint("https://example.com/").await;
    let webhook = receiver.received(1).await.remove(0);
    assert_eq!(webhook.header("x-team"), "ops");
    Webhook::new(SECRET).expect("a secret").verify(&webhook.body, &webhook.header_map()).expect("a good signature");
    app.client.post(&format!("{LIST}/{endpoint}/secret/rotate"), &json!({ "gracePeriodSeconds": 0 })).await.expect(204);
    let secret = app.client.get(&format!("{LIST}/{endpoint}/secret")).await.expect(200).text("key");
    customer.endpoint("https://example.com/").await;
    let webhook = receiver.received(2).await.remove(1);
    Webhook::new(&secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).expect("a good signature");
    assert!(Webhook::new(SECRET).expect("a secret").verify(&webhook.body, &webhook.header_map()).is_err());
}
