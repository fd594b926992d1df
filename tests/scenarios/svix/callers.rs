//! Who may do what: the tokens of organisations and of their applications.

use std::collections::BTreeSet;

use domain::api_key::Role;
use serde_json::{Value, json};
use support::{Answer, App, Client, Customer, Receiver, api_key, application_token, contract, customer::message};

/// What the token of an application lets its bearer do, as svix-server has it.
const OF_AN_APPLICATION: [&str; 10] = [
    "application:read",
    "attempt:read",
    "attempt:resend",
    "endpoint:read",
    "endpoint:write",
    "endpoint-secret:read",
    "endpoint-secret:write",
    "event-type:read",
    "message:read",
    "session:end",
];

/// Something at every path of the API.
struct Furnished {
    customer: Customer,
    endpoint: String,
    message: String,
    attempt: String,
    task: String,
    receiver: Receiver,
    own_endpoint: String,
}

impl Furnished {
    async fn new(app: &App) -> Self {
        let receiver = Receiver::start().await;
        let customer = app.customer().await;
        let endpoint = customer.endpoint(&receiver.url("/")).await;
        let message = customer.publish(&json!({})).await;
        let attempt = customer.attempts(&message, 1).await[0].id().to_owned();
        let own_endpoint = json!({ "url": "https://example.com/", "disabled": true });
        let own_endpoint = app.client.post("/api/v1/operational-webhook/endpoint", &own_endpoint).await.expect(201).text("id");
        let since = json!({ "since": "2026-01-01T00:00:00Z" });
        let task = app.client.post(&customer.path(&format!("/endpoint/{endpoint}/recover")), &since).await.expect(202).text("id");
        Self { customer, endpoint, message, attempt, task, receiver, own_endpoint }
    }

    fn path(&self, template: &str) -> String {
        template
            .replace("{app_id}", &self.customer.id)
            .replace("{endpoint_id}", if template.contains("/operational-webhook/") { &self.own_endpoint } else { &self.endpoint })
            .replace("{msg_id}", &self.message)
            .replace("{attempt_id}", &self.attempt)
            .replace("{task_id}", &self.task)
            .replace("{event_type_name}", "user.signup")
    }
}

/// Asks for an operation with a body that changes nothing: the checks of the caller come before those of the body.
async fn ask(client: &Client, method: &str, path: &str) -> Answer {
    let request = client.request(method, path);
    if matches!(method, "GET" | "DELETE") { request.send().await } else { request.json(&json!({ "unread": true })).send().await }
}

#[tokio::test]
async fn every_operation_lets_in_whom_the_route_table_names() {
    let app = App::start().await;
    app.client.post("/api/v1/event-type", &json!({ "name": "user.signup", "description": "" })).await.expect(201);
    let mut named = contract::permissions();
    named.retain(|(_, template, _)| !template.starts_with("/api/v1/projects"));
    assert!(named.len() > 30, "{}", named.len());
    let [admin, viewer] = [Role::Admin, Role::Viewer].map(|role| api_key(&app.database, &app.tenant, role));
    let (admin, viewer) = (app.client.with_token(&admin.await), app.client.with_token(&viewer.await));
    let known: BTreeSet<_> = named.iter().map(|(_, _, permission)| permission.as_str()).collect();
    assert!(OF_AN_APPLICATION.iter().all(|permission| known.contains(permission)), "{known:?}");
    for (method, template, permission) in named {
        let mine = Furnished::new(&app).await;
        let others = app.customer().await;
        let bearer = app.client.with_token(&application_token(&app.tenant, &mine.customer.id));
        let path = mine.path(&template);
        let what = format!("{method} {template} ({permission})");
        let answer = ask(&bearer, &method, &path).await;
        if OF_AN_APPLICATION.contains(&permission.as_str()) {
            assert!(!matches!(answer.status, 401 | 403 | 404), "{what}: {answer:?}");
            if template.contains("{app_id}") {
                let foreign = template.replace("{app_id}", &others.id);
                let answer = ask(&bearer, &method, &mine.path(&foreign)).await;
                assert_eq!((answer.status, answer.text("detail").as_str()), (404, "application not found"), "{what}");
            }
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (403, "insufficient access"), "{what}");
            let answer = ask(&app.client, &method, &path).await;
            assert!(!matches!(answer.status, 401 | 403 | 404), "{what}: {answer:?}");
        }
        let looks_on = !permission.contains("secret") && (permission.ends_with(":read") || permission.ends_with(":list"));
        let answer = ask(&viewer, &method, &path).await;
        if looks_on {
            assert!(!matches!(answer.status, 401 | 403 | 404), "{what}: {answer:?}");
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (403, "insufficient access"), "{what}");
        }
        let answer = ask(&admin, &method, &Furnished::new(&app).await.path(&template)).await;
        assert!(!matches!(answer.status, 401 | 403 | 404), "{what}: {answer:?}");
        let anonymous = ask(&app.client.anonymous(), &method, &path).await;
        assert_eq!(anonymous.status, 401, "{what}");
    }
}

