//! The application behind operational webhooks shows nowhere, and nothing can be done to it.

use serde_json::json;
use support::{App, application_token, customer::message};

use super::listen;

#[tokio::test]
async fn the_hidden_application_is_found_by_no_operation() {
    let app = App::start().await;
    let endpoint = listen(&app.client, "https://example.com/").await;
    let customer = app.customer().await;
    customer.endpoint("https://example.com/").await;
    super::all_is_published(&app.database).await;
    let id = app.database.texts("select posthaste_id('app', id) from application where is_own").await.remove(0);
    // By now every cache knows it.
    let listed = customer.pages("/api/v1/app").await;
    assert_eq!(listed.iter().map(|application| &application["id"]).collect::<Vec<_>>(), [&json!(customer.id)]);

    let bearer = app.client.with_token(&application_token(&app.tenant, &id));
    for client in [&app.client, &bearer] {
        for path in ["", "/endpoint", "/msg", &format!("/endpoint/{endpoint}"), &format!("/attempt/endpoint/{endpoint}")] {
            client.get(&format!("/api/v1/app/{id}{path}")).await.expect(404);
        }
        client.post(&format!("/api/v1/app/{id}/endpoint"), &json!({ "url": "https://example.com/" })).await.expect(404);
    }
    let publish = |key: Option<&str>| {
        let request = app.client.request("POST", &format!("/api/v1/app/{id}/msg")).json(&message(&json!({})));
        if let Some(key) = key { request.key(key) } else { request }
    };
    publish(None).send().await.expect(404);
    publish(Some("key")).send().await.expect(404);
    app.client.put(&format!("/api/v1/app/{id}"), &json!({ "name": "x" })).await.expect(404);
    app.client.patch(&format!("/api/v1/app/{id}"), &json!({ "name": "x" })).await.expect(404);
    app.client.delete(&format!("/api/v1/app/{id}")).await.expect(404);

    app.client.post("/api/v1/app", &json!({ "name": "x", "uid": "!own" })).await.expect(422);
    let named = app.client.get("/api/v1/app/%21own").await;
    assert!(matches!(named.status, 404 | 422), "{named:?}");
    let own = app.database.number("select count(*) from application where is_own and deleted_at is null and name = ''").await;
    assert_eq!(own, 1, "nothing was done to it");
    assert_eq!(app.client.get(&customer.path(&format!("/endpoint/{endpoint}"))).await.status, 404);
}
