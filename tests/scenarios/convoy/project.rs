//! A tenant as a project.

use serde_json::{Value, json};
use support::{App, Project, new_tenant, project::uid, token};

#[tokio::test]
async fn a_caller_sees_the_one_project_that_it_is_of() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let shown = project.get("").await;
    assert_eq!((&shown["name"], &shown["type"], &shown["deleted_at"]), (&json!(app.tenant), &json!("outgoing"), &Value::Null));
    assert_eq!(shown["config"]["signature"]["header"], "X-Convoy-Signature");
    assert_eq!(shown["config"]["signature"]["versions"][0]["hash"], "SHA256");
    let other = Project::of(&app.client.with_token(&token(&new_tenant()))).await;
    assert_ne!(other.id, project.id);
}

#[tokio::test]
async fn a_project_changes_by_what_is_given() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let strategy = json!({ "type": "exponential", "duration": 10, "retry_count": 4 });
    let versions = json!([{ "hash": "SHA512", "encoding": "base64", "uid": "one", "created_at": "2026-08-21T12:00:00Z" }]);
    let config = json!({ "strategy": strategy, "signature": { "header": "X-Acme-Signature", "versions": versions }, "multiple_endpoint_subscriptions": true });
    let changed = project.put("", &json!({ "name": "Acme", "config": config })).await;
    assert_eq!((&changed["name"], &changed["config"]["strategy"]), (&json!("Acme"), &strategy));
    assert_eq!(changed["config"]["signature"], config["signature"]);
    let changed = project.put("", &json!({ "logo_url": "https://example.com/logo.png", "config": { "strategy": null } })).await;
    assert_eq!((&changed["name"], &changed["config"]["strategy"]), (&json!("Acme"), &Value::Null));
    assert_eq!(changed["config"]["multiple_endpoint_subscriptions"], true);
    assert_eq!(project.get("").await, changed);
    // What is shown may be sent back.
    let again = project.put("", &changed).await;
    assert_eq!(again["config"], changed["config"]);

    let row = app.database.texts("select count(*)::text || ' ' || count(distinct application_id)::text from project").await;
    assert_eq!(row, ["1 1"]);
}

#[tokio::test]
async fn many_that_write_first_make_one_project() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let second = project.with_token(&token(&app.tenant));
    let node = app.second_node().await;
    let elsewhere = Project { client: node.client.clone(), id: project.id.clone() };
    let writes = (0..12).map(|number| {
        let through = [&project, &second, &elsewhere][number % 3];
        async move { through.put("", &json!({ "name": format!("name {number}") })).await }
    });
    futures::future::join_all(writes).await;
    let made = app.database.number("select count(*) from application where not is_own").await;
    assert_eq!(made, 1);
}

#[tokio::test]
async fn what_a_project_cannot_have_is_refused_by_name() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let before = project.get("").await;
    for (config, field) in [
        (json!({ "strategy": { "type": "linear", "duration": 0, "retry_count": 3 } }), "config.strategy"),
        (json!({ "strategy": { "type": "random", "duration": 1, "retry_count": 3 } }), "config.strategy.type"),
        (json!({ "strategy": { "type": "linear", "duration": 1, "retry_count": 101 } }), "config.strategy"),
        (json!({ "signature": { "header": "Host", "versions": [] } }), "config.signature.header"),
        (
            json!({ "signature": { "header": "X-A", "versions": [{ "hash": "MD5", "encoding": "hex" }] } }),
            "config.signature.versions.0.hash",
        ),
        (json!({ "disable_endpoint": true }), "config.disable_endpoint"),
        (json!({ "add_event_id_trace_headers": true }), "config.add_event_id_trace_headers"),
        (json!({ "request_id_header": "X-Mine" }), "config.request_id_header"),
        (json!({ "max_payload_read_size": 1 }), "config.max_payload_read_size"),
        (json!({ "ratelimit": { "count": 1, "duration": 1 } }), "config.ratelimit"),
        (json!({ "circuit_breaker": { "sample_rate": 1 } }), "config.circuit_breaker"),
        (json!({ "meta_event": { "is_enabled": true, "url": "https://example.com/" } }), "config.meta_event"),
        (json!({ "multiple_endpoint_subscriptions": "yes" }), "config.multiple_endpoint_subscriptions"),
    ] {
        let why = project.refused("PUT", "", &json!({ "name": "x", "config": config }), 400).await;
        assert!(why.starts_with(&format!("body.{field}: ")), "{field}: {why}");
    }
    for (body, field) in [(json!({ "name": "" }), "name"), (json!({ "name": null }), "name"), (json!({ "type": "sideways" }), "type")] {
        let why = project.refused("PUT", "", &body, 400).await;
        assert!(why.starts_with(&format!("body.{field}: ")), "{field}: {why}");
    }
    assert_eq!(project.get("").await, before);
}

