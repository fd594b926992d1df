//! Endpoints: what is written here shows in the next webhook.

use serde_json::{Value, json};
use support::{App, Receiver};
use svix::{
    models::{EndpointHeadersIn, EndpointHeadersPatchIn, EndpointIn, EndpointPatch, EndpointUpsertIn},
    webhooks::Webhook,
};

use super::status_of;

#[tokio::test]
async fn the_next_webhook_goes_where_the_endpoint_says() {
    let app = App::start().await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let mut new = EndpointIn::new(receiver.url("/first"));
    new.uid = Some("main".into());
    new.description = Some("orders".into());
    new.metadata = Some([("team".to_owned(), "billing".to_owned())].into());
    let created = api.endpoint().create(customer.id.clone(), new, None).await.expect("a new endpoint");
    assert_eq!(api.endpoint().get(customer.id.clone(), "main".into()).await.expect("by its uid"), created);
    customer.publish(&json!({ "n": 1 })).await;
    receiver.received_at("/first", 1).await;

    let change = EndpointPatch { url: Some(receiver.url("/patched")), ..EndpointPatch::new() };
    api.endpoint().patch(customer.id.clone(), "main".into(), change).await.expect("a change");
    customer.publish(&json!({ "n": 2 })).await;
    receiver.received_at("/patched", 1).await;

    let change = EndpointUpsertIn::new(receiver.url("/put"));
    api.endpoint().upsert(customer.id.clone(), created.id.clone(), change).await.expect("a replacement");
    customer.publish(&json!({ "n": 3 })).await;
    assert_eq!(receiver.received_at("/put", 1).await[0].json(), json!({ "n": 3 }));
    let shown = customer.show(&created.id).await;
    assert_eq!((&shown["uid"], &shown["description"], &shown["metadata"]), (&Value::Null, &json!(""), &json!({})), "PUT drops the rest");

    api.endpoint().delete(customer.id.clone(), created.id.clone()).await.expect("its end");
    assert_eq!(status_of(api.endpoint().get(customer.id.clone(), created.id).await), 404);
    let survivor = customer.endpoint(&receiver.url("/survivor")).await;
    customer.publish(&json!({ "n": 4 })).await;
    receiver.received_at("/survivor", 1).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 4, "a deleted endpoint gets nothing");
    let listed = api.endpoint().list(customer.id.clone(), None).await.expect("a list");
    assert_eq!(listed.data.iter().map(|endpoint| endpoint.id.as_str()).collect::<Vec<_>>(), [survivor]);
}

#[tokio::test]
async fn filters_decide_who_gets_a_message() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    for name in ["invoice.paid", "invoice.sent"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
    }
    customer.endpoint(&receiver.url("/all")).await;
    customer.endpoint_with(&json!({ "url": receiver.url("/paid"), "eventTypes": ["invoice.paid"] })).await;
    let berlin = customer.endpoint_with(&json!({ "url": receiver.url("/berlin"), "channels": ["berlin"] })).await;
    let off = customer.endpoint_with(&json!({ "url": receiver.url("/off"), "disabled": true })).await;
    let publish = async |body: Value| customer.publish_raw(&body, None).await.expect(202);
    publish(json!({ "eventType": "invoice.paid", "payload": { "n": 1 } })).await;
    publish(json!({ "eventType": "invoice.sent", "payload": { "n": 2 }, "channels": ["berlin", "paris"] })).await;
    publish(json!({ "eventType": "undeclared", "payload": { "n": 3 }, "channels": ["paris"] })).await;
    app.database.nothing_owed().await;
    let numbers = |path: &str| {
        let of_path = receiver.so_far().into_iter().filter(|request| request.path == path);
        let mut numbers: Vec<_> = of_path.map(|request| request.json()["n"].as_i64().expect("a number")).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!([numbers("/all"), numbers("/paid"), numbers("/berlin"), numbers("/off")], [vec![1, 2, 3], vec![1], vec![2], vec![]]);

    customer.client.patch(&customer.path(&format!("/endpoint/{off}")), &json!({ "disabled": false })).await.expect(200);
    let change = json!({ "channels": null, "eventTypes": ["invoice.sent"] });
    customer.client.patch(&customer.path(&format!("/endpoint/{berlin}")), &change).await.expect(200);
    publish(json!({ "eventType": "invoice.sent", "payload": { "n": 4 } })).await;
    app.database.nothing_owed().await;
    assert_eq!([numbers("/berlin"), numbers("/off"), numbers("/paid")], [vec![2, 4], vec![4], vec![1]]);

    let unknown = customer.client.post(&customer.path("/endpoint"), &json!({ "url": receiver.url("/"), "eventTypes": ["no.such"] })).await;
    assert_eq!((unknown.status, unknown.json()["detail"][0]["loc"][1].as_str()), (422, Some("eventTypes")));
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_new_one_until_its_grace_ends() {
    let app = App::start().await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "secret": given })).await;
    let shown = api.endpoint().get_secret(customer.id.clone(), endpoint.clone()).await.expect("the secret");
    assert_eq!(shown.key, given);
    let rotate = customer.path(&format!("/endpoint/{endpoint}/secret/rotate"));
    customer.client.post(&rotate, &json!({})).await.expect(200);
    let second = customer.secret(&endpoint).await;
    assert_ne!(second, given, "a random one");
    customer.publish(&json!({ "n": 1 })).await;
    let webhook = receiver.received(1).await.remove(0);
    for secret in [given, &second] {
        Webhook::new(secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).expect("both sign");
    }
    assert!(webhook.header("webhook-signature").split(' ').count() == 2);

    let third = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    customer.client.post(&rotate, &json!({ "key": third, "gracePeriodSeconds": 0 })).await.expect(200);
    customer.publish(&json!({ "n": 2 })).await;
    let webhook = receiver.received(2).await.remove(1);
    let verdict = |secret: &str| Webhook::new(secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).is_ok();
    assert_eq!([verdict(given), verdict(&second), verdict(third)], [true, false, true], "without grace the second signs no more");
}

