//! `Posthaste-Redelivery-Until`: until when a receiver has to expect the same webhook again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use support::{App, Customer, Database, Options, Received, Receiver, Reply, new_tenant, processes::ServerProcess};

/// The time that a webhook names, in seconds.
fn until(webhook: &Received) -> i64 {
    let text = webhook.header("posthaste-redelivery-until");
    assert!(text.len() == "2026-11-23T15:18:12Z".len() && text.ends_with('Z'), "whole seconds, in UTC: {text}");
    text.parse::<DateTime<Utc>>().expect("RFC 3339").timestamp()
}

/// When a webhook was sent, in seconds.
fn sent(webhook: &Received) -> i64 {
    webhook.header("webhook-timestamp").parse().expect("a number")
}

/// How long after a webhook the last one may come, in seconds.
fn left(webhook: &Received) -> i64 {
    until(webhook) - sent(webhook)
}

#[tokio::test]
async fn what_is_left_shrinks_from_attempt_to_attempt_and_a_resend_says_nothing() {
    let schedule = [1000, 2000, 4000].map(Duration::from_secs).to_vec();
    let app = App::with(Options { schedule, request_timeout: Duration::from_secs(5), ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    for (number, expected) in [(1, 7000 * 12 / 10 + 4 * 5), (2, 6000 * 12 / 10 + 3 * 5), (3, 4000 * 12 / 10 + 2 * 5), (4, 5)] {
        let webhook = receiver.received(number).await.remove(number - 1);
        assert_eq!(webhook.header("posthaste-attempt"), number.to_string());
        let left = left(&webhook);
        assert!((expected..=expected + 1).contains(&left), "attempt {number}: {left} s instead of {expected} s, rounded up");
        customer.attempts(&message, number).await;
        app.database.let_retries_fall_due().await;
    }
    app.database.nothing_owed().await;
    app.client.request("POST", &customer.path(&format!("/msg/{message}/endpoint/{endpoint}/resend"))).send().await.expect(202);
    let resent = receiver.received(5).await.remove(4);
    assert_eq!(resent.all("posthaste-redelivery-until").len(), 0, "nobody knows when a person asks again");
    assert_eq!((resent.id(), resent.header("posthaste-attempt")), (message.as_str(), "1"));
}

#[tokio::test]
async fn no_automatic_attempt_comes_later_than_any_of_them_says() {
    let program = env!("CARGO_BIN_EXE_posthaste-under-test");
    let database = Database::create().await;
    let variables = [("POSTHASTE_RETRY_SCHEDULE", "1s,10ms,2s"), ("POSTHASTE_REQUEST_TIMEOUT", "500ms")];
    let server = ServerProcess::start(program, "serve", &database.url, &new_tenant(), &variables).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::hang(), Reply::status(500), Reply::hang(), Reply::status(500)]);
    let customer = Customer::create(&server.client).await;
    customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    let received = receiver.received(4).await;
    database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 4);
    let last = sent(&received[3]);
    let told: Vec<_> = received.iter().map(until).collect();
    assert!(told.iter().all(|until| last <= *until), "the last one was sent at {last}, and this was told before: {told:?}");
    // 3.01 s of waits, a fifth longer, and four timeouts, rounded up: anything else is not what was configured.
    assert!((6..=7).contains(&left(&received[0])), "{told:?}");
    assert!((1..=2).contains(&left(&received[3])), "{told:?}");
}

#[tokio::test]
async fn an_attempt_of_unknown_outcome_does_not_count_and_the_next_one_says_so() {
    let app = App::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::hang(), Reply::status(200)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    app.database.execute("update queue set due_at = now() where lease is not null").await;
    let received = receiver.received(2).await;
    assert_eq!([received[0].header("posthaste-attempt"), received[1].header("posthaste-attempt")], ["1", "1"]);
    assert_eq!(left(&received[1]), left(&received[0]), "the whole schedule is still to come");
}
