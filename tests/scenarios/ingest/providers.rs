//! Services prove themselves by their documented algorithms, which are computed here apart from the code under test.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha512;
use support::{Answer, App, Receiver};

use super::{Project, Source, hex, hmac_sha256, is_duplicate};

const SECRET: &str = "It's a Secret to Everybody";

async fn of_provider(project: &Project, provider: &str, secret: &str, more: &Value) -> Source {
    let mut definition = json!({ "name": provider, "provider": provider, "verifier": { "type": "hmac", "hmac": { "secret": secret } } });
    for (name, value) in more.as_object().into_iter().flatten() {
        definition[name] = value.clone();
    }
    project.source(&definition).await
}

#[track_caller]
fn is_refused(answer: &Answer) {
    let message = answer.clone().expect(400).text("message");
    assert!(message.contains("could not be verified"), "{message}");
    assert!(!message.contains(SECRET));
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// GitHub's "Validating webhook deliveries", with the value that it publishes for its example.
#[tokio::test]
async fn github_events_are_taken_and_repeats_of_a_delivery_are_known() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let more = json!({
        "idempotency_keys": ["request.header.X-GitHub-Delivery"],
        "event_type_location": "request.header.X-GitHub-Event",
        "forward_headers": ["X-GitHub-Event", "X-Hub-Signature-256"],
    });
    let source = of_provider(&project, "github", SECRET, &more).await;
    let deliver = async |body: &'static str, signature: &str, delivery: &str| {
        let request = source.request(body).header("x-hub-signature-256", signature).header("x-github-event", "push");
        request.header("x-github-delivery", delivery).send().await
    };
    let published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert!(!is_duplicate(&deliver("Hello, World!", published, "72d3162e").await), "the documented example");
    let body = r#"{ "ref": "refs/heads/main",  "n": 1.10 }"#;
    let signature = format!("sha256={}", hex(&hmac_sha256(SECRET, &[body.as_bytes()])));
    assert!(!is_duplicate(&deliver(body, &signature, "72d3162f").await));
    assert!(is_duplicate(&deliver(body, &signature, "72d3162f").await), "GitHub's `Redeliver`");
    is_refused(&deliver("Hello, World?", published, "72d31630").await);
    is_refused(&deliver(body, &signature.to_uppercase(), "72d31630").await);
    is_refused(&source.request(body).send().await);
    let received = receiver.received(2).await;
    assert_eq!((&received[1].body[..], received[1].header("x-github-event")), (body.as_bytes(), "push"));
    assert_eq!(received[1].header("x-hub-signature-256"), signature, "so that the endpoint can verify it too");
    assert_eq!(project.events().await.iter().map(|event| event["eventType"].clone()).collect::<Vec<_>>(), ["push"; 3]);
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2);
}

