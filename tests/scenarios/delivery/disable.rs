//! A receiver that is gone, or switched off, gets nothing more.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Options, Receiver, Reply};

fn one_hour() -> Options {
    Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }
}

#[tokio::test]
async fn a_410_switches_the_endpoint_off() {
    let app = App::with(one_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/gone", [Reply::status(410)]);
    let customer = app.customer().await;
    let gone = customer.endpoint(&receiver.url("/gone")).await;
    customer.endpoint(&receiver.url("/other")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let is_off = async || (customer.show(&gone).await["disabled"] == Value::Bool(true)).then_some(());
    support::eventually("the endpoint is disabled", is_off).await;
    let of_gone = customer.attempts(&message, 2).await.into_iter().filter(|attempt| attempt.0["endpointId"] == gone.as_str());
    assert_eq!(of_gone.map(|attempt| attempt.code()).collect::<Vec<_>>(), [410]);
    customer.publish(&json!({ "n": 2 })).await;
    receiver.received_at("/other", 2).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.received_at("/gone", 1).await.len(), 1, "new messages make no delivery for it");

    receiver.on("/gone", [Reply::status(200)]);
    app.client.patch(&customer.path(&format!("/endpoint/{gone}")), &json!({ "disabled": false })).await.expect(200);
    customer.publish(&json!({ "n": 3 })).await;
    assert_eq!(receiver.received_at("/gone", 2).await[1].json(), json!({ "n": 3 }));
}

#[tokio::test]
async fn what_is_owed_to_a_disabled_or_deleted_endpoint_ends_without_a_request() {
    let app = App::with(one_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/off", [Reply::status(500)]);
    receiver.on("/deleted", [Reply::status(500)]);
    let customer = app.customer().await;
    let off = customer.endpoint(&receiver.url("/off")).await;
    let deleted = customer.endpoint(&receiver.url("/deleted")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&message, 2).await;
    app.client.patch(&customer.path(&format!("/endpoint/{off}")), &json!({ "disabled": true })).await.expect(200);
    app.client.delete(&customer.path(&format!("/endpoint/{deleted}"))).await.expect(204);
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2, "no further request");
    let ends = app.database.number("select count(*) from attempt where outcome = 3 and is_latest").await;
    assert_eq!(ends, 2, "each ended as canceled");
    let latest: Vec<_> = customer.attempts(&message, 4).await.into_iter().skip(2).collect();
    assert!(latest.iter().all(|attempt| attempt.status() == "fail"), "{latest:?}");
    let expanded = customer.pages(&customer.path(&format!("/attempt/msg/{message}?expanded_statuses=true&status=4"))).await;
    assert_eq!(expanded.iter().map(|attempt| attempt["statusText"].clone()).collect::<Vec<_>>(), ["canceled", "canceled"]);
    assert!(latest.iter().all(|attempt| attempt.code() == 0 && !attempt.response().is_empty()), "with a reason: {latest:?}");
}
