//! A duplicate that is released after all, and the messages that are found by their key.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::{Value, json};
use support::{
    Answer, App, Client, Customer, Options, Receiver, Reply,
    customer::message,
    eventually, new_tenant,
    scrape::{Scrape, counted},
    token,
};

const KEY_HEADER: &str = "x-convoy-idempotency-key";

/// Publishes under a message key; returns the answer.
async fn publish(customer: &Customer, key: &str, payload: &Value) -> Value {
    let mut body = message(payload);
    body["idempotency_key"] = key.into();
    customer.publish_raw(&body, None).await.expect(202).json()
}

/// Publishes a message and a duplicate of it; returns the duplicate's id.
async fn duplicate(customer: &Customer, key: &str) -> String {
    publish(customer, key, &json!({ "n": 1 })).await;
    let twin = publish(customer, key, &json!({ "n": 2 })).await;
    assert_eq!(twin["isDuplicate"], json!(true));
    twin["id"].as_str().expect("an id").to_owned()
}

async fn release(client: &Client, customer: &Customer, message: &str) -> Answer {
    client.request("POST", &customer.path(&format!("/msg/{message}/deliver"))).send().await
}

#[tokio::test]
async fn a_released_duplicate_is_delivered_to_everyone_who_wants_it() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    for name in ["invoice.paid", "invoice.sent"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
    }
    let endpoints = [
        json!({ "url": receiver.url("/all") }),
        json!({ "url": receiver.url("/type"), "eventTypes": ["invoice.paid"] }),
        json!({ "url": receiver.url("/slow"), "throttleRate": 5 }),
        json!({ "url": receiver.url("/other-type"), "eventTypes": ["invoice.sent"] }),
        json!({ "url": receiver.url("/channel"), "channels": ["berlin"] }),
        json!({ "url": receiver.url("/off"), "disabled": true }),
    ];
    let twin = duplicate(&customer, "order-1").await;
    for endpoint in &endpoints {
        customer.endpoint_with(endpoint).await;
    }
    let released = other_node.client.request("POST", &customer.path(&format!("/msg/{twin}/deliver/"))).send().await.expect(202).json();
    assert_eq!((&released["id"], &released["isDuplicate"], &released["payload"]), (&json!(twin), &json!(true), &json!({})));
    let webhooks = receiver.received(3).await;
    app.database.nothing_owed().await;
    let paths: HashSet<_> = receiver.so_far().into_iter().map(|webhook| webhook.path).collect();
    assert_eq!((webhooks.len(), paths), (3, ["/all", "/type", "/slow"].map(str::to_owned).into()));
    for webhook in &webhooks {
        assert_eq!((webhook.id(), webhook.header(KEY_HEADER), webhook.json()), (twin.as_str(), twin.as_str(), json!({ "n": 2 })));
    }
    for client in [&app.client, &other_node.client] {
        let shown = client.get(&customer.path(&format!("/msg/{twin}"))).await.expect(200).json();
        let listed = customer.through(client).messages().await.remove(0);
        for member in ["releasedAt", "duplicateOf", "isDuplicate"] {
            assert!(!released[member].is_null() && shown[member] == released[member] && listed[member] == released[member], "{member}");
        }
    }
    let third = publish(&customer, "order-1", &json!({ "n": 2 })).await;
    assert_eq!(third["duplicateOf"], released["duplicateOf"], "the key stays the first message's");
    assert!(third.get("releasedAt").is_none());
    let attempts = customer.attempts(&twin, 3).await;
    assert!(attempts.iter().all(|attempt| attempt.0["triggerType"] == 0), "it is a fan-out, not a resend");
}

#[tokio::test]
async fn every_attempt_of_a_released_duplicate_carries_its_own_id() {
    let app = App::with(Options::retries(2)).await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let twin = duplicate(&customer, "order-1").await;
    let first = receiver.received(1).await.remove(0);
    assert_eq!(first.header(KEY_HEADER), "order-1");
    app.database.nothing_owed().await;

    receiver.on("/", [Reply::status(500).header("Connection", "close"), Reply::close(), Reply::status(200)]);
    release(&app.client, &customer, &twin).await.expect(202);
    receiver.received(4).await;
    customer.attempts(&twin, 3).await;
    let path = customer.path(&format!("/msg/{twin}/endpoint/{endpoint}/resend"));
    other_node.client.request("POST", &path).send().await.expect(202);
    let webhooks = receiver.received(5).await;
    for webhook in &webhooks[1..] {
        assert_eq!((webhook.id(), webhook.header(KEY_HEADER)), (twin.as_str(), twin.as_str()));
    }
    let statuses: Vec<_> = customer.attempts(&twin, 4).await.iter().map(|attempt| attempt.status().to_owned()).collect();
    assert_eq!(statuses, ["fail", "fail", "success", "success"]);
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 5);
}

