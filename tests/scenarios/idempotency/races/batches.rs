//! Requests that reach the database together, in one batch or in two at once: each gets its own verdict.

use domain::idempotency::Policy;
use futures::future::join_all;
use serde_json::{Value, json};
use support::{Answer, App, Client, Customer, Options, Receiver, customer::message, eventually, scrape::Scrape};

use super::publishing;
use crate::idempotency::same;

/// How often a node is given the chance to take all requests into one batch: whether the last one has arrived when the batch
/// is made is for the machine to say.
const ROUNDS: usize = 20;

/// What a node's committer has written so far: batches, and messages in them.
async fn written(client: &Client) -> (f64, f64) {
    let scrape = Scrape::of(client).await;
    (scrape.get("batch_messages_count").unwrap_or(0.0), scrape.get("batch_messages_sum").unwrap_or(0.0))
}

/// Waits until a server has read what was sent to it before, which it does in turn: each of these is a new connection.
async fn in_turn(client: &Client) {
    for _ in 0..5 {
        Client::new(&client.base, None).get("/api/v1/health/ping").await.expect(204);
    }
}

/// Publishes all of these on one node while its committer is busy with another message, so that they wait together. Returns
/// the answers, and how many batches and messages the committer wrote.
async fn together(app: &App, customer: &Customer, requests: &[(Value, &str)]) -> (Vec<Answer>, f64, f64) {
    let before = written(&app.client).await;
    let hold = app.database.hold_inserts("message").await;
    let busy = publishing(customer, &app.client, &message(&json!({})), "busy");
    hold.holds(1).await;
    let waiting: Vec<_> = requests.iter().map(|(body, key)| publishing(customer, &app.client, body, key)).collect();
    in_turn(&app.client).await;
    hold.release().await;
    busy.await.expect("no panic").expect(202);
    let answers = join_all(waiting).await.into_iter().map(|answer| answer.expect("no panic")).collect();
    let after = written(&app.client).await;
    (answers, after.0 - before.0 - 1.0, after.1 - before.1 - 1.0)
}

#[tokio::test]
async fn a_key_twice_in_one_batch_is_one_request() {
    for _ in 0..ROUNDS {
        let app = App::with(Options { policy: Policy { wait: Policy::svix().wait, ..Policy::default() }, ..Options::default() }).await;
        let customer = app.customer().await;
        let requests = vec![(message(&json!({ "n": 1 })), "key"); 10];
        let (answers, _, messages) = together(&app, &customer, &requests).await;
        assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1, "one was executed");
        assert_eq!(customer.messages().await.len(), 2);
        if (0.5..1.5).contains(&messages) {
            return;
        }
    }
    panic!("the committer was never given the key once for all of them");
}

#[tokio::test]
async fn of_a_batch_only_the_message_whose_event_id_is_taken_is_refused() {
    for _ in 0..ROUNDS {
        let app = App::start().await;
        let receiver = Receiver::start().await;
        let customer = app.customer().await;
        let event = |id: &str| json!({ "eventType": "a", "payload": {}, "eventId": id });
        customer.endpoint(&receiver.url("/")).await;
        let holder = customer.publish_raw(&event("taken"), None).await.expect(202).text("id");
        let ids = ["a", "b", "c", "taken", "d", "e", "f", "g", "h", "i"];
        let requests: Vec<_> = ids.iter().map(|id| (event(id), *id)).collect();
        let (answers, batches, _) = together(&app, &customer, &requests).await;
        for ((body, id), answer) in requests.iter().zip(&answers) {
            if *id == "taken" {
                assert_eq!((answer.status, answer.text("code").as_str()), (409, "event_id_conflict"), "{answer:?}");
                assert!(answer.text("detail").contains(&holder));
            } else {
                assert_eq!((answer.status, answer.text("eventId").as_str()), (202, *id), "{answer:?}");
            }
            same(answer, &customer.publish_raw(body, Some(id)).await);
        }
        app.database.nothing_owed().await;
        assert_eq!(receiver.so_far().len(), ids.len() + 1, "all but the one that was refused");
        if (0.5..1.5).contains(&batches) {
            return;
        }
    }
    panic!("they never shared a batch");
}

/// Publishes until there is an outcome: a repeat that is told to come back does.
async fn settled(customer: &Customer, client: &Client, body: &Value, key: &str) -> Answer {
    loop {
        let answer = customer.through(client).publish_raw(body, Some(key)).await;
        let is_told_to_come_back = answer.header("retry-after").is_some();
        if !is_told_to_come_back {
            return answer;
        }
    }
}

