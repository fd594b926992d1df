//! Event types, which both dialects share.

use serde_json::{Value, json};
use support::{App, Project, project::uid};

#[tokio::test]
async fn an_event_type_is_the_same_in_both_dialects() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let schema = json!({ "type": "object", "required": ["id"] });
    let body = json!({ "name": "invoice.paid", "description": "Somebody paid", "category": "Invoices!", "json_schema": schema });
    let made = project.post("/event-types", &body).await;
    for field in ["name", "description", "category", "json_schema"] {
        assert_eq!(made[field], body[field], "{field}");
    }
    assert_eq!(made["deprecated_at"], Value::Null);
    let there = app.client.get("/api/v1/event-type/invoice.paid").await.expect(200).json();
    assert_eq!((&there["groupName"], &there["schemas"]), (&json!("Invoices!"), &json!({ "1": schema })));

    app.client.post("/api/v1/event-type", &json!({ "name": "a.first", "description": "" })).await.expect(201);
    let listed = project.get("/event-types").await;
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["a.first", "invoice.paid"]);
    assert_eq!(listed[0]["json_schema"], json!({}));

    let path = format!("/event-types/{}", uid(&made));
    let changed = project.put(&path, &json!({ "description": "It was paid", "json_schema": {} })).await;
    assert_eq!(
        (&changed["description"], &changed["category"], &changed["json_schema"]),
        (&json!("It was paid"), &json!("Invoices!"), &json!({}))
    );
    let deprecated = project.done("POST", &format!("{path}/deprecate"), &Value::Null, 200).await;
    assert!(deprecated["deprecated_at"].is_string());
    assert_eq!(app.client.get("/api/v1/event-type/invoice.paid").await.expect(200).json()["deprecated"], true);
}

#[tokio::test]
async fn what_is_no_event_type_is_refused() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    project.post("/event-types", &json!({ "name": "taken" })).await;
    let again = project.refused("POST", "/event-types", &json!({ "name": "taken" }), 400).await;
    assert!(again.contains("already exists"), "{again}");
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": "a b" }), "name"),
        (json!({ "name": "a", "json_schema": { "type": "nothing" } }), "json_schema"),
        (json!({ "name": "a", "json_schema": [] }), "json_schema"),
        (json!({ "name": "a", "description": "\u{0}" }), "description"),
    ] {
        let why = project.refused("POST", "/event-types", &body, 400).await;
        assert!(why.starts_with(&format!("body.{field}: ")), "{why}");
    }
    for unknown in ["01J0000000E008000000000001", "taken"] {
        project.refused("PUT", &format!("/event-types/{unknown}"), &json!({ "description": "x" }), 404).await;
        project.refused("POST", &format!("/event-types/{unknown}/deprecate"), &Value::Null, 404).await;
    }
    assert_eq!(project.get("/event-types").await.as_array().map(Vec::len), Some(1));
}
