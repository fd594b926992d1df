//! What a claim on a key is: made by what gets as far as being executed, on one operation, for as long as it is remembered.

use serde_json::{Value, json};
use support::{App, Client, Options, client::Request, customer::message};

use super::same;

#[tokio::test]
async fn nobody_is_answered_before_the_commit() {
    let app = App::start().await;
    let customer = app.customer().await;
    let hold = app.database.hold_inserts("message").await;
    let waiting = tokio::spawn({
        let customer = customer.clone();
        async move { customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await }
    });
    hold.holds(1).await;
    // A round trip on the same connection pool: whatever was sent before it has arrived.
    app.client.get("/api/v1/health").await.expect(204);
    assert!(!waiting.is_finished(), "the statement has run, the transaction has not ended");
    assert_eq!(app.database.number("select count(*) from message").await, 0);
    hold.release().await;
    waiting.await.expect("no panic").expect(202);
    assert_eq!(app.database.number("select count(*) from message").await, 1);
}

#[tokio::test]
async fn one_key_may_be_used_once_for_each_operation() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let (one, other) = (app.customer().await, app.customer().await);
    let hold = app.database.hold_inserts("message").await;
    let first = tokio::spawn({
        let one = one.clone();
        async move { one.publish_raw(&message(&json!({})), Some("key")).await }
    });
    hold.holds(1).await;
    // Even while one of them is under way: the key is busy there alone.
    let create = async |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await;
    let patch = async |client: &Client| client.request("PATCH", &one.path("")).key("key").json(&json!({ "name": "x" })).send().await;
    let (created, patched) = (create(&other_node.client).await.expect(201), patch(&app.client).await.expect(200));
    assert!(!first.is_finished());
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    let second = other.publish_raw(&message(&json!({})), Some("key")).await.expect(202);
    assert_ne!(first.text("id"), second.text("id"));
    same(&first, &one.publish_raw(&message(&json!({})), Some("key")).await);
    same(&second, &other.publish_raw(&message(&json!({})), Some("key")).await);
    same(&created, &create(&app.client).await);
    same(&patched, &patch(&other_node.client).await);
}

#[tokio::test]
async fn an_outcome_outlives_the_application_and_a_restart() {
    let app = App::start().await;
    app.client.post("/api/v1/app", &json!({ "name": "a", "uid": "acme" })).await.expect(201);
    let body = message(&json!({ "n": 1 }));
    let publish = async |client: &Client, path: &str| client.request("POST", path).key("key").json(&body).send().await;
    let first = publish(&app.client, "/api/v1/app/acme/msg").await.expect(202);
    let id = app.client.get("/api/v1/app/acme").await.expect(200).text("id");
    let restarted = app.second_node().await;
    app.client.delete("/api/v1/app/acme").await.expect(204);
    same(&first, &publish(&restarted.client, "/api/v1/app/acme/msg").await);
    same(&first, &publish(&app.client, &format!("/api/v1/app/{id}/msg")).await);
    let other = app.client.request("POST", "/api/v1/app/acme/msg").key("other").json(&body).send().await;
    assert_eq!(other.status, 404, "a fresh key finds no application");
}

/// The largest body of the nodes below, in bytes.
const MAX_PAYLOAD: usize = 2000;

/// An operation: its path, a request that it executes, one that is invalid, and one that is too large.
struct Operation {
    path: String,
    good: Value,
    invalid: Value,
    large: Value,
}

