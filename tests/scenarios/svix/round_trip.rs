//! What GET shows can be sent back, and a null says no more than nothing does.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{App, Client, Customer, Receiver, contract, new_tenant, token};

/// Everything that can be replaced, with all its fields set: the path that shows it and what a creation says.
async fn stage(app: &App, receiver: &Receiver) -> (Customer, [String; 8]) {
    let types = json!({ "name": "a.b", "description": "d", "archived": false, "deprecated": true, "groupName": "g", "featureFlag": "f",
        "schemas": { "1": { "type": "object" } } });
    app.client.post("/api/v1/event-type", &types).await.expect(201);
    let customer = app.customer().await;
    app.client.patch(&customer.path(""), &json!({ "uid": "acme", "metadata": { "k": "v" } })).await.expect(200);
    let endpoint = customer
        .endpoint_with(&json!({ "url": receiver.url("/"), "uid": "main", "description": "d", "version": 7, "eventTypes": ["a.b"],
            "channels": ["c"], "throttleRate": 100, "metadata": { "k": "v" }, "headers": { "X-Plain": "p", "Authorization": "Bearer s" } }))
        .await;
    app.client.put("/api/v1/idempotency/policy", &json!({ "preset": "novu", "waitMs": 7 })).await.expect(200);
    let own = json!({ "url": "https://example.com/", "uid": "ops", "description": "d", "eventTypes": ["endpoint.disabled"], "throttleRate": 100,
        "metadata": { "k": "v" }, "headers": { "X-Plain": "p", "Authorization": "Bearer s" } });
    app.client.post("/api/v1/operational-webhook/endpoint", &own).await.expect(201);
    let of_endpoint = customer.path(&format!("/endpoint/{endpoint}"));
    let paths = [
        customer.path(""),
        of_endpoint.clone(),
        format!("{of_endpoint}/headers"),
        "/api/v1/event-type/a.b".to_owned(),
        "/api/v1/idempotency/policy".to_owned(),
        "/api/v1/retry/policy".to_owned(),
        "/api/v1/operational-webhook/endpoint/ops".to_owned(),
        "/api/v1/operational-webhook/endpoint/ops/headers".to_owned(),
    ];
    (customer, paths)
}

/// What does not change although something is written.
fn lasting(mut shown: Value) -> Value {
    if let Some(members) = shown.as_object_mut() {
        members.remove("updatedAt");
    }
    shown
}

#[tokio::test]
async fn whatever_is_shown_can_be_put_back_and_nothing_changes() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (customer, paths) = stage(&app, &receiver).await;
    let of = |method: &str| {
        let operations = contract::operations_of_svix().into_iter().filter(|(found, _)| found == method);
        operations.map(|(_, template)| template).collect::<BTreeSet<_>>()
    };
    assert_eq!(of("PUT").len(), paths.len(), "each operation that replaces something is tried here");
    assert!(of("PUT").is_subset(&of("GET")));
    for path in &paths {
        for full in [true, false] {
            let shown = app.client.get(path).await.expect(200).json();
            let answer = app.client.put(path, &shown).await;
            assert!(matches!(answer.status, 200 | 204), "PUT {path} {shown}: {answer:?}");
            assert_eq!(lasting(app.client.get(path).await.expect(200).json()), lasting(shown.clone()), "{path}");
            if full && path.ends_with(&customer.id) {
                app.client.put(path, &json!({ "name": "x" })).await.expect(200);
            } else if full && path.ends_with("a.b") {
                app.client.put(path, &json!({ "description": "" })).await.expect(200);
            } else if full && path.ends_with("policy") {
                app.client.put(path, &json!({})).await.expect(200);
            }
        }
    }
    customer.publish_raw(&json!({ "eventType": "a.b", "payload": {}, "channels": ["c"] }), None).await.expect(202);
    let webhook = receiver.received(1).await.remove(0);
    assert_eq!((webhook.header("x-plain"), webhook.header("authorization")), ("p", "Bearer s"), "also what is not shown again is kept");
    let endpoint = &paths[1];
    app.client.put(endpoint, &json!({ "url": receiver.url("/") })).await.expect(200);
    let bare = app.client.get(endpoint).await.expect(200).json();
    app.client.put(endpoint, &bare).await.expect(200);
    assert_eq!(lasting(app.client.get(endpoint).await.expect(200).json()), lasting(bare));
}

#[tokio::test]
async fn whatever_is_shown_can_be_created_again_elsewhere() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (customer, [application, endpoint, _, event_type, _, _, own, _]) = stage(&app, &receiver).await;
    let sent = json!({ "eventType": "a.b", "payload": { "n": 1 }, "eventId": "e", "channels": ["c"], "idempotency_key": "k" });
    let message = customer.publish_raw(&sent, None).await.expect(202).text("id");
    let message = customer.path(&format!("/msg/{message}"));
    let shown = async |path: &str| app.client.get(path).await.expect(200).json();
    let elsewhere = app.client.with_token(&token(&new_tenant()));
    elsewhere.post("/api/v1/event-type", &shown(&event_type).await).await.expect(201);
    elsewhere.post("/api/v1/app", &shown(&application).await).await.expect(201);
    elsewhere.post("/api/v1/app/acme/endpoint", &shown(&endpoint).await).await.expect(201);
    elsewhere.post("/api/v1/app/acme/msg", &shown(&message).await).await.expect(202);
    elsewhere.post("/api/v1/operational-webhook/endpoint", &shown(&own).await).await.expect(201);
    for (path, here, member) in [
        ("/api/v1/event-type/a.b", &event_type, "schemas"),
        ("/api/v1/app/acme", &application, "metadata"),
        ("/api/v1/app/acme/endpoint/main", &endpoint, "filterTypes"),
        ("/api/v1/app/acme/msg/e", &message, "payload"),
        ("/api/v1/operational-webhook/endpoint/ops", &own, "eventTypes"),
    ] {
        assert_eq!(elsewhere.get(path).await.expect(200).json()[member], shown(here).await[member], "{path}");
    }
}

