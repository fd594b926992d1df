//! Sending a message again, on request.

use std::time::Duration;

use serde_json::json;
use support::{App, Options, Receiver, Reply};

use crate::svix::status_of;

#[tokio::test]
async fn a_resend_sends_the_same_message_once_more() {
    let app = App::start().await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&message, 1).await;
    let resend = async || api.message_attempt().resend(customer.id.clone(), message.clone(), endpoint.clone(), None).await;
    resend().await.expect("it is accepted");
    let received = receiver.received(2).await;
    assert_eq!((received[1].id(), &received[1].body), (received[0].id(), &received[0].body));
    let attempts = customer.attempts(&message, 2).await;
    assert_eq!(attempts.iter().map(|attempt| attempt.0["triggerType"].clone()).collect::<Vec<_>>(), [0, 1]);
    app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": true })).await.expect(200);
    let refused = status_of(resend().await);
    assert!((400..500).contains(&refused), "a disabled endpoint gets nothing: {refused}");
}

#[tokio::test]
async fn a_failed_resend_is_not_retried_and_leaves_the_delivery_as_it_was() {
    let app = App::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(502), Reply::status(200)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&message, 1).await;
    let path = customer.path(&format!("/msg/{message}/endpoint/{endpoint}/resend"));
    app.client.request("POST", &path).send().await.expect(202);
    customer.attempts(&message, 2).await;
    assert_eq!(app.database.number("select count(*) from queue").await, 0, "the resend is over");
    assert_eq!(app.database.number("select count(*) from queue_later where run = 0").await, 1, "the automatic retry is still owed");
    app.database.let_retries_fall_due().await;
    let attempts = customer.attempts(&message, 3).await;
    assert_eq!(attempts.iter().map(support::Attempt::code).collect::<Vec<_>>(), [500, 502, 200]);
}
