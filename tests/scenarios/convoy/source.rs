//! Sources are made, shown, changed and deleted; what cannot work is refused by name, and what is secret is shown to nobody.

use serde_json::{Value, json};
use support::{
    App, PUBLIC_URL, Project,
    project::{items, uid},
};

const SECRET: &str = "TopS3cretValue";

fn github() -> Value {
    json!({ "name": "GitHub", "type": "http", "provider": "github", "verifier": { "type": "hmac", "hmac": { "secret": SECRET } } })
}

#[tokio::test]
async fn a_source_is_made_shown_changed_and_deleted() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let made = project.post("/sources", &github()).await;
    let place = format!("/sources/{}", uid(&made));
    let mask = made["mask_id"].as_str().expect("a mask");
    assert_eq!(made["url"], format!("{PUBLIC_URL}/ingest/{mask}"));
    assert!(mask.len() == 32 && mask.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{mask}");
    assert_eq!((&made["project_id"], &made["is_disabled"], &made["provider"]), (&json!(project.id), &json!(false), &json!("github")));
    let hmac = &made["verifier"]["hmac"];
    assert_eq!((&hmac["header"], &hmac["hash"], &hmac["encoding"]), (&json!("x-hub-signature-256"), &json!("SHA256"), &json!("hex")));
    assert_eq!(project.get(&place).await, made);
    let change = json!({
        "name": "Renamed", "idempotency_keys": ["request.header.X-GitHub-Delivery"], "forward_headers": ["X-GitHub-Event"], "is_disabled": true,
        "custom_response": { "body": "ok" }, "event_type_location": "request.header.X-GitHub-Event",
    });
    let changed = project.put(&place, &change).await;
    assert_eq!((&changed["name"], &changed["is_disabled"], &changed["verifier"]), (&json!("Renamed"), &json!(true), &made["verifier"]));
    assert_eq!(changed["idempotency_keys"], json!(["request.header.x-github-delivery"]));
    assert_eq!((&changed["mask_id"], &changed["url"]), (&made["mask_id"], &made["url"]), "its URL stays");
    assert_eq!(changed["custom_response"], json!({ "body": "ok", "content_type": "text/plain; charset=utf-8" }));
    // What is shown may be sent back.
    let again = project.put(&place, &changed).await;
    for (name, value) in changed.as_object().expect("an object").iter().filter(|(name, _)| *name != "updated_at") {
        assert_eq!(again[name], *value, "{name}");
    }
    project.delete(&place).await;
    for method in ["GET", "DELETE"] {
        assert_eq!(project.refused(method, &place, &Value::Null, 404).await, "source not found");
    }
    project.refused("PUT", &place, &json!({}), 404).await;
    assert!(items(&project.get("/sources").await).is_empty());
}

