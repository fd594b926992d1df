//! Filters on the payload: who gets a message by what is in it, on every node from the next message on.

use serde_json::{Value, json};
use support::{App, Customer, Receiver};

/// The `n` of the payloads that arrived at a path, in order.
fn numbers(receiver: &Receiver, path: &str) -> Vec<i64> {
    let of_path = receiver.so_far().into_iter().filter(|request| request.path == path);
    let mut numbers: Vec<_> = of_path.map(|request| request.json()["n"].as_i64().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

async fn filtered(customer: &Customer, receiver: &Receiver, path: &str, body: Value) -> String {
    customer.endpoint_with(&json!({ "url": receiver.url(path), "filter": { "body": body } })).await
}

#[tokio::test]
async fn what_is_in_a_message_decides_who_gets_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/all")).await;
    let large = filtered(&customer, &receiver, "/large", json!({ "n": { "$gte": 9_007_199_254_740_993_i64 } })).await;
    filtered(&customer, &receiver, "/nested", json!({ "order.items.$.sku": "b", "gone": { "$exist": false } })).await;
    filtered(&customer, &receiver, "/either", json!({ "$or": [{ "kind": { "$regex": "^in" } }, { "n": { "$in": [1, 2.0] } }] })).await;
    let exact = 9_007_199_254_740_992_i64;
    for payload in [
        json!({ "n": 1, "order": { "items": [{ "sku": "a" }, { "sku": "b" }] } }),
        json!({ "n": 2, "order": { "items": [{ "sku": "b" }] }, "gone": null }),
        json!({ "n": 3, "kind": "invoice" }),
        // So many clauses look into so large a payload away from where others are served.
        json!({ "n": 4, "kind": "infinite", "padding": "x".repeat(500_000) }),
        json!({ "n": exact }),
        json!({ "n": exact + 1 }),
    ] {
        customer.publish(&payload).await;
    }
    app.database.nothing_owed().await;
    let at = |path: &str| numbers(&receiver, path);
    assert_eq!(at("/all"), [1, 2, 3, 4, exact, exact + 1]);
    assert_eq!([at("/large"), at("/nested"), at("/either")], [vec![exact + 1], vec![1], vec![1, 2, 3, 4]]);
    let attempts = customer.pages(&customer.path(&format!("/attempt/endpoint/{large}"))).await;
    assert_eq!(attempts.len(), 1, "what is not wanted is not owed either");
}

#[tokio::test]
async fn a_changed_filter_counts_on_every_node_from_the_next_message_on() {
    let app = App::start().await;
    let other = app.second_node().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let elsewhere = customer.through(&other.client);
    let endpoint = filtered(&customer, &receiver, "/", json!({ "n": 1 })).await;
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    let shown = async || customer.show(&endpoint).await["filter"].clone();
    let publish = async |n: i64| customer.publish(&json!({ "n": n })).await;
    assert_eq!(shown().await, json!({ "body": { "n": 1 } }));
    publish(1).await;
    publish(2).await;

    // The first node has the endpoint in memory: it must find out by itself.
    elsewhere.client.patch(&path, &json!({ "filter": { "body": { "n": { "$gt": 2 } } } })).await.expect(200);
    publish(1).await;
    publish(3).await;
    elsewhere.client.patch(&path, &json!({ "description": "the filter stays" })).await.expect(200);
    assert_eq!(shown().await, json!({ "body": { "n": { "$gt": 2 } } }));
    publish(2).await;

    elsewhere.client.patch(&path, &json!({ "filter": null })).await.expect(200);
    assert_eq!(shown().await, Value::Null);
    publish(4).await;
    elsewhere.client.patch(&path, &json!({ "filter": { "body": { "n": 0 } } })).await.expect(200);
    publish(5).await;
    elsewhere.client.put(&path, &json!({ "url": receiver.url("/") })).await.expect(200);
    assert_eq!(shown().await, Value::Null, "PUT drops what it does not name");
    publish(6).await;
    app.database.nothing_owed().await;
    assert_eq!(numbers(&receiver, "/"), [1, 3, 4, 6]);
}

#[tokio::test]
async fn a_released_duplicate_goes_to_whom_its_payload_concerns() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    filtered(&customer, &receiver, "/one", json!({ "n": 1 })).await;
    filtered(&customer, &receiver, "/two", json!({ "n": 2 })).await;
    let publish = async |n: i64| {
        let message = json!({ "eventType": "a", "payload": { "n": n }, "idempotency_key": "k" });
        customer.publish_raw(&message, None).await.expect(202).text("id")
    };
    publish(1).await;
    let twin = publish(2).await;
    app.client.request("POST", &customer.path(&format!("/msg/{twin}/deliver"))).send().await.expect(202);
    app.database.nothing_owed().await;
    assert_eq!([numbers(&receiver, "/one"), numbers(&receiver, "/two")], [[1], [2]]);
}

