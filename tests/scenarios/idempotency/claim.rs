//! The same request again: replayed, refused, or told to wait, wherever it arrives.

use std::collections::HashSet;

use domain::idempotency::Policy;
use futures::future::join_all;
use serde_json::{Value, json};
use support::{Answer, App, Client, Options, Receiver, customer::message, token};

#[track_caller]
fn same(first: &Answer, second: &Answer) {
    assert_eq!((first.status, &first.body), (second.status, &second.body), "the same status and the same bytes");
    assert!(!first.is_replay() && second.is_replay());
    assert_eq!(first.header("content-type"), second.header("content-type"));
    assert_eq!(first.header("location"), second.header("location"));
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_same_bytes_and_delivered_once() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let body = json!({ "eventType": "invoice.paid", "payload": { "n": 1 }, "eventId": "evt-1", "channels": ["b", "a"] });
    let first = customer.publish_raw(&body, Some("key-1")).await.expect(202);
    let second = customer.publish_raw(&body, Some("key-1")).await;
    let third = customer.through(&other_node.client).publish_raw(&body, Some("key-1")).await;
    same(&first, &second);
    same(&first, &third);
    let reordered = "{\"channels\":[\"b\",\"a\"], \"eventId\":\"evt-1\",\n\"payload\":{\"n\":1},\"eventType\":\"invoice\\u002epaid\"}";
    let respelled = customer.client.request("POST", &customer.path("/msg")).key("key-1").bytes(reordered).send().await;
    same(&first, &respelled);
    receiver.received(1).await;
    app.database.nothing_owed().await;
    assert_eq!((receiver.so_far().len(), customer.messages().await.len()), (1, 1));
    let fresh = customer.publish_raw(&message(&json!({ "n": 2 })), Some("key-2")).await.expect(202);
    assert!(!fresh.is_replay(), "another key is another request");
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let app = App::start().await;
    let customer = app.customer().await;
    let first = customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await.expect(202);
    let payloads = [json!({ "n": 2 }), json!({ "n": 1.0 }), json!({ "n": "1" }), json!({ "n": 1, "m": null })];
    for payload in payloads {
        let other = customer.publish_raw(&message(&payload), Some("key")).await.expect(422);
        assert!(String::from_utf8_lossy(&other.body).contains("idempotency_key_reused"), "{other:?}");
        assert!(!other.is_replay());
    }
    let query = customer.client.request("POST", &customer.path("/msg?with_content=false")).key("key");
    assert_eq!(query.json(&message(&json!({ "n": 1 }))).send().await.status, 422, "the query is part of the request");
    same(&first, &customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await);
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn nobody_is_answered_before_the_commit() {
    let app = App::start().await;
    let customer = app.customer().await;
    let hold = app.database.hold_inserts("message").await;
    let waiting = tokio::spawn({
        let customer = customer.clone();
        async move { customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await }
    });
    hold.holds(1).await;
    // A round trip on the same connection pool: whatever was sent before it has arrived.
    app.client.get("/api/v1/health").await.expect(204);
    assert!(!waiting.is_finished(), "the statement has run, the transaction has not ended");
    assert_eq!(app.database.number("select count(*) from message").await, 0);
    hold.release().await;
    waiting.await.expect("no panic").expect(202);
    assert_eq!(app.database.number("select count(*) from message").await, 1);
}

#[tokio::test]
async fn while_the_first_runs_a_second_is_told_to_wait() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let hold = app.database.hold_inserts("message").await;
    let body = message(&json!({ "n": 1 }));
    let first = tokio::spawn({
        let (customer, body) = (customer.clone(), body.clone());
        async move { customer.publish_raw(&body, Some("key")).await }
    });
    hold.holds(1).await;
    for client in [&other_node.client, &app.client] {
        let second = customer.through(client).publish_raw(&body, Some("key")).await.expect(409);
        assert_eq!(second.text("code"), "idempotency_in_progress");
        let seconds: u64 = second.header("retry-after").expect("a Retry-After").parse().expect("seconds");
        assert!((1..=10).contains(&seconds));
        assert!(!second.is_replay());
    }
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    same(&first, &customer.publish_raw(&body, Some("key")).await);
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn every_other_write_waits_for_its_twin_too() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let hold = app.database.hold_inserts("application").await;
    let create = |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" }));
    let first = tokio::spawn(create(&app.client).send());
    hold.holds(1).await;
    for client in [&other_node.client, &app.client] {
        let second = create(client).send().await.expect(409);
        assert_eq!(second.text("code"), "idempotency_in_progress");
        assert!(second.header("retry-after").is_some());
    }
    hold.release().await;
    let first = first.await.expect("no panic").expect(201);
    same(&first, &create(&other_node.client).send().await);
}

