//! An endpoint that keeps failing is held: nothing is lost, no attempt is wasted, and nobody else notices.

use std::time::Duration;

use serde_json::json;
use support::{App, Customer, Database, Gate, Options, Receiver, Reply, Roles, eventually};

/// How many messages are published to an endpoint until it is held; more than the failures that it takes.
const MESSAGES: usize = 60;

const HELD: &str = "select count(*) from endpoint_health where state = 1";
const LEASED: &str = "select count(*) from queue where lease is not null";
const ATTEMPTS: &str = "select count(*) from attempt";
const SUCCESSES: &str = "select count(*) from attempt where outcome = 0";
/// Lets the cool-downs of all held endpoints pass.
const COOLED_DOWN: &str = "update endpoint_health set probe_at = now() where state = 1";

fn one_retry_in_an_hour() -> Options {
    Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }
}

/// Publishes [`MESSAGES`] messages to an endpoint that fails, until it is held and nothing is on its way any more; returns how
/// many attempts that took.
async fn until_held(customer: &Customer, database: &Database) -> i64 {
    for number in 0..MESSAGES {
        customer.publish(&json!({ "n": number })).await;
    }
    eventually("the endpoint is held", async || (database.number(HELD).await == 1).then_some(())).await;
    eventually("nothing is being sent", async || (database.number(LEASED).await == 0).then_some(())).await;
    database.number(ATTEMPTS).await
}

/// Publishes a message to an endpoint that is well, and waits until it has arrived: whatever was to be sent before would have
/// been.
async fn meanwhile(customer: &Customer, receiver: &Receiver, path: &str) {
    let before = receiver.so_far().iter().filter(|request| request.path == path).count();
    customer.publish(&json!({})).await;
    receiver.received_at(path, before + 1).await;
}

fn count(receiver: &Receiver, path: &str) -> i64 {
    i64::try_from(receiver.so_far().iter().filter(|request| request.path == path).count()).expect("a small number")
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_held_by_all_nodes_and_delivered_to_when_it_is_back() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/dead", [Reply::status(500)]);
    let (dead, well) = (app.customer().await, app.customer().await);
    dead.endpoint(&receiver.url("/dead")).await;
    well.endpoint(&receiver.url("/well")).await;
    let attempts = until_held(&dead, &app.database).await;
    assert!((20..60).contains(&attempts), "{attempts} attempts were made before it was held");
    assert_eq!(app.database.owed().await, 60, "all is still owed");

    let second = app.second_node().await;
    let through_the_second = dead.through(&second.client);
    for number in 60..80 {
        through_the_second.publish(&json!({ "n": number })).await;
    }
    app.database.let_retries_fall_due().await;
    meanwhile(&well, &receiver, "/well").await;
    meanwhile(&well.through(&second.client), &receiver, "/well").await;
    assert_eq!(count(&receiver, "/dead"), attempts, "nobody calls a held endpoint");
    eventually("nothing is being sent", async || (app.database.number(LEASED).await == 0).then_some(())).await;
    assert_eq!(app.database.number("select count(*) from attempt where url like '%/dead'").await, attempts, "and no attempt is made up");

    receiver.on("/dead", [Reply::status(204)]);
    app.database.execute(COOLED_DOWN).await;
    app.database.nothing_owed().await;
    assert_eq!(count(&receiver, "/dead"), attempts + 80, "each message was delivered once it was back, and none twice");
    assert_eq!(app.database.number(SUCCESSES).await, 82);
    second.stop().await;
}

#[tokio::test]
async fn what_waits_in_line_for_an_endpoint_is_kept_when_it_is_held() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(500).held_by(&gate)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    for number in 0..180 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(64).await;
    let in_line = app.database.number(LEASED).await - 64;
    assert!(in_line > 50, "{in_line} wait in memory");
    gate.open();
    eventually("the endpoint is held", async || (app.database.number(HELD).await == 1).then_some(())).await;
    eventually("nothing is being sent", async || (app.database.number(LEASED).await == 0).then_some(())).await;
    assert!((64..150).contains(&count(&receiver, "/")), "{} were sent", count(&receiver, "/"));
    assert_eq!(app.database.owed().await, 180, "all is still owed");
    assert_eq!(app.database.number(ATTEMPTS).await, count(&receiver, "/"), "what was not sent is no attempt");
}