#[tokio::test]
async fn the_token_of_an_application_looks_after_endpoints_and_publishes_nothing() {
    let app = App::start().await;
    let mine = Furnished::new(&app).await;
    let bearer = mine.customer.through(&app.client.with_token(&application_token(&app.tenant, &mine.customer.id)));
    assert_eq!(bearer.messages().await.len(), 1);
    assert_eq!(bearer.attempts_so_far(&mine.message).await.len(), 1);
    assert_eq!(bearer.secret(&mine.endpoint).await, mine.customer.secret(&mine.endpoint).await);

    let refused = bearer.publish_raw(&message(&json!({})), Some("key")).await.expect(403);
    assert_eq!(refused.code(), "insufficient access");
    assert!(refused.text("detail").contains("organisation"), "{refused:?}");
    bearer.client.post("/api/v1/app", &json!({ "name": "another" })).await.expect(403);
    bearer.client.delete(&bearer.path("")).await.expect(403);
    bearer.client.put(&bearer.path(""), &json!({ "name": "renamed" })).await.expect(403);
    assert_eq!(mine.customer.messages().await.len(), 1, "nothing was published");
    assert_eq!(app.client.get("/api/v1/app").await.expect(200).json()["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(app.client.get(&bearer.path("")).await.expect(200).text("name"), "A customer");
    // The key that was refused is free for who may use it.
    mine.customer.publish_raw(&message(&json!({})), Some("key")).await.expect(202);

    let second = Receiver::start().await;
    let added = bearer.endpoint(&second.url("/")).await;
    bearer.client.patch(&bearer.path(&format!("/endpoint/{added}")), &json!({ "description": "mine" })).await.expect(200);
    assert_eq!(mine.customer.show(&added).await["description"], "mine");
    let published = mine.customer.publish(&json!({ "n": 1 })).await;
    assert_eq!(second.received(1).await[0].id(), published);
    let before = mine.receiver.so_far().len();
    let resend = bearer.path(&format!("/msg/{}/endpoint/{}/resend", mine.message, mine.endpoint));
    bearer.client.request("POST", &resend).send().await.expect(202);
    bearer.attempts(&mine.message, 2).await;
    assert!(mine.receiver.so_far().len() > before);
    bearer.client.delete(&bearer.path(&format!("/endpoint/{added}"))).await.expect(204);
    app.client.get(&bearer.path(&format!("/endpoint/{added}"))).await.expect(404);
}

#[tokio::test]
async fn other_applications_do_not_exist_for_it_by_whatever_name() {
    let app = App::start().await;
    let uids = async |uid: &str| app.client.post("/api/v1/app", &json!({ "name": uid, "uid": uid })).await.expect(201).text("id");
    let (mine, theirs) = (uids("mine").await, uids("theirs").await);
    let bearer = app.client.with_token(&application_token(&app.tenant, &mine));
    assert_eq!(bearer.get("/api/v1/app/mine").await.expect(200).text("id"), mine);
    for foreign in ["theirs", &theirs, "nobody", "app_1srOrx2ZWZBpBUvZwXKQmoEYga2"] {
        let hidden = bearer.get(&format!("/api/v1/app/{foreign}")).await.expect(404);
        assert_eq!(hidden.text("detail"), "application not found", "{foreign}");
        let endpoint = json!({ "url": "https://example.com/" });
        let created = bearer.request("POST", &format!("/api/v1/app/{foreign}/endpoint")).key("k").json(&endpoint).send().await;
        assert_eq!(created.status, 404, "{foreign}");
    }
    assert_eq!(app.client.get("/api/v1/app/theirs/endpoint").await.expect(200).json()["data"], json!([]));

    // The name goes over to the other application: from then on it is not the bearer's.
    app.client.patch(&format!("/api/v1/app/{mine}"), &json!({ "uid": null })).await.expect(200);
    app.client.patch(&format!("/api/v1/app/{theirs}"), &json!({ "uid": "mine" })).await.expect(200);
    bearer.get("/api/v1/app/mine").await.expect(404);
    bearer.get(&format!("/api/v1/app/{mine}")).await.expect(200);

    let stranger = app.client.with_token(&application_token(&support::new_tenant(), &mine));
    stranger.get(&format!("/api/v1/app/{mine}")).await.expect(404);
    app.client.delete(&format!("/api/v1/app/{mine}")).await.expect(204);
    bearer.get(&format!("/api/v1/app/{mine}")).await.expect(404);
}

#[tokio::test]
async fn an_application_sees_the_event_types_behind_its_flags() {
    let app = App::start().await;
    for (name, flag) in [("beta.new", json!("beta")), ("gamma.new", json!("gamma")), ("plain", Value::Null)] {
        let body = json!({ "name": name, "description": "", "featureFlag": flag });
        app.client.post("/api/v1/event-type", &body).await.expect(201);
    }
    let customer = app.customer().await;
    let claims = json!({ "sub": customer.id, "org": app.tenant, "feature_flags": ["beta"] });
    let key = jsonwebtoken::EncodingKey::from_secret(support::JWT_SECRET.as_bytes());
    let flagged = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let flagged = app.client.with_token(&flagged);
    let names = async |client: &Client| {
        let page = client.get("/api/v1/event-type").await.expect(200).json();
        page["data"].as_array().expect("a page").iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&flagged).await, ["beta.new", "plain"]);
    assert_eq!(names(&app.client.with_token(&application_token(&app.tenant, &customer.id))).await, ["beta.new", "gamma.new", "plain"]);
    flagged.get("/api/v1/event-type/beta.new").await.expect(200);
    flagged.get("/api/v1/event-type/gamma.new").await.expect(404);
    let endpoint = |name: &str| json!({ "url": "https://example.com/", "eventTypes": [name] });
    flagged.post(&customer.path("/endpoint"), &endpoint("beta.new")).await.expect(201);
    let refused = flagged.post(&customer.path("/endpoint"), &endpoint("gamma.new")).await.expect(422);
    assert_eq!(refused.json()["detail"][0]["loc"], json!(["body", "eventTypes"]));
}
