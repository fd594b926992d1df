//! The content of a message is erased on request.

use std::time::Duration;

use serde_json::json;
use support::{App, Options, Receiver, Reply, application_token, customer::message};

#[tokio::test]
async fn what_is_expunged_is_neither_shown_nor_sent_again() {
    let app = App::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let mut secret = message(&json!({ "secret": 1 }));
    secret["eventId"] = json!("invoice-1");
    let id = customer.publish_raw(&secret, Some("key")).await.expect(202).text("id");
    let kept = customer.publish(&json!({ "kept": 1 })).await;
    customer.attempts(&id, 1).await;

    let bearer = app.client.with_token(&application_token(&app.tenant, &customer.id));
    bearer.delete(&customer.path(&format!("/msg/{id}/content"))).await.expect(403);
    app.sdk().await.message().expunge_content(customer.id.clone(), "invoice-1".into()).await.expect("it is gone");

    let shown = async |id: &str| app.client.get(&customer.path(&format!("/msg/{id}"))).await.expect(200).json()["payload"].clone();
    assert_eq!(shown(&id).await, json!({ "expired": true }));
    assert_eq!(shown(&kept).await, json!({ "kept": 1 }), "no other message is touched");
    assert_eq!(app.database.number("select count(*) from message where payload is null").await, 1, "it is not just hidden");
    let resend = customer.path(&format!("/msg/{id}/endpoint/{endpoint}/resend"));
    assert_eq!(app.client.request("POST", &resend).send().await.expect(400).code(), "missing_payload");
    app.database.let_retries_fall_due().await;
    let ended = customer.attempts(&id, 2).await;
    assert!(ended[1].response().contains("has been removed"), "{:?}", ended[1]);
    let sent = receiver.so_far().into_iter().filter(|webhook| webhook.id() == id);
    assert_eq!(sent.count(), 1, "the retry was not sent");

    for gone in ["nothing", "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2"] {
        app.client.delete(&customer.path(&format!("/msg/{gone}/content"))).await.expect(404);
    }
    app.client.delete(&customer.path(&format!("/msg/{id}/content"))).await.expect(204);
}
