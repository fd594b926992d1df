//! What waits and why: the gauges tell what is held from what is due, and show that no worker runs.

use std::time::Duration;

use serde_json::json;
use support::{
    App, Client, Customer, Database, Gate, Options, Receiver, Reply, Roles, eventually, new_tenant, processes::ServerProcess,
    scrape::Scrape,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// The kinds of rows, each of which has a gauge.
const KINDS: [&str; 5] = ["due", "held", "throttled", "leased", "sleeping"];

fn api_alone() -> Options {
    Options { roles: Roles::Api, ..Options::default() }
}

fn worker_alone() -> Options {
    Options { roles: Roles::Worker, schedule: vec![Duration::from_hours(1)], ..Options::default() }
}

async fn rows(client: &Client) -> [Option<f64>; 5] {
    let scrape = Scrape::of(client).await;
    KINDS.map(|kind| scrape.get(&format!("queue_{kind}_rows")))
}

/// Waits until the gauges show exactly this of every kind.
async fn shows(client: &Client, event: &str, expected: [f64; 5]) {
    let expected = expected.map(Some);
    let look = async || (rows(client).await == expected).then_some(());
    eventually(&format!("{event}: {KINDS:?} are {expected:?}"), look).await;
}

/// Waits until the age of the oldest row that is due lies in this range of seconds.
async fn age_is(client: &Client, seconds: std::ops::Range<f64>) {
    let age = async || Scrape::of(client).await.get("oldest_due_age_seconds").filter(|age| seconds.contains(age));
    eventually(&format!("the oldest due age is in {seconds:?}"), age).await;
}

/// An application with an endpoint to which three deliveries have been due for an hour, without a worker.
async fn three_due(app: &App) -> (Customer, String) {
    let customer = app.customer().await;
    let endpoint = customer.endpoint("http://127.0.0.1:9/").await;
    shows(&app.client, "nothing is published", [0.0; 5]).await;
    for number in 0..3 {
        customer.publish(&json!({ "n": number })).await;
    }
    app.database.execute("update queue set due_at = due_at - interval '1 hour'").await;
    shows(&app.client, "three are published", [3.0, 0.0, 0.0, 0.0, 0.0]).await;
    age_is(&app.client, 3600.0..3700.0).await;
    (customer, endpoint)
}

#[tokio::test]
async fn what_the_breaker_holds_is_not_due() {
    let app = App::with(api_alone()).await;
    three_due(&app).await;
    for (state, more) in [(1, "probe_at = now() + interval '1 minute'"), (2, "slots = 2, probe_at = null")] {
        let hold = format!(
            "insert into endpoint_health (endpoint_id, tenant_id) select id, tenant_id from endpoint on conflict do nothing;
             update endpoint_health set state = {state}, {more}"
        );
        app.database.execute(&hold).await;
        shows(&app.client, "it is held", [0.0, 3.0, 0.0, 0.0, 0.0]).await;
        age_is(&app.client, 0.0..0.1).await;
        let held = Some(f64::from(u8::from(state == 1)));
        let look = async || (Scrape::of(&app.client).await.get("endpoints_held") == held).then_some(());
        eventually("one that recovers is not counted as held, and what waits for it is", look).await;
    }
    app.database.execute("delete from endpoint_health").await;
    shows(&app.client, "it is let go", [3.0, 0.0, 0.0, 0.0, 0.0]).await;
    age_is(&app.client, 3600.0..3700.0).await;
}

#[tokio::test]
async fn what_is_owed_to_an_endpoint_that_is_off_is_not_due() {
    let app = App::with(api_alone()).await;
    let (customer, endpoint) = three_due(&app).await;
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    for (is_disabled, expected) in [(true, [0.0, 3.0, 0.0, 0.0, 0.0]), (false, [3.0, 0.0, 0.0, 0.0, 0.0])] {
        app.client.patch(&path, &json!({ "disabled": is_disabled })).await.expect(200);
        shows(&app.client, "it is switched off, and on", expected).await;
    }
    app.client.delete(&customer.path("")).await.expect(204);
    shows(&app.client, "its application is deleted", [0.0, 3.0, 0.0, 0.0, 0.0]).await;
    age_is(&app.client, 0.0..0.1).await;
}

#[tokio::test]
async fn what_waits_for_a_throttle_is_not_due_unless_nobody_uses_the_throttle() {
    let app = App::with(api_alone()).await;
    let (customer, endpoint) = three_due(&app).await;
    let receiver = Receiver::start().await;
    let throttled = json!({ "url": receiver.url("/"), "throttleRate": 1 });
    app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &throttled).await.expect(200);
    shows(&app.client, "it is throttled and no worker runs", [3.0, 0.0, 0.0, 0.0, 0.0]).await;
    for number in 0..57 {
        customer.publish(&json!({ "n": number })).await;
    }
    let worker = app.node_with(&worker_alone()).await;
    let is_waiting = async || (rows(&app.client).await[2] > Some(0.0)).then_some(());
    eventually("most wait for the throttle", is_waiting).await;
    shows_throttled(&app.client).await;
    worker.stop().await;
    age_is(&app.client, 1.0..4000.0).await;
    assert!(rows(&app.client).await[0] > Some(40.0), "without a worker, the throttle is no reason to wait");
}