#[tokio::test]
async fn a_probe_is_one_request_and_prolongs_the_wait_if_it_fails() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let attempts = until_held(&customer, &app.database).await;
    let second = app.second_node().await;
    app.database.execute(COOLED_DOWN).await;
    let longer = "select count(*) from endpoint_health where state = 1 and cool_down_seconds = 60 and probe_at between now() + interval '40 s' and now() + interval '70 s'";
    eventually("the failed probe is told", async || (app.database.number(longer).await == 1).then_some(())).await;
    assert_eq!((count(&receiver, "/"), app.database.number(ATTEMPTS).await), (attempts + 1, attempts + 1), "one node sent one request");
    second.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_back_is_not_flooded() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let (customer, well) = (app.customer().await, app.customer().await);
    customer.endpoint(&receiver.url("/")).await;
    well.endpoint(&receiver.url("/well")).await;
    let attempts = until_held(&customer, &app.database).await;
    app.database.let_retries_fall_due().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(200), Reply::status(200).held_by(&gate)]);
    app.database.execute(COOLED_DOWN).await;
    let sent = usize::try_from(attempts).expect("a small number") + 3;
    receiver.received_at("/", sent).await;
    for _ in 0..3 {
        meanwhile(&well, &receiver, "/well").await;
    }
    assert_eq!(count(&receiver, "/"), attempts + 3, "the probe, and then two at a time");
    gate.open();
    app.database.nothing_owed().await;
    let is_well = "select count(*) from endpoint_health where state = 0 and failures = 0 and failing_since is null";
    for number in 0.. {
        if app.database.number(is_well).await == 1 {
            break;
        }
        // Each second with a success doubles what it may have.
        customer.publish(&json!({ "more": number })).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(number < 1_000, "it does not recover");
    }
}

#[tokio::test]
async fn the_backlog_of_a_held_endpoint_delays_nobody() {
    let app = App::with(Options { roles: Roles::Api, ..one_retry_in_an_hour() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/dead", [Reply::status(500)]);
    let (dead, well) = (app.customer().await, app.customer().await);
    let endpoint = dead.endpoint(&receiver.url("/dead")).await;
    well.endpoint(&receiver.url("/well")).await;
    let worker = app.node_with(&Options { roles: Roles::Both, ..one_retry_in_an_hour() }).await;
    let attempts = until_held(&dead, &app.database).await;
    app.database
        .execute(
            "insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at)
             select gen_random_uuid(), h.endpoint_id, h.tenant_id, e.application_id, now() - interval '1 hour'
               from endpoint_health h join endpoint e on e.id = h.endpoint_id, generate_series(1, 50000)",
        )
        .await;
    for number in 0..200 {
        well.publish(&json!({ "n": number })).await;
    }
    receiver.received_at("/well", 200).await;
    assert_eq!(count(&receiver, "/dead"), attempts);
    let untouched = "select count(*) from queue q join endpoint_health h using (endpoint_id) where q.lease is null and q.attempts = 0";
    assert!(app.database.number(untouched).await >= 50_000, "no row of the backlog was rewritten");

    // Switched off, nothing is held any more: what is owed ends, and is not sent.
    app.database.execute("delete from queue where due_at < now() - interval '50 minutes'").await;
    app.client.patch(&dead.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": true })).await.expect(200);
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    assert_eq!((count(&receiver, "/dead"), app.database.number(HELD).await), (attempts, 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_resend_to_a_held_endpoint_is_sent_at_once_and_finds_out_that_it_is_back() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let attempts = until_held(&customer, &app.database).await;
    let oldest = receiver.so_far()[3].id().to_owned();
    let resend = customer.path(&format!("/msg/{oldest}/endpoint/{endpoint}/resend"));
    receiver.on("/", [Reply::status(200)]);
    app.client.request("POST", &resend).send().await.expect(202);
    let sent = usize::try_from(attempts).expect("a small number");
    let received = receiver.received(sent + 1).await;
    assert_eq!(received[sent].id(), oldest, "before all that waits");
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    assert_eq!(app.database.number(HELD).await, 0);
}

#[tokio::test]
async fn another_url_ends_the_hold() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    receiver.on("/old", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/old")).await;
    let attempts = until_held(&customer, &app.database).await;
    let waiting = usize::try_from(60 - attempts).expect("some wait");
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    app.client.patch(&path, &json!({ "description": "that alone changes nothing" })).await.expect(200);
    assert_eq!(app.database.number(HELD).await, 1);
    app.client.patch(&path, &json!({ "url": receiver.url("/new") })).await.expect(200);
    receiver.received_at("/new", waiting).await;
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    assert_eq!((count(&receiver, "/old"), count(&receiver, "/new")), (attempts, 60));
}

#[tokio::test]
async fn an_endpoint_that_is_deleted_while_its_sends_fail_is_not_held() {
    let app = App::with(one_retry_in_an_hour()).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(500).held_by(&gate)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    for number in 0..180 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(64).await;
    customer.client.delete(&customer.path(&format!("/endpoint/{endpoint}"))).await.expect(204);
    gate.open();
    eventually("what failed sleeps", async || (app.database.number("select count(*) from queue_later").await >= 64).then_some(())).await;
    app.database.let_retries_fall_due().await;
    app.database.nothing_owed().await;
    assert_eq!(app.database.number("select count(*) from attempt where outcome = 3").await, 180, "all of it is canceled");
    assert_eq!(app.database.number(HELD).await, 0);
}
