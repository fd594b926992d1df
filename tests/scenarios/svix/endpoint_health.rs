//! How an endpoint is can be asked for: what support needs at night, without a look at the database.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Customer, Gate, Options, Receiver, Reply, Roles, eventually, new_tenant, token};

/// How many messages it takes until an endpoint that fails is held, and some more.
const MESSAGES: usize = 30;
/// Lets the cool-downs of all held endpoints pass.
const COOLED_DOWN: &str = "update endpoint_health set probe_at = now() where state = 1";

async fn health(customer: &Customer, endpoint: &str) -> Value {
    customer.client.get(&customer.path(&format!("/endpoint/{endpoint}/health"))).await.expect(200).json()
}

async fn until(customer: &Customer, endpoint: &str, state: &str) -> Value {
    let look = async || Some(health(customer, endpoint).await).filter(|health| health["state"] == state);
    eventually(&format!("the endpoint is {state}"), look).await
}

fn owed(health: &Value) -> [i64; 3] {
    ["due", "sending", "sleeping"].map(|kind| health["owed"][kind].as_i64().expect("a number"))
}

fn one_retry_in_an_hour() -> Options {
    Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }
}

#[tokio::test]
async fn an_endpoint_tells_how_it_is_from_its_first_failure_to_its_recovery() {
    let app = App::with(one_retry_in_an_hour()).await;
    let other = app.second_node().await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(503)]);
    let customer = app.customer().await;
    let there = customer.through(&other.client);
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "uid": "by-name" })).await;
    let well = health(&there, "by-name").await;
    assert_eq!((&well["endpointId"], &well["state"], owed(&well)), (&json!(endpoint), &json!("healthy"), [0, 0, 0]));
    for absent in ["failingSince", "heldSince", "nextProbeAt", "lastFailure"] {
        assert_eq!(well[absent], Value::Null, "{absent} of one that is well");
    }

    let first = customer.publish(&json!({ "n": 0 })).await;
    let failing = until(&there, &endpoint, "failing").await;
    assert_eq!((&failing["consecutiveFailures"], owed(&failing)), (&json!(1), [0, 0, 1]));
    assert_eq!(failing["lastFailure"]["why"], "the receiver answered 503");
    assert_eq!((&failing["lastFailure"]["msgId"], &failing["owed"]["oldestMsgId"]), (&json!(first), &json!(first)));
    let attempt = customer.attempts(&first, 1).await.remove(0);
    assert_eq!(failing["lastFailure"]["attemptId"], attempt.id());

    for number in 1..MESSAGES {
        customer.publish(&json!({ "n": number })).await;
    }
    let is_quiet = |held: &Value| {
        let [due, sending, sleeping] = owed(held);
        held["state"] == "held" && (due + sleeping, sending) == (30, 0) && held["consecutiveFailures"] == sleeping
    };
    let held = async || Some(health(&there, &endpoint).await).filter(is_quiet);
    let held = eventually("it is held, all is still owed, and every failure is counted", held).await;
    assert!(owed(&held)[2] >= 20, "{held}");
    assert_eq!(held["failingSince"], failing["failingSince"], "since its first failure");
    let time = |member: &str| held[member].as_str().and_then(|text| text.parse::<chrono::DateTime<chrono::Utc>>().ok()).expect(member);
    assert!(time("heldSince") >= time("failingSince") && time("nextProbeAt") > time("heldSince"), "{held}");

    let due = owed(&held)[0];
    for number in 0..5 {
        customer.publish(&json!({ "later": number })).await;
    }
    assert_eq!(owed(&health(&there, &endpoint).await)[0], due + 5, "what is published meanwhile waits");

    let gate = Gate::default();
    receiver.on("/", [Reply::status(200), Reply::status(200).held_by(&gate)]);
    app.database.execute(COOLED_DOWN).await;
    let recovering = until(&there, &endpoint, "recovering").await;
    assert_eq!((&recovering["consecutiveFailures"], &recovering["heldSince"]), (&json!(0), &Value::Null));
    gate.open();
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    app.database.execute("update endpoint_health set state = 0, slots = 0").await;
    let well = until(&there, &endpoint, "healthy").await;
    assert_eq!((owed(&well), &well["lastFailure"], &well["owed"]["oldestMsgId"]), ([0, 0, 0], &Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_disabled_endpoint_tells_its_last_failure_also_when_much_was_canceled_since() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(410)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let first = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&first, 1).await;
    let gone = customer.publish(&json!({ "n": 2 })).await;
    let disabled = until(&customer, &endpoint, "disabled").await;
    assert_eq!((&disabled["lastFailure"]["why"], &disabled["lastFailure"]["msgId"]), (&json!("the receiver answered 410"), &json!(gone)));
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    let disabled = health(&customer, &endpoint).await;
    assert_eq!((&disabled["state"], &disabled["lastFailure"]["responseStatusCode"]), (&json!("disabled"), &json!(410)));
}

#[tokio::test]
async fn what_is_being_sent_and_a_silent_receiver_are_told_in_words() {
    let app = App::with(Options { request_timeout: Duration::from_millis(300), ..one_retry_in_an_hour() }).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/slow", [Reply::status(200).held_by(&gate)]);
    receiver.on("/silent", [Reply::hang()]);
    let customer = app.customer().await;
    let silent = customer.endpoint(&receiver.url("/silent")).await;
    customer.publish(&json!({})).await;
    let failing = until(&customer, &silent, "failing").await;
    let why = failing["lastFailure"]["why"].as_str().expect("words");
    assert!(why.contains("300ms") && failing["lastFailure"]["responseStatusCode"] == 0, "{failing}");

    let other = App::start().await;
    let customer = other.customer().await;
    let slow = customer.endpoint(&receiver.url("/slow")).await;
    customer.publish(&json!({})).await;
    receiver.received_at("/slow", 1).await;
    assert_eq!(owed(&health(&customer, &slow).await), [0, 1, 0]);
    gate.open();
    other.database.nothing_owed().await;
    assert_eq!(owed(&health(&customer, &slow).await), [0, 0, 0]);
}

#[tokio::test]
async fn what_is_owed_is_counted_up_to_a_bound_and_told_to_its_tenant_alone() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("http://127.0.0.1:9/").await;
    let fill = |from: usize, to: usize| {
        format!(
            "insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at)
               select lpad(to_hex(i), 32, '0')::uuid, e.id, e.tenant_id, e.application_id, now() - interval '1 s' from endpoint e, generate_series({from}, {to}) i"
        )
    };
    app.database.execute(&fill(1, 10_000)).await;
    assert_eq!(owed(&health(&customer, &endpoint).await), [10_000, 0, 0]);
    app.database.execute(&fill(10_001, 30_000)).await;
    assert_eq!(owed(&health(&customer, &endpoint).await), [10_001, 0, 0]);

    let path = customer.path(&format!("/endpoint/{endpoint}/health"));
    app.client.with_token(&token(&new_tenant())).get(&path).await.expect(404);
    app.client.get(&customer.path("/endpoint/nobody/health")).await.expect(404);
    app.client.anonymous().get(&path).await.expect(401);
}
