//! Tags that messages are found by, messages that make their application, and bulk replays.

use serde_json::{Value, json};
use support::{App, Customer, Options, Receiver, Reply, customer::message, eventually};

/// The ids of a list.
async fn ids(app: &App, path: &str) -> Vec<String> {
    let listed = app.client.get(path).await.expect(200).json();
    listed["data"].as_array().expect("a list").iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

async fn tagged(customer: &Customer, payload: &Value, tags: &[&str]) -> String {
    let mut new = message(payload);
    new["tags"] = json!(tags);
    customer.publish_raw(&new, None).await.expect(202).text("id")
}

#[tokio::test]
async fn messages_and_what_became_of_them_are_found_by_their_tags() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let red = tagged(&customer, &json!({ "n": 1 }), &["red", "a/b\\\\c#d", "red"]).await;
    tagged(&customer, &json!({ "n": 2 }), &["blue"]).await;
    customer.publish(&json!({ "n": 3 })).await;
    receiver.received(3).await;
    app.database.nothing_owed().await;
    let shown = app.client.get(&customer.path(&format!("/msg/{red}"))).await.expect(200).json();
    assert_eq!(shown["tags"], json!(["red", "a/b\\\\c#d"]));
    for list in ["/msg".to_owned(), format!("/endpoint/{endpoint}/msg")] {
        assert_eq!(ids(&app, &customer.path(&format!("{list}?tag=red"))).await, std::slice::from_ref(&red), "{list}");
        assert_eq!(ids(&app, &customer.path(&format!("{list}?tag=green"))).await.len(), 0);
    }
    let attempts = app.client.get(&customer.path(&format!("/attempt/endpoint/{endpoint}?tag=red"))).await.expect(200).json();
    assert_eq!((attempts["data"].as_array().map(Vec::len), &attempts["data"][0]["msgId"]), (Some(1), &json!(red)));
    let mut wrong = message(&json!({}));
    wrong["tags"] = json!(["a b"]);
    assert_eq!(customer.publish_raw(&wrong, None).await.expect(422).json()["detail"][0]["loc"], json!(["body", "tags", "0"]));
}

#[tokio::test]
async fn a_message_can_make_the_application_that_it_is_for() {
    let app = App::start().await;
    let mut new = message(&json!({ "n": 1 }));
    new["application"] = json!({ "name": "Acme", "metadata": { "k": "v" } });
    let other = app.second_node().await;
    let request = |client: &support::Client| client.request("POST", "/api/v1/app/acme/msg").header("Idempotency-Key", "first").json(&new);
    let first = request(&app.client).send().await.expect(202).text("id");
    let again = request(&other.client).send().await.expect(202);
    assert_eq!((again.text("id"), again.is_replay()), (first, true));
    let made = app.client.get("/api/v1/app/acme").await.expect(200).json();
    assert_eq!((&made["uid"], &made["name"], &made["metadata"]), (&json!("acme"), &json!("Acme"), &json!({ "k": "v" })));
    new["application"] = json!({ "name": "Another name" });
    app.client.post("/api/v1/app/acme/msg", &new).await.expect(202);
    assert_eq!(app.client.get("/api/v1/app/acme").await.expect(200).json()["name"], "Acme", "it is there already");
    new["application"] = json!({ "name": "Beta", "uid": "gamma" });
    let refused = app.client.post("/api/v1/app/beta/msg", &new).await.expect(422).json();
    assert_eq!(refused["detail"][0]["loc"], json!(["body", "application", "uid"]));
    app.client.get("/api/v1/app/beta").await.expect(404);
}

#[tokio::test]
async fn a_bulk_replay_sends_what_has_ended_as_it_is_asked_for() {
    let app = App::with(Options { schedule: vec![], ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.endpoint(&receiver.url("/other")).await;
    receiver.on("/", [Reply::status(200), Reply::status(500), Reply::status(404), Reply::status(200)]);
    for (n, tag) in [(0, "fine"), (1, "odd"), (2, "odd")] {
        let id = tagged(&customer, &json!({ "n": n }), &[tag]).await;
        customer.attempts(&id, 2).await;
    }
    receiver.received(6).await;
    let path = customer.path(&format!("/endpoint/{endpoint}/bulk-replay"));
    let replay = async |rest: Value| {
        let mut body = rest;
        body["since"] = json!("2026-01-01T00:00:00Z");
        let task = app.client.post(&path, &body).await.expect(202).json();
        assert_eq!(task["task"], "endpoint.bulk-replay");
        let path = format!("/api/v1/background-task/{}", task["id"].as_str().expect("an id"));
        let shown = eventually("the task is over", async || {
            let shown = app.client.get(&path).await.expect(200).json();
            (shown["status"] == "finished").then_some(shown)
        });
        let sent = shown.await["data"]["messagesSent"].as_u64().expect("a number");
        app.database.nothing_owed().await;
        sent
    };
    assert_eq!(replay(json!({ "statusCodeClass": 500 })).await, 1);
    let last = receiver.so_far().pop().expect("one");
    assert_eq!((last.path.as_str(), last.json()), ("/", json!({ "n": 1 })));
    assert_eq!(replay(json!({ "status": 2 })).await, 1, "the other one has been delivered since");
    assert_eq!(replay(json!({ "tag": "odd" })).await, 2, "successful ones, too");
    assert_eq!(replay(json!({ "status": 0 })).await, 3);
    assert_eq!(replay(json!({ "eventTypes": ["nothing"] })).await, 0);
    assert_eq!(receiver.so_far().len(), 6 + 7);
    for (wrong, field) in
        [(json!({ "status": 1 }), "status"), (json!({ "status": 9 }), "status"), (json!({ "until": "2020-01-01T00:00:00Z" }), "until")]
    {
        let mut body = wrong;
        body["since"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(app.client.post(&path, &body).await.expect(422).json()["detail"][0]["loc"], json!(["body", field]));
    }
}
