//! Event ids and message keys, and how the three layers lie on each other.

use futures::future::join_all;
use serde_json::{Value, json};
use support::{App, Customer, Receiver, customer::message};

fn with(member: &str, value: &str, payload: &Value) -> Value {
    let mut body = message(payload);
    body[member] = value.into();
    body
}

#[tokio::test]
async fn an_event_id_is_used_once_in_its_application() {
    let app = App::start().await;
    let customer = app.customer().await;
    let body = with("eventId", "evt-1", &json!({ "n": 1 }));
    let first = customer.publish_raw(&body, Some("first")).await.expect(202);
    let refused = customer.publish_raw(&body, Some("second")).await.expect(409);
    assert_eq!(refused.text("code"), "event_id_conflict");
    assert!(refused.text("detail").contains(&first.text("id")), "it names the holder: {refused:?}");
    assert!(refused.header("retry-after").is_none(), "waiting does not help");
    let again = customer.publish_raw(&body, Some("second")).await.expect(409);
    assert!(again.is_replay() && again.body == refused.body, "the refusal is the outcome of its key");
    assert!(customer.publish_raw(&body, Some("first")).await.expect(202).is_replay(), "the first key still has its 202");
    assert_eq!(customer.publish_raw(&body, None).await.status, 409);
    app.customer().await.publish_raw(&body, None).await.expect(202);
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn of_many_requests_with_one_event_id_one_wins() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let answers = join_all((0..20).map(|number| {
        let customer = customer.through(if number % 2 == 0 { &app.client } else { &other_node.client });
        let body = with("eventId", "contested", &json!({ "n": number }));
        async move { customer.publish_raw(&body, Some(&format!("key-{number}"))).await.status }
    }))
    .await;
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 409).count(), 19, "{answers:?}");
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn a_repeated_message_key_makes_a_duplicate_that_is_not_delivered() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    for member in ["idempotency_key", "idempotencyKey"] {
        let customer = app.customer().await;
        let path = format!("/{member}");
        let endpoint = customer.endpoint(&receiver.url(&path)).await;
        let first = customer.publish_raw(&with(member, "order-42", &json!({ "n": 1 })), None).await.expect(202);
        let twin = customer.publish_raw(&with("idempotency_key", "order-42", &json!({ "n": 1 })), None).await.expect(202);
        let other = customer.publish_raw(&with(member, "order-43", &json!({ "n": 2 })), None).await.expect(202);
        let (first_id, twin_id) = (first.text("id"), twin.text("id"));
        assert_ne!(first_id, twin_id, "it is created");
        for shown in [twin.json(), customer.client.get(&customer.path(&format!("/msg/{twin_id}"))).await.expect(200).json()] {
            assert_eq!((&shown["isDuplicate"], &shown["duplicateOf"]), (&json!(true), &json!(first_id)), "{shown}");
        }
        assert_ne!(first.json()["isDuplicate"], json!(true));
        let received = receiver.received_at(&path, 2).await;
        app.database.nothing_owed().await;
        let ids: Vec<_> = received.iter().map(|webhook| webhook.id().to_owned()).collect();
        assert_eq!(ids.len(), 2);
        assert!(ids.contains(&first_id) && ids.contains(&other.text("id")), "the duplicate was not delivered");
        assert!(received.iter().any(|webhook| webhook.header("x-convoy-idempotency-key") == "order-42"));
        assert!(customer.attempts_so_far(&twin_id).await.is_empty());
        assert_eq!(customer.messages().await.len(), 3);
        let resend = customer.path(&format!("/msg/{twin_id}/endpoint/{endpoint}/resend"));
        let refused = customer.client.request("POST", &resend).send().await.expect(409);
        assert!(refused.text("detail").contains(&first_id), "a resend of a duplicate names the original: {refused:?}");
    }
}

