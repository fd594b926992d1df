//! An endpoint that fails for days is switched off; one success, or its owner, starts the clock anew.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Customer, Options, Receiver, Reply, eventually};

const FIVE_DAYS_PASS: &str = "update endpoint_health set failing_since = failing_since - interval '5 days 1 minute'";
const FAILING: &str = "select count(*) from endpoint_health where failing_since > now() - interval '1 hour'";
const NOT_FAILING: &str = "select count(*) from endpoint_health where failing_since is null and failures = 0";

fn patient() -> Options {
    Options { schedule: vec![Duration::from_hours(1); 10], ..Options::default() }
}

async fn is_disabled(customer: &Customer, endpoint: &str) -> bool {
    customer.show(endpoint).await["disabled"] == Value::Bool(true)
}

async fn becomes_true(app: &App, what: &str, sql: &str) {
    eventually(what, async || (app.database.number(sql).await == 1).then_some(())).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_for_five_days_is_disabled_until_its_owner_switches_it_on() {
    let app = App::with(patient()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    becomes_true(&app, "its failing is known", FAILING).await;
    app.database.execute(FIVE_DAYS_PASS).await;
    assert!(!is_disabled(&customer, &endpoint).await, "time alone disables nothing");
    app.database.let_retries_fall_due().await;
    eventually("it is disabled", async || is_disabled(&customer, &endpoint).await.then_some(())).await;
    let second = app.second_node().await;
    customer.through(&second.client).publish(&json!({ "n": 2 })).await;
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2, "no new message is owed to it, and what was owed has ended");

    customer.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": false })).await.expect(200);
    customer.publish(&json!({ "n": 3 })).await;
    receiver.received(3).await;
    becomes_true(&app, "its clock has started anew", FAILING).await;
    assert!(!is_disabled(&customer, &endpoint).await);
    second.stop().await;
}

#[tokio::test]
async fn a_success_starts_the_clock_anew() {
    let app = App::with(patient()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(200), Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    becomes_true(&app, "its failing is known", FAILING).await;
    app.database.execute(FIVE_DAYS_PASS).await;
    app.database.let_retries_fall_due().await;
    becomes_true(&app, "its success is known", NOT_FAILING).await;
    customer.publish(&json!({ "n": 2 })).await;
    becomes_true(&app, "its failing is known", FAILING).await;
    assert!(!is_disabled(&customer, &endpoint).await);
}

#[tokio::test]
async fn two_failures_with_days_of_silence_between_them_disable_nothing() {
    let app = App::with(patient()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    becomes_true(&app, "its failing is known", FAILING).await;
    app.database
        .execute("update endpoint_health set failing_since = failing_since - interval '6 days', failed_at = failed_at - interval '6 days'")
        .await;
    app.database.let_retries_fall_due().await;
    becomes_true(&app, "its failing is known anew", FAILING).await;
    assert!(!is_disabled(&customer, &endpoint).await);
}
