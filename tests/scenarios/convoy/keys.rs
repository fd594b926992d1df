//! API keys: made, listed and revoked on the command line, and sent as bearer tokens in both dialects.

use domain::api_key::ApiKey;
use serde_json::json;
use support::{
    App, Database, MAIN_SECRET, Project, Receiver, Reply, eventually,
    processes::{command, run},
    project::{items, uid},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// `posthaste key`: whether it went well, and what it said.
async fn key(database: &Database, arguments: &[&str]) -> (bool, String) {
    let environment = [("POSTHASTE_DATABASE_URL", database.url.as_str()), ("POSTHASTE_MAIN_SECRET", MAIN_SECRET)];
    let arguments: Vec<_> = std::iter::once("key").chain(arguments.iter().copied()).collect();
    let (status, out, errors) = run(command(PROGRAM, &arguments, &environment)).await;
    (status.success(), if status.success() { out } else { errors })
}

async fn create(app: &App, more: &[&str]) -> String {
    let arguments: Vec<_> = ["create", "--tenant", &app.tenant, "--name", "a backend"].into_iter().chain(more.iter().copied()).collect();
    let (is_done, said) = key(&app.database, &arguments).await;
    assert!(is_done, "{said}");
    said.trim_end().to_owned()
}

#[tokio::test]
async fn a_key_opens_both_dialects_until_it_is_revoked() {
    let app = App::start().await;
    let made = create(&app, &[]).await;
    assert!(ApiKey::parse(&made).is_some(), "{made}");
    let client = app.client.with_token(&made);
    client.post("/api/v1/app", &json!({ "name": "by key", "uid": "by-key" })).await.expect(201);
    assert_eq!(app.client.get("/api/v1/app/by-key").await.expect(200).text("name"), "by key", "it is the tenant's");
    assert_eq!(Project::of(&client).await.id, Project::of(&app.client).await.id);
    let stored = app.database.texts("select to_jsonb(k)::text from api_key k").await.concat();
    assert!(!stored.contains(&made[20..]), "the key itself is kept nowhere");

    let (_, listed) = key(&app.database, &["list", "--tenant", &app.tenant]).await;
    assert!(listed.contains("a backend") && listed.contains("does not expire") && listed.contains(&made[..19]), "{listed}");
    assert!(!listed.contains(&made[20..]), "{listed}");
    let id = listed.split_whitespace().next().expect("an id");
    let (_, other) = key(&app.database, &["list", "--tenant", "org_other"]).await;
    assert_eq!(other, "");
    let (is_done, said) = key(&app.database, &["revoke", "--tenant", "org_other", id]).await;
    assert!(!is_done && said.contains("posthaste key list"), "{said}");
    let (is_done, said) = key(&app.database, &["revoke", "--tenant", &app.tenant, id]).await;
    assert!(is_done && said.contains("ten seconds"), "{said}");
    // A server that has not met the key knows at once, and one that has within moments.
    let fresh = app.second_node().await;
    let refused = fresh.client.with_token(&made).get("/api/v1/app").await.expect(401);
    assert!(refused.text("detail").contains("was revoked"), "{refused:?}");
    eventually("the key is forgotten", async || (client.get("/api/v1/app").await.status == 401).then_some(())).await;
    let refused = client.get("/api/v1/projects").await.expect(401).json();
    assert_eq!(refused["status"], false);
    assert!(refused["message"].as_str().expect("a text").contains("was revoked"), "{refused}");
    let (_, listed) = key(&app.database, &["list", "--tenant", &app.tenant]).await;
    assert!(listed.contains("revoked "), "{listed}");
}

#[tokio::test]
async fn a_viewers_key_looks_and_changes_nothing() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let viewer = app.client.with_token(&create(&app, &["--viewer"]).await);
    viewer.get(&customer.path("/endpoint")).await.expect(200);
    viewer.get("/api/v1/app").await.expect(200);
    let refused = viewer.get(&customer.path(&format!("/endpoint/{endpoint}/secret"))).await.expect(403);
    assert!(refused.text("detail").contains("--viewer"), "{refused:?}");
    viewer.delete(&customer.path("")).await.expect(403);
    let project = Project::of(&viewer).await;
    let refused = project.refused("PUT", "", &json!({ "name": "mine now" }), 403).await;
    assert!(refused.contains("may only look"), "{refused}");
    assert_eq!(app.client.get(&customer.path("")).await.expect(200).text("name"), "A customer");
}

