//! Failed deliveries are tried again: on the schedule, with the receiver's wish, until success or the end.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Options, Project, Receiver, Reply};

fn schedule(seconds: &[u64]) -> Options {
    Options { schedule: seconds.iter().copied().map(Duration::from_secs).collect(), ..Options::default() }
}

#[tokio::test]
async fn a_delivery_is_retried_with_the_same_id_until_it_succeeds() {
    let app = App::with(Options::retries(5)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500).header("Connection", "close"), Reply::close(), Reply::status(404), Reply::status(200).body("ok")]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let received = receiver.received(4).await;
    assert!(received.iter().all(|webhook| webhook.id() == message && webhook.body == received[0].body));
    let attempts = customer.attempts(&message, 4).await;
    let seen: Vec<_> = attempts.iter().map(|attempt| (attempt.code(), attempt.status())).collect();
    assert_eq!(seen, [(500, "fail"), (0, "fail"), (404, "fail"), (200, "success")]);
    assert_eq!(app.database.owed().await, 0, "after a success nothing is owed");
}

#[tokio::test]
async fn a_delivery_is_given_up_at_the_end_of_the_schedule() {
    let app = App::with(Options::retries(2)).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&message, 3).await;
    app.database.nothing_owed().await;
    let attempts = customer.attempts_so_far(&message).await;
    assert!(attempts.iter().all(|attempt| attempt.status() == "fail"));
    assert_eq!((attempts.len(), receiver.so_far().len()), (3, 3), "one more than there are waits");
}