#[tokio::test]
async fn custom_headers_are_sent_and_sensitive_ones_are_not_shown_again() {
    let app = App::start().await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let new = json!({ "url": receiver.url("/"), "headers": { "X-Region": "eu", "Authorization": "Bearer sesame" } });
    let endpoint = customer.endpoint_with(&new).await;
    customer.publish(&json!({ "n": 1 })).await;
    let webhook = receiver.received(1).await.remove(0);
    assert_eq!((webhook.header("x-region"), webhook.header("authorization")), ("eu", "Bearer sesame"));

    let (id, ep) = (customer.id.clone(), endpoint.clone());
    let mut change = EndpointHeadersPatchIn::new([("X-Tier".to_owned(), "1".to_owned())].into());
    change.delete_headers = Some(vec!["X-Region".into()]);
    api.endpoint().patch_headers(id.clone(), ep.clone(), change).await.expect("a change");
    let shown = api.endpoint().get_headers(id.clone(), ep.clone()).await.expect("the headers");
    assert_eq!(shown.headers.keys().map(|name| name.to_lowercase()).collect::<Vec<_>>(), ["x-tier"]);
    assert_eq!(shown.sensitive.iter().map(|name| name.to_lowercase()).collect::<Vec<_>>(), ["authorization"]);
    customer.publish(&json!({ "n": 2 })).await;
    let webhook = receiver.received(2).await.remove(1);
    assert_eq!((webhook.all("x-region").len(), webhook.header("x-tier"), webhook.header("authorization")), (0, "1", "Bearer sesame"));

    let replacement = EndpointHeadersIn::new([("X-Only".to_owned(), "this".to_owned())].into());
    api.endpoint().set_headers(id, ep, replacement).await.expect("a replacement");
    customer.publish(&json!({ "n": 3 })).await;
    let webhook = receiver.received(3).await.remove(2);
    assert_eq!((webhook.header("x-only"), webhook.all("x-tier").len(), webhook.all("authorization").len()), ("this", 0, 0));
}

#[tokio::test]
async fn an_endpoint_uid_is_unique_in_its_application_alone() {
    let app = App::start().await;
    let (one, other) = (app.customer().await, app.customer().await);
    let new = json!({ "url": "https://example.com/", "uid": "main" });
    one.endpoint_with(&new).await;
    other.endpoint_with(&new).await;
    assert_eq!(one.client.post(&one.path("/endpoint"), &new).await.status, 409);
    one.client.delete(&one.path("/endpoint/main")).await.expect(204);
    one.endpoint_with(&new).await;
    assert_eq!(one.client.put(&one.path("/endpoint/absent"), &json!({ "url": "https://example.com/" })).await.status, 201);
}
