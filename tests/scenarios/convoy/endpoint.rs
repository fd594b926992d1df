//! Endpoints: of owners and of the project itself, beside those that the other dialect made.

use domain::api_key::Role;
use serde_json::{Value, json};
use support::{
    App, Project, Receiver, api_key, eventually,
    project::{items, uid},
};

/// What `POST /endpoints` needs.
fn endpoint(url: &str, more: &Value) -> Value {
    let mut body = json!({ "name": "Billing", "url": url });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

async fn make(project: &Project, more: &Value) -> Value {
    project.post("/endpoints", &endpoint("https://example.com/hooks", more)).await
}

#[tokio::test]
async fn an_endpoint_is_shown_as_it_was_made() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let plain = make(&project, &Value::Null).await;
    assert_eq!((&plain["status"], &plain["owner_id"], &plain["advanced_signatures"]), (&json!("active"), &json!(""), &json!(true)));
    assert_eq!((&plain["rate_limit"], &plain["http_timeout"], &plain["authentication"]), (&json!(0), &json!(0), &Value::Null));
    assert!(plain["secrets"][0]["value"].as_str().is_some_and(|secret| secret.len() == 32), "{plain}");
    assert_eq!(plain["secrets"][0]["expires_at"], Value::Null);

    let wanted = json!({
        "owner_id": "customer-1", "description": "of the first customer", "secret": "open sesame", "advanced_signatures": false,
        "http_timeout": 7, "rate_limit": 120, "rate_limit_duration": 60, "is_disabled": true, "content_type": "application/json",
        "support_email": "help@example.com", "slack_webhook_url": "https://hooks.example/s", "teams_webhook_url": "https://hooks.example/t",
        "authentication": { "type": "api_key", "api_key": { "header_name": "X-Api-Key", "header_value": "let me in" } },
    });
    let made = make(&project, &wanted).await;
    for field in
        wanted.as_object().expect("an object").keys().filter(|field| !["secret", "is_disabled", "authentication"].contains(&field.as_str()))
    {
        assert_eq!(made[field], wanted[field], "{field}");
    }
    assert_eq!((&made["status"], &made["secrets"][0]["value"]), (&json!("inactive"), &json!("open sesame")));
    assert_eq!(made["authentication"]["api_key"], wanted["authentication"]["api_key"]);
    assert_eq!(project.get(&format!("/endpoints/{}", uid(&made))).await, made);

    // An owner is an application of the other dialect.
    let there = app.client.get("/api/v1/app/customer-1/endpoint").await.expect(200).json();
    assert_eq!((&there["data"][0]["url"], &there["data"][0]["throttleRate"]), (&json!("https://example.com/hooks"), &json!(2)));
    let viewer = project.with_token(&api_key(&app.database, &app.tenant, Role::Viewer).await);
    let seen = viewer.get(&format!("/endpoints/{}", uid(&made))).await;
    assert_eq!((&seen["secrets"][0]["value"], &seen["authentication"]["api_key"]["header_value"]), (&json!(""), &json!("")));
}

#[tokio::test]
async fn the_endpoints_of_all_owners_are_one_list() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let customer = app.customer().await;
    let mut all = vec![customer.endpoint("https://svix.example/").await];
    app.client.post("/api/v1/operational-webhook/endpoint", &json!({ "url": "https://own.example/" })).await.expect(201);
    for (owner, name) in [("one", "Billing of one"), ("two", "Billing of two"), ("one", "Shipping"), ("", "Nobody's")] {
        all.push(uid(&make(&project, &json!({ "owner_id": owner, "name": name })).await));
    }
    let names = async |query: &str| {
        let page = project.get(&format!("/endpoints{query}")).await;
        items(&page).iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["Nobody's", "Shipping", "Billing of two", "Billing of one", ""]);
    assert_eq!(names("?sort=ASC&perPage=2").await, ["", "Billing of one"]);
    assert_eq!(names("?ownerId=one").await, ["Shipping", "Billing of one"]);
    assert_eq!(names("?q=BILLING").await, ["Billing of two", "Billing of one"]);
    assert_eq!(names("?q=svix.example").await, [""]);
    assert_eq!(names("?ownerId=nobody").await, Vec::<String>::new());
    let first = project.get("/endpoints?perPage=3").await;
    let next = first["pagination"]["next_page_cursor"].as_str().expect("a cursor");
    assert_eq!(names(&format!("?perPage=3&next_page_cursor={next}")).await, ["Billing of one", ""]);
    let last = project.get(&format!("/endpoints?perPage=3&next_page_cursor={next}")).await;
    assert_eq!((&last["pagination"]["has_next_page"], &last["pagination"]["has_prev_page"]), (&json!(false), &json!(true)));
    let back = last["pagination"]["prev_page_cursor"].as_str().expect("a cursor");
    assert_eq!(names(&format!("?perPage=3&direction=prev&prev_page_cursor={back}")).await, ["Nobody's", "Shipping", "Billing of two"]);
    let deleted = &all[2];
    project.delete(&format!("/endpoints/{deleted}")).await;
    project.refused("GET", &format!("/endpoints/{deleted}"), &Value::Null, 404).await;
    app.client.delete("/api/v1/app/one").await.expect(204);
    assert_eq!(names("").await, ["Nobody's", ""]);
}

