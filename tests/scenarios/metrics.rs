//! What is counted: each metric moves by exactly what happened, and no label holds what a user wrote.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use support::{
    App, Client, Customer, Database, Gate, Node, Options, Receiver, Reply, Roles, cluster,
    customer::message,
    eventually, new_tenant,
    proxy::Proxy,
    scrape::{Scrape, counted},
    token,
};

/// One message that one endpoint took at the first try.
const DELIVERED_AT_ONCE: [(&str, u32); 6] = [
    ("messages_accepted_total", 1),
    ("batch_messages_sum", 1),
    ("attempts_total{class=\"2xx\"}", 1),
    ("batch_results_sum", 1),
    ("deliveries_finished_total{result=\"succeeded\"}", 1),
    ("accept_to_delivered_seconds_count", 1),
];

/// Options under which no delivery is tried twice.
fn no_retries() -> Options {
    Options { schedule: vec![], ..Options::default() }
}

/// Waits until a gauge shows this.
async fn shows(client: &Client, gauge: &str, value: f64) {
    let look = async || Scrape::of(client).await.get(gauge).filter(|shown| (shown - value).abs() < 1e-9);
    eventually(&format!("{gauge} is {value}"), look).await;
}

#[tokio::test]
async fn a_message_and_its_delivery_are_counted_once_each() {
    let app = App::start().await;
    let other = app.node_with(&Options { roles: Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let (here, there) = (Scrape::of(&app.client).await, Scrape::of(&other.client).await);
    customer.publish(&json!({ "n": 1 })).await;
    let here = counted(&app.client, &here, &DELIVERED_AT_ONCE).await;
    assert_eq!(Scrape::of(&other.client).await.moved_since(&there), [].into(), "each node counts what it did itself");

    customer.through(&other.client).publish(&json!({ "n": 2 })).await;
    counted(&other.client, &there, &DELIVERED_AT_ONCE[..2]).await;
    counted(&app.client, &here, &DELIVERED_AT_ONCE[2..]).await;
    assert_eq!(Scrape::of(&app.client).await.get("build_info{version=\"0.1.0\"}"), Some(1.0));
}

#[tokio::test]
async fn a_retry_and_a_resend_are_attempts_but_waiting_is_measured_once() {
    let app = App::with(Options::retries(1)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(200)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let before = Scrape::of(&app.client).await;
    let id = customer.publish(&json!({})).await;
    let mut expected = DELIVERED_AT_ONCE.to_vec();
    expected[3] = ("batch_results_sum", 2);
    expected.push(("attempts_total{class=\"5xx\"}", 1));
    let before = counted(&app.client, &before, &expected).await;

    app.client.request("POST", &customer.path(&format!("/msg/{id}/endpoint/{endpoint}/resend"))).send().await.expect(202);
    counted(&app.client, &before, &DELIVERED_AT_ONCE[2..5]).await;
}

#[tokio::test]
async fn attempts_are_counted_by_what_came_back() {
    let app = App::with(Options { request_timeout: Duration::from_secs(1), ..no_retries() }).await;
    let receiver = Receiver::start().await;
    let nobody = support::processes::free_address();
    let replies = [("/3", Reply::status(307)), ("/4", Reply::status(404)), ("/5", Reply::status(503)), ("/hang", Reply::hang())];
    for (path, reply) in replies.into_iter().chain([("/close", Reply::close())]) {
        receiver.on(path, [reply]);
    }
    let urls = [
        ("3xx", receiver.url("/3")),
        ("4xx", receiver.url("/4")),
        ("5xx", receiver.url("/5")),
        ("timeout", receiver.url("/hang")),
        ("refused", format!("http://{nobody}/")),
        ("blocked", "http://10.1.2.3/".to_owned()),
        ("other", receiver.url("/close")),
    ];
    // An endpoint that is never called can be written where the operator allows more.
    let carefree = app.carefree_node().await;
    for (class, url) in urls {
        let customer = app.customer().await;
        customer.through(&carefree.client).endpoint(&url).await;
        let before = Scrape::of(&app.client).await;
        customer.publish(&json!({})).await;
        let attempt = format!("attempts_total{{class=\"{class}\"}}");
        let failed = [(attempt.as_str(), 1), ("deliveries_finished_total{result=\"failed\"}", 1), ("batch_results_sum", 1)];
        counted(&app.client, &before, &[&DELIVERED_AT_ONCE[..2], &failed].concat()).await;
    }
}

#[tokio::test]
async fn deliveries_that_end_without_a_request_are_no_attempts() {
    let app = App::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    for (result, cause) in [("discarded", "update message set payload = null"), ("canceled", "")] {
        let before = Scrape::of(&app.client).await;
        customer.publish(&json!({})).await;
        let attempted = [("attempts_total{class=\"5xx\"}", 1), ("batch_results_sum", 1)];
        let before = counted(&app.client, &before, &[&DELIVERED_AT_ONCE[..2], &attempted].concat()).await;
        shows(&app.client, "queue_sleeping_rows", 1.0).await;
        if cause.is_empty() {
            app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": true })).await.expect(200);
        } else {
            app.database.execute(cause).await;
        }
        app.database.let_retries_fall_due().await;
        let ended = format!("deliveries_finished_total{{result=\"{result}\"}}");
        counted(&app.client, &before, &[(&ended, 1), ("batch_results_sum", 1)]).await;
        shows(&app.client, "queue_sleeping_rows", 0.0).await;
    }
}

#[tokio::test]
async fn duplicates_and_what_is_odd_about_them_are_counted() {
    let app = App::start().await;
    let customer = app.customer().await;
    let deduped = |payload: Value| json!({ "eventType": "invoice.paid", "payload": payload, "idempotency_key": "order-1" });
    let before = Scrape::of(&app.client).await;
    for (payload, more) in [(json!({ "n": 1 }), vec![]), (json!({ "n": 1 }), vec![1]), (json!({ "n": 2 }), vec![1, 1])] {
        let before = Scrape::of(&app.client).await;
        customer.publish_raw(&deduped(payload), None).await.expect(202);
        let names = ["messages_duplicate_total", "message_key_mismatches_total"];
        let odd: Vec<_> = names.into_iter().zip(more).collect();
        counted(&app.client, &before, &[&DELIVERED_AT_ONCE[..2], &odd].concat()).await;
    }
    let all =
        [("messages_accepted_total", 3), ("batch_messages_sum", 3), ("messages_duplicate_total", 2), ("message_key_mismatches_total", 1)];
    counted(&app.client, &before, &all).await;
}

#[tokio::test]
async fn replays_and_mismatches_are_counted_where_they_are_answered() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    let publish = async |client: &Client, n: i32| customer.through(client).publish_raw(&message(&json!({ "n": n })), Some("key")).await;
    let patch = async |client: &Client, name: &str| {
        client.request("PATCH", &customer.path("")).key("patch").json(&json!({ "name": name })).send().await.status
    };
    publish(&app.client, 1).await.expect(202);
    patch(&app.client, "a").await;
    for client in [&app.client, &other.client] {
        let before = Scrape::of(client).await;
        publish(client, 1).await.expect(202);
        let before = counted(client, &before, &[("idempotency_replays_total", 1), ("batch_messages_sum", 1)]).await;
        assert_eq!(patch(client, "a").await, 200);
        let before = counted(client, &before, &[("idempotency_replays_total", 1)]).await;
        publish(client, 2).await.expect(422);
        let before = counted(client, &before, &[("idempotency_mismatches_total", 1), ("batch_messages_sum", 1)]).await;
        assert_eq!(patch(client, "b").await, 422);
        counted(client, &before, &[("idempotency_mismatches_total", 1)]).await;
    }
    let before = Scrape::of(&app.client).await;
    app.client.delete(&customer.path("")).await.expect(204);
    publish(&app.client, 1).await.expect(202);
    counted(&app.client, &before, &[("idempotency_replays_total", 1), ("batch_messages_sum", 1)]).await;
}

#[tokio::test]
async fn keys_that_a_clients_mistake_made_are_counted() {
    let app = App::start().await;
    let customer = app.customer().await;
    let before = Scrape::of(&app.client).await;
    let publish = async |key: &str| customer.publish_raw(&message(&json!({})), Some(key)).await.expect(202);
    publish("undefined").await;
    let mistaken = [("idempotency_mistaken_keys_total", 1)];
    let before = counted(&app.client, &before, &[&DELIVERED_AT_ONCE[..2], &mistaken].concat()).await;
    publish("\"undefined\"").await;
    let replayed = [("idempotency_replays_total", 1), ("batch_messages_sum", 1)];
    let before = counted(&app.client, &before, &[&mistaken[..], &replayed].concat()).await;
    publish("undefined-17").await;
    counted(&app.client, &before, &DELIVERED_AT_ONCE[..2]).await;
}

#[tokio::test]
async fn requests_that_are_told_to_wait_are_counted() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    let publish = |client: &Client| {
        let customer = customer.through(client);
        async move { customer.publish_raw(&message(&json!({})), Some("key")).await }
    };
    let create = |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send();
    let hold = app.database.hold_inserts("message").await;
    let first = tokio::spawn(publish(&app.client));
    hold.holds(1).await;
    for client in [&app.client, &other.client] {
        let before = Scrape::of(client).await;
        publish(client).await.expect(409);
        let in_batch = [("batch_messages_sum", 1)];
        let waited = [("idempotency_in_progress_total", 1)];
        // The node that runs the first one needs no batch to know.
        let batched = if client.base == other.client.base { &in_batch[..] } else { &[] };
        counted(client, &before, &[&waited, batched].concat()).await;
    }
    hold.release().await;
    first.await.expect("no panic").expect(202);

    app.database.execute("drop trigger hold_insert on message; drop function hold_insert").await;
    let hold = app.database.hold_inserts("application").await;
    let first = tokio::spawn(create(&app.client));
    hold.holds(1).await;
    for client in [&app.client, &other.client] {
        let before = Scrape::of(client).await;
        create(client).await.expect(409);
        counted(client, &before, &[("idempotency_in_progress_total", 1)]).await;
    }
    hold.release().await;
    first.await.expect("no panic").expect(201);
}

#[tokio::test]
async fn a_late_result_is_counted_as_late_and_not_as_an_end() {
    let app = App::with(no_retries()).await;
    let receiver = Receiver::start().await;
    let (first, second) = (Gate::default(), Gate::default());
    receiver.on("/", [Reply::status(500).held_by(&first), Reply::status(200).held_by(&second)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let before = Scrape::of(&app.client).await;
    customer.publish(&json!({})).await;
    receiver.received(1).await;
    app.database.execute("update queue set due_at = now() where lease is not null").await;
    receiver.received(2).await;
    let unknown = [("attempts_total{class=\"unknown\"}", 1)];
    let before = counted(&app.client, &before, &[&DELIVERED_AT_ONCE[..2], &unknown].concat()).await;
    first.open();
    let late = [("attempts_total{class=\"5xx\"}", 1), ("results_late_total", 1), ("batch_results_sum", 1)];
    let before = counted(&app.client, &before, &late).await;
    second.open();
    counted(&app.client, &before, &DELIVERED_AT_ONCE[2..]).await;
}

#[tokio::test]
async fn a_delivery_that_kills_its_workers_ends_as_a_failure() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::hang()]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let before = Scrape::of(&app.client).await;
    customer.publish(&json!({})).await;
    for number in 1..=3 {
        receiver.received(number).await;
        app.database.execute("update queue set due_at = now() where lease is not null").await;
    }
    let crashed = [("attempts_total{class=\"unknown\"}", 3), ("deliveries_finished_total{result=\"failed\"}", 1)];
    counted(&app.client, &before, &[&DELIVERED_AT_ONCE[..2], &crashed].concat()).await;
}

#[tokio::test]
async fn a_message_that_cannot_be_stored_is_counted_as_our_failure() {
    let app = App::start().await;
    let customer = app.customer().await;
    let poison = "create function refuse() returns trigger language plpgsql as
                    $$ begin if new.event_type = 'poison' then raise exception 'no' using errcode = '22023'; end if; return new; end $$;
                  create trigger refuse before insert on message for each row execute function refuse();";
    app.database.execute(poison).await;
    let before = Scrape::of(&app.client).await;
    customer.publish_raw(&json!({ "eventType": "poison", "payload": {} }), None).await.expect(500);
    counted(&app.client, &before, &[("messages_refused_total{reason=\"failed\"}", 1)]).await;
}

#[tokio::test]
async fn without_its_database_a_server_still_shows_what_it_counted() {
    let database = Database::create().await;
    let proxy = Proxy::to(cluster::place_of(&database.url)).await;
    let url = cluster::url_through(&database.url, proxy.address);
    let node = Node::start(&url, &Options::default(), &token(&new_tenant())).await;
    let customer = Customer::create(&node.client).await;
    customer.publish(&json!({})).await;
    let before = Scrape::of(&node.client).await;
    assert_eq!((before.get("database_up"), before.get("queue_due_rows")), (Some(1.0), Some(0.0)));
    proxy.cut();
    let refused = async || {
        let answer = customer.publish_raw(&message(&json!({})), None).await.expect(503);
        assert_eq!(answer.text("code"), "unavailable");
    };
    refused().await;
    shows(&node.client, "database_up", 0.0).await;
    let during = counted(&node.client, &before, &[("messages_refused_total{reason=\"unavailable\"}", 1)]).await;
    refused().await;
    let during = counted(&node.client, &during, &[("messages_refused_total{reason=\"unavailable\"}", 1)]).await;
    assert_eq!(during.get("messages_accepted_total"), Some(1.0));
    eventually("what is unknown is not shown", async || {
        let scrape = Scrape::of(&node.client).await;
        ["queue_due_rows", "queue_sleeping_rows", "oldest_due_age_seconds"].iter().all(|gauge| scrape.get(gauge).is_none()).then_some(())
    })
    .await;
    proxy.mend();
    shows(&node.client, "database_up", 1.0).await;
    shows(&node.client, "queue_due_rows", 0.0).await;
}

#[tokio::test]
async fn the_gauges_show_what_is_owed_and_what_is_being_sent() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(200).held_by(&gate)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    for _ in 0..3 {
        customer.publish(&json!({})).await;
    }
    shows(&app.client, "queue_due_rows", 3.0).await;
    app.database
        .execute("update queue set due_at = now() - interval '1 hour' where message_id = (select message_id from queue limit 1)")
        .await;
    let age = async || Scrape::of(&app.client).await.get("oldest_due_age_seconds").filter(|age| (3600.0..3700.0).contains(age));
    eventually("the oldest is an hour old", age).await;
    assert_eq!(Scrape::of(&app.client).await.get("jobs_claimed"), None, "an API has no jobs");

    let worker = app.node_with(&Options { roles: Roles::Worker, ..Options::default() }).await;
    receiver.received(3).await;
    for (gauge, value) in [("jobs_claimed", 3.0), ("jobs_handed_over", 0.0), ("sends_in_flight", 3.0), ("queue_due_rows", 0.0)] {
        shows(&worker.client, gauge, value).await;
    }
    let both = app.node_with(&Options::default()).await;
    customer.through(&both.client).publish(&json!({})).await;
    receiver.received(4).await;
    for (gauge, value) in [("jobs_claimed", 0.0), ("jobs_handed_over", 1.0), ("sends_in_flight", 1.0)] {
        shows(&both.client, gauge, value).await;
    }
    gate.open();
    for gauge in ["jobs_claimed", "jobs_handed_over", "sends_in_flight"] {
        shows(&worker.client, gauge, 0.0).await;
        shows(&both.client, gauge, 0.0).await;
    }
    let crowd = "insert into queue (message_id, endpoint_id, tenant_id, application_id, lease, due_at)
                   select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - interval '1 minute'
                     from generate_series(1, 12345)";
    // No worker may take them for rescued: this database has an API alone by now.
    worker.stop().await;
    both.stop().await;
    app.database.execute(crowd).await;
    app.database.execute("vacuum analyze queue").await;
    shows(&app.client, "queue_due_rows", 12345.0).await;
}

