//! Event types: what endpoints may filter on.

use serde_json::json;
use support::{App, Receiver};
use svix::{
    api::{EventTypeDeleteOptions, EventTypeListOptions},
    models::{EventTypeIn, EventTypePatch, EventTypeUpsertIn},
};

use super::status_of;

#[tokio::test]
async fn an_event_type_is_declared_changed_listed_archived_and_removed() {
    let app = App::start().await;
    let api = app.sdk().await;
    let new = EventTypeIn {
        schemas: Some(json!({ "1": { "type": "object" } })),
        group_name: Some("billing".into()),
        ..EventTypeIn::new("invoice.paid".into(), "an invoice was paid".into())
    };
    let created = api.event_type().create(new.clone(), None).await.expect("a new event type");
    assert_eq!(status_of(api.event_type().create(new.clone(), None).await), 409);
    let shown = api.event_type().get("invoice.paid".into()).await.expect("by its name");
    assert_eq!(shown, created);
    assert_eq!((shown.schemas, shown.group_name.as_deref()), (Some(json!({ "1": { "type": "object" } })), Some("billing")));

    let change = EventTypePatch { description: Some("paid in full".into()), deprecated: Some(true), ..EventTypePatch::new() };
    api.event_type().patch("invoice.paid".into(), change).await.expect("a change");
    let shown = api.event_type().get("invoice.paid".into()).await.expect("by its name");
    assert_eq!((shown.description.as_str(), shown.deprecated, shown.group_name.as_deref()), ("paid in full", true, Some("billing")));
    api.event_type().upsert("a.first".into(), EventTypeUpsertIn::new("made by PUT".into())).await.expect("a new one");
    let names = async |include_archived| {
        let options = EventTypeListOptions { include_archived, with_content: Some(true), ..Default::default() };
        let list = api.event_type().list(Some(options)).await.expect("a list");
        list.data.into_iter().map(|event_type| event_type.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None).await, ["a.first", "invoice.paid"], "by name");

    api.event_type().delete("invoice.paid".into(), None).await.expect("it is archived");
    assert_eq!(names(None).await, ["a.first"]);
    assert_eq!(names(Some(true)).await, ["a.first", "invoice.paid"]);
    assert_eq!(api.event_type().get("invoice.paid".into()).await.expect("the archived one").archived, Some(true));
    let again = api.event_type().create(EventTypeIn { description: "back".into(), ..new }, None).await.expect("out of the archive");
    assert_eq!((again.description.as_str(), again.archived), ("back", Some(false)));
    api.event_type().delete("invoice.paid".into(), Some(EventTypeDeleteOptions { expunge: Some(true) })).await.expect("its end");
    assert_eq!(status_of(api.event_type().get("invoice.paid".into()).await), 404);
    assert_eq!(names(Some(true)).await, ["a.first"]);
}

#[tokio::test]
async fn an_archived_event_type_is_no_longer_offered_to_endpoints() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    app.client.post("/api/v1/event-type", &json!({ "name": "old", "description": "" })).await.expect(201);
    let body = json!({ "url": receiver.url("/"), "eventTypes": ["old"] });
    customer.endpoint_with(&body).await;
    app.client.patch("/api/v1/event-type/old", &json!({ "archived": true })).await.expect(200);
    let refused = customer.client.post(&customer.path("/endpoint"), &body).await.expect(422).json();
    assert!(refused["detail"][0]["msg"].as_str().expect("a reason").contains("old"), "{refused}");
    customer.publish_raw(&json!({ "eventType": "old", "payload": {} }), None).await.expect(202);
    receiver.received(1).await;
    app.client.patch("/api/v1/event-type/old", &json!({ "archived": false })).await.expect(200);
    customer.endpoint_with(&body).await;
}

#[tokio::test]
async fn an_endpoint_keeps_the_archived_event_types_that_it_has_and_takes_no_new_ones() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    for name in ["kept", "gone", "new", "retired"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
    }
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "eventTypes": ["kept", "gone"] })).await;
    for (name, query) in [("kept", ""), ("gone", "?expunge=true"), ("retired", "")] {
        app.client.delete(&format!("/api/v1/event-type/{name}{query}")).await.expect(204);
    }
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    let send = async |method: &str, names: serde_json::Value| {
        let body = json!({ "url": receiver.url("/"), "eventTypes": names });
        app.client.request(method, &path).json(&body).send().await
    };
    for method in ["PUT", "PATCH"] {
        send(method, json!(["kept", "gone"])).await.expect(200);
        send(method, json!(["kept", "gone", "new"])).await.expect(200);
        for unwanted in ["retired", "unknown"] {
            let refusal = send(method, json!(["kept", unwanted])).await.expect(422).json();
            assert_eq!(refusal["detail"][0]["loc"], json!(["body", "eventTypes"]), "{refusal}");
            let told = refusal["detail"][0]["msg"].as_str().expect("a reason");
            assert!(told.contains(unwanted) && !told.contains("kept"), "{refusal}");
        }
    }
    customer.publish_raw(&json!({ "eventType": "kept", "payload": {} }), None).await.expect(202);
    receiver.received(1).await;
    send("PUT", json!(["new"])).await.expect(200);
    assert_eq!(send("PUT", json!(["new", "kept"])).await.status, 422, "what it has let go it does not get back");
}

#[tokio::test]
async fn an_event_type_list_is_paged_by_name() {
    let app = App::start().await;
    for name in ["e", "c", "a", "d", "b"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": name })).await.expect(201);
    }
    let page = async |query: &str| {
        let page = app.client.get(&format!("/api/v1/event-type?limit=2{query}")).await.expect(200).json();
        let names: String = page["data"].as_array().expect("a page").iter().map(|item| item["name"].as_str().expect("a name")).collect();
        (names, page["iterator"].as_str().map(str::to_owned), page["done"] == true)
    };
    let (names, next, _) = page("").await;
    assert_eq!(names, "ab");
    let (names, next, _) = page(&format!("&iterator={}", next.expect("more"))).await;
    assert_eq!(names, "cd");
    assert_eq!(page(&format!("&iterator={}", next.expect("more"))).await.0, "e");
    assert_eq!(page("&order=descending").await.0, "ed");
}