/// Publishes `body` under one key here and, while that is half-way, under another key on another node. Returns both outcomes,
/// each of which both nodes repeat.
async fn under_two_keys(app: &App, customer: &Customer, body: &Value) -> (Answer, Answer) {
    let other_node = app.second_node().await;
    let hold = app.database.hold_inserts("message").await;
    let first = publishing(customer, &app.client, body, "one");
    hold.holds(1).await;
    let second = tokio::spawn({
        let (customer, client, body) = (customer.clone(), other_node.client.clone(), body.clone());
        async move { settled(&customer, &client, &body, "other").await }
    });
    let has_tried = async || (written(&other_node.client).await.1 > 0.5).then_some(());
    eventually("the second has found the name in use", has_tried).await;
    assert!(!first.is_finished() && !second.is_finished());
    hold.release().await;
    let (first, second) = (first.await.expect("no panic"), second.await.expect("no panic"));
    for client in [&app.client, &other_node.client] {
        same(&first, &customer.through(client).publish_raw(body, Some("one")).await);
        same(&second, &customer.through(client).publish_raw(body, Some("other")).await);
    }
    (first, second)
}

#[tokio::test]
async fn an_event_id_under_two_keys_on_two_nodes_is_taken_once() {
    let app = App::start().await;
    let customer = app.customer().await;
    let body = json!({ "eventType": "a", "payload": {}, "eventId": "evt" });
    let (first, second) = under_two_keys(&app, &customer, &body).await;
    assert_eq!(second.clone().expect(409).text("code"), "event_id_conflict");
    assert!(second.text("detail").contains(&first.expect(202).text("id")));
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn a_message_key_under_two_keys_on_two_nodes_makes_two_messages_of_which_one_is_delivered() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let body = json!({ "eventType": "a", "payload": {}, "idempotency_key": "k" });
    let (first, second) = under_two_keys(&app, &customer, &body).await;
    let (first, second) = (first.expect(202).json(), second.expect(202).json());
    assert_eq!((&first["isDuplicate"], &second["isDuplicate"], &second["duplicateOf"]), (&json!(false), &json!(true), &first["id"]));
    assert_eq!(receiver.received(1).await[0].id(), first["id"]);
    app.database.nothing_owed().await;
    assert_eq!((receiver.so_far().len(), customer.messages().await.len()), (1, 2));
}

#[tokio::test]
async fn names_taken_in_opposite_orders_by_two_nodes_do_not_lock_each_other_out() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let clients = [&app.client, &other_node.client];
    let hold = app.database.hold_inserts("message").await;
    let busy = clients.map(|client| publishing(&customer, client, &message(&json!({})), &client.base));
    hold.holds(2).await;
    let order: Vec<usize> = (0..16).collect();
    let body = |n: usize| json!({ "eventType": "a", "payload": { "n": n }, "eventId": format!("event-{n}"), "idempotency_key": format!("key-{}", n % 4) });
    let send = |client: &Client, n: usize| {
        let (customer, client, body) = (customer.clone(), client.clone(), body(n));
        tokio::spawn(async move {
            loop {
                let answer = customer.through(&client).publish_raw(&body, Some(&format!("header-{n}"))).await;
                // A dead-lock would end one of the two batches, and its requests with a 503.
                assert!(matches!(answer.status, 202 | 409), "{answer:?}");
                if answer.status == 202 {
                    return answer;
                }
            }
        })
    };
    let upwards: Vec<_> = order.iter().map(|n| send(clients[0], *n)).collect();
    let downwards: Vec<_> = order.iter().rev().map(|n| send(clients[1], *n)).collect();
    for client in clients {
        in_turn(client).await;
    }
    hold.release().await;
    for busy in busy {
        busy.await.expect("no panic").expect(202);
    }
    let (upwards, downwards) = (join_all(upwards).await, join_all(downwards).await);
    let mut firsts = 0;
    for (one, other) in upwards.into_iter().zip(downwards.into_iter().rev()) {
        let (one, other) = (one.expect("no panic"), other.expect("no panic"));
        assert_eq!((&one.body, one.is_replay()), (&other.body, !other.is_replay()), "one node executed it");
        firsts += usize::from(one.json()["isDuplicate"] == json!(false));
    }
    assert_eq!((firsts, customer.messages().await.len()), (4, 18), "of each message key one is the first");
}
