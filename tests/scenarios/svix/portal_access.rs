//! Tokens that a tenant hands out for one application.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{App, Client, Customer, Project, Receiver, contract, project::items};

/// What each capability lets its bearer do besides looking around.
const CAPABILITIES: [(&str, &[&str]); 6] = [
    ("ViewBase", &[]),
    ("ViewEndpointSecret", &["endpoint-secret:read"]),
    ("ManageEndpointSecret", &["endpoint-secret:read", "endpoint-secret:write"]),
    ("ManageTransformations", &[]),
    ("CreateAttempts", &["attempt:resend"]),
    ("ManageEndpoint", &["endpoint:write", "endpoint-secret:read", "endpoint-secret:write"]),
];
/// An id that nothing has.
const NOTHING: &str = "01J0000000E008000000000001";
/// What every token lets its bearer do.
const BASE: [&str; 6] = ["application:read", "endpoint:read", "event-type:read", "message:read", "attempt:read", "session:end"];

async fn grant(app: &App, application: &str, body: Value) -> Client {
    let granted = app.client.post(&format!("/api/v1/auth/app-portal-access/{application}"), &body).await.expect(200).json();
    let token = granted["token"].as_str().expect("a token");
    assert!(granted["url"].as_str().is_some_and(|url| url.ends_with(&format!("/portal?token={token}"))), "{granted}");
    app.client.with_token(token)
}

async fn status(client: &Client, customer: &Customer) -> u16 {
    client.get(&customer.path("/endpoint")).await.status
}

#[tokio::test]
async fn each_capability_lets_its_bearer_do_what_it_says_and_nothing_else() {
    let app = App::start().await;
    app.client.post("/api/v1/event-type", &json!({ "name": "user.signup", "description": "" })).await.expect(201);
    let receiver = Receiver::start().await;
    let (customer, others) = (app.customer().await, app.customer().await);
    let project = Project::of(&app.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({})).await;
    let attempt = customer.attempts(&message, 1).await[0].id().to_owned();
    let fill = |template: &str, application: &str| {
        template
            .replace("{app_id}", application)
            .replace("{endpoint_id}", &endpoint)
            .replace("{msg_id}", &message)
            .replace("{attempt_id}", &attempt)
            .replace("{event_type_name}", "user.signup")
            .replace("{projectID}", &project.id)
            .split('/')
            .map(|segment| if segment.starts_with('{') { NOTHING } else { segment })
            .collect::<Vec<_>>()
            .join("/")
    };
    let mut cases: Vec<_> =
        CAPABILITIES.iter().map(|(name, more)| (json!({ "capabilities": ["ViewBase", name] }), more.to_vec())).collect();
    cases.push((json!({ "readOnly": true }), vec![]));
    cases.push((json!({}), CAPABILITIES.iter().flat_map(|(_, more)| more.to_vec()).collect()));
    for (body, more) in cases {
        let bearer = grant(&app, &customer.id, body.clone()).await;
        let allowed: BTreeSet<_> = BASE.into_iter().chain(more).collect();
        for (method, template, permission) in contract::permissions() {
            // What takes away the token or what the others need is asked elsewhere.
            if permission == "session:end" || method == "DELETE" {
                continue;
            }
            let what = format!("{body}: {method} {template} ({permission})");
            let ask = async |application: &str| {
                let request = bearer.request(&method, &fill(&template, application));
                // A body that changes nothing: the checks of the caller come before those of the body.
                if method == "GET" { request.send().await } else { request.json(&json!([])).send().await }
            };
            let answer = ask(&customer.id).await;
            // A project is more than one application.
            let is_of_all = template.starts_with("/api/v1/projects") && permission != "event-type:read";
            let may = allowed.contains(permission.as_str()) && !is_of_all;
            assert_eq!(answer.status == 403, !may, "{what}: {answer:?}");
            assert_ne!(answer.status, 401, "{what}: {answer:?}");
            if may && template.contains("{app_id}") {
                assert_eq!(ask(&others.id).await.status, 404, "{what}: another application");
            }
        }
    }
}

#[tokio::test]
async fn a_token_opens_nothing_once_it_is_logged_out_or_expired_on_every_node() {
    let app = App::start().await;
    let node = app.second_node().await;
    let customer = app.customer().await;
    let tokens = async |body: Value| {
        let here = grant(&app, &customer.id, body).await;
        let there = node.client.with_token(here.token.as_deref().expect("a token"));
        assert_eq!((status(&here, &customer).await, status(&there, &customer).await), (200, 200));
        (here, there)
    };
    let (one, one_there) = tokens(json!({ "sessionId": "one" })).await;
    let (two, two_there) = tokens(json!({ "sessionId": "two" })).await;
    let (three, three_there) = tokens(json!({})).await;
    three.request("POST", "/api/v1/auth/logout").send().await.expect(204);
    assert_eq!((status(&three, &customer).await, status(&three_there, &customer).await), (401, 401));
    let expire = format!("/api/v1/auth/app/{}/expire-all", customer.id);
    app.client.post(&expire, &json!({ "sessionIds": ["one"] })).await.expect(204);
    assert_eq!((status(&one, &customer).await, status(&one_there, &customer).await), (401, 401));
    assert_eq!((status(&two, &customer).await, status(&two_there, &customer).await), (200, 200));
    app.client.post(&expire, &json!({ "expiry": 3600 })).await.expect(204);
    assert_eq!(status(&two, &customer).await, 200, "it has an hour left");
    app.client.post(&expire, &json!({})).await.expect(204);
    assert_eq!((status(&two, &customer).await, status(&two_there, &customer).await), (401, 401));
    let refused = app.client.request("POST", "/api/v1/auth/logout").send().await.expect(422);
    assert_eq!(refused.json()["detail"][0]["loc"], json!(["header", "authorization"]));

    let kept = app.database.texts("select row_to_json(p)::text from portal_access p").await;
    assert!(kept.iter().all(|row| !row.contains("appsk_")), "only hashes are kept");
}