#[tokio::test]
async fn only_a_duplicate_is_released_and_only_once() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let twin = duplicate(&customer, "order-1").await;
    let plain = customer.publish(&json!({})).await;
    let first = publish(&customer, "order-2", &json!({})).await["id"].as_str().expect("an id").to_owned();
    for message in [&plain, &first] {
        let refused = release(&app.client, &customer, message).await.expect(409);
        assert_eq!(refused.text("code"), "not_a_duplicate");
        assert!(refused.text("detail").contains("resend it"), "it says what to do: {refused:?}");
    }
    for message in ["msg_000000000000000000000000000", "unknown"] {
        release(&app.client, &customer, message).await.expect(404);
    }
    release(&app.client, &app.customer().await, &twin).await.expect(404);
    release(&app.client.with_token(&token(&new_tenant())), &customer, &twin).await.expect(404);
    release(&app.client.anonymous(), &customer, &twin).await.expect(401);
    assert_eq!(app.database.number("select count(*) from message where released_at is not null").await, 0);

    release(&app.client, &customer, &twin).await.expect(202);
    let again = release(&other_node.client, &customer, &twin).await.expect(409);
    assert_eq!(again.text("code"), "already_released");

    let mut named = message(&json!({}));
    named["idempotency_key"] = "order-1".into();
    named["eventId"] = "evt-1".into();
    customer.publish_raw(&named, None).await.expect(202);
    release(&app.client, &customer, "evt-1").await.expect(202);

    let emptied = publish(&customer, "order-1", &json!({})).await["id"].as_str().expect("an id").to_owned();
    app.database.execute("update message set payload = null").await;
    let refused = release(&app.client, &customer, &emptied).await.expect(400);
    assert_eq!(refused.text("code"), "missing_payload");
}

#[tokio::test]
async fn of_many_releases_at_once_one_delivers() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let twin = duplicate(&customer, "order-1").await;
    customer.endpoint(&receiver.url("/a")).await;
    customer.endpoint(&receiver.url("/b")).await;
    let (customer, twin) = (&customer, &twin);
    let clients = (0..20).map(|number| if number % 2 == 0 { &app.client } else { &other_node.client });
    let answers = join_all(clients.map(|client| async move { release(client, customer, twin).await })).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 202).collect();
    assert_eq!(refused.len(), 19, "{answers:?}");
    assert!(refused.iter().all(|answer| answer.status == 409 && answer.text("code") == "already_released"), "{refused:?}");
    receiver.received(2).await;
    app.database.nothing_owed().await;
    let paths: Vec<_> = receiver.so_far().into_iter().map(|webhook| webhook.path).collect();
    assert_eq!((paths.len(), paths.iter().collect::<HashSet<_>>().len()), (2, 2), "{paths:?}");
}

#[tokio::test]
async fn a_release_what_it_owes_and_its_record_are_one_commit() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let twin = duplicate(&customer, "order-1").await;
    customer.endpoint(&receiver.url("/")).await;
    let request = |client: &Client| client.request("POST", &customer.path(&format!("/msg/{twin}/deliver"))).key("release");
    let hold = app.database.hold_inserts("queue").await;
    let first = tokio::spawn(request(&app.client).send());
    hold.holds(1).await;
    let released = "select count(*) from message where released_at is not null";
    assert_eq!(app.database.number(released).await, 0, "the row is not there yet, so nothing has been said");
    assert_eq!(request(&other_node.client).send().await.expect(409).text("code"), "idempotency_in_progress");
    assert!(!first.is_finished());
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    let second = request(&other_node.client).send().await.expect(202);
    assert!(second.is_replay() && second.body == first.body, "not `already_released`: {second:?}");
    assert_eq!(receiver.received(1).await[0].id(), twin);
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 1);
}

#[tokio::test]
async fn a_repeat_of_the_creation_is_answered_as_at_first_whatever_was_released_since() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let mut body = message(&json!({ "n": 1 }));
    body["idempotency_key"] = "order-1".into();
    customer.publish_raw(&body, None).await.expect(202);
    let created = customer.publish_raw(&body, Some("key")).await.expect(202);
    release(&app.client, &customer, &created.text("id")).await.expect(202);
    for client in [&app.client, &other_node.client] {
        let repeat = customer.through(client).publish_raw(&body, Some("key")).await.expect(202);
        assert!(repeat.is_replay() && repeat.body == created.body, "{repeat:?}");
    }
}

#[tokio::test]
async fn what_is_released_to_an_endpoint_that_is_held_waits_for_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let twin = duplicate(&customer, "order-1").await;
    customer.endpoint(&receiver.url("/held")).await;
    app.database
        .execute(
            "insert into endpoint_health (endpoint_id, tenant_id, failures, failing_since, failed_at, state, cool_down_seconds, probe_at)
             select id, tenant_id, 100, now(), now(), 1, 300, now() + interval '1 hour' from endpoint",
        )
        .await;
    customer.endpoint(&receiver.url("/well")).await;
    release(&app.client, &customer, &twin).await.expect(202);
    receiver.received_at("/well", 1).await;
    let waiting = "select count(*) from queue where run = 0 and lease is null";
    eventually("only the held one's is owed", async || (app.database.owed().await == 1).then_some(())).await;
    assert_eq!(app.database.number(waiting).await, 1, "a release is no probe");
    app.database.execute("update endpoint_health set probe_at = now()").await;
    assert_eq!(receiver.received_at("/held", 1).await[0].id(), twin);
}