#[tokio::test]
async fn a_policy_can_make_the_second_wait_for_the_first() {
    let app = App::with(Options { policy: Policy::svix(), ..Options::default() }).await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let hold = app.database.hold_inserts("message").await;
    let body = message(&json!({ "n": 1 }));
    let publish = |client: &Client| {
        let (customer, body) = (customer.through(client), body.clone());
        tokio::spawn(async move { customer.publish_raw(&body, Some("key")).await })
    };
    let first = publish(&app.client);
    hold.holds(1).await;
    let second = publish(&other_node.client);
    let third = publish(&app.client);
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    same(&first, &second.await.expect("no panic"));
    same(&first, &third.await.expect("no panic"));
    let patch = async |name: &str| {
        let request = app.client.request("PATCH", &customer.path("")).key("patch").json(&json!({ "name": name }));
        request.send().await
    };
    patch("a").await.expect(200);
    assert_eq!(patch("b").await.expect(200).text("name"), "b", "under this policy a key means nothing on PATCH");
}

#[tokio::test]
async fn a_hundred_repeats_at_once_make_one_message() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let body = message(&json!({ "n": 1 }));
    let repeats = (0..100).map(|number| {
        let customer = customer.through(if number % 2 == 0 { &app.client } else { &other_node.client });
        let body = &body;
        async move {
            loop {
                let answer = customer.publish_raw(body, Some("storm")).await;
                match answer.status {
                    202 => return answer,
                    409 => assert!(answer.header("retry-after").is_some()),
                    _ => panic!("{answer:?}"),
                }
            }
        }
    });
    let answers = join_all(repeats).await;
    let bodies: HashSet<_> = answers.iter().map(|answer| answer.body.clone()).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1, "one was executed, all others replayed");
    receiver.received(1).await;
    app.database.nothing_owed().await;
    assert_eq!((receiver.so_far().len(), customer.messages().await.len()), (1, 1));
}

#[tokio::test]
async fn every_post_and_patch_replays() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    app.client.post("/api/v1/event-type", &json!({ "name": "invoice.paid", "description": "" })).await.expect(201);
    let message = customer.publish(&json!({})).await;
    let of_endpoint = customer.path(&format!("/endpoint/{endpoint}"));
    let requests: [(&str, String, Value, Value); 9] = [
        ("POST", "/api/v1/app".into(), json!({ "name": "a" }), json!({ "name": "b" })),
        ("PATCH", customer.path(""), json!({ "name": "a" }), json!({ "name": "b" })),
        ("POST", customer.path("/endpoint"), json!({ "url": "https://example.com/a" }), json!({ "url": "https://example.com/b" })),
        ("PATCH", of_endpoint.clone(), json!({ "description": "a" }), json!({ "description": "b" })),
        ("POST", format!("{of_endpoint}/secret/rotate"), json!({}), json!({ "gracePeriodSeconds": 1 })),
        ("PATCH", format!("{of_endpoint}/headers"), json!({ "headers": { "a": "b" } }), json!({ "headers": { "a": "c" } })),
        ("POST", "/api/v1/event-type".into(), json!({ "name": "a", "description": "" }), json!({ "name": "b", "description": "" })),
        ("PATCH", "/api/v1/event-type/invoice.paid".into(), json!({ "description": "a" }), json!({ "description": "b" })),
        ("POST", customer.path(&format!("/msg/{message}/endpoint/{endpoint}/resend")), Value::Null, json!({})),
    ];
    for (method, path, body, other) in requests {
        let send = async |body: &Value| {
            let request = app.client.request(method, &path).key("the same key");
            if body.is_null() { request.send().await } else { request.json(body).send().await }
        };
        let first = send(&body).await;
        assert!((200..300).contains(&first.status), "{method} {path}: {first:?}");
        same(&first, &send(&body).await);
        if !path.ends_with("resend") {
            assert_eq!(send(&other).await.status, 422, "{method} {path}");
        }
    }
    let names: Vec<_> = customer.pages("/api/v1/app").await.iter().map(|app| app["name"].clone()).collect();
    assert_eq!(names, ["a", "a"], "the PATCH and one POST took effect, once each");
    assert_eq!(customer.pages(&customer.path("/endpoint")).await.len(), 2);
}

