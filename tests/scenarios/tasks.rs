//! Long work goes on after the request that asked for it: bounded steps, each of them once, whoever dies.

use serde_json::{Value, json};
use support::{
    App, Client, Customer, Database, Options, Receiver, Reply, Roles, customer::message, eventually, new_tenant, processes::ServerProcess,
    token,
};
use svix::{
    api::BackgroundTaskListOptions,
    models::{BackgroundTaskStatus, RecoverIn, ReplayIn},
};

use crate::svix::status_of;

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// So many endpoints that a message to them is a fan-out of many steps.
const VERY_MANY: usize = 20_000;
/// More than are written with a message.
const MANY: usize = 501;

fn without_worker() -> Options {
    Options { roles: Roles::Api, ..Options::default() }
}

fn worker() -> Options {
    Options { roles: Roles::Worker, ..Options::default() }
}

/// The task, once it is over.
async fn over(client: &Client, task: &str) -> Value {
    let path = format!("/api/v1/background-task/{task}");
    eventually("the task is over", async || {
        let shown = client.get(&path).await.expect(200).json();
        (shown["status"] != "running").then_some(shown)
    })
    .await
}

#[tokio::test]
async fn a_fan_out_to_very_many_endpoints_that_is_cut_off_by_kill_9_is_finished_by_another_node() {
    let (database, tenant, receiver) = (Database::create().await, new_tenant(), Receiver::start().await);
    let start = async |role| ServerProcess::start(PROGRAM, role, &database.url, &tenant, &[]).await;
    let api = start("api").await;
    let customer = Customer::create(&api.client).await;
    let listening = customer.endpoint(&receiver.url("/")).await;
    database.copy_endpoint(&customer.id, VERY_MANY).await;
    // All but one are held, so that what they are owed stays where it can be counted.
    database
        .execute(&format!(
            "insert into endpoint_health (endpoint_id, tenant_id, state, probe_at, changed_at)
               select id, tenant_id, 1, now() + interval '100 s', now() from endpoint where id <> posthaste_id('{listening}')"
        ))
        .await;
    let unlucky = database.texts("select id::text from endpoint order by id offset 5500 limit 1").await;
    let hold = database.hold_inserts_where("queue", &format!("new.endpoint_id = '{}'", unlucky[0])).await;
    let mut first = start("worker").await;
    let id = customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await.expect(202).text("id");
    hold.holds(1).await;
    assert_eq!(database.number("select count(*) from queue").await, 5_000, "the steps before are there");
    first.process.kill().await;
    let second = start("worker").await;
    hold.release().await;
    eventually("the fan-out is over", async || (database.number("select count(*) from task").await == 0).then_some(())).await;
    let received = receiver.received(1).await;
    assert_eq!(received[0].id(), id);
    eventually("what was sent is not owed", async || (database.owed().await < i64::try_from(VERY_MANY).expect("a number")).then_some(()))
        .await;
    assert_eq!(database.number("select count(distinct endpoint_id) from queue").await, i64::try_from(VERY_MANY).expect("a number") - 1);
    assert_eq!(database.number("select count(*) from attempt").await, 1, "nothing is sent twice");
    let again = customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await.expect(202);
    assert!(again.is_replay());
    assert_eq!(database.number("select count(*) from task").await, 0, "a repeat fans out nothing");
    drop((api, second));
}