#[tokio::test]
async fn a_release_counts_its_delivery_and_no_message() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    duplicate(&customer, "order-1").await;
    let an_hour_ago = "left(uuid_floor(now() - interval '1 hour')::text, 14)";
    let age = format!("update message set id = ({an_hour_ago} || right(id::text, 22))::uuid where duplicate_of is not null");
    app.database.execute(&age).await;
    let twin = customer.messages().await.into_iter().find(|message| message["isDuplicate"] == json!(true)).expect("the duplicate");
    customer.endpoint(&receiver.url("/")).await;
    let before = Scrape::of(&app.client).await;
    release(&app.client, &customer, twin["id"].as_str().expect("an id")).await.expect(202);
    let expected = [
        ("attempts_total{class=\"2xx\"}", 1),
        ("batch_results_sum", 1),
        ("deliveries_finished_total{result=\"succeeded\"}", 1),
        ("accept_to_delivered_seconds_count", 1),
    ];
    let after = counted(&app.client, &before, &expected).await;
    let waited = "accept_to_delivered_seconds_sum";
    let waited = after.get(waited).expect("a sum") - before.get(waited).unwrap_or(0.0);
    assert!(waited < 60.0, "it waited {waited} s: what a person took to decide is not ours");
}

#[tokio::test]
async fn messages_are_found_by_their_key() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let (key, encoded) = ("a key/with 100% & + of all?=#", "a%20key%2Fwith%20100%25%20%26%20%2B%20of%20all%3F%3D%23");
    let mut wanted = Vec::new();
    for n in 0..5 {
        let found = publish(&customer, key, &json!({ "n": n })).await;
        wanted.insert(0, found["id"].as_str().expect("an id").to_owned());
        publish(&customer, &format!("{key}{n}"), &json!({ "n": n })).await;
        customer.publish(&json!({ "n": n })).await;
    }
    publish(&app.customer().await, key, &json!({})).await;
    let client = &other_node.client;
    let list = customer.path(&format!("/msg?idempotency_key={encoded}"));
    let page = async |query: &str| client.get(&format!("{list}{query}")).await.expect(200).json();
    let ids = |page: &Value| -> Vec<String> {
        page["data"].as_array().expect("a page").iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
    };

    let all = page("").await;
    assert_eq!(ids(&all), wanted, "the newest first");
    assert_eq!((&all["data"][4]["isDuplicate"], &all["data"][0]["duplicateOf"]), (&json!(false), &json!(wanted[4])));
    assert_eq!((&all["data"][0]["idempotencyKey"], &all["data"][0]["payload"]), (&json!(key), &json!({ "n": 4 })));
    assert_eq!(page("&with_content=false").await["data"][0]["payload"], json!({}));

    let first = page("&limit=2").await;
    assert_eq!((ids(&first), &first["done"]), (wanted[..2].to_vec(), &json!(false)));
    let iterator = |page: &Value, name: &str| page[name].as_str().expect("an iterator").to_owned();
    let second = page(&format!("&limit=2&iterator={}", iterator(&first, "iterator"))).await;
    assert_eq!(ids(&second), wanted[2..4]);
    let last = page(&format!("&limit=2&iterator={}", iterator(&second, "iterator"))).await;
    assert_eq!((ids(&last), &last["done"]), (wanted[4..].to_vec(), &json!(true)));
    let back = page(&format!("&limit=2&iterator={}", iterator(&last, "prevIterator"))).await;
    assert_eq!(ids(&back), wanted[2..4]);

    assert_eq!(ids(&page("&event_types=invoice.paid").await).len(), 5);
    assert_eq!(ids(&page("&event_types=invoice.sent").await), [""; 0]);
    assert_eq!(ids(&page("&channel=berlin").await), [""; 0]);
    let at = all["data"][2]["timestamp"].as_str().expect("a time");
    assert_eq!(ids(&page(&format!("&before={at}")).await), wanted[3..]);
    assert_eq!(ids(&page(&format!("&after={at}")).await), wanted[..3]);
    assert_eq!(ids(&page(&format!("&after={at}&limit=1")).await), wanted[..1], "the newest first, whatever bounds the list");
}

#[tokio::test]
async fn a_key_that_no_message_can_have_is_refused_by_name() {
    let app = App::start().await;
    let customer = app.customer().await;
    let longest = "k".repeat(255);
    let first = publish(&customer, &longest, &json!({})).await;
    let found = customer.pages(&customer.path(&format!("/msg?idempotency_key={longest}"))).await;
    assert_eq!(found, [first]);
    for query in [String::new(), format!("{longest}k"), "%C3%A9".into(), "a%00".into(), "+a".into(), "a&idempotency_key=b".into()] {
        let refused = app.client.get(&customer.path(&format!("/msg?idempotency_key={query}"))).await.expect(422).json();
        assert_eq!(refused["detail"][0]["loc"], json!(["query", "idempotency_key"]), "{query}: {refused}");
    }
    assert_eq!(customer.pages(&customer.path("/msg?idempotency_key=unknown")).await, [json!(null); 0]);
}
