//! A replica is killed at the worst moments of one request, and the client repeats the request at another.

use serde_json::{Value, json};
use support::{Answer, Attempt, Customer, customer::message};
use tokio::task::JoinHandle;

use crate::{ONE_AT_A_TIME, fleet::Pair};

/// Asks for a message, and comes back with the answer or without.
fn publish(customer: &Customer, body: &Value) -> JoinHandle<Option<Answer>> {
    let request = customer.client.request("POST", &customer.path("/msg")).key("key").json(body);
    tokio::spawn(async move { request.try_send().await.ok() })
}

async fn repeat(pair: &Pair, body: &Value) -> Answer {
    pair.customer.publish_raw(body, Some("key")).await
}

#[track_caller]
fn assert_in_progress(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (409, Some("1")), "{answer:?}");
}

/// Repeats until the key is free; every other answer on the way is "in progress".
async fn insist(pair: &Pair, body: &Value) -> Answer {
    let settled = async || {
        let answer = repeat(pair, body).await;
        if answer.status == 202 {
            return Some(answer);
        }
        assert_in_progress(&answer);
        None
    };
    support::eventually("the key is free", settled).await
}

/// One message, delivered once.
async fn assert_there_is_one(pair: &Pair, id: &str) {
    assert_eq!(pair.receiver.received(1).await[0].id(), id);
    pair.database.nothing_owed().await;
    let listed: Vec<_> = pair.customer.messages().await.iter().map(|message| message["id"].clone()).collect();
    assert_eq!((listed, pair.receiver.so_far().len()), (vec![json!(id)], 1));
}

/// What the dead replica had leased is sent by the other: it may have been sent before, and its attempts say so.
async fn assert_it_is_taken_over(pair: &Pair, id: &str) {
    assert_eq!(pair.receiver.so_far().len(), 0, "the dead replica sent nothing");
    pair.let_leases_run_out().await;
    assert_there_is_one(pair, id).await;
    let attempts = pair.customer.attempts(id, 2).await;
    let outcomes: Vec<_> = attempts.iter().map(Attempt::response).collect();
    assert_eq!((attempts[1].status(), attempts.len()), ("success", 2), "{outcomes:?}");
}

#[tokio::test]
async fn a_replica_killed_before_its_call_is_sent_has_stored_nothing_and_the_repeat_executes() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut pair = Pair::start().await;
    let body = message(&json!({ "marker": "2ac9e1-unsent" }));
    pair.proxy.keep_request_once(b"2ac9e1-unsent");
    let asking = publish(&pair.at_the_unlucky(), &body);
    pair.proxy.has_sprung(1).await;
    pair.unlucky.kill().await;
    assert!(asking.await.expect("no panic").is_none(), "nobody was answered");
    assert!(pair.customer.messages().await.is_empty());
    let answer = repeat(&pair, &body).await.expect(202);
    assert!(!answer.is_replay(), "nothing had been done");
    assert_there_is_one(&pair, &answer.text("id")).await;
}

#[tokio::test]
async fn a_batch_whose_replica_is_killed_is_finished_by_postgres_and_the_repeat_is_a_replay() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut pair = Pair::start().await;
    let body = message(&json!({ "n": 1 }));
    let hold = pair.database.hold_inserts("message").await;
    let asking = publish(&pair.at_the_unlucky(), &body);
    hold.holds(1).await;
    pair.unlucky.kill().await;
    assert!(asking.await.expect("no panic").is_none(), "nobody was answered");
    assert_in_progress(&repeat(&pair, &body).await);
    hold.release().await;
    let answer = insist(&pair, &body).await;
    assert!(answer.is_replay(), "what the dead replica had sent was done");
    assert_it_is_taken_over(&pair, &answer.text("id")).await;
}

#[tokio::test]
async fn a_batch_that_ends_with_its_replica_has_stored_nothing_and_the_repeat_executes() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut pair = Pair::start().await;
    let body = message(&json!({ "n": 1 }));
    let hold = pair.database.hold_inserts("message").await;
    let asking = publish(&pair.at_the_unlucky(), &body);
    hold.holds(1).await;
    pair.unlucky.kill().await;
    pair.end_the_running_batch().await;
    hold.release().await;
    assert!(asking.await.expect("no panic").is_none(), "nobody was answered");
    let answer = insist(&pair, &body).await;
    assert!(!answer.is_replay(), "nothing had been done");
    assert_there_is_one(&pair, &answer.text("id")).await;
}

#[tokio::test]
async fn another_write_whose_replica_is_killed_half_way_is_undone_and_the_repeat_executes() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut pair = Pair::start().await;
    let create = |customer: &Customer| customer.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "made once" }));
    let hold = pair.database.hold_inserts("application").await;
    let asking = tokio::spawn(create(&pair.at_the_unlucky()).try_send());
    hold.holds(1).await;
    pair.unlucky.kill().await;
    assert!(asking.await.expect("no panic").is_err(), "nobody was answered");
    assert_in_progress(&create(&pair.customer).send().await);
    hold.release().await;
    let made = support::eventually("the key is free", async || {
        let answer = create(&pair.customer).send().await;
        (answer.status == 201).then_some(answer)
    });
    assert!(!made.await.is_replay(), "nothing had been done");
    let all = pair.customer.pages("/api/v1/app").await;
    assert_eq!(all.iter().filter(|app| app["name"] == "made once").count(), 1);
}

#[tokio::test]
async fn a_replica_killed_after_the_commit_leaves_its_answer_to_the_repeat() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut pair = Pair::start().await;
    let body = message(&json!({ "marker": "88d3b0-committed" }));
    pair.proxy.keep_answer_once(b"88d3b0-committed");
    let asking = publish(&pair.at_the_unlucky(), &body);
    pair.proxy.has_sprung(1).await;
    pair.unlucky.kill().await;
    assert!(asking.await.expect("no panic").is_none(), "nobody was answered");
    let answer = repeat(&pair, &body).await.expect(202);
    assert!(answer.is_replay(), "it had been done");
    assert_it_is_taken_over(&pair, &answer.text("id")).await;
}
