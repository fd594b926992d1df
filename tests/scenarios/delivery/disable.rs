//! A receiver that is gone, or switched off, gets nothing more.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Options, Receiver, Reply, Roles, eventually, scrape::Scrape};

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
    eventually("the endpoint is disabled", is_off).await;
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

/// How many deliveries wait for the endpoint that is switched off.
const BACKLOG: usize = 20_000;

/// A backlog of which each row has failed once, a row that is being sent, and one whose worker died while it sent it.
fn backlog() -> String {
    let insert = "insert into queue (message_id, endpoint_id, tenant_id, application_id, attempts, last_attempt_id, lease, due_at) select ";
    format!(
        "insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url)
           select uuid_v7(), gen_random_uuid(), e.id, 0, 1, e.tenant_id, e.application_id, 0, 1, '' from endpoint e, generate_series(1, {BACKLOG});
         {insert} a.message_id, a.endpoint_id, a.tenant_id, a.application_id, 1, a.id, null, now() - interval '1 minute' from attempt a;
         {insert} uuid_v7(), e.id, e.tenant_id, e.application_id, 0, null, gen_random_uuid(), now() + interval '1 hour' from endpoint e;
         {insert} uuid_v7(), e.id, e.tenant_id, e.application_id, 0, null, gen_random_uuid(), now() - interval '1 s' from endpoint e;"
    )
}

#[tokio::test]
async fn the_backlog_of_an_endpoint_that_is_switched_off_is_canceled_by_the_thousand() {
    let app = App::with(Options { roles: Roles::Api, ..one_hour() }).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let off = customer.endpoint(&receiver.url("/off")).await;
    app.database.execute(&backlog()).await;
    app.client.patch(&customer.path(&format!("/endpoint/{off}")), &json!({ "disabled": true })).await.expect(200);
    let worker = app.node_with(&Options { roles: Roles::Worker, ..one_hour() }).await;
    eventually("all but what is being sent has ended", async || (app.database.owed().await == 1).then_some(())).await;

    let canceled = i64::try_from(BACKLOG).expect("a number") + 1;
    let of_these =
        "outcome = 3 and is_latest and url like '%/off' and convert_from(response, 'UTF8') = 'canceled: the endpoint is disabled'";
    assert_eq!(app.database.number(&format!("select count(*) from attempt where {of_these}")).await, canceled, "each says why");
    let numbers = "select count(*) from attempt where number = 2 and outcome = 3";
    assert_eq!(app.database.number(numbers).await, canceled - 1, "and which attempt of its delivery it is");
    let superseded = "select count(*) from attempt where number = 1 and outcome = 1 and not is_latest";
    assert_eq!(app.database.number(superseded).await, canceled - 1);
    let unknown = "select count(*) from attempt where outcome = 2 and not is_latest";
    assert_eq!(app.database.number(unknown).await, 1, "what a dead worker was sending is told before it is canceled");
    let leased = "select count(*) from queue where lease is not null and due_at > now()";
    assert_eq!(app.database.number(leased).await, 1, "what is being sent is left to whoever sends it");

    let counted = async || {
        let scrape = Scrape::of(&worker.client).await;
        let ended = scrape.get("deliveries_finished_total{result=\"canceled\"}");
        (ended == Some(20_001.0)).then(|| scrape.get("batch_results_sum").unwrap_or(0.0))
    };
    let one_by_one = eventually("each is counted", counted).await;
    assert!(one_by_one < 1_000.0, "{one_by_one} of them were recorded one by one");
    assert_eq!(receiver.so_far().len(), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_switched_on_again_gets_what_comes_from_then_on() {
    let app = App::with(one_hour()).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    let switch = async |is_disabled: bool| app.client.patch(&path, &json!({ "disabled": is_disabled })).await.expect(200);
    for round in 1..=3 {
        switch(true).await;
        let waiting = "insert into queue (message_id, endpoint_id, tenant_id, application_id)
                         select uuid_v7(), id, tenant_id, application_id from endpoint, generate_series(1, 500)";
        app.database.execute(waiting).await;
        app.database.nothing_owed().await;
        switch(false).await;
        let message = customer.publish(&json!({ "round": round })).await;
        assert_eq!(receiver.received(round).await[round - 1].id(), message);
    }
    assert_eq!(app.database.number("select count(*) from attempt where outcome = 3").await, 1_500);
    app.database.nothing_owed().await;
}