/// GitHub can send forms: they are signed as they come.
#[tokio::test]
async fn a_form_is_verified_over_its_bytes_and_its_fields_are_found() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = of_provider(&project, "github", SECRET, &json!({ "idempotency_keys": ["request.body.payload"] })).await;
    let deliver = async |body: &'static str| {
        let signature = format!("sha256={}", hex(&hmac_sha256(SECRET, &[body.as_bytes()])));
        let request = source.request(body).header("x-hub-signature-256", signature);
        request.send().await
    };
    let form = async |body: &'static str| {
        let signature = format!("sha256={}", hex(&hmac_sha256(SECRET, &[body.as_bytes()])));
        let request = source.client.request("POST", source.path()).header("content-type", "application/x-www-form-urlencoded");
        request.bytes(body).header("x-hub-signature-256", signature).send().await
    };
    assert!(!is_duplicate(&form("payload=%7B%22n%22%3A1%7D&n=1").await));
    assert!(is_duplicate(&form("n=2&payload=%7b%22n%22%3a1%7d").await), "however it is spelled");
    assert!(!is_duplicate(&form("payload=%7B%22n%22%3A2%7D").await));
    assert!(!is_duplicate(&deliver(r#"{"payload": "x"}"#).await));
}

/// Stripe's "Verify webhook signatures manually".
#[tokio::test]
async fn stripe_events_are_taken_in_time() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let more = json!({ "idempotency_keys": ["request.body.id"], "event_type_location": "request.body.type" });
    let source = of_provider(&project, "stripe", SECRET, &more).await;
    let deliver = async |body: &Value, at: i64, more: &str| {
        let body = body.to_string();
        let signature = hex(&hmac_sha256(SECRET, &[at.to_string().as_bytes(), b".", body.as_bytes()]));
        source.request(body).header("stripe-signature", format!("t={at},{more}v1={signature},v0=ignored")).send().await
    };
    let event = json!({ "id": "evt_1", "type": "payment_intent.succeeded" });
    assert!(!is_duplicate(&deliver(&event, now(), "").await));
    assert!(is_duplicate(&deliver(&event, now() - 100, &format!("v1={},", "0".repeat(64))).await), "one of several fits");
    for at in [now() - 400, now() + 400] {
        let message = deliver(&event, at, "").await.expect(400).text("message");
        assert!(message.contains("away from our time"), "{message}");
    }
    assert_eq!(project.events().await[0]["eventType"], "payment_intent.succeeded");
}

/// Shopify's "Validate the origin of your webhook".
#[tokio::test]
async fn shopify_events_are_taken() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let more =
        json!({ "idempotency_keys": ["request.header.X-Shopify-Event-Id"], "event_type_location": "request.header.X-Shopify-Topic" });
    let source = of_provider(&project, "shopify", SECRET, &more).await;
    let deliver = async |body: &'static str, signature: String| {
        let request = source.request(body).header("x-shopify-hmac-sha256", signature).header("x-shopify-topic", "orders/create");
        request.header("x-shopify-event-id", "98880550").send().await
    };
    let signed = |body: &str| BASE64_STANDARD.encode(hmac_sha256(SECRET, &[body.as_bytes()]));
    assert!(!is_duplicate(&deliver(r#"{"id":820982911946154508}"#, signed(r#"{"id":820982911946154508}"#)).await));
    assert!(is_duplicate(&deliver(r#"{"id":820982911946154508}"#, signed(r#"{"id":820982911946154508}"#)).await));
    is_refused(&deliver("{}", signed("{ }")).await);
    assert_eq!(project.events().await[0]["eventType"], "orders/create");
}

/// Slack's "Verifying requests from Slack".
#[tokio::test]
async fn slack_events_are_taken_in_time() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = of_provider(&project, "slack", SECRET, &json!({ "idempotency_keys": ["request.body.event_id"] })).await;
    let deliver = async |body: &'static str, at: i64| {
        let at = at.to_string();
        let signature = hex(&hmac_sha256(SECRET, &[b"v0:", at.as_bytes(), b":", body.as_bytes()]));
        source.request(body).header("x-slack-request-timestamp", at).header("x-slack-signature", format!("v0={signature}")).send().await
    };
    assert!(!is_duplicate(&deliver(r#"{"event_id":"Ev1"}"#, now()).await));
    assert!(is_duplicate(&deliver(r#"{"event_id":"Ev1"}"#, now() - 1).await));
    deliver(r#"{"event_id":"Ev2"}"#, now() - 600).await.expect(400);
}

/// X's "Securing webhooks": the challenge is answered by who has the secret, and so are events signed.
#[tokio::test]
async fn challenges_of_x_are_answered_and_its_events_taken() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = of_provider(&project, "twitter", SECRET, &json!({})).await;
    let ask = async |token: &str| source.client.get(&format!("{}?crc_token={token}", source.path())).await;
    let answer = ask("MTUwMzA5NTE5Nw%3D%3D").await.expect(200).json();
    let expected = format!("sha256={}", BASE64_STANDARD.encode(hmac_sha256(SECRET, &[b"MTUwMzA5NTE5Nw=="])));
    assert_eq!(answer, json!({ "response_token": expected }));
    let body = r#"{"for_user_id":"2244994945"}"#;
    let signature = format!("sha256={}", BASE64_STANDARD.encode(hmac_sha256(SECRET, &[body.as_bytes()])));
    let deliver = async |signature: &str| source.request(body).header("x-twitter-webhooks-signature", signature).send().await;
    assert!(!is_duplicate(&deliver(&signature).await));
    is_refused(&deliver(&expected).await);
    // Whoever knows the URL could have a body signed otherwise.
    ask("%7B%22for_user_id%22%3A%222244994945%22%7D").await.expect(400);
    ask("").await.expect(400);
    let github = of_provider(&project, "github", SECRET, &json!({})).await;
    github.client.get(&format!("{}?crc_token=abc", github.path())).await.expect(400);
}

/// The specification of Standard Webhooks, with its own library; and what this server sends itself.
#[tokio::test]
async fn standard_webhooks_are_taken_and_so_are_ours() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let source = of_provider(&project, "standard_webhooks", secret, &json!({ "idempotency_keys": ["request.header.webhook-id"] })).await;
    let webhook = standardwebhooks::Webhook::new(secret).expect("a secret");
    let deliver = async |id: &str, body: &'static str| {
        let signature = webhook.sign(id, now(), body.as_bytes()).expect("a signature");
        let request = source.request(body).header("webhook-id", id).header("webhook-timestamp", now().to_string());
        request.header("webhook-signature", signature).send().await
    };
    assert!(!is_duplicate(&deliver("msg_1", "{}").await));
    assert!(is_duplicate(&deliver("msg_1", "{}").await));
    is_refused(
        &source
            .request("{}")
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", now().to_string())
            .header("webhook-signature", "v1,AAAA")
            .send()
            .await,
    );
}

/// Convoy's own verifiers: all hashes and spellings of an HMAC, basic authentication, keys.
#[tokio::test]
async fn each_plain_verifier_takes_what_it_should_and_nothing_else() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let body = r#"{"n": 1}"#;
    let sha256 = hmac_sha256(SECRET, &[body.as_bytes()]);
    let sha512 = Hmac::<Sha512>::new_from_slice(SECRET.as_bytes()).expect("any length").chain_update(body).finalize().into_bytes();
    let pairs: [(&str, &str, String); 4] = [
        ("SHA256", "hex", hex(&sha256)),
        ("SHA256", "base64", BASE64_STANDARD.encode(&sha256)),
        ("SHA512", "hex", hex(&sha512)),
        ("SHA512", "base64", BASE64_STANDARD.encode(sha512)),
    ];
    for (hash, encoding, signature) in pairs {
        let hmac = json!({ "header": "X-Sig", "hash": hash, "encoding": encoding, "secret": SECRET, "prefix": "v=" });
        let source = project.source(&json!({ "name": "hmac", "verifier": { "type": "hmac", "hmac": hmac } })).await;
        source.request(body).header("x-sig", format!("v={signature}")).send().await.expect(200);
        is_refused(&source.request(body).header("x-sig", &signature).send().await);
        is_refused(&source.request(r#"{"n":1}"#).header("x-sig", format!("v={signature}")).send().await);
    }
    let basic = json!({ "type": "basic_auth", "basic_auth": { "username": "user", "password": "pass:word" } });
    let source = project.source(&json!({ "name": "basic", "verifier": basic })).await;
    let with = |text: &str| source.request(body).header("authorization", format!("Basic {}", BASE64_STANDARD.encode(text)));
    with("user:pass:word").send().await.expect(200);
    for wrong in ["user:pass", "other:pass:word", "user", ""] {
        is_refused(&with(wrong).send().await);
    }
    let key = json!({ "type": "api_key", "api_key": { "header_name": "X-Key", "header_value": SECRET } });
    let source = project.source(&json!({ "name": "key", "verifier": key })).await;
    source.request(body).header("x-key", SECRET).send().await.expect(200);
    is_refused(&source.request(body).header("x-key", "guess").send().await);
    is_refused(&source.request(body).send().await);
    assert_eq!(project.events().await.len(), 6, "nothing of what was refused is kept");
}