#[tokio::test]
async fn a_write_under_a_key_is_done_once() {
    let app = App::start().await;
    app.client.put("/api/v1/idempotency/policy", &json!({ "methods": ["POST", "PUT"] })).await.expect(200);
    let project = Project::of(&app.client).await;
    let send = async || {
        let request = app.client.request("PUT", &project.path("")).key("once").json(&json!({ "name": "Once" }));
        request.send().await.expect(202)
    };
    let (first, second) = (send().await, send().await);
    assert!(!first.is_replay() && second.is_replay());
    assert_eq!(first.json(), second.json());
}

#[tokio::test]
async fn a_project_is_created_once_with_a_key_that_opens_it() {
    let app = App::start().await;
    let before = Project::of(&app.client).await;
    let made = {
        let body = json!({ "name": "Acme", "type": "incoming", "config": { "ssl": { "enforce_secure_endpoints": true } } });
        app.client.post("/api/v1/projects", &body).await.expect(201).json()["data"].clone()
    };
    assert_eq!((&made["project"]["uid"], &made["project"]["type"]), (&json!(before.id), &json!("incoming")));
    let key = made["api_key"]["key"].as_str().expect("a key");
    let opened = before.with_token(key);
    assert_eq!(opened.get("").await["name"], "Acme");
    assert_eq!(opened.get("").await["config"]["ssl"]["enforce_secure_endpoints"], true);
    assert_eq!(app.database.number("select count(*) from api_key where hash is not null").await, 1);

    let again = app.client.post("/api/v1/projects", &json!({ "name": "Another", "type": "outgoing" })).await.expect(400).json();
    assert!(again["message"].as_str().is_some_and(|why| why.contains("posthaste key create --tenant")), "{again}");
    assert_eq!(opened.get("").await["name"], "Acme");
    assert_eq!(app.database.number("select count(*) from api_key").await, 1);
    for (body, field) in [(json!({ "type": "outgoing" }), "name"), (json!({ "name": "x" }), "type")] {
        let why = app.client.post("/api/v1/projects", &body).await.expect(400).json();
        assert!(why["message"].as_str().is_some_and(|why| why.starts_with(&format!("body.{field}: "))), "{why}");
    }
}

#[tokio::test]
async fn of_many_that_create_a_project_one_does() {
    let app = App::start().await;
    let node = app.second_node().await;
    let clients = [&app.client, &node.client];
    let creates = (0..8).map(|number| {
        let client = clients[number % 2];
        async move { client.post("/api/v1/projects", &json!({ "name": format!("name {number}"), "type": "outgoing" })).await.status }
    });
    let mut told = futures::future::join_all(creates).await;
    told.sort_unstable();
    assert_eq!(told, [201, 400, 400, 400, 400, 400, 400, 400]);
    assert_eq!(app.database.number("select count(*) from api_key").await, 1);
}

#[tokio::test]
async fn a_project_is_deleted_when_nothing_of_it_is_left() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    project.put("", &json!({ "name": "Acme", "config": { "multiple_endpoint_subscriptions": true } })).await;
    let endpoint = project.post("/endpoints", &json!({ "name": "one", "url": "https://example.com/", "owner_id": "somebody" })).await;
    let source = project.post("/sources", &json!({ "name": "one", "type": "http", "verifier": { "type": "noop" } })).await;
    for rest in [format!("/endpoints/{}", uid(&endpoint)), format!("/sources/{}", uid(&source))] {
        let why = project.refused("DELETE", "", &Value::Null, 400).await;
        assert!(why.contains("delete them first"), "{why}");
        assert_eq!(project.get("").await["name"], "Acme");
        project.delete(&rest).await;
    }
    project.delete("").await;
    let shown = project.get("").await;
    assert_eq!((&shown["name"], &shown["config"]["multiple_endpoint_subscriptions"]), (&json!(app.tenant), &json!(false)));
    app.client.post("/api/v1/projects", &json!({ "name": "Acme again", "type": "outgoing" })).await.expect(201);
}
