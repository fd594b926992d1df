//! How a receiver knows that a webhook is ours, and what else each webhook carries.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, SigningKey, Verifier, VerifyingKey};
use serde_json::json;
use support::{App, Options, Receiver};
use worker::SignatureHeaders;

#[tokio::test]
async fn both_official_libraries_accept_the_signature() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "emoji": "🦀", "n": 1.5 })).await;
    let webhook = receiver.received(1).await.remove(0);
    let secret = customer.secret(&endpoint).await;
    let headers = webhook.header_map();
    svix::webhooks::Webhook::new(&secret).expect("a secret").verify(&webhook.body, &headers).expect("svix accepts it");
    standardwebhooks::Webhook::new(&secret).expect("a secret").verify(&webhook.body, &headers).expect("standardwebhooks accepts it");
    let mut forged = webhook.body.to_vec();
    forged.push(b' ');
    standardwebhooks::Webhook::new(&secret).expect("a secret").verify(&forged, &headers).expect_err("another body");
    for part in ["id", "timestamp", "signature"] {
        assert_eq!(webhook.header(&format!("webhook-{part}")), webhook.header(&format!("svix-{part}")));
    }
    assert_eq!((webhook.method.as_str(), webhook.id()), ("POST", message.as_str()));
    assert_eq!(webhook.header("x-convoy-idempotency-key"), message, "without a message key it is the message id");
    assert_eq!(webhook.header("content-length"), webhook.body.len().to_string());
    assert!(webhook.header("user-agent").starts_with("Posthaste/"), "{}", webhook.header("user-agent"));
    assert_eq!(webhook.header("host"), receiver.address.to_string());
}

#[tokio::test]
async fn the_signed_bytes_are_the_publishers_bytes() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let payload = "{\"z\" : 1.00,\r\n \"a\":\"\\u0041\",   \"z2\":[ ]}";
    let body = format!("{{\"payload\":{payload},\"eventType\":\"x\"}}");
    customer.client.request("POST", &customer.path("/msg")).bytes(body).send().await.expect(202);
    let webhook = receiver.received(1).await.remove(0);
    assert_eq!(webhook.body, payload.as_bytes());
    let secret = customer.secret(&endpoint).await;
    let verifier = standardwebhooks::Webhook::new(&secret).expect("a secret");
    verifier.verify(payload.as_bytes(), &webhook.header_map()).expect("what was published is what was signed");
}

#[tokio::test]
async fn a_key_pair_signs_asymmetrically() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let pair = SigningKey::from_bytes(&[7; 32]);
    let secret = format!("whsk_{}", BASE64_STANDARD.encode(pair.to_keypair_bytes()));
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "secret": secret })).await;
    customer.publish(&json!({ "n": 1 })).await;
    let webhook = receiver.received(1).await.remove(0);
    let shown = customer.secret(&endpoint).await;
    let public = BASE64_STANDARD.decode(shown.strip_prefix("whpk_").expect("only the public half is shown")).expect("base64");
    let key = VerifyingKey::from_bytes(&public.try_into().expect("32 bytes")).expect("a key");
    let signature = webhook.header("webhook-signature").strip_prefix("v1a,").expect("an asymmetric signature");
    let signature = Signature::from_slice(&BASE64_STANDARD.decode(signature).expect("base64")).expect("a signature");
    let signed = [webhook.id().as_bytes(), b".", webhook.header("webhook-timestamp").as_bytes(), b".", &webhook.body].concat();
    key.verify(&signed, &signature).expect("it is ours");
}

#[tokio::test]
async fn the_operator_chooses_the_names_of_the_signature_headers() {
    for (choice, standard, svix) in [(SignatureHeaders::Standard, 1, 0), (SignatureHeaders::Svix, 0, 1), (SignatureHeaders::Both, 1, 1)] {
        let app = App::with(Options { signature_headers: choice, ..Options::default() }).await;
        let receiver = Receiver::start().await;
        let customer = app.customer().await;
        customer.endpoint(&receiver.url("/")).await;
        customer.publish(&json!({})).await;
        let webhook = receiver.received(1).await.remove(0);
        for part in ["id", "timestamp", "signature"] {
            assert_eq!(webhook.all(&format!("webhook-{part}")).len(), standard);
            assert_eq!(webhook.all(&format!("svix-{part}")).len(), svix);
        }
        assert_eq!(webhook.all("x-convoy-idempotency-key").len(), 1);
    }
}
