//! The content of a message is erased on request.

use std::time::Duration;

use serde_json::json;
use support::{App, Options, Receiver, Reply, application_token, customer::message, eventually};

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

#[tokio::test]
async fn the_content_of_many_messages_is_erased_at_once_and_of_all_by_a_task() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(customer.publish(&json!({ "n": n })).await);
    }
    let neighbour = app.customer().await;
    let theirs = neighbour.publish(&json!({ "n": 1 })).await;
    receiver.received(4).await;
    let kept = async || app.database.number("select count(*) from message where payload is not null").await;
    let body = json!({ "ids": [ids[0], ids[1], theirs, "nothing"] });
    let erased = app.client.post(&customer.path("/msg/bulk-expunge"), &body).await.expect(200).json();
    let expected = json!({ &ids[0]: "expunged", &ids[1]: "expunged", &theirs: "not-found", "nothing": "not-found" });
    assert_eq!((&erased["results"], kept().await), (&expected, 3));
    let many = json!({ "ids": vec!["a"; 501] });
    assert_eq!(
        app.client.post(&customer.path("/msg/bulk-expunge"), &many).await.expect(422).json()["detail"][0]["loc"],
        json!(["body", "ids"])
    );
    let task = app.client.request("POST", &customer.path("/msg/expunge-all-contents")).send().await.expect(202).json();
    assert_eq!(task["task"], "application.purge_content");
    let path = format!("/api/v1/background-task/{}", task["id"].as_str().expect("an id"));
    let shown = eventually("the task is over", async || {
        let shown = app.client.get(&path).await.expect(200).json();
        (shown["status"] == "finished").then_some(shown)
    });
    assert_eq!(shown.await["data"]["messagesPurged"], 2);
    assert_eq!(kept().await, 1, "the neighbour's");
}

#[tokio::test]
async fn what_a_receiver_answered_is_erased_on_request() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    receiver.on("/", [Reply::status(200).body("a secret"), Reply::status(200).body("kept")]);
    let (first, second) = (customer.publish(&json!({ "n": 1 })).await, customer.publish(&json!({ "n": 2 })).await);
    let answer = async |id: &str| customer.attempts(id, 1).await.remove(0);
    let (one, two) = (answer(&first).await, answer(&second).await);
    let (secret, kept) = if one.response() == "a secret" { (first, second) } else { (second, first) };
    let attempt = if one.response() == "a secret" { one } else { two };
    let path = |message: &str| customer.path(&format!("/msg/{message}/attempt/{}/content", attempt.id()));
    app.client.delete(&path(&kept)).await.expect(404);
    app.client.delete(&path(&secret)).await.expect(204);
    assert_eq!(answer(&secret).await.response(), "");
    assert_eq!(answer(&kept).await.response(), "kept");
    assert_eq!(answer(&secret).await.code(), 200, "the rest of it stays");
}