#[tokio::test]
async fn a_large_fan_out_reaches_those_that_were_there_when_the_message_was_accepted() {
    let app = App::with(without_worker()).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let first = customer.endpoint(&receiver.url("/old")).await;
    app.database.copy_endpoint(&customer.id, MANY).await;
    let early = customer.publish(&json!({ "n": 1 })).await;
    let standings = customer.pages(&customer.path(&format!("/msg/{early}/endpoint?with_left_out=true"))).await;
    let stands = standings.iter().find(|standing| standing["id"] == json!(first)).expect("it is shown");
    assert_eq!(stands["state"], "due", "its delivery is still to be made");
    assert_eq!(app.database.number("select count(*) from task").await, 1);
    assert_eq!(app.database.owed().await, 0);
    customer.endpoint(&receiver.url("/new")).await;
    let late = customer.publish(&json!({ "n": 2 })).await;
    let node = app.node_with(&worker()).await;
    let received = receiver.received_at("/new", 1).await;
    assert_eq!(received[0].id(), late);
    let old = receiver.received_at("/old", 2 * MANY).await;
    assert_eq!(old.iter().filter(|got| got.id() == early).count(), MANY);
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2 * MANY + 1, "each once");
    assert_eq!(app.database.number("select count(*) from task").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_large_fan_out_lets_nobody_wait_behind_it() {
    let app = App::with(without_worker()).await;
    let large = app.customer().await;
    large.endpoint("http://127.0.0.1:9/").await;
    app.database.copy_endpoint(&large.id, 2 * MANY).await;
    let receiver = Receiver::start().await;
    let neighbour = Customer::create(&app.node.client.with_token(&token(&new_tenant()))).await;
    neighbour.endpoint(&receiver.url("/")).await;
    let hold = app.database.hold_inserts_where("queue", &format!("new.application_id = posthaste_id('{}')", large.id)).await;
    let node = app.node_with(&worker()).await;
    large.publish(&json!({})).await;
    hold.holds(1).await;
    // The fan-out stands still, and holds up neither its own application nor another tenant.
    neighbour.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    large.publish(&json!({})).await;
    hold.release().await;
    node.stop().await;
}

#[tokio::test]
async fn recover_sends_again_what_failed_or_was_canceled_and_nothing_else() {
    let app = App::with(Options { schedule: vec![], ..Options::default() }).await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    receiver.on("/", [Reply::status(200), Reply::status(500), Reply::status(502), Reply::status(200)]);
    let fine = customer.publish(&json!({ "n": "fine" })).await;
    customer.attempts(&fine, 1).await;
    let mut failed = Vec::new();
    for n in 0..2 {
        failed.push(customer.publish(&json!({ "n": n })).await);
        customer.attempts(failed.last().expect("one"), 1).await;
    }
    // One of them was recovered by hand since.
    app.client.request("POST", &customer.path(&format!("/msg/{}/endpoint/{endpoint}/resend", failed[1]))).send().await.expect(202);
    customer.attempts(&failed[1], 2).await;
    let endpoints = api.endpoint();
    let recover = || {
        let since = RecoverIn { since: "2026-01-01T00:00:00Z".parse().expect("a moment"), until: None };
        endpoints.recover(customer.id.clone(), endpoint.clone(), since, None)
    };
    let task = recover().await.expect("it is accepted");
    let shown = over(&app.client, &task.id).await;
    assert_eq!(
        (&shown["status"], &shown["task"], &shown["data"]["messagesSent"]),
        (&json!("finished"), &json!("endpoint.recover"), &json!(1))
    );
    let received = receiver.received(5).await;
    assert_eq!(received[4].id(), failed[0]);
    customer.attempts(&failed[0], 2).await;
    let listed = api
        .background_task()
        .list(Some(BackgroundTaskListOptions { status: Some(BackgroundTaskStatus::Finished), ..Default::default() }))
        .await;
    assert_eq!(listed.expect("a list").data.iter().map(|task| task.id.clone()).collect::<Vec<_>>(), [task.id]);
    let nothing = recover().await.expect("it is accepted");
    assert_eq!(over(&app.client, &nothing.id).await["data"]["messagesSent"], 0, "all is well");
    app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": true })).await.expect(200);
    assert_eq!(status_of(recover().await), 409, "a disabled endpoint gets nothing");
}

#[tokio::test]
async fn replay_missing_sends_what_an_endpoint_wants_and_never_got() {
    let app = App::start().await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    app.client.post("/api/v1/event-type", &json!({ "name": "invoice.paid", "description": "" })).await.expect(201);
    let early = customer.publish(&json!({ "n": "early" })).await;
    let keyed = |n: u8| json!({ "eventType": "invoice.paid", "payload": { "n": n }, "idempotency_key": "order-1" });
    let first = customer.publish_raw(&keyed(1), None).await.expect(202).text("id");
    customer.publish_raw(&keyed(2), None).await.expect(202);
    customer.publish_raw(&json!({ "eventType": "user.left", "payload": {} }), None).await.expect(202);
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "filterTypes": ["invoice.paid"] })).await;
    let sent = customer.publish(&json!({ "n": "sent" })).await;
    receiver.received(1).await;
    customer.attempts(&sent, 1).await;
    let since = app.database.texts("select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from tenant").await;
    let replay = ReplayIn { since: since[0].parse().expect("a moment"), until: None };
    let task = api.endpoint().replay_missing(customer.id.clone(), endpoint.clone(), replay, None).await.expect("it is accepted");
    let shown = over(&app.client, &task.id).await;
    assert_eq!((&shown["data"]["messagesSent"], &shown["data"]["scanned"]), (&json!(2), &json!(5)), "{shown}");
    let mut got: Vec<_> = receiver.received(3).await.iter().skip(1).map(|got| got.id().to_owned()).collect();
    got.sort();
    assert_eq!(got, [early, first], "neither the duplicate, nor what it does not want, nor what it got");
}

