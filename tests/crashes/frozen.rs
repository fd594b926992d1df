//! A replica stands still (SIGSTOP) in the middle of something, the others go on, and then it goes on too.

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Answer, Attempt, Client, Gate, Reply, client::Request, customer::message, scrape::Scrape};

use crate::{ONE_AT_A_TIME, fleet::Pair};

/// How long a frozen replica can keep a key: its session may idle in a transaction for two seconds.
const KEPT: Duration = Duration::from_secs(2);
/// What a busy machine may add to that.
const SLACK: Duration = Duration::from_secs(3);

/// Repeats until the key is free; every other answer on the way is "in progress".
async fn insist(request: impl Fn() -> Request) -> (Answer, usize) {
    let mut put_off = 0;
    let answer = support::eventually("the key is free", async || {
        let answer = request().send().await;
        if answer.status < 300 {
            return Some(answer);
        }
        assert_eq!((answer.status, answer.header("retry-after")), (409, Some("1")), "{answer:?}");
        put_off += 1;
        None
    });
    (answer.await, put_off)
}

#[tokio::test]
async fn a_replica_frozen_half_way_keeps_its_key_for_two_seconds_and_then_claims_no_success() {
    let _one = ONE_AT_A_TIME.lock().await;
    let pair = Pair::start().await;
    let create = |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "made once" }));
    let hold = pair.database.hold_inserts("application").await;
    let asking = tokio::spawn(create(pair.unlucky.client()).send());
    hold.holds(1).await;
    pair.unlucky.freeze();
    hold.release().await;
    let begun = Instant::now();
    let (made, put_off) = insist(|| create(pair.other.client())).await;
    assert!(put_off > 0, "the frozen replica had the key");
    assert!(begun.elapsed() < KEPT + SLACK, "{:?}", begun.elapsed());
    assert!(!made.is_replay(), "the transaction of the frozen replica was undone");
    pair.unlucky.thaw();
    let late = asking.await.expect("an answer").expect(503);
    assert!(late.header("retry-after").is_some());
    let replay = create(pair.unlucky.client()).send().await.expect(201);
    assert!(replay.is_replay() && replay.body == made.body, "{replay:?}");
    let all = pair.customer.pages("/api/v1/app").await;
    assert_eq!(all.iter().filter(|app| app["name"] == "made once").count(), 1);
}

/// The batch of a frozen replica needs nothing more from it: Postgres commits it, or somebody ends it.
#[tokio::test]
async fn a_replica_frozen_during_its_batch_answers_what_became_of_it_meanwhile() {
    let _one = ONE_AT_A_TIME.lock().await;
    for is_ended in [false, true] {
        let pair = Pair::start().await;
        let body = message(&json!({ "n": 1 }));
        let publish = |client: &Client| client.request("POST", &pair.customer.path("/msg")).key("key").json(&body);
        let hold = pair.database.hold_inserts("message").await;
        let asking = tokio::spawn(publish(pair.unlucky.client()).send());
        hold.holds(1).await;
        pair.unlucky.freeze();
        if is_ended {
            pair.end_the_running_batch().await;
        }
        hold.release().await;
        let (answer, _) = insist(|| publish(pair.other.client())).await;
        assert_eq!(answer.is_replay(), !is_ended);
        pair.unlucky.thaw();
        let late = asking.await.expect("an answer").expect(202);
        assert_eq!(late.body, answer.body, "one true answer");
        assert_eq!(late.is_replay(), is_ended, "one of the two was the first");
        assert_eq!(pair.receiver.received(1).await[0].id(), answer.text("id"));
        pair.database.nothing_owed().await;
        assert_eq!((pair.customer.messages().await.len(), pair.receiver.so_far().len()), (1, 1));
    }
}

#[tokio::test]
async fn what_a_replica_was_sending_when_it_froze_is_sent_by_another_and_its_late_result_is_dropped() {
    let _one = ONE_AT_A_TIME.lock().await;
    let pair = Pair::start().await;
    let gate = Gate::default();
    pair.receiver.on("/", [Reply::status(200).body("late").held_by(&gate), Reply::status(200).body("in time")]);
    let id = pair.at_the_unlucky().publish(&json!({ "n": 1 })).await;
    pair.receiver.received(1).await;
    pair.unlucky.freeze();
    gate.open();
    pair.let_leases_run_out().await;
    pair.receiver.received(2).await;
    pair.database.nothing_owed().await;
    pair.unlucky.thaw();
    support::eventually("the late result is dropped", async || {
        let scrape = Scrape::of(pair.unlucky.client()).await;
        (scrape.get("results_late_total") == Some(1.0)).then_some(())
    })
    .await;
    let attempts = pair.customer.attempts_so_far(&id).await;
    let seen: Vec<_> = attempts.iter().map(|attempt| (attempt.status(), attempt.code())).collect();
    assert_eq!(seen.last(), Some(&("success", 200)), "{seen:?}");
    assert_eq!(attempts.last().map(Attempt::response), Some("in time"));
    assert_eq!(attempts.len(), 2, "the frozen replica's send shows as unknown: {seen:?}");
    let ids: Vec<_> = pair.receiver.so_far().iter().map(|webhook| webhook.id().to_owned()).collect();
    assert_eq!(ids, [id.clone(), id], "the receiver can tell that it is one message");
}
