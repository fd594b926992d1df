//! Convoy's document on idempotency, sentence by sentence, as far as the operations are there: the part on sources is not.

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, Options, Receiver, Reply, customer::message};

/// A key as the document shows one: the SHA-256 of a random string.
const EXAMPLE: &str = "12d851d0255ea37d2a0253016e62d35047ab4a737b5bcd75fb8fddff4b029249";

fn keyed(key: &str, payload: &Value) -> Value {
    json!({ "eventType": "read", "payload": payload, "idempotency_key": key })
}

/// "When sending out webhook requests we set the X-Convoy-Idempotency-Key header and this can be used to de-duplicate events"
#[tokio::test]
async fn every_webhook_carries_the_key_of_its_message_however_often_it_is_sent() {
    let app = App::with(Options { schedule: vec![Duration::from_millis(10); 2], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(500), Reply::status(200)]);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let mine = json!({ "headers": { "x-convoy-idempotency-key": "mine" } });
    customer.client.put(&customer.path(&format!("/endpoint/{endpoint}/headers")), &mine).await.expect(422);
    let first = customer.publish_raw(&keyed(EXAMPLE, &json!({ "n": 1 })), None).await.expect(202).text("id");
    receiver.received(3).await;
    app.database.nothing_owed().await;
    customer.client.request("POST", &customer.path(&format!("/msg/{first}/endpoint/{endpoint}/resend"))).send().await.expect(202);
    let received = receiver.received(4).await;
    for webhook in &received {
        assert_eq!(webhook.header("x-convoy-idempotency-key"), EXAMPLE, "on retries and resends too");
    }
    assert!(received.iter().all(|webhook| webhook.id() == first));
    let unkeyed = customer.publish(&json!({ "n": 2 })).await;
    let webhook = receiver.received(5).await.remove(4);
    assert_eq!((webhook.id(), webhook.header("x-convoy-idempotency-key")), (unkeyed.as_str(), unkeyed.as_str()));
}

/// "Any duplicate event will be marked as a duplicate and be discarded."
#[tokio::test]
async fn a_duplicate_is_marked_and_not_delivered() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let first = customer.publish_raw(&keyed(EXAMPLE, &json!({ "n": 1 })), None).await.expect(202).json();
    assert_eq!((&first["isDuplicate"], &first["duplicateOf"], &first["payloadMismatch"]), (&json!(false), &Value::Null, &Value::Null));
    let there = customer.through(&other_node.client);
    let same_payload = there.publish_raw(&keyed(EXAMPLE, &json!({ "n": 1 })), None).await.expect(202).json();
    let other_payload = there.publish_raw(&keyed(EXAMPLE, &json!({ "n": 2 })), None).await.expect(202).json();
    let shown = customer.messages().await;
    for (duplicate, is_mismatch) in [(&same_payload, false), (&other_payload, true)] {
        let in_list = shown.iter().find(|message| message["id"] == duplicate["id"]).expect("it is in the list");
        for message in [duplicate, in_list] {
            assert_eq!((&message["isDuplicate"], &message["duplicateOf"]), (&json!(true), &first["id"]));
            assert_eq!((&message["payloadMismatch"], &message["idempotencyKey"]), (&json!(is_mismatch), &json!(EXAMPLE)));
        }
        assert!(customer.attempts_so_far(duplicate["id"].as_str().expect("an id")).await.is_empty());
    }
    assert_eq!(receiver.received(1).await[0].id(), first["id"]);
    app.database.nothing_owed().await;
    assert_eq!((receiver.so_far().len(), shown.len()), (1, 3));
}