#[tokio::test]
async fn a_task_is_asked_for_once_under_a_key_seen_by_its_tenant_and_stopped_on_request() {
    let app = App::with(without_worker()).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.publish(&json!({})).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let ask = async || {
        let body = json!({ "since": "2026-01-01T00:00:00Z" });
        app.client
            .request("POST", &customer.path(&format!("/endpoint/{endpoint}/replay-missing")))
            .json(&body)
            .key("once")
            .send()
            .await
            .expect(202)
    };
    let (task, again) = (ask().await.text("id"), ask().await);
    assert_eq!((again.text("id"), again.is_replay()), (task.clone(), true));
    assert_eq!(app.database.number("select count(*) from task").await, 1);
    let path = format!("/api/v1/background-task/{task}");
    let stranger = app.client.with_token(&token(&new_tenant()));
    stranger.get(&path).await.expect(404);
    stranger.request("POST", &format!("{path}/cancel")).send().await.expect(404);
    assert_eq!(stranger.get("/api/v1/background-task").await.expect(200).json()["data"], json!([]));
    assert_eq!(app.client.get(&path).await.expect(200).text("status"), "running");
    let stopped = app.client.request("POST", &format!("{path}/cancel")).send().await.expect(200).json();
    assert_eq!((&stopped["status"], &stopped["data"]["error"]), (&json!("failed"), &json!("canceled")));
    let listed = app.client.get("/api/v1/background-task?status=failed&task=endpoint.replay").await.expect(200).json();
    assert_eq!(listed["data"][0]["id"], json!(task));
    let node = app.node_with(&worker()).await;
    customer.publish(&json!({ "n": "after" })).await;
    receiver.received(1).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 1, "what was stopped before it began sends nothing");
    let refused = json!({ "since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z" });
    let answer = app.client.post(&customer.path(&format!("/endpoint/{endpoint}/recover")), &refused).await.expect(422);
    assert_eq!(answer.json()["detail"][0]["loc"], json!(["body", "until"]));
    node.stop().await;
}

#[tokio::test]
async fn a_task_whose_endpoint_is_switched_off_fails_and_says_why() {
    let app = App::with(without_worker()).await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("http://127.0.0.1:9/").await;
    let body = json!({ "since": "2026-01-01T00:00:00Z" });
    let task = app.client.post(&customer.path(&format!("/endpoint/{endpoint}/recover")), &body).await.expect(202).text("id");
    app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": true })).await.expect(200);
    let node = app.node_with(&worker()).await;
    let shown = over(&app.client, &task).await;
    assert_eq!((&shown["status"], &shown["data"]["error"]), (&json!("failed"), &json!("the endpoint was disabled")));
    node.stop().await;
}
