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

const DOCUMENT: &str = "
openapi: 3.1.0
webhooks:
  invoice.paid:
    post:
      description: Somebody paid
      tags: [invoices]
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/Invoice'}}}}
  invoice.old:
    post: {deprecated: true}
components:
  schemas:
    Invoice: {type: object, required: [id], properties: {id: {type: string}, lines: {type: array, items: {$ref: '#/components/schemas/Line'}}}}
    Line: {type: object}
";

#[tokio::test]
async fn the_webhooks_of_an_openapi_document_become_event_types_in_both_dialects() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    app.client
        .post("/api/v1/event-type", &json!({ "name": "invoice.paid", "description": "as it was", "archived": true }))
        .await
        .expect(201);
    app.client.post("/api/v1/event-type", &json!({ "name": "other", "description": "" })).await.expect(201);
    let imported = project.done("POST", "/event-types/import", &json!({ "spec": DOCUMENT }), 200).await;
    let imported = imported.as_array().expect("a list");
    assert_eq!(imported.len(), 2);
    assert_eq!((&imported[1]["name"], &imported[1]["category"]), (&json!("invoice.paid"), &json!("invoices")));
    let shown = app.client.get("/api/v1/event-type/invoice.paid").await.expect(200).json();
    assert_eq!((&shown["description"], &shown["archived"]), (&json!("Somebody paid"), &json!(false)));
    assert_eq!(shown["schemas"]["1"]["components"]["schemas"]["Line"], json!({ "type": "object" }));
    assert_eq!(app.client.get("/api/v1/event-type/invoice.old").await.expect(200).json()["deprecated"], true);

    let import = async |body: Value, status: u16| app.client.post("/api/v1/event-type/import/openapi", &body).await.expect(status).json();
    let spec = json!({ "webhooks": { "a.new": { "post": { "summary": "new" } } } });
    let dry = import(json!({ "spec": spec, "dryRun": true }), 200).await;
    assert_eq!((&dry["data"]["modified"], &dry["data"]["to_modify"][0]["name"]), (&json!([]), &json!("a.new")));
    app.client.get("/api/v1/event-type/a.new").await.expect(404);
    let done = import(json!({ "spec": spec, "replaceAll": true }), 200).await;
    assert_eq!(done["data"]["modified"], json!(["a.new"]));
    let names = project.get("/event-types").await;
    assert_eq!(names.as_array().map(|names| names.iter().map(|shown| shown["name"].clone()).collect()), Some(vec![json!("a.new")]));
    import(json!({ "specRaw": DOCUMENT }), 200).await;
    assert_eq!(project.get("/event-types").await.as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_document_with_a_fault_declares_nothing_and_is_told_where() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let second = "webhooks: {a: {post: {}}, b: {post: {requestBody: {content: {application/json: {schema: {$ref: 'x.yaml#/B'}}}}}}}";
    for (spec, told) in [
        ("", "body.spec: "),
        ("{", "body.spec: is neither JSON nor YAML"),
        ("openapi: 3.1.0", "body.spec: has no webhooks"),
        (second, "body.spec.webhooks.b.post.requestBody.content.application/json.schema: refers to `x.yaml#/B`"),
    ] {
        let why = project.refused("POST", "/event-types/import", &json!({ "spec": spec }), 400).await;
        assert!(why.starts_with(told), "{why}");
    }
    for (body, place) in [
        (json!({}), json!(["body", "spec"])),
        (json!({ "spec": {}, "specRaw": "a: 1" }), json!(["body", "spec"])),
        (
            json!({ "specRaw": second }),
            json!(["body", "specRaw", "webhooks", "b", "post", "requestBody", "content", "application/json", "schema"]),
        ),
    ] {
        let refused = app.client.post("/api/v1/event-type/import/openapi", &body).await.expect(422).json();
        assert_eq!(refused["detail"][0]["loc"], place, "{refused}");
    }
    assert_eq!(project.get("/event-types").await, json!([]));
}
