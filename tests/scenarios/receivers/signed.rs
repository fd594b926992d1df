//! The receiver takes what the sender signed, and nothing else.

use bytes::Bytes;
use serde_json::json;
use standardwebhooks::Webhook;
use support::Client;

use super::{Scene, answered};

const BODY: &str = r#"{"order": 17}"#;

/// Posts to the receiver what might be a webhook; returns the status.
async fn post(scene: &Scene, headers: &[(&str, &str)], body: &str) -> u16 {
    let client = Client::new(&format!("http://{}", scene.address), None);
    let request = client.request("POST", "/").bytes(Bytes::copy_from_slice(body.as_bytes())).unchecked();
    headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send().await.status
}

#[tokio::test]
async fn what_the_sender_did_not_sign_is_refused_and_changes_nothing() {
    let scene = Scene::set().await;
    let _receiver = scene.receiver().await;
    let ours = Webhook::new(&scene.customer.secret(&scene.endpoint).await).expect("a secret");
    let other = Webhook::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").expect("a secret");
    let now = chrono::Utc::now().timestamp();
    let sign = |by: &Webhook, id: &str, at: i64| by.sign(id, at, BODY.as_bytes()).expect("a signature");
    let (good, forged) = (sign(&ours, "msg_1", now), sign(&other, "msg_1", now));
    let (stale, early) = (sign(&ours, "msg_1", now - 400), sign(&ours, "msg_1", now + 400));
    let [now, past, future] = [now, now - 400, now + 400].map(|at| at.to_string());
    let asymmetric = good.replace("v1,", "v1a,");
    let cut = &good[..good.len() - 4];
    let refused = [
        ("another secret", "msg_1", now.as_str(), forged.as_str(), BODY),
        ("another body", "msg_1", &now, &good, r#"{"order": 18}"#),
        ("another id", "msg_2", &now, &good, BODY),
        ("another time", "msg_1", &past, &good, BODY),
        ("an old one", "msg_1", &past, &stale, BODY),
        ("one of the future", "msg_1", &future, &early, BODY),
        ("no time", "msg_1", "yesterday", &good, BODY),
        ("another version", "msg_1", &now, &asymmetric, BODY),
        ("half a signature", "msg_1", &now, cut, BODY),
        ("an empty signature", "msg_1", &now, "v1,", BODY),
        ("no signature", "msg_1", &now, "", BODY),
    ];
    for (what, id, at, signature, body) in refused {
        let headers = [("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signature)];
        assert_eq!(post(&scene, &headers, body).await, 401, "{what}");
    }
    assert_eq!(post(&scene, &[], BODY).await, 401, "nothing at all");
    assert_eq!((scene.payments().await, scene.remembered().await), (0, 0));
    let several = format!("{forged} {asymmetric} {good}");
    let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", now.as_str()), ("webhook-signature", &several)];
    assert_eq!(post(&scene, &headers, BODY).await, 200, "one of several is enough");
    assert_eq!(scene.payments().await, 1);
}

#[tokio::test]
async fn webhooks_stay_valid_while_the_secret_is_rotated_and_other_endpoints_have_other_secrets() {
    let scene = Scene::set().await;
    let _receiver = scene.receiver().await;
    let path = scene.customer.path(&format!("/endpoint/{}/secret/rotate", scene.endpoint));
    scene.app.client.post(&path, &json!({})).await.expect(200);
    let message = scene.publish().await;
    assert_eq!(scene.answers(&message, 1).await, [answered(200, "processed")], "the old secret signs beside the new one");
    let stranger = scene.app.customer().await;
    stranger.endpoint(&format!("http://{}/", scene.wire.address)).await;
    let message = stranger.publish(&json!({ "order": 17 })).await;
    let attempts = stranger.attempts(&message, 1).await;
    assert_eq!(attempts[0].code(), 401);
    assert_eq!((scene.payments().await, scene.remembered().await), (1, 1));
}