/// One a second goes out: of the sixty, all that are left are shown, and none as due.
async fn shows_throttled(client: &Client) {
    let look = async || {
        let [due, held, throttled, ..] = rows(client).await.map(|rows| rows.unwrap_or(-1.0));
        ((due, held) == (0.0, 0.0) && (40.0..60.0).contains(&throttled)).then_some(())
    };
    eventually("what is left waits for the throttle", look).await;
    age_is(client, 0.0..0.1).await;
}

#[tokio::test]
async fn what_is_being_sent_and_what_sleeps_have_numbers_of_their_own() {
    let app = App::with(api_alone()).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(500).held_by(&gate)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let worker = app.node_with(&worker_alone()).await;
    for number in 0..3 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(3).await;
    shows(&app.client, "three are being sent", [0.0, 0.0, 0.0, 3.0, 0.0]).await;
    gate.open();
    shows(&app.client, "they have failed", [0.0, 0.0, 0.0, 0.0, 3.0]).await;
    worker.stop().await;
    app.database.execute("insert into queue select (queue_later).* from queue_later; delete from queue_later").await;
    app.database.execute("update queue set due_at = now()").await;
    shows(&app.client, "they are due again", [3.0, 0.0, 0.0, 0.0, 0.0]).await;
}

#[tokio::test]
async fn a_receiver_that_fails_fills_the_gauge_of_what_is_held() {
    let app = App::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    for number in 0..60 {
        customer.publish(&json!({ "n": number })).await;
    }
    let look = async || {
        let [due, held, throttled, leased, sleeping] = rows(&app.client).await.map(|rows| rows.unwrap_or(-1.0));
        (due == 0.0 && throttled == 0.0 && leased == 0.0 && held > 0.0 && sleeping >= 20.0 && (held + sleeping - 60.0).abs() < 0.1)
            .then_some(())
    };
    eventually("what was not sent is held, and what failed sleeps", look).await;
    assert_eq!(app.database.number("select count(*) from queue_later").await + app.database.number("select count(*) from queue").await, 60);
}

#[tokio::test]
async fn the_gauges_of_a_large_queue_are_bounded_and_say_what_they_can() {
    let app = App::with(api_alone()).await;
    three_due(&app).await;
    let held = "insert into endpoint_health (endpoint_id, tenant_id, state, probe_at)
                  values ('00000000-0000-0000-0000-000000000001', gen_random_uuid(), 1, now() + interval '1 hour');
                insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at)
                  select gen_random_uuid(), '00000000-0000-0000-0000-000000000001', gen_random_uuid(), gen_random_uuid(), now() - interval '1 day'
                    from generate_series(1, 30000)";
    app.database.execute(held).await;
    shows(&app.client, "more than is counted, and no statistics", [3.0, 10_001.0, 0.0, 0.0, 0.0]).await;
    app.database.execute("vacuum analyze queue").await;
    shows(&app.client, "the rest of the table is of that kind", [3.0, 30_000.0, 0.0, 0.0, 0.0]).await;
    age_is(&app.client, 3600.0..3700.0).await;
}

async fn workers_are(client: &Client, count: f64) -> Option<f64> {
    let look = async || {
        let scrape = Scrape::of(client).await;
        (scrape.get("workers") == Some(count)).then(|| scrape.get("last_claim_age_seconds"))
    };
    eventually(&format!("{count} workers are shown"), look).await
}

#[tokio::test]
async fn the_workers_of_a_database_are_counted_by_all_and_missed_when_they_stop() {
    let app = App::with(api_alone()).await;
    assert_eq!(workers_are(&app.client, 0.0).await, None, "none has ever claimed");
    let first = app.node_with(&worker_alone()).await;
    assert!(workers_are(&app.client, 1.0).await < Some(20.0));
    let second = app.node_with(&Options::default()).await;
    workers_are(&app.client, 2.0).await;
    workers_are(&second.client, 2.0).await;
    second.stop().await;
    workers_are(&app.client, 1.0).await;
    first.stop().await;
    assert!(workers_are(&app.client, 0.0).await.is_some(), "it is known when the last one claimed");

    // One that crashed has said nothing: it is missed after a while, and forgotten later.
    let crashed = "insert into worker (id, claimed_at) values (gen_random_uuid(), now() - interval '1 minute')";
    app.database.execute(&format!("update worker set claimed_at = now() - interval '2 hours'; {crashed}")).await;
    let age = async || Scrape::of(&app.client).await.get("last_claim_age_seconds").filter(|age| (60.0..120.0).contains(age));
    eventually("the last claim was a minute ago", age).await;
    assert_eq!(Scrape::of(&app.client).await.get("workers"), Some(0.0));
    let third = app.node_with(&worker_alone()).await;
    workers_are(&app.client, 1.0).await;
    assert_eq!(app.database.number("select count(*) from worker").await, 2, "those that have been silent for an hour are forgotten");
    third.stop().await;
}

#[tokio::test]
async fn an_api_says_in_its_log_that_nobody_sends_and_stays_ready() {
    let database = Database::create().await;
    let tenant = new_tenant();
    let mut api = ServerProcess::start(PROGRAM, "api", &database.url, &tenant, &[]).await;
    let line = api.process.printed("no worker runs on this database").await;
    assert!(line.contains("ERROR") && line.contains("posthaste worker"), "with the remedy: {line}");
    api.client.get("/api/v1/health").await.expect(204);
    let _worker = ServerProcess::start(PROGRAM, "worker", &database.url, &tenant, &[]).await;
    api.process.printed("a worker runs on this database again").await;
    assert_eq!(api.process.log().matches("no worker runs").count(), 1, "once, however long it lasts");
}
