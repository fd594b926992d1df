//! Secrets stay in: neither a dump of the database nor the most talkative log shows one.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use support::{
    App, Customer, Database, JWT_SECRET, MAIN_SECRET, Receiver, Reply,
    customer::message,
    hex, new_tenant,
    processes::{self, ServerProcess},
};

/// A text as it might appear: raw, in base64, in hexadecimal, and without its prefix.
fn spellings(secret: &str) -> Vec<(&'static str, String)> {
    let mut spellings = vec![("raw", secret.to_owned()), ("base64", BASE64_STANDARD.encode(secret)), ("hex", hex(secret.as_bytes()))];
    if let Some(bytes) = secret.strip_prefix("whsec_").and_then(|text| BASE64_STANDARD.decode(text).ok()) {
        spellings.extend([("the bare base64", secret["whsec_".len()..].to_owned()), ("the bytes in hex", hex(&bytes))]);
    }
    spellings
}

/// Secrets that are given; others are generated and collected on the way.
const ROTATED: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const GIVEN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Uses secrets of every kind; returns those that only the server knew before.
async fn use_secrets(server: &ServerProcess, receiver: &Receiver) -> Vec<String> {
    let customer = Customer::create(&server.client).await;
    let headers = json!({ "Authorization": "Bearer header-secret-7c1f", "X-Plain-Name": "plain-header-secret-2b9d" });
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "headers": headers })).await;
    let generated = customer.secret(&endpoint).await;
    let rotate = server.client.request("POST", &customer.path(&format!("/endpoint/{endpoint}/secret/rotate"))).key("rotation-key-55aa");
    rotate.json(&json!({ "key": ROTATED })).send().await.expect(200);
    let create = server.client.request("POST", &customer.path("/endpoint")).key("creation-key-66bb");
    let second = json!({ "url": receiver.url("/2"), "secret": GIVEN, "headers": { "X-Api-Key": "third-header-secret-9e0a" } });
    create.json(&second).send().await.expect(201);
    let body = message(&json!({ "marker": "payload-marker-41d8" }));
    for _ in 0..2 {
        customer.publish_raw(&body, Some("publish-key-77cc")).await.expect(202);
    }
    server.client.with_token("eyJhbGciOi.wrong-token-88dd.x").get("/api/v1/app").await.expect(401);
    receiver.received(3).await;
    vec![generated, customer.client.token.expect("a token")]
}

/// Everything in the database, as text.
async fn dump(database: &Database) -> String {
    let mut command = tokio::process::Command::new("pg_dump");
    command.args(["--dbname", &database.url, "--no-owner"]);
    let (status, dump, errors) = processes::run(command).await;
    assert!(status.success(), "pg_dump is needed: {errors}");
    dump
}

#[tokio::test]
async fn no_secret_token_or_sealed_header_is_in_a_dump_or_a_trace_log() {
    let database = Database::create().await;
    let program = env!("CARGO_BIN_EXE_posthaste-under-test");
    let variables = [("POSTHASTE_LOG", "trace"), ("POSTHASTE_RETRY_SCHEDULE", "10ms")];
    let mut server = ServerProcess::start(program, "serve", &database.url, &new_tenant(), &variables).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(200)]);
    let mut secrets = use_secrets(&server, &receiver).await;
    database.nothing_owed().await;
    server.process.signal(rustix::process::Signal::TERM);
    assert!(server.process.ended().await.success());
    let (dump, log) = (dump(&database).await, server.process.log());
    assert!(log.contains("TRACE"), "the log is at its most talkative:\n{}", log.chars().take(2000).collect::<String>());
    let known = ["header-secret-7c1f", "plain-header-secret-2b9d", "third-header-secret-9e0a", "wrong-token-88dd", "rotation-key-55aa"];
    let more = ["creation-key-66bb", "publish-key-77cc", GIVEN, ROTATED, JWT_SECRET, MAIN_SECRET];
    secrets.extend(known.into_iter().chain(more).map(str::to_owned));
    for secret in secrets {
        for (spelling, text) in spellings(&secret) {
            for (place, haystack) in [("dump", &dump), ("log", &log)] {
                assert!(!haystack.to_lowercase().contains(&text.to_lowercase()), "the {place} shows `{secret}` ({spelling})");
            }
        }
    }
    let hex = hex(b"payload-marker-41d8");
    assert!(dump.contains(&hex), "the payload is in the dump");
    assert!(!log.contains("payload-marker-41d8") && !log.contains(&hex), "and nowhere else");
}

/// How much is sealed for endpoints.
const SEALED: &str = "select (select count(*) from endpoint_secret) + (select count(*) from endpoint where headers is not null)";

#[tokio::test]
async fn the_secrets_and_headers_of_what_is_deleted_are_erased() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url("/"), "headers": { "x-secret": "header" } });
    let (one, other) = (app.customer().await, app.customer().await);
    let deleted = one.endpoint_with(&body).await;
    one.endpoint_with(&body).await;
    other.endpoint_with(&body).await;
    let rotate = one.path(&format!("/endpoint/{deleted}/secret/rotate"));
    app.client.post(&rotate, &json!({})).await.expect(200);
    assert_eq!(app.database.number(SEALED).await, 7);
    app.client.delete(&one.path(&format!("/endpoint/{deleted}"))).await.expect(204);
    assert_eq!(app.database.number(SEALED).await, 4, "an endpoint with its superseded secret");
    app.client.delete(&other.path("")).await.expect(204);
    assert_eq!(app.database.number(SEALED).await, 2, "an application with its endpoints");

    // What an earlier release left, and a secret that signs no more.
    one.endpoint_with(&body).await;
    let third = one.endpoint_with(&body).await;
    app.client.post(&one.path(&format!("/endpoint/{third}/secret/rotate")), &json!({})).await.expect(200);
    app.database.execute("update endpoint_secret set expires_at = now() - interval '2 hours' where expires_at is not null").await;
    app.database.execute("update endpoint set deleted_at = now() where id = (select min(id::text)::uuid from endpoint where deleted_at is null and headers is not null)").await;
    let _node = app.second_node().await;
    support::eventually("upkeep erases it", async || (app.database.number(SEALED).await == 4).then_some(())).await;
    one.publish(&json!({})).await;
    receiver.received(2).await;
}