/// "In outgoing projects you would need to specify an idempotency key in the request payload when creating the event."
#[tokio::test]
async fn the_key_of_a_message_is_in_the_body_and_apart_from_that_of_the_request() {
    let app = App::start().await;
    let customer = app.customer().await;
    let first = customer.publish_raw(&keyed("k", &json!({})), Some("k")).await.expect(202);
    assert_eq!(first.text("idempotencyKey"), "k");
    assert!(customer.publish_raw(&keyed("k", &json!({})), Some("k")).await.expect(202).is_replay(), "the request's key goes first");
    let by_header_alone = customer.publish_raw(&message(&json!({})), Some("l")).await.expect(202).json();
    assert_eq!((&by_header_alone["idempotencyKey"], &by_header_alone["isDuplicate"]), (&Value::Null, &json!(false)));
    let spelled_otherwise = json!({ "eventType": "read", "payload": {}, "idempotencyKey": "k" });
    let twin = customer.publish_raw(&spelled_otherwise, Some("m")).await.expect(202).json();
    assert_eq!(twin["duplicateOf"], first.text("id"));
    let elsewhere = app.customer().await.publish_raw(&keyed("k", &json!({})), None).await.expect(202).json();
    assert_eq!(elsewhere["isDuplicate"], json!(false), "a key is the application's own");
    assert_eq!(customer.messages().await.len(), 3);
}

/// "It is recommended to use the SHA256 of a UUID v4 string or any other sufficiently random string"
#[tokio::test]
async fn the_key_of_a_message_is_a_sha256_or_any_other_string() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let longest = "k".repeat(255);
    let keys = [EXAMPLE, &EXAMPLE.to_uppercase(), "a", "order 4711: paid?", longest.as_str()];
    for key in keys {
        let first = customer.publish_raw(&keyed(key, &json!({})), None).await.expect(202).json();
        assert_eq!((&first["isDuplicate"], &first["idempotencyKey"]), (&json!(false), &json!(key)));
        assert_eq!(customer.publish_raw(&keyed(key, &json!({})), None).await.expect(202).json()["isDuplicate"], json!(true));
    }
    let sent: Vec<_> =
        receiver.received(keys.len()).await.iter().map(|webhook| webhook.header("x-convoy-idempotency-key").to_owned()).collect();
    assert!(keys.iter().all(|key| sent.iter().any(|sent| sent == key)), "{sent:?}");
    for wrong in ["", " a", "ä", "a\tb", &"k".repeat(256)] {
        customer.publish_raw(&keyed(wrong, &json!({})), None).await.expect(422);
    }
}

/// "As expected if you send the same idempotency key in a request it would create the event but no event delivery will be sent."
#[tokio::test]
async fn a_second_message_with_a_key_is_created_and_owes_nothing() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::hang()]);
    let customer = app.customer().await;
    for _ in 0..2 {
        customer.endpoint(&receiver.url("/")).await;
    }
    let first = customer.publish_raw(&keyed(EXAMPLE, &json!({ "n": 1 })), None).await.expect(202);
    assert_eq!(app.database.owed().await, 2);
    let second = customer.publish_raw(&keyed(EXAMPLE, &json!({ "n": 1 })), None).await.expect(202);
    let (first_id, second_id) = (first.text("id"), second.text("id"));
    assert_ne!(first_id, second_id);
    let shown = customer.client.get(&customer.path(&format!("/msg/{second_id}"))).await.expect(200);
    assert_eq!(shown.json()["payload"], json!({ "n": 1 }), "it is created");
    assert_eq!(app.database.owed().await, 2, "and nothing more is owed");
}

/// "These methods include GET, HEAD, PUT, and DELETE, while POST stands apart as a non-idempotent member."
#[tokio::test]
async fn get_head_put_and_delete_need_no_key_and_all_but_put_take_none() {
    let app = App::start().await;
    let customer = app.customer().await;
    let ask = |method: &str, key: &str| app.client.request(method, &customer.path("")).key(key);
    for name in ["a", "b", "b"] {
        let put = app.client.put(&customer.path(""), &json!({ "name": name })).await.expect(200);
        assert_eq!((put.text("name").as_str(), put.is_replay()), (name, false));
    }
    for key in ["key", "", &"x".repeat(300)] {
        let got = ask("GET", key).send().await.expect(200);
        assert_eq!((got.text("name"), got.is_replay()), ("b".into(), false));
        let head = ask("HEAD", key).unchecked().send().await.expect(200);
        assert!(head.body.is_empty() && !head.is_replay());
    }
    ask("DELETE", "key").send().await.expect(204);
    assert_eq!(ask("DELETE", "key").send().await.status, 404, "nor is its answer kept");
    assert_eq!(app.database.number("select count(*) from idempotency").await, 0);
}
