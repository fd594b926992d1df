//! A throttled endpoint gets so many webhooks a second, however many nodes there are.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{App, Received, Receiver, eventually};

/// Webhooks a second, by the receiver's clock.
fn rate(received: &[Received]) -> f64 {
    let (first, last) = (&received[0], &received[received.len() - 1]);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let intervals = (received.len() - 1) as f64;
    intervals / (last.at - first.at).as_secs_f64()
}

#[tokio::test]
async fn a_throttle_is_exact_over_two_nodes_and_loses_nothing() {
    let app = App::start().await;
    let second = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "throttleRate": 50 })).await;
    let shown = customer.show(&endpoint).await;
    assert_eq!((&shown["throttleRate"], &shown["rateLimit"]), (&json!(50), &json!(50)));
    let elsewhere = customer.through(&second.client);
    for number in 0..200 {
        customer.publish(&json!({ "n": number })).await;
        elsewhere.publish(&json!({ "n": -number })).await;
    }
    let received = receiver.received(400).await;
    // What had been saved up at the beginning, and what was published while we were still publishing, is not steady.
    let steady = rate(&received[100..]);
    assert!((45.0..=55.0).contains(&steady), "{steady} a second");
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 400);
    second.stop().await;
}

#[tokio::test]
async fn a_throttle_that_is_set_through_one_node_acts_in_the_next_delivery_of_another() {
    let app = App::start().await;
    let second = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    let elsewhere = customer.through(&second.client);
    elsewhere.publish(&json!({ "n": 0 })).await;
    receiver.received(1).await;

    customer.client.patch(&path, &json!({ "rateLimit": 2 })).await.expect(200);
    // Enough of them that the quarter of a second that may be saved up does not show.
    for number in 1..=9 {
        elsewhere.publish(&json!({ "n": number })).await;
    }
    let received = receiver.received(10).await;
    let throttled = rate(&received[1..]);
    assert!(throttled <= 2.3, "{throttled} a second");

    customer.client.put(&path, &json!({ "url": receiver.url("/"), "throttleRate": 1 })).await.expect(200);
    customer.client.patch(&path, &json!({ "throttleRate": null })).await.expect(200);
    assert_eq!(customer.show(&endpoint).await["throttleRate"], Value::Null);
    let begun = Instant::now();
    for number in 0..40 {
        elsewhere.publish(&json!({ "n": number })).await;
    }
    receiver.received(50).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "at one a second it would have taken twice as long");
    second.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_throttle_ends_when_the_endpoint_is_switched_off_and_goes_on_when_it_is_lifted() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let [slow, off] = ["/slow", "/off"].map(|path| json!({ "url": receiver.url(path), "throttleRate": 1 }));
    let (slow, off) = (customer.endpoint_with(&slow).await, customer.endpoint_with(&off).await);
    for number in 0..60 {
        customer.publish(&json!({ "n": number })).await;
    }
    customer.client.patch(&customer.path(&format!("/endpoint/{off}")), &json!({ "disabled": true })).await.expect(200);
    let canceled = "select count(*) from attempt where outcome = 3";
    eventually("what it was owed is canceled", async || (app.database.number(canceled).await > 30).then_some(())).await;
    customer.client.patch(&customer.path(&format!("/endpoint/{slow}")), &json!({ "throttleRate": 60_000 })).await.expect(200);
    receiver.received_at("/slow", 60).await;
    app.database.nothing_owed().await;
}
