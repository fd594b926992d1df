//! What a sender proves itself with is neither kept, nor shown, nor sent on; other headers go on if they are named.

use serde_json::{Value, json};
use support::{App, Receiver};

use super::Project;

/// Stands for every secret here, so that one search finds them all.
const SECRET: &str = "TopS3cretValue";

/// All rows of all tables in which something of an event could be, as text.
async fn everything(app: &App) -> String {
    let tables = ["source", "message", "queue", "queue_later", "attempt", "subscription", "endpoint", "application", "idempotency", "task"];
    let mut all = String::new();
    for table in tables {
        for row in app.database.texts(&format!("select to_jsonb(t)::text from {table} t")).await {
            all += &row;
        }
    }
    all
}

/// The bytes in the form in which `bytea` is shown.
fn in_hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn no_credential_is_kept_shown_or_sent_on() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let key =
        |place: &str, name: &str| json!({ "type": "api_key", "api_key": { "header_name": name, "header_value": SECRET, "in": place } });
    let verifiers = [
        json!({ "type": "basic_auth", "basic_auth": { "username": "user", "password": SECRET } }),
        key("header", "X-Token"),
        key("bearer", ""),
        key("query", "token"),
    ];
    let definition = |verifier: &Value| json!({ "name": "A source", "verifier": verifier, "forward_headers": ["X-Kept"] });
    for verifier in &verifiers {
        let source = project.source(&definition(verifier)).await;
        assert!(!source.shown.to_string().contains(SECRET), "not even when it is made");
        let shown = project.client.get(&project.path(&format!("/sources/{}", source.id()))).await.expect(200);
        assert!(!shown.json().to_string().contains(SECRET));
        let request = source.with_query(&format!("token={SECRET}&page=2"), "{}").header("x-token", SECRET).header("x-kept", "kept");
        let request = if verifier["type"] == "basic_auth" {
            let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("user:{SECRET}"));
            source.with_query("page=2", "{}").header("authorization", format!("Basic {pair}")).header("x-kept", "kept")
        } else if verifier["api_key"]["in"] == "query" {
            request
        } else {
            source
                .with_query("page=2", "{}")
                .header("authorization", format!("Bearer {SECRET}"))
                .header("x-token", SECRET)
                .header("x-kept", "kept")
        };
        request.header("cookie", SECRET).send().await.expect(200);
    }
    let received = receiver.received(verifiers.len()).await;
    app.database.nothing_owed().await;
    for webhook in &received {
        assert_eq!(webhook.header("x-kept"), "kept");
        let all = format!("{:?} {}", webhook.headers, webhook.path);
        assert!(!all.contains(SECRET) && webhook.all("x-token").is_empty() && webhook.all("authorization").is_empty(), "{all}");
    }
    let kept = everything(&app).await;
    for form in [SECRET.to_owned(), in_hex(SECRET), base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("user:{SECRET}"))] {
        assert!(!kept.contains(&form), "{form} is in the database");
    }
    assert!(kept.contains("page=2"), "what is no secret is kept");
    let page = project.client.get(&project.path("/sources")).await.expect(200).json().to_string();
    assert!(!page.contains(SECRET));
}

#[tokio::test]
async fn a_header_goes_on_only_if_it_is_named_and_never_with_a_credential() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let key = json!({ "type": "api_key", "api_key": { "header_name": "X-Token", "header_value": SECRET } });
    for wrong in ["x-token", "Authorization", "Cookie", "Host", "Webhook-Id", "X-Convoy-Signature", "a b"] {
        let definition = json!({ "name": "A source", "verifier": key, "forward_headers": ["X-Fine", wrong] });
        let message = project.client.post(&project.path("/sources"), &definition).await.expect(400).text("message");
        assert!(message.contains("forward_headers: entry 1") && message.contains(wrong), "{message}");
    }
    let receiver = Receiver::start().await;
    project.customer.endpoint(&receiver.url("/")).await;
    let source =
        project.source(&json!({ "name": "A source", "verifier": { "type": "noop" }, "forward_headers": ["X-Token", "X-Twice"] })).await;
    let send = async || {
        source.request("{}").header("x-token", SECRET).header("x-twice", "1").header("x-twice", "2").header("x-other", "3").send().await
    };
    send().await.expect(200);
    let first = receiver.received(1).await.remove(0);
    assert_eq!((first.header("x-token"), first.all("x-other")), (SECRET, vec![]));
    assert_eq!(first.all("x-twice").join(&b", "[..]).as_slice(), b"1, 2");
    // From now on that header is what the sender proves itself with, though the list still names it.
    project.update(&source, &json!({ "verifier": key })).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    send().await.expect(200);
    assert!(receiver.received(2).await[1].all("x-token").is_empty());
}

#[tokio::test]
async fn a_secret_that_is_not_given_anew_stays() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let hmac = json!({ "type": "hmac", "hmac": { "header": "X-Sig", "hash": "SHA256", "encoding": "hex", "secret": "s" } });
    let source = project.source(&json!({ "name": "A source", "verifier": hmac })).await;
    let signature = super::hex(&super::hmac_sha256("s", &[b"{}"]));
    let shown = source.shown["verifier"].clone();
    assert_eq!(shown["hmac"]["header"], "x-sig");
    let other_header = json!({ "type": "hmac", "hmac": { "header": "X-Other", "hash": "SHA256", "encoding": "hex" } });
    project.update(&source, &json!({ "name": "Renamed", "verifier": other_header })).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    source.request("{}").header("x-other", &signature).send().await.expect(200);
    source.request("{}").header("x-sig", &signature).send().await.expect(400);
    let path = project.path(&format!("/sources/{}", source.id()));
    let other_kind = json!({ "verifier": { "type": "basic_auth", "basic_auth": { "username": "u" } } });
    let message = project.client.put(&path, &other_kind).await.expect(400).text("message");
    assert!(message.contains("verifier.basic_auth.password"), "{message}");
}
