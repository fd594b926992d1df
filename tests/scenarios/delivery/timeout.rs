//! One deadline covers the whole exchange, whatever the receiver does meanwhile.

use std::time::Duration;

use serde_json::json;
use support::{App, Options, Receiver, Reply, eventually};

#[tokio::test]
async fn a_receiver_that_hangs_or_drips_is_cut_off_at_the_deadline() {
    let deadline = Duration::from_millis(700);
    let app = App::with(Options { request_timeout: deadline, schedule: Vec::new(), ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/hang", [Reply::hang()]);
    receiver.on("/drip", [Reply::drip()]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/hang")).await;
    customer.endpoint(&receiver.url("/drip")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    for attempt in customer.attempts(&message, 2).await {
        // One of them gave its status before it began to drip.
        let expected = if attempt.0["url"] == receiver.url("/drip").as_str() { (200, "success") } else { (0, "fail") };
        assert_eq!((attempt.code(), attempt.status()), expected);
        assert!(attempt.response().contains("700ms"), "it says how long we waited: {attempt:?}");
        let took = attempt.0["responseDurationMs"].as_i64().expect("a duration");
        assert!((600..5000).contains(&took), "{attempt:?}");
    }
}

#[tokio::test]
async fn no_database_connection_is_held_while_a_webhook_is_in_flight() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let gate = support::Gate::default();
    receiver.on("/", [Reply::status(200).held_by(&gate)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 0 })).await;
    receiver.received(1).await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'";
    // Whoever looks for work begins and ends one in a moment; what a webhook held would stay until the gate opens.
    eventually("nothing is held", async || (app.database.number(open).await == 0).then_some(())).await;
    for number in 1..20 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(20).await;
    customer.publish(&json!({ "n": "more than there are connections, and still accepted" })).await;
    gate.open();
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 21);
}
