//! Messages by the batch: each accepted or refused for itself, and once under a key.

use serde_json::{Value, json};
use support::{App, Options, Receiver, Roles, customer::message};

fn statuses(answer: &Value) -> Vec<u64> {
    answer["data"].as_array().expect("items").iter().map(|item| item["status"].as_u64().expect("a status")).collect()
}

#[tokio::test]
async fn each_message_of_a_batch_is_accepted_or_refused_for_itself() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let mut named = message(&json!({ "n": 1 }));
    named["eventId"] = json!("one");
    let mut keyed = message(&json!({ "n": 2 }));
    keyed["idempotency_key"] = json!("two");
    let (mut twin, mut wrong) = (keyed.clone(), message(&json!({})));
    twin["payload"] = json!({ "n": 2 });
    wrong["channels"] = json!(["a b"]);
    let batch = json!({ "messages": [named, named, keyed, wrong, "no message", { "payload": {} }] });
    let path = customer.path("/msg/batch");
    let answer = app.client.post(&path, &batch).await.expect(200).json();
    let told = statuses(&answer);
    assert_eq!((told[0].min(told[1]), told[0].max(told[1]), &told[2..]), (202, 409, &[202, 422, 422, 422][..]), "{answer}");
    assert_eq!(answer["data"][3]["error"]["detail"][0]["loc"], json!(["body", "messages", "3", "channels", "0"]));
    assert_eq!(answer["data"][5]["error"]["detail"][0]["loc"], json!(["body", "messages", "5", "eventType"]));
    let again = app.client.post(&path, &json!({ "messages": [twin] })).await.expect(200).json();
    assert_eq!(again["data"][0]["message"]["duplicateOf"], answer["data"][2]["message"]["id"], "a message key is the message's own");
    receiver.received(2).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2);
    for (body, status) in [(json!({ "messages": [] }), 422), (json!({ "messages": vec![json!({}); 1001] }), 422)] {
        assert_eq!(app.client.post(&path, &body).await.expect(status).json()["detail"][0]["loc"], json!(["body", "messages"]));
    }
    app.client.post("/api/v1/app/nobody/msg/batch", &batch).await.expect(404);
}

#[tokio::test]
async fn messages_are_taken_one_a_line() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let lines: String = (0..3).map(|n| message(&json!({ "n": n })).to_string() + "\n").collect();
    let send = async |lines: &str| {
        let request = app.client.request("POST", &customer.path("/msg/batch")).header("Content-Type", "application/x-ndjson");
        request.untyped(lines.to_owned()).send().await
    };
    assert_eq!(statuses(&send(&lines).await.expect(200).json()), [202, 202, 202]);
    let mut got: Vec<_> = receiver.received(3).await.iter().map(|webhook| webhook.json()["n"].as_u64()).collect();
    got.sort_unstable();
    assert_eq!(got, [Some(0), Some(1), Some(2)]);
    let refused = send(&(lines + "{ \"eventType\"")).await.expect(422).json();
    assert_eq!(refused["detail"][0]["loc"], json!(["body"]), "nothing of what is cut off is stored");
    assert_eq!(app.database.number("select count(*) from message").await, 3);
}

#[tokio::test]
async fn a_batch_that_is_sent_again_under_its_key_stores_what_is_missing_and_nothing_twice() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let customer = app.customer().await;
    let batch = json!({ "messages": (0..200).map(|n| message(&json!({ "n": n }))).collect::<Vec<_>>() });
    let send = async |client: &support::Client, batch: &Value| {
        client.request("POST", &customer.path("/msg/batch")).header("Idempotency-Key", "all").json(batch).send().await
    };
    let first = send(&app.client, &batch).await.expect(200);
    assert!(!first.is_replay());
    let ids =
        |answer: &Value| answer["data"].as_array().expect("items").iter().map(|item| item["message"]["id"].clone()).collect::<Vec<_>>();
    // As it is for whoever was cut off in the middle of it: some of them had not been stored.
    app.database
        .execute(
            "with lost as (delete from idempotency where k in (select k from idempotency where ref in (select id from message order by id desc limit 50)) returning ref)
             delete from message where id in (select ref from lost)",
        )
        .await;
    let other = app.second_node().await;
    let second = send(&other.client, &batch).await.expect(200);
    assert!(!second.is_replay());
    let (before, after) = (ids(&first.json()), ids(&second.json()));
    assert_eq!(before.iter().zip(&after).filter(|(before, after)| before == after).count(), 150);
    assert_eq!(app.database.number("select count(*) from message").await, 200);
    let third = send(&other.client, &batch).await.expect(200);
    assert!(third.is_replay());
    assert_eq!(ids(&third.json()), after);
    let reused = send(&app.client, &json!({ "messages": [message(&json!({ "another": 1 }))] })).await.expect(200).json();
    assert_eq!(statuses(&reused), [422], "the key is another request's");
}