#[tokio::test]
async fn what_is_no_valid_key_is_told_why() {
    let app = App::start().await;
    let made = create(&app, &["--expires", "90d"]).await;
    app.client.with_token(&made).get("/api/v1/app").await.expect(200);
    let expired = create(&app, &["--expires", "1s"]).await;
    app.database.execute("update api_key set expires_at = now() - interval '1 s' where expires_at < now() + interval '1 day'").await;
    let last = if made.ends_with('a') { "b" } else { "a" };
    let forged = format!("{}{last}", &made[..made.len() - 1]);
    let unknown = ApiKey::new(&"x".repeat(16), &"y".repeat(64)).expose().to_owned();
    for (token, why) in [
        (expired.as_str(), "has expired"),
        (&forged, "there is no such API key"),
        (&unknown, "there is no such API key"),
        (&made[..40], "64 more"),
        ("CO.", "64 more"),
    ] {
        let refused = app.client.with_token(token).get("/api/v1/app").await.expect(401);
        assert!(refused.text("detail").contains(why), "{token}: {refused:?}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let refused = app.client.with_token(token).get("/api/v1/projects").await.expect(401).json();
        assert!(refused["message"].as_str().expect("a text").contains(why), "{token}: {refused}");
    }
    for (arguments, why) in [
        (["create", "--name", " "].as_slice(), "--name"),
        (&["create", "--name", "x", "--expires", "0s"], "--expires"),
        (&["create", "--name", "x", "--expires", "forever"], "--expires"),
        (&["create", "--name", "x", "--tenant", "acme"], "not a tenant"),
        (&["create"], "--name"),
        (&["revoke", "CO.x"], "key list"),
    ] {
        let (is_done, said) = key(&app.database, arguments).await;
        assert!(!is_done && said.contains(why), "{arguments:?}: {said}");
    }
}

/// A write under an `Idempotency-Key` header is done once, in this dialect as in the other.
#[tokio::test]
async fn a_post_under_a_key_is_done_once() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let endpoint = json!({ "name": "once", "url": "https://example.com/" });
    let post = async |rest: &str, body: &serde_json::Value, key: &str| {
        app.client.request("POST", &project.path(rest)).key(key).json(body).send().await
    };
    let (first, again) = (post("/endpoints", &endpoint, "one").await.expect(201), post("/endpoints", &endpoint, "one").await.expect(201));
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!(first.json(), again.json());
    assert_eq!(project.get("/endpoints").await["content"].as_array().map(Vec::len), Some(1));
    let subscription = json!({ "name": "once", "endpoint_id": first.json()["data"]["uid"] });
    let (first, again) = (post("/subscriptions", &subscription, "two").await, post("/subscriptions", &subscription, "two").await);
    assert_eq!((first.status, again.status, again.is_replay()), (201, 201, true));
    let other = post("/subscriptions", &json!({ "name": "another" }), "two").await.expect(422).json();
    assert_eq!(other["status"], false);
}

/// The PUTs that do something anew each time, and the POSTs beside them: under a key each is done once.
#[tokio::test]
async fn what_is_not_idempotent_by_itself_is_under_a_key() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    project.put("", &json!({ "config": { "strategy": { "type": "linear", "duration": 1, "retry_count": 1 } } })).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(200), Reply::status(200), Reply::status(200)]);
    let endpoint = uid(&project.post("/endpoints", &json!({ "name": "one", "url": receiver.url("/") })).await);
    project.post("/subscriptions", &json!({ "name": "all", "endpoint_id": endpoint })).await;
    project.post("/events", &json!({ "endpoint_id": endpoint, "event_type": "a", "data": {} })).await;
    let delivery = eventually("the delivery has failed", async || {
        let deliveries = items(&project.get("/eventdeliveries").await);
        deliveries.first().filter(|delivery| delivery["status"] == "Failure").map(uid)
    })
    .await;
    let event = uid(&items(&project.get("/events").await)[0]);
    let nothing = json!({});
    for (method, rest, body, status, sent) in [
        ("PUT", format!("/eventdeliveries/{delivery}/resend"), nothing.clone(), 200, 2),
        ("POST", "/eventdeliveries/forceresend".to_owned(), json!({ "ids": [delivery] }), 200, 3),
        ("PUT", format!("/events/{event}/replay"), nothing.clone(), 200, 4),
        ("PUT", format!("/endpoints/{endpoint}/expire_secret"), json!({ "expiration": 1 }), 200, 4),
        ("PUT", format!("/endpoints/{endpoint}/pause"), nothing.clone(), 202, 4),
        ("POST", format!("/endpoints/{endpoint}/activate"), nothing.clone(), 202, 4),
    ] {
        let ask = async || app.client.request(method, &project.path(&rest)).key(&rest).json(&body).send().await.expect(status);
        let (first, again) = (ask().await, ask().await);
        assert_eq!((first.is_replay(), again.is_replay()), (false, true), "{rest}");
        assert_eq!(first.json(), again.json(), "{rest}");
        receiver.received(sent).await;
        app.database.nothing_owed().await;
        assert_eq!(receiver.so_far().len(), sent, "{rest}");
        let shown = project.get(&format!("/endpoints/{endpoint}")).await;
        assert_eq!(shown["status"] == "paused", rest.ends_with("/pause"), "{rest}: a second switch would have undone the first");
        let secrets = shown["secrets"].as_array().map_or(0, Vec::len);
        assert!(secrets <= 2, "{rest}: {secrets} secrets");
    }
}
