//! A worker that dies or is late: no attempt is hidden, and no late result overwrites a newer one.

use serde_json::json;
use support::{App, Gate, Options, Receiver, Reply};

/// Lets the leases of all deliveries that are being sent run out.
const LEASES_RUN_OUT: &str = "update queue set due_at = now() where lease is not null";

#[tokio::test]
async fn a_late_worker_cannot_overwrite_a_rescued_delivery() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (first, second) = (Gate::default(), Gate::default());
    receiver.on("/", [Reply::status(500).body("late").held_by(&first), Reply::status(200).body("rescued").held_by(&second)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    app.database.execute(LEASES_RUN_OUT).await;
    let copies = receiver.received(2).await;
    assert_eq!((copies[0].id(), copies[1].id()), (message.as_str(), message.as_str()), "the receiver can tell that it is one message");
    let unknown = customer.attempts(&message, 1).await.remove(0);
    assert_eq!((unknown.code(), unknown.status()), (0, "fail"));
    assert!(unknown.response().contains("unknown"), "{unknown:?}");
    first.open();
    // The results of a node are recorded in order: after this one, the late result has been dealt with.
    let other = app.customer().await;
    other.endpoint(&receiver.url("/other")).await;
    let marker = other.publish(&json!({})).await;
    other.attempts(&marker, 1).await;
    second.open();
    let attempts = customer.attempts(&message, 2).await;
    app.database.nothing_owed().await;
    assert_eq!((attempts[1].code(), attempts[1].response()), (200, "rescued"));
    let recorded: Vec<_> = customer.attempts_so_far(&message).await.iter().map(support::Attempt::code).collect();
    assert_eq!(recorded, [0, 200], "the late result was dropped");
    assert_eq!(app.database.number("select count(*) from attempt where is_latest and status_code = 200 and response = 'rescued'").await, 1);
}

#[tokio::test]
async fn a_delivery_that_kills_three_workers_in_a_row_is_given_up() {
    let app = App::with(Options::retries(5)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::hang()]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    for number in 1..=3 {
        receiver.received(number).await;
        app.database.execute(LEASES_RUN_OUT).await;
    }
    app.database.nothing_owed().await;
    let attempts = customer.attempts(&message, 3).await;
    assert!(attempts.last().expect("attempts").response().contains("worker crashed"), "{attempts:?}");
    assert_eq!(receiver.so_far().len(), 3);
}

#[tokio::test]
async fn an_unknown_attempt_does_not_use_up_the_schedule() {
    let app = App::with(Options::retries(1)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::hang(), Reply::status(500), Reply::status(200)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    app.database.execute(LEASES_RUN_OUT).await;
    let attempts = customer.attempts(&message, 3).await;
    assert_eq!(attempts.iter().map(support::Attempt::code).collect::<Vec<_>>(), [0, 500, 200]);
}