#[tokio::test]
async fn sources_are_listed_by_name_and_provider_page_by_page() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    for name in ["Alpha", "beta 100%", "Gamma"] {
        project.post("/sources", &json!({ "name": name })).await;
    }
    project.post("/sources", &github()).await;
    let names = async |query: &str| {
        let page = project.get(&format!("/sources?{query}")).await;
        items(&page).iter().map(|source| source["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["GitHub", "Gamma", "beta 100%", "Alpha"]);
    assert_eq!(names("q=A&sort=ASC").await, ["Alpha", "beta 100%", "Gamma"]);
    assert_eq!(names("q=%25").await, ["beta 100%"]);
    assert_eq!(names("provider=github&type=http").await, ["GitHub"]);
    let first = project.get("/sources?perPage=3").await;
    let next = first["pagination"]["next_page_cursor"].as_str().expect("a cursor").to_owned();
    assert_eq!(names(&format!("perPage=3&next_page_cursor={next}")).await, ["Alpha"]);
    for wrong in ["provider=gitlab", "type=pub_sub"] {
        project.refused("GET", &format!("/sources?{wrong}"), &Value::Null, 400).await;
    }
}

#[tokio::test]
async fn what_a_source_cannot_be_is_refused_by_name() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let with = |more: Value| {
        let mut definition = json!({ "name": "A source" });
        for (name, value) in more.as_object().expect("an object") {
            definition[name] = value.clone();
        }
        definition
    };
    let hmac = |hmac: Value| with(json!({ "verifier": { "type": "hmac", "hmac": hmac } }));
    for (definition, field) in [
        (json!({}), "name"),
        (json!({ "name": " " }), "name"),
        (with(json!({ "type": "carrier_pigeon" })), "type"),
        (with(json!({ "provider": "gitlab" })), "provider"),
        (with(json!({ "provider": "github" })), "verifier.hmac.secret"),
        (with(json!({ "provider": "github", "verifier": { "type": "noop" } })), "verifier.type"),
        (
            with(json!({ "provider": "standard_webhooks", "verifier": { "type": "hmac", "hmac": { "secret": "?" } } })),
            "verifier.hmac.secret",
        ),
        (
            with(json!({ "provider": "stripe", "verifier": { "type": "hmac", "hmac": { "secret": "s", "tolerance_seconds": 0 } } })),
            "tolerance_seconds",
        ),
        (with(json!({ "verifier": { "type": "hmac" } })), "verifier.hmac"),
        (hmac(json!({ "secret": "s", "hash": "SHA256", "encoding": "hex" })), "verifier.hmac.header"),
        (hmac(json!({ "header": "a b", "secret": "s" })), "verifier.hmac.header"),
        (hmac(json!({ "header": "x", "secret": "s", "hash": "MD5" })), "verifier.hmac.hash"),
        (hmac(json!({ "header": "x", "secret": "s", "encoding": "hexx" })), "verifier.hmac.encoding"),
        (hmac(json!({ "header": "x" })), "verifier.hmac.secret"),
        (
            with(json!({ "verifier": { "type": "basic_auth", "basic_auth": { "username": "a:b", "password": "p" } } })),
            "basic_auth.username",
        ),
        (with(json!({ "verifier": { "type": "api_key", "api_key": { "header_name": "x" } } })), "api_key.header_value"),
        (with(json!({ "event_type_location": "request.cookie.x" })), "event_type_location"),
        (with(json!({ "forward_headers": ["Authorization"] })), "forward_headers"),
        (with(json!({ "idempotency_keys": ["request.query.a", "request.query.a"] })), "idempotency_keys: entry 1"),
        (with(json!({ "idempotency_keys": ["request.query.\u{0}"] })), "idempotency_keys"),
        (with(json!({ "custom_response": { "body": "x".repeat(16 * 1024 + 1) } })), "custom_response.body"),
        (with(json!({ "custom_response": { "body": "x", "content_type": "a\nb" } })), "custom_response.content_type"),
        (with(json!({ "type": "pub_sub" })), "pub_sub"),
        (with(json!({ "type": "pub_sub", "pub_sub": { "type": "nats" } })), "pub_sub.type"),
        (with(json!({ "type": "pub_sub", "pub_sub": { "type": "kafka", "kafka": { "brokers": [], "topic_name": "t" } } })), "`brokers`"),
    ] {
        let message = project.refused("POST", "/sources", &definition, 400).await;
        assert!(message.contains(field), "{definition}: {message}");
    }
    let kafka = json!({ "type": "kafka", "kafka": { "brokers": ["b:9092"], "topic_name": "t" } });
    for (definition, what) in [
        (with(json!({ "type": "pub_sub", "pub_sub": kafka })), "`pub_sub`"),
        (with(json!({ "type": "db_change_stream" })), "`db_change_stream`"),
        (with(json!({ "body_function": "function transform(p) { return p }" })), "functions"),
    ] {
        let message = project.refused("POST", "/sources", &definition, 501).await;
        assert!(message.contains(what), "{message}");
    }
    assert!(items(&project.get("/sources").await).is_empty(), "nothing was made");
}

#[tokio::test]
async fn no_secret_is_shown_and_none_lies_in_clear() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let made = project.client.request("POST", &project.path("/sources")).key("key").json(&github()).send().await.expect(201);
    let repeated = project.client.request("POST", &project.path("/sources")).key("key").json(&github()).send().await.expect(201);
    assert!(repeated.is_replay() && repeated.body == made.body, "made once per key");
    let shown = project.get("/sources").await.to_string();
    assert!(!String::from_utf8_lossy(&made.body).contains(SECRET) && !shown.contains(SECRET));
    let rows =
        app.database.texts("select to_jsonb(s)::text from source s union all select to_jsonb(i)::text from idempotency i").await.concat();
    let in_hex = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert!(!rows.contains(SECRET) && !rows.contains(&in_hex));
}

#[tokio::test]
async fn a_source_that_cannot_be_opened_takes_nothing_and_is_mended_by_a_new_verifier() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let made = project.post("/sources", &github()).await;
    let place = format!("/sources/{}", uid(&made));
    app.database.execute("update source set verifier = set_byte(verifier, 30, get_byte(verifier, 30) # 1)").await;
    let path = format!("/ingest/{}", made["mask_id"].as_str().expect("a mask"));
    let send = async || app.client.anonymous().request("POST", &path).bytes("{}").header("x-hub-signature-256", "sha256=00").send().await;
    support::eventually("it is told so", async || (send().await.status == 503).then_some(())).await;
    let changed = project.put(&place, &json!({ "name": "Renamed" })).await;
    assert_eq!((&changed["verifier"], &changed["name"]), (&Value::Null, &json!("Renamed")), "all else works");
    assert_eq!(items(&project.get("/sources").await).len(), 1);
    project.put(&place, &json!({ "verifier": { "type": "hmac", "hmac": { "secret": "new" } } })).await;
    support::eventually("it verifies again", async || (send().await.status == 400).then_some(())).await;
}
