//! One message, many endpoints: each gets its own copy, and none waits for another.

use serde_json::json;
use support::{App, Gate, Options, Receiver, Reply};

#[tokio::test]
async fn every_endpoint_gets_its_own_signed_copy() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let mut endpoints = Vec::new();
    for number in 0..10 {
        endpoints.push(customer.endpoint(&receiver.url(&format!("/{number}"))).await);
    }
    let message = customer.publish(&json!({ "n": 1 })).await;
    let received = receiver.received(10).await;
    for (number, endpoint) in endpoints.iter().enumerate() {
        let copies: Vec<_> = received.iter().filter(|webhook| webhook.path == format!("/{number}")).collect();
        assert_eq!((copies.len(), copies[0].id()), (1, message.as_str()));
        let verifier = standardwebhooks::Webhook::new(&customer.secret(endpoint).await).expect("a secret");
        verifier.verify(&copies[0].body, &copies[0].header_map()).expect("signed with the endpoint's own secret");
    }
    assert_eq!(customer.attempts(&message, 10).await.len(), 10);
}

#[tokio::test]
async fn nothing_waits_behind_a_dead_endpoint() {
    let app = App::with(Options::retries(0)).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/dead", [Reply::status(200).held_by(&gate)]);
    let (slow, quick) = (app.customer().await, app.customer().await);
    slow.endpoint(&receiver.url("/dead")).await;
    slow.endpoint(&receiver.url("/alive")).await;
    quick.endpoint(&receiver.url("/other")).await;
    for number in 0..300 {
        slow.publish(&json!({ "n": number })).await;
    }
    quick.publish(&json!({ "n": 0 })).await;
    receiver.received_at("/alive", 300).await;
    receiver.received_at("/other", 1).await;
    let stuck = receiver.so_far().iter().filter(|webhook| webhook.path == "/dead").count();
    assert!((1..300).contains(&stuck), "{stuck} requests are in flight to the dead endpoint: fewer than are owed to it");
    gate.open();
    receiver.received_at("/dead", 300).await;
    app.database.nothing_owed().await;
}

#[tokio::test]
async fn a_message_that_one_node_accepts_may_be_sent_by_another() {
    let app = App::with(Options { roles: support::Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    assert_eq!((app.database.owed().await, receiver.so_far().len()), (1, 0), "an API alone sends nothing");
    let _worker = app.node_with(&Options::default()).await;
    assert_eq!(receiver.received(1).await[0].id(), message);
    assert_eq!(customer.attempts(&message, 1).await[0].code(), 200);
}

#[tokio::test]
async fn a_server_that_stops_loses_nothing() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(200).held_by(&gate)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    for number in 0..200 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(10).await;
    let App { node, database, .. } = app;
    let stopping = tokio::spawn(node.stop());
    gate.open();
    stopping.await.expect("it stops");
    let at_the_stop = receiver.so_far().len();
    let recorded = database.number("select count(*) from attempt where outcome = 0").await;
    assert_eq!(recorded, i64::try_from(at_the_stop).expect("a small number"), "what was in flight was finished and recorded");
    assert_eq!(database.number("select count(*) from queue where lease is not null").await, 0, "what was not was handed back");
    let next = support::Node::start(&database.url, &Options::default(), customer.client.token.as_deref().expect("a token")).await;
    receiver.received(200).await;
    database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 200, "each was delivered, and none twice");
    next.stop().await;
}