#[tokio::test]
async fn many_that_name_an_owner_first_make_one_application() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let node = app.second_node().await;
    let elsewhere = Project { client: node.client.clone(), id: project.id.clone() };
    let makes = (0..12).map(|number| {
        let through = [&project, &elsewhere][number % 2];
        let owner = ["one", ""][number / 2 % 2];
        async move { make(through, &json!({ "owner_id": owner })).await }
    });
    futures::future::join_all(makes).await;
    assert_eq!(app.database.number("select count(*) from application").await, 2);
    assert_eq!(items(&project.get("/endpoints?ownerId=one").await).len(), 6);
}

#[tokio::test]
async fn an_endpoint_changes_by_what_is_given() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let made = make(&project, &json!({ "owner_id": "one", "secret": "first", "rate_limit": 10 })).await;
    let path = format!("/endpoints/{}", uid(&made));
    let changed = project.put(&path, &json!({ "name": "Billing, anew", "is_disabled": true, "owner_id": "one" })).await;
    assert_eq!((&changed["name"], &changed["status"], &changed["url"]), (&json!("Billing, anew"), &json!("inactive"), &made["url"]));
    assert_eq!((&changed["rate_limit"], &changed["rate_limit_duration"]), (&json!(10), &json!(1)));
    let changed =
        project.put(&path, &json!({ "url": "https://example.com/new", "rate_limit": 0, "secret": "second", "is_disabled": false })).await;
    assert_eq!(
        (&changed["url"], &changed["rate_limit"], &changed["status"]),
        (&json!("https://example.com/new"), &json!(0), &json!("active"))
    );
    let secrets = |shown: &Value| {
        let secrets = shown["secrets"].as_array().expect("a list").iter();
        secrets.map(|secret| (secret["value"].as_str().expect("a text").to_owned(), secret["expires_at"].is_null())).collect::<Vec<_>>()
    };
    assert_eq!(secrets(&changed), [("first".to_owned(), false), ("second".to_owned(), true)]);
    let rolled = project.done("PUT", &format!("{path}/expire_secret"), &json!({ "secret": "third", "expiration": 2 }), 200).await;
    assert_eq!(secrets(&rolled).last(), Some(&("third".to_owned(), true)));
    assert_eq!(secrets(&rolled).len(), 3);
    let authentication = json!({ "type": "basic_auth", "basic_auth": { "username": "me", "password": "pass" } });
    let changed = project.put(&path, &json!({ "authentication": authentication })).await;
    assert_eq!(changed["authentication"]["basic_auth"], authentication["basic_auth"]);
    assert_eq!(project.get(&path).await, changed);

    let refused = project.refused("PUT", &path, &json!({ "owner_id": "two" }), 400).await;
    assert!(refused.starts_with("body.owner_id: "), "{refused}");
    project.put("", &json!({ "config": { "ssl": { "enforce_secure_endpoints": true } } })).await;
    for (method, rest) in [("PUT", path.as_str()), ("POST", "/endpoints")] {
        let refused = project.refused(method, rest, &endpoint("http://example.com/", &Value::Null), 400).await;
        assert!(refused.starts_with("body.url: must be an https URL"), "{refused}");
    }
}