#[tokio::test]
async fn executed_refusals_replay_and_unexecuted_ones_do_not() {
    let app = App::start().await;
    let create = async |body: Value| app.client.request("POST", "/api/v1/app").key("key").json(&body).send().await;
    create(json!({ "name": 1 })).await.expect(422);
    let first = create(json!({ "name": "a", "uid": "taken" })).await.expect(201);
    assert!(!first.is_replay(), "an invalid request leaves its key free");
    let conflict = async || app.client.request("POST", "/api/v1/app").key("2").json(&json!({ "name": "b", "uid": "taken" })).send().await;
    let refused = conflict().await.expect(409);
    app.client.delete("/api/v1/app/taken").await.expect(204);
    same(&refused, &conflict().await);
    let absent = app.client.request("POST", "/api/v1/app/late/msg").key("3").json(&message(&json!({}))).send().await;
    assert_eq!(absent.status, 404);
    app.client.post("/api/v1/app", &json!({ "name": "late", "uid": "late" })).await.expect(201);
    let created = app.client.request("POST", "/api/v1/app/late/msg").key("3").json(&message(&json!({}))).send().await.expect(202);
    assert!(!created.is_replay());
}

#[tokio::test]
async fn an_outcome_outlives_the_token_the_application_and_a_restart() {
    let app = App::start().await;
    let created = json!({ "name": "a", "uid": "acme" });
    app.client.post("/api/v1/app", &created).await.expect(201);
    let body = message(&json!({ "n": 1 }));
    let publish = async |client: &Client, path: &str| client.request("POST", path).key("key").json(&body).send().await;
    let first = publish(&app.client, "/api/v1/app/acme/msg").await.expect(202);
    let id = app.client.get("/api/v1/app/acme").await.expect(200).text("id");
    same(&first, &publish(&app.client, "/api/v1/app/acme/msg/").await);
    same(&first, &publish(&app.client, &format!("/api/v1/app/{id}/msg")).await);
    let rotated =
        app.client.with_token(&api::mint_token(support::JWT_SECRET, &app.tenant, chrono::Utc::now() + chrono::TimeDelta::seconds(5)));
    assert_ne!(rotated.token, app.client.token);
    same(&first, &publish(&rotated, "/api/v1/app/acme/msg").await);
    let stranger = app.client.with_token(&token(&support::new_tenant()));
    stranger.post("/api/v1/app", &created).await.expect(201);
    assert!(!publish(&stranger, "/api/v1/app/acme/msg").await.expect(202).is_replay(), "keys are the tenant's own");
    let restarted = app.second_node().await;
    app.client.delete("/api/v1/app/acme").await.expect(204);
    same(&first, &publish(&restarted.client, "/api/v1/app/acme/msg").await);
    same(&first, &publish(&app.client, &format!("/api/v1/app/{id}/msg")).await);
    let other = app.client.request("POST", "/api/v1/app/acme/msg").key("other").json(&body).send().await;
    assert_eq!(other.status, 404, "a fresh key finds no application");
}

#[tokio::test]
async fn a_key_is_forgotten_when_its_time_is_over() {
    let app = App::start().await;
    let customer = app.customer().await;
    let body = message(&json!({ "n": 1 }));
    let first = customer.publish_raw(&body, Some("key")).await.expect(202);
    let life = "select extract(epoch from expires_at - created_at) from idempotency order by created_at desc limit 1";
    assert_eq!(app.database.number(life).await, 24 * 3600 + 60, "24 hours and one minute");
    app.database.execute("update idempotency set expires_at = now() + interval '1 minute'").await;
    same(&first, &customer.publish_raw(&body, Some("key")).await);
    app.database.execute("update idempotency set expires_at = now()").await;
    let anew = customer.publish_raw(&body, Some("key")).await.expect(202);
    assert!(!anew.is_replay());
    assert_ne!(anew.text("id"), first.text("id"));
}