#[tokio::test]
async fn a_message_key_with_another_payload_is_a_duplicate_still_and_says_so() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let elsewhere = customer.through(&other_node.client);
    let first = customer.publish_raw(&with("idempotency_key", "k", &json!({ "n": 1 })), None).await.expect(202).json();
    let respelled = elsewhere.publish_raw(&with("idempotency_key", "k", &json!({ "n": 1 })), None).await.expect(202).json();
    let other = elsewhere.publish_raw(&with("idempotency_key", "k", &json!({ "n": 2 })), None).await.expect(202).json();
    let listed = customer.messages().await;
    for (answered, payload_mismatch) in [(&first, Value::Null), (&respelled, json!(false)), (&other, json!(true))] {
        let id = answered["id"].as_str().expect("an id");
        let got = elsewhere.client.get(&customer.path(&format!("/msg/{id}"))).await.expect(200).json();
        let in_list = listed.iter().find(|message| message["id"] == id).expect("it is listed");
        let original = if payload_mismatch.is_null() { Value::Null } else { first["id"].clone() };
        for shown in [answered, &got, in_list] {
            assert_eq!((&shown["payloadMismatch"], &shown["duplicateOf"]), (&payload_mismatch, &original), "{shown}");
            assert_eq!((&shown["isDuplicate"], &shown["idempotencyKey"]), (&json!(!original.is_null()), &json!("k")), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_message_key_is_the_same_by_whichever_path_it_comes_and_belongs_to_its_application() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let acme = app.client.post("/api/v1/app", &json!({ "name": "ACME", "uid": "acme" })).await.expect(201).text("id");
    let body = with("idempotency_key", "order-42", &json!({ "n": 1 }));
    let first = app.client.post("/api/v1/app/acme/msg", &body).await.expect(202).json();
    for client in [&app.client, &other_node.client] {
        for path in
            ["/api/v1/app/acme/msg/".to_owned(), format!("/api/v1/app/{acme}/msg"), format!("/api/v1/app/{acme}/msg/?with_content=false")]
        {
            let twin = client.post(&path, &body).await.expect(202).json();
            assert_eq!(twin["duplicateOf"], first["id"], "{path}");
        }
    }
    let elsewhere = app.customer().await.publish_raw(&body, None).await.expect(202).json();
    assert_eq!(elsewhere["isDuplicate"], json!(false), "another application's keys are its own");
}

#[tokio::test]
async fn of_many_messages_with_one_key_one_is_delivered() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let body = with("idempotency_key", "contested", &json!({ "n": 1 }));
    let publish = |customer: Customer, key: Option<String>| {
        let body = &body;
        async move { customer.publish_raw(body, key.as_deref()).await.expect(202).json() }
    };
    let answers = join_all((0..20).map(|number| {
        let customer = customer.through(if number % 2 == 0 { &app.client } else { &other_node.client });
        publish(customer, (number % 3 == 0).then(|| format!("key-{number}")))
    }))
    .await;
    let firsts: Vec<_> = answers.iter().filter(|answer| answer["isDuplicate"] != json!(true)).collect();
    assert_eq!(firsts.len(), 1, "{answers:?}");
    assert!(answers.iter().filter(|answer| answer["isDuplicate"] == json!(true)).all(|twin| twin["duplicateOf"] == firsts[0]["id"]));
    let webhook = receiver.received(1).await.remove(0);
    app.database.nothing_owed().await;
    assert_eq!(webhook.id(), firsts[0]["id"]);
    assert_eq!(receiver.so_far().len(), 1);
    assert_eq!(customer.messages().await.len(), 20, "all are kept");
}

#[tokio::test]
async fn the_header_is_looked_at_before_the_event_id_and_that_before_the_message_key() {
    let app = App::start().await;
    let customer = app.customer().await;
    let mut body = with("eventId", "evt", &json!({ "n": 1 }));
    body["idempotency_key"] = "mk".into();
    let first = customer.publish_raw(&body, Some("key")).await.expect(202);
    let replay = customer.publish_raw(&body, Some("key")).await.expect(202);
    assert!(replay.is_replay() && replay.body == first.body, "neither a conflict nor a duplicate");
    assert_eq!(customer.publish_raw(&body, None).await.status, 409, "the event id goes before the message key");
    body["eventId"] = "evt-2".into();
    let twin = customer.publish_raw(&body, None).await.expect(202).json();
    assert_eq!(twin["duplicateOf"], first.text("id"));
    body["eventId"] = "evt-3".into();
    body["idempotency_key"] = "".into();
    let empty = customer.publish_raw(&body, None).await;
    assert_eq!(empty.status, 422, "an empty message key is a mistake, not a key: {empty:?}");
    assert_eq!(customer.messages().await.len(), 2);
}