#[tokio::test]
async fn what_a_paused_endpoint_is_owed_waits_until_it_is_activated() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let receiver = Receiver::start().await;
    let made = project.post("/endpoints", &endpoint(&receiver.url("/"), &json!({ "owner_id": "one" }))).await;
    let path = format!("/endpoints/{}", uid(&made));
    project.post("/subscriptions", &json!({ "name": "all", "endpoint_id": uid(&made) })).await;
    let publish = async || app.client.post("/api/v1/app/one/msg", &json!({ "eventType": "a", "payload": {} })).await.expect(202).text("id");
    let first = publish().await;
    assert_eq!(receiver.received(1).await[0].id(), first);
    // Clients in Go send a body where there is none.
    let paused = project.done("PUT", &format!("{path}/pause"), &json!("{}"), 202).await;
    assert_eq!(paused["status"], "paused");
    // A process hears of it within a second.
    let second = eventually("a message is held", async || {
        let id = publish().await;
        let held = format!("select count(*) from queue where message_id = posthaste_id('{id}') and lease is null");
        (app.database.number(&held).await == 1).then_some(id)
    })
    .await;
    let active = project.done("POST", &format!("{path}/activate"), &Value::Null, 202).await;
    assert_eq!(active["status"], "active");
    eventually("what was held is sent", async || receiver.so_far().iter().any(|webhook| webhook.id() == second).then_some(())).await;
    let switch = async || project.done("PUT", &format!("{path}/pause"), &Value::Null, 202).await["status"].clone();
    assert_eq!((switch().await, switch().await), (json!("paused"), json!("active")));
    project.put(&path, &json!({ "is_disabled": true })).await;
    assert_eq!(project.done("POST", &format!("{path}/activate"), &Value::Null, 202).await["status"], "active");
}

#[tokio::test]
async fn what_is_no_endpoint_is_refused_by_name() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let good = "https://example.com/";
    for (body, field) in [
        (json!({ "name": "x" }), "url"),
        (json!({ "url": good }), "name"),
        (endpoint("ftp://example.com/", &Value::Null), "url"),
        (endpoint("http://10.0.0.1/", &Value::Null), "url"),
        (endpoint(good, &json!({ "owner_id": "a b" })), "owner_id"),
        (endpoint(good, &json!({ "rate_limit": 1, "rate_limit_duration": 60 })), "rate_limit"),
        (endpoint(good, &json!({ "rate_limit": -1 })), "rate_limit"),
        (endpoint(good, &json!({ "http_timeout": 601 })), "http_timeout"),
        (endpoint(good, &json!({ "content_type": "text/xml" })), "content_type"),
        (endpoint(good, &json!({ "secret": "\u{0}" })), "secret"),
        (endpoint(good, &json!({ "authentication": { "type": "api_key" } })), "authentication.api_key"),
        (endpoint(good, &json!({ "authentication": { "type": "magic" } })), "authentication.type"),
        (
            endpoint(good, &json!({ "authentication": { "type": "api_key", "api_key": { "header_name": "Host", "header_value": "x" } } })),
            "authentication.api_key",
        ),
    ] {
        let why = project.refused("POST", "/endpoints", &body, 400).await;
        assert!(why.starts_with(&format!("body.{field}: ")), "{field}: {why}");
    }
    for (more, what) in [
        (json!({ "authentication": { "type": "oauth2", "oauth2": { "url": good } } }), "oauth2"),
        (json!({ "mtls_client_cert": { "client_cert": "a", "client_key": "b" } }), "mtls_client_cert"),
        (json!({ "content_type": "application/x-www-form-urlencoded" }), "content_type"),
    ] {
        let why = project.refused("POST", "/endpoints", &endpoint(good, &more), 501).await;
        assert!(why.starts_with("not supported yet") && why.contains(what), "{why}");
    }
    let made = make(&project, &Value::Null).await;
    let why = project.refused("PUT", &format!("/endpoints/{}/expire_secret", uid(&made)), &json!({ "expiration": 169 }), 400).await;
    assert!(why.starts_with("body.expiration: "), "{why}");
    for (method, rest, body) in [
        ("GET", "", Value::Null),
        ("PUT", "", json!({ "name": "x" })),
        ("DELETE", "", Value::Null),
        ("PUT", "/pause", Value::Null),
        ("POST", "/activate", Value::Null),
        ("PUT", "/expire_secret", json!({})),
    ] {
        for unknown in ["01J0000000E008000000000001", "x"] {
            let why = project.refused(method, &format!("/endpoints/{unknown}{rest}"), &body, 404).await;
            assert_eq!(why, "endpoint not found", "{method} {rest}");
        }
    }
    assert_eq!(items(&project.get("/endpoints").await).len(), 1);
}