/// Requests that are refused before anything is executed, each with the status of the refusal and a name that makes its key.
fn refusals(client: &Client, application_token: &str, operation: &Operation) -> Vec<(&'static str, u16, Request)> {
    let of = |client: &Client| client.request("POST", &operation.path);
    vec![
        ("no token", 401, of(&client.anonymous()).json(&operation.good)),
        ("a token of nobody", 401, of(&client.with_token("x.y.z")).json(&operation.good)),
        ("a token that may not", 403, of(&client.with_token(application_token)).json(&operation.good)),
        ("too large", 413, of(client).json(&operation.large)),
        ("not JSON by its type", 415, of(client).header("content-type", "text/plain").bytes(operation.good.to_string())),
        ("compressed", 415, of(client).header("content-encoding", "gzip").json(&operation.good)),
        ("a second key", 400, of(client).key("another").json(&operation.good)),
        ("no JSON", 422, of(client).bytes("{")),
        ("no body", 422, of(client).bytes("")),
        ("an invalid field", 422, of(client).json(&operation.invalid)),
        ("an unknown path", 404, client.request("POST", &format!("{}/nothing/here", operation.path)).unchecked().json(&operation.good)),
        ("a method that is not there", 405, client.request("PATCH", "/api/v1/event-type").unchecked().json(&operation.good)),
    ]
}

#[tokio::test]
async fn what_is_refused_before_it_is_executed_is_never_saved() {
    let app = App::with(Options { max_payload: MAX_PAYLOAD, ..Options::default() }).await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let large = "x".repeat(MAX_PAYLOAD);
    let operations = [
        Operation {
            path: customer.path("/msg"),
            good: message(&json!({})),
            invalid: json!({ "eventType": "", "payload": {} }),
            large: message(&json!({ "large": large })),
        },
        Operation {
            path: "/api/v1/app".into(),
            good: json!({ "name": "x" }),
            invalid: json!({ "name": 1 }),
            large: json!({ "name": large }),
        },
    ];
    let application_token = support::application_token(&app.tenant, &customer.id);
    let mut executed = 0;
    for operation in &operations {
        for (name, status, request) in refusals(&app.client, &application_token, operation) {
            let refused = request.key(name).send().await;
            assert_eq!((refused.status, refused.is_replay()), (status, false), "{name}: {refused:?}");
            let good = async |client: &Client| client.request("POST", &operation.path).key(name).json(&operation.good).send().await;
            let first = good(&app.client).await;
            assert!(matches!(first.status, 201 | 202) && !first.is_replay(), "{name}: its key is free: {first:?}");
            same(&first, &good(&other_node.client).await);
            executed += 1;
            assert_eq!(app.database.number("select count(*) from idempotency").await, executed, "{name}");
        }
    }
}

#[tokio::test]
async fn a_parent_that_is_not_there_yet_leaves_the_key_free() {
    let app = App::start().await;
    let paths =
        [("/api/v1/app/late/msg", message(&json!({})), 202), ("/api/v1/app/late/endpoint", json!({ "url": "https://example.com/" }), 201)];
    let post = async |path: &str, body: &Value| app.client.request("POST", path).key("key").json(body).send().await;
    for (path, body, _) in &paths {
        assert!(!post(path, body).await.expect(404).is_replay());
    }
    app.client.post("/api/v1/app", &json!({ "name": "late", "uid": "late" })).await.expect(201);
    for (path, body, status) in &paths {
        let first = post(path, body).await.expect(*status);
        same(&first, &post(path, body).await);
    }
}

#[tokio::test]
async fn what_the_database_could_not_do_is_not_saved() {
    let app = App::start().await;
    let customer = app.customer().await;
    // Resources that Postgres is out of (SQLSTATE 53100) are a 503, and what it cannot represent (22000) is our fault, a 500.
    for (code, status) in [("53100", 503), ("22000", 500)] {
        let requests = [
            ("message", customer.path("/msg"), message(&json!({})), 202),
            ("application", "/api/v1/app".to_owned(), json!({ "name": "x" }), 201),
        ];
        for (table, path, body, success) in requests {
            let fails = format!(
                "create function fail() returns trigger language plpgsql as $$ begin raise 'no' using errcode = '{code}'; end $$;
                 create trigger fail before insert on {table} for each row execute function fail();"
            );
            let post = async || app.client.request("POST", &path).key(code).json(&body).send().await;
            app.database.execute(&fails).await;
            let failed = post().await.expect(status);
            assert_eq!(failed.header("retry-after"), (status == 503).then_some("1"));
            app.database.execute("drop function fail() cascade").await;
            let first = post().await.expect(success);
            assert!(!first.is_replay(), "nothing had happened");
            same(&first, &post().await);
        }
    }
}