#[tokio::test]
async fn a_field_with_two_names_says_the_same_under_both_or_is_refused() {
    let app = App::start().await;
    let customer = app.customer().await;
    for name in ["a", "b"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
    }
    let endpoint = customer.endpoint("https://example.com/").await;
    let of_endpoint = customer.path(&format!("/endpoint/{endpoint}"));
    let ways = [("POST", customer.path("/endpoint"), 201), ("PUT", of_endpoint.clone(), 200), ("PATCH", of_endpoint, 200)];
    for (method, path, status) in ways {
        let send = async |names: [(&str, Value); 2]| {
            let mut body = json!({ "url": "https://example.com/" });
            for (name, value) in names {
                body[name] = value;
            }
            app.client.request(method, &path).json(&body).send().await
        };
        let agreed = send([("eventTypes", json!(["a"])), ("filterTypes", json!(["a"]))]).await.expect(status).json();
        assert_eq!([&agreed["eventTypes"], &agreed["filterTypes"]], [&json!(["a"]), &json!(["a"])], "{method}");
        let agreed = send([("throttleRate", json!(5)), ("rateLimit", json!(5))]).await.expect(status).json();
        assert_eq!([&agreed["throttleRate"], &agreed["rateLimit"]], [&json!(5), &json!(5)], "{method}");
        for (name, old_name, one, other) in
            [("eventTypes", "filterTypes", json!(["a"]), json!(["b"])), ("throttleRate", "rateLimit", json!(5), json!(6))]
        {
            let refusal = send([(name, one), (old_name, other)]).await.expect(422).json();
            assert_eq!(refusal["detail"][0]["loc"], json!(["body", old_name]), "{method} {refusal}");
            assert!(refusal["detail"][0]["msg"].as_str().expect("a reason").contains(name), "{method} {refusal}");
            let alone = send([(old_name, Value::Null), (name, if name == "eventTypes" { json!(["b"]) } else { json!(7) })]).await;
            assert_eq!(alone.status, if method == "PATCH" { 422 } else { status }, "{method}: a null is nothing, but in a PATCH it unsets");
        }
    }
}

/// Fields of the contract that are not acted on: they are not in the document, and a null of them says nothing.
const NOT_YET: [(&str, &[&str]); 3] = [
    ("/api/v1/app", &["throttleRate", "rateLimit"]),
    ("/api/v1/event-type", &["featureFlags"]),
    ("/api/v1/app/{app_id}/msg", &["deliverAt", "transformationsParams", "payloadRetentionHours"]),
];

async fn answer_to(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Vec<u8>) {
    let answer = client.request(method, path).json(body).send().await;
    (answer.status, answer.body.to_vec())
}

#[tokio::test]
async fn a_null_of_an_optional_field_is_no_field() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let own_endpoint = json!({ "url": "https://example.com/" });
    let own_endpoint = app.client.post("/api/v1/operational-webhook/endpoint", &own_endpoint).await.expect(201).text("id");
    let message = customer.publish(&json!({})).await;
    app.client
        .post("/api/v1/event-type", &json!({ "name": "a", "description": "", "schemas": { "1": { "examples": [{}] } } }))
        .await
        .expect(201);
    let required = json!({ "name": "n", "url": "https://example.com/", "description": "d", "eventType": "a", "payload": {}, "headers": {},
            "since": "2026-01-01T00:00:00Z" });
    let mut tried = 0;
    for (method, template) in contract::operations_of_svix() {
        if !matches!(method.as_str(), "POST" | "PUT") {
            continue;
        }
        let of_path = if template.contains("/operational-webhook/") { &own_endpoint } else { &endpoint };
        let path = template.replace("{app_id}", &customer.id).replace("{endpoint_id}", of_path).replace("{msg_id}", &message);
        let path = path.replace("{event_type_name}", "a");
        let fields = contract::fields(&method, &template);
        let mut body = json!({});
        for (name, _) in fields.iter().filter(|(_, is_required)| *is_required) {
            body[name] = required[name].clone();
        }
        let not_yet = NOT_YET.iter().filter(|(of, _)| *of == template).flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned()));
        let optional = fields.into_iter().filter(|(_, is_required)| !is_required).map(|(name, _)| name);
        for name in optional.chain(not_yet) {
            let mut with_null = body.clone();
            with_null[&name] = Value::Null;
            // Of two fields one has to be there.
            if template == "/api/v1/event-type/import/openapi" {
                let document = json!({ "openapi": "3.1.0", "info": { "title": "t", "version": "1" }, "webhooks": { "z": { "post": { "summary": "s" } } } });
                with_null[if name == "spec" { "specRaw" } else { "spec" }] =
                    if name == "spec" { json!(document.to_string()) } else { document };
            }
            if template == "/api/v1/event-type" {
                app.client.delete("/api/v1/event-type/n?expunge=true").await;
            }
            let (status, text) = answer_to(&app.client, &method, &path, &with_null).await;
            assert!((200..300).contains(&status), "{method} {template} {with_null}: {status} {}", String::from_utf8_lossy(&text));
            tried += 1;
        }
    }
    assert!(tried > 40, "the table of fields has become empty: {tried}");
    let shown = customer.show(&endpoint).await;
    assert_eq!((&shown["version"], &shown["disabled"], &shown["description"]), (&json!(1), &json!(false), &json!("")));
}