#[tokio::test]
async fn an_application_is_made_with_its_token_if_there_is_none() {
    let app = App::start().await;
    let body = json!({ "application": { "name": "New", "uid": "new" }, "expiry": 3600 });
    let request =
        async || app.client.request("POST", "/api/v1/auth/app-portal-access/new").key("once").json(&body).send().await.expect(200);
    let (first, again) = (request().await, request().await);
    assert!(again.is_replay() && first.json() == again.json());
    let bearer = app.client.with_token(&first.text("token"));
    assert_eq!(bearer.get("/api/v1/app/new").await.expect(200).text("name"), "New");
    let other = json!({ "application": { "name": "Ignored" } });
    app.client.post("/api/v1/auth/app-portal-access/new", &other).await.expect(200);
    assert_eq!(app.client.get("/api/v1/app/new").await.expect(200).text("name"), "New");
    app.client.post("/api/v1/auth/app-portal-access/nobody", &json!({})).await.expect(404);
    for (body, field) in [
        (json!({ "expiry": 10 }), "expiry"),
        (json!({ "capabilities": ["ManageEndpoint"] }), "capabilities"),
        (json!({ "capabilities": ["Everything"] }), "capabilities"),
        (json!({ "sessionId": "a b" }), "sessionId"),
    ] {
        let refused = app.client.post("/api/v1/auth/app-portal-access/new", &body).await.expect(422).json();
        assert_eq!(refused["detail"][0]["loc"][1], field, "{refused}");
    }
}

#[tokio::test]
async fn event_types_behind_a_flag_are_shown_to_tokens_that_have_it() {
    let app = App::start().await;
    for (name, flag) in [("beta.new", json!("beta")), ("plain", Value::Null)] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "", "featureFlag": flag })).await.expect(201);
    }
    let customer = app.customer().await;
    for (body, names) in [(json!({}), vec!["plain"]), (json!({ "featureFlags": ["beta"] }), vec!["beta.new", "plain"])] {
        let page = grant(&app, &customer.id, body).await.get("/api/v1/event-type").await.expect(200).json();
        let shown: Vec<_> = page["data"].as_array().expect("a page").iter().map(|item| item["name"].as_str().expect("a name")).collect();
        assert_eq!(shown, names);
    }
}

#[tokio::test]
async fn a_portal_link_opens_its_owners_application_until_it_is_revoked() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let path = "/portal-links";
    let body = json!({ "name": "Acme's", "owner_id": "acme", "can_manage_endpoint": true, "auth_type": "static_token" });
    let made = project.post(path, &body).await;
    let token = made["token"].as_str().expect("a token");
    assert!(made["url"].as_str().is_some_and(|url| url.ends_with(&format!("/portal?token={token}"))), "{made}");
    let bearer = app.client.with_token(token);
    bearer.post("/api/v1/app/acme/endpoint", &json!({ "url": "https://example.com/" })).await.expect(201);
    let link = format!("{path}/{}", made["uid"].as_str().expect("an id"));
    let shown = project.get(&link).await;
    assert_eq!((&shown["endpoint_count"], &shown["owner_id"], &shown["token"]), (&json!(1), &json!("acme"), &json!("")));

    let changed = project.put(&link, &json!({ "name": "Renamed", "can_manage_endpoint": false, "auth_type": "refresh_token" })).await;
    assert_eq!((&changed["name"], &changed["auth_type"]), (&json!("Renamed"), &json!("refresh_token")));
    bearer.post("/api/v1/app/acme/endpoint", &json!({ "url": "https://example.com/" })).await.expect(403);
    bearer.get("/api/v1/app/acme/endpoint").await.expect(200);
    let renewed = project.get(&format!("{link}/refresh_token")).await;
    bearer.get("/api/v1/app/acme/endpoint").await.expect(401);
    let bearer = app.client.with_token(renewed.as_str().expect("a token"));
    bearer.get("/api/v1/app/acme/endpoint").await.expect(200);
    let left = app.database.number("select extract(epoch from expires_at - now())::bigint from portal_access").await;
    assert!((3500..=3600).contains(&left), "{left}");

    for (owner, name) in [("acme", "second"), ("other", "third")] {
        project.post(path, &json!({ "name": name, "owner_id": owner })).await;
    }
    let names = async |query: &str| {
        let page = project.get(&format!("{path}{query}")).await;
        items(&page).iter().map(|link| link["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["third", "second", "Renamed"]);
    assert_eq!(names("?ownerId=acme&sort=ASC").await, ["Renamed", "second"]);
    assert_eq!(names("?q=HIR").await, ["third"]);
    project.done("PUT", &format!("{link}/revoke"), &Value::Null, 200).await;
    bearer.get("/api/v1/app/acme/endpoint").await.expect(401);
    project.refused("GET", &link, &Value::Null, 404).await;
    assert_eq!(names("?ownerId=acme").await, ["second"]);
    for (body, field) in [
        (json!({ "owner_id": "acme" }), "name"),
        (json!({ "name": "x" }), "owner_id"),
        (json!({ "name": "x", "owner_id": "acme", "auth_type": "none" }), "auth_type"),
        (json!({ "name": "x", "owner_id": "acme", "endpoints": ["x"] }), "endpoints"),
    ] {
        let why = project.refused("POST", path, &body, 400).await;
        assert!(why.starts_with(&format!("body.{field}: ")), "{why}");
    }
    let stranger = Project::of(&app.client.with_token(&support::token(&support::new_tenant()))).await;
    assert_eq!(items(&stranger.get(path).await), Vec::<Value>::new());
}