#[tokio::test]
async fn a_filter_that_is_wrong_is_refused_with_its_clause_and_the_remedy() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let of_endpoint = customer.path(&format!("/endpoint/{endpoint}"));
    let nested = (0..20).fold(json!({ "a": 1 }), |inner, _| json!({ "$and": [inner] }));
    for (filter, clause) in [
        (json!({ "body": { "n": { "$like": "x" } } }), "body.n.$like: is not an operator: use $eq"),
        (json!({ "body": { "$or": [{ "n": 1 }, { "n": { "$gt": true } }] } }), "body.$or[1].n.$gt: must be a number or a string"),
        (json!({ "body": { "n": { "$regex": "(" } } }), "body.n.$regex: is not a regular expression"),
        (json!({ "body": { "n": { "$regex": ".*a.{30}c" } } }), "body.n.$regex: is too large a pattern: use"),
        (json!({ "body": nested }), "is nested too deeply"),
        (json!({ "amount": 5 }), "amount: is not a part of a message: use `body`"),
        (json!({ "body": {}, "headers": { "x": "y" } }), "headers: messages that are published have a payload alone: use `body`"),
        (json!({}), "must have the member `body`"),
        (json!({ "body": { "n": "\u{0}" } }), "must not contain NUL"),
        (json!("n > 5"), "must be an object"),
    ] {
        for (method, path) in [("POST", customer.path("/endpoint")), ("PUT", of_endpoint.clone()), ("PATCH", of_endpoint.clone())] {
            let body = json!({ "url": "https://example.com/new", "filter": filter });
            let refusal = app.client.request(method, &path).json(&body).send().await.expect(422).json();
            assert_eq!(refusal["detail"][0]["loc"], json!(["body", "filter"]), "{refusal}");
            assert!(refusal["detail"][0]["msg"].as_str().expect("a reason").contains(clause), "{clause}: {refusal}");
        }
    }
    let shown = customer.show(&endpoint).await;
    assert_eq!((&shown["url"], &shown["filter"]), (&json!("https://example.com/"), &Value::Null));
    assert_eq!(customer.pages(&customer.path("/endpoint")).await.len(), 1);
}

#[tokio::test]
async fn long_work_asks_the_payload_too() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    // One endpoint wants it for each of many that do: more than are written with a message.
    let copied = filtered(&customer, &receiver, "/many", json!({ "n": { "$gt": 1 } })).await;
    filtered(&customer, &receiver, "/other", json!({ "n": 1 })).await;
    let copies = format!(
        "insert into endpoint (id, tenant_id, application_id, url, filter)
           select uuid_floor(now() - n * interval '1 s'), tenant_id, application_id, url, filter
             from endpoint, generate_series(1, 600) n where id = posthaste_id('{copied}');
         update application set version = version + 1"
    );
    app.database.execute(&copies).await;
    customer.publish(&json!({ "n": 1 })).await;
    customer.publish(&json!({ "n": 2 })).await;
    receiver.received_at("/many", 601).await;
    app.database.nothing_owed().await;
    assert_eq!(numbers(&receiver, "/many"), [2; 601]);
    assert_eq!(numbers(&receiver, "/other"), [1]);

    // An endpoint that comes later is sent what it would have wanted.
    let late = filtered(&customer, &receiver, "/late", json!({ "n": { "$in": [2, 3] } })).await;
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    app.client.post(&customer.path(&format!("/endpoint/{late}/replay-missing")), &since).await.expect(202);
    assert_eq!(receiver.received_at("/late", 1).await[0].json(), json!({ "n": 2 }));
    app.database.nothing_owed().await;
    assert_eq!(numbers(&receiver, "/late"), [2]);
}