#[tokio::test]
async fn waits_follow_the_schedule_with_jitter_and_the_receivers_wish() {
    let app = App::with(schedule(&[1000, 2000, 4000, 8000, 16_000])).await;
    let receiver = Receiver::start().await;
    let after = |value: &str| Reply::status(503).header("Retry-After", value);
    let date = (chrono::Utc::now() + chrono::TimeDelta::seconds(6000)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    receiver.on("/", [Reply::status(500), after("3000"), after(&date), after("999999"), after("1")]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let around = |wait: f64| (wait * 0.8 - 60.0)..(wait * 1.2 + 60.0);
    let expected = [around(1000.0), 2990.0..3010.0, 5900.0..6010.0, 15_990.0..16_010.0, around(16_000.0)];
    for (number, expected) in expected.into_iter().enumerate() {
        receiver.received(number + 1).await;
        customer.attempts(&message, number + 1).await;
        let wait = app.database.number("select round(extract(epoch from due_at - now())) from queue_later").await;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand seconds")]
        let wait = wait as f64;
        assert!(expected.contains(&wait), "after attempt {} the wait is {wait}, not within {expected:?}", number + 1);
        app.database.let_retries_fall_due().await;
    }
    receiver.received(6).await;
    app.database.nothing_owed().await;
    let waits: Vec<_> = customer.attempts_so_far(&message).await.into_iter().map(|attempt| attempt.0).collect();
    assert!(waits.iter().all(|attempt| attempt["triggerType"] == 0), "{waits:?}");
}

/// A busy receiver is left alone for as long as it asks, at most an hour; any other one for twice the scheduled wait at most.
#[tokio::test]
async fn a_receiver_that_is_busy_is_left_alone_for_up_to_an_hour() {
    let app = App::with(schedule(&[5])).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let cases = [
        (429, "600", 560..=600),
        (503, "600", 560..=600),
        (503, "86400", 3560..=3600),
        (429, "2", 0..=6),
        (500, "600", 0..=10),
        (404, "600", 0..=10),
    ];
    for (status, asked, expected) in cases {
        let path = format!("/{status}/{asked}");
        receiver.on(&path, [Reply::status(status).header("Retry-After", asked)]);
        let endpoint = customer.endpoint(&receiver.url(&path)).await;
        let message = customer.publish(&json!({ "n": 1 })).await;
        customer.attempts(&message, 1).await;
        let wait = app.database.number("select round(extract(epoch from due_at - now())) from queue_later").await;
        assert!(expected.contains(&wait), "{status} with Retry-After: {asked}: {wait} s, not {expected:?}");
        app.client.delete(&customer.path(&format!("/endpoint/{endpoint}"))).await.expect(204);
        app.database.let_retries_fall_due().await;
        app.database.nothing_owed().await;
    }
}

#[tokio::test]
async fn a_changed_url_applies_to_the_next_attempt() {
    let app = App::with(schedule(&[3600])).await;
    let receiver = Receiver::start().await;
    receiver.on("/old", [Reply::status(500)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/old")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    customer.attempts(&message, 1).await;
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    app.client.patch(&path, &json!({ "url": receiver.url("/new") })).await.expect(200);
    app.database.let_retries_fall_due().await;
    assert_eq!(receiver.received_at("/new", 1).await[0].id(), message);
    let attempts = customer.attempts(&message, 2).await;
    assert_eq!(attempts.iter().map(|attempt| attempt.0["url"].clone()).collect::<Vec<_>>(), [receiver.url("/old"), receiver.url("/new")]);
}

#[tokio::test]
async fn what_a_receiver_said_is_kept_as_bytes_and_cut_at_16_kilobytes() {
    let app = App::with(schedule(&[])).await;
    let receiver = Receiver::start().await;
    receiver.on("/nul", [Reply::status(200).body(b"a\0b\xff\xfec".to_vec())]);
    receiver.on("/long", [Reply::status(200).body(vec![b'x'; 100_000])]);
    receiver.on("/empty", [Reply::status(204)]);
    let customer = app.customer().await;
    for path in ["/nul", "/long", "/empty"] {
        customer.endpoint(&receiver.url(path)).await;
    }
    let message = customer.publish(&json!({ "n": 1 })).await;
    let attempts = customer.attempts(&message, 3).await;
    assert!(attempts.iter().all(|attempt| attempt.status() == "success"), "{attempts:?}");
    let of = |path: &str| attempts.iter().find(|attempt| attempt.0["url"] == receiver.url(path).as_str()).expect("an attempt").clone();
    assert_eq!(of("/long").response(), "x".repeat(16 * 1024));
    assert_eq!(of("/empty").response(), "");
    assert_ne!(of("/nul").response(), "");
    let stored = app.database.texts("select encode(response, 'hex') from attempt where url like '%/nul'").await;
    assert_eq!(stored, ["610062fffe63"]);
    let shown: Value = of("/nul").0;
    assert!(shown["responseDurationMs"].as_i64().is_some_and(|ms| (0..60_000).contains(&ms)), "{shown}");
}

#[tokio::test]
async fn deliveries_are_tried_as_often_as_their_endpoint_says_else_their_tenant_else_the_installation() {
    let app = App::with(Options::retries(0)).await;
    let other = app.second_node().await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    receiver.on("/", vec![Reply::status(500); 20]);
    let path = "/api/v1/retry/policy";
    assert_eq!(other.client.get(path).await.expect(200).json(), json!({ "retryStrategy": null }));
    let strategy = |attempts: u64| json!({ "type": "linear", "interval": 60, "attempts": attempts });
    let endpoint = json!({ "url": receiver.url("/"), "retryStrategy": strategy(2) });
    let made = app.client.post(&customer.path("/endpoint"), &endpoint).await.expect(201).json();
    assert_eq!(made["retryStrategy"], strategy(2));
    let endpoint = customer.path(&format!("/endpoint/{}", made["id"].as_str().expect("an id")));
    let is_tried = async |times: usize| {
        let id = customer.publish(&json!({})).await;
        for number in 1..=times {
            customer.attempts(&id, number).await;
            app.database.let_retries_fall_due().await;
        }
        app.database.nothing_owed().await;
        assert_eq!(customer.attempts_so_far(&id).await.len(), times);
    };
    is_tried(2).await;
    let policy = json!({ "retryStrategy": strategy(3) });
    assert_eq!(other.client.put(path, &policy).await.expect(200).json(), policy);
    is_tried(2).await;
    other.client.patch(&endpoint, &json!({ "retryStrategy": null })).await.expect(200);
    is_tried(3).await;
    assert_eq!(Project::of(&app.client).await.get("").await["config"]["strategy"]["retry_count"], 3, "the other dialect shows it");
    let applications = app.client.get("/api/v1/app").await.expect(200).json();
    assert_eq!(applications["data"].as_array().map(Vec::len), Some(1), "who uses nothing else of projects gets no application by it");
    other.client.put(path, &json!({ "retryStrategy": null })).await.expect(200);
    is_tried(1).await;
    for wrong in [json!({ "type": "linear", "interval": 60, "attempts": 0 }), json!({ "type": "often", "interval": 1, "attempts": 1 })] {
        for refused in [
            app.client.put(path, &json!({ "retryStrategy": wrong })).await.expect(422),
            app.client.patch(&endpoint, &json!({ "retryStrategy": wrong })).await.expect(422),
        ] {
            assert_eq!(
                (&refused.json()["detail"][0]["loc"][0], &refused.json()["detail"][0]["loc"][1]),
                (&json!("body"), &json!("retryStrategy"))
            );
        }
    }
}
