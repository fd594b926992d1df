//! A kept connection that the receiver closes under a request: it is sent once more, and everybody can tell.

use serde_json::json;
use support::{App, Options, Receiver, Reply};

#[tokio::test]
async fn a_second_sending_is_told_to_the_receiver_and_shown_in_the_attempt() {
    let app = App::with(Options::retries(1)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(200), Reply::close(), Reply::status(200).body("at last")]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let first = customer.publish(&json!({ "n": 1 })).await;
    let attempts = customer.attempts(&first, 1).await;
    assert_eq!((attempts[0].code(), &attempts[0].0["resent"]), (200, &json!(false)));
    let second = customer.publish(&json!({ "n": 2 })).await;
    let attempts = customer.attempts(&second, 1).await;
    assert_eq!((attempts[0].code(), attempts[0].response(), &attempts[0].0["resent"]), (200, "at last", &json!(true)));
    let received = receiver.received(3).await;
    let told: Vec<_> = received.iter().map(|webhook| (webhook.id(), webhook.header("posthaste-attempt"))).collect();
    assert_eq!(told, [(first.as_str(), "1"), (&second, "1"), (&second, "1.1")]);
    let shown = customer.client.get(&customer.path(&format!("/msg/{second}/attempt/{}", attempts[0].id()))).await.expect(200).json();
    assert_eq!(shown["resent"], true);
}

#[tokio::test]
async fn a_second_sending_that_fails_too_is_one_attempt_and_the_next_one_has_the_next_number() {
    let app = App::with(Options::retries(1)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(200), Reply::close(), Reply::close(), Reply::status(200)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let first = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&first, 1).await;
    let second = customer.publish(&json!({ "n": 2 })).await;
    let attempts = customer.attempts(&second, 2).await;
    let shown: Vec<_> = attempts.iter().map(|attempt| (attempt.code(), attempt.0["resent"].clone())).collect();
    assert_eq!(shown, [(0, json!(true)), (200, json!(false))]);
    let numbers: Vec<_> = receiver.received(4).await.iter().map(|webhook| webhook.header("posthaste-attempt").to_owned()).collect();
    assert_eq!(numbers, ["1", "1", "1.1", "2"]);
}