#[tokio::test]
async fn answers_are_counted_by_the_class_of_their_status() {
    let app = App::start().await;
    let of = |scrape: &Scrape, class: &str| scrape.get(&format!("api_requests_total{{status=\"{class}\"}}")).expect("a counter");
    let before = Scrape::of(&app.client).await;
    app.client.get("/api/v1/app").await.expect(200);
    app.client.get("/api/v1/app/absent").await.expect(404);
    app.client.with_token("no token").get("/api/v1/app").await.expect(401);
    let after = Scrape::of(&app.client).await;
    let moved = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| of(&after, class) - of(&before, class));
    assert_eq!(moved.map(|by| by.to_string()), ["0", "2", "0", "2", "0"], "one success and one scrape, two refusals");
}

#[tokio::test]
async fn no_label_holds_what_a_user_wrote() {
    let app = App::with(no_retries()).await;
    let receiver = Receiver::start().await;
    receiver.on("/odd%22path?x=%7B", [Reply::status(418)]);
    let client = app.client.with_token(&token("org_marker-of-the-tenant"));
    let body = json!({ "name": "marker\"} 1\nmarker", "uid": "marker-of-the-application" });
    client.post("/api/v1/app", &body).await.expect(201);
    let endpoint = json!({ "url": receiver.url("/odd%22path?x=%7B"), "uid": "marker-of-the-endpoint", "channels": ["marker"] });
    client.post("/api/v1/app/marker-of-the-application/endpoint", &endpoint).await.expect(201);
    let body = json!({ "eventType": "marker.type", "payload": { "marker": "\"}" }, "eventId": "marker-event", "channels": ["marker"],
        "idempotency_key": "marker key" });
    client.request("POST", "/api/v1/app/marker-of-the-application/msg").key("marker \"key\"").json(&body).send().await.expect(202);
    receiver.received(1).await;
    client.request("GET", "/marker?marker={}").unchecked().send().await.expect(404);
    let scrape = Scrape::of(&app.client).await;
    let allowed = [
        ("class", "2xx 3xx 4xx 5xx timeout refused blocked other unknown"),
        ("result", "succeeded failed canceled discarded"),
        ("reason", "overloaded unavailable failed"),
        ("status", "1xx 2xx 3xx 4xx 5xx"),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    let allowed: BTreeSet<_> =
        allowed.iter().flat_map(|(label, values)| values.split(' ').map(|value| ((*label).to_owned(), value.to_owned()))).collect();
    let shown: BTreeSet<_> = scrape.labels.iter().filter(|(label, _)| label != "le").cloned().collect();
    assert_eq!(shown, allowed, "every value of every set, and nothing else");
    let is_bound = |text: &str| text == "+Inf" || text.parse::<f64>().is_ok();
    assert!(scrape.labels.iter().all(|(label, value)| label != "le" || is_bound(value)));
    assert!(scrape.samples.len() < 120, "{} samples", scrape.samples.len());
}
