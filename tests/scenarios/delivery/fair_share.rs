//! A tenant that floods the dispatcher does not take another tenant's places.

use serde_json::json;
use support::{App, Client, Customer, Gate, Options, Receiver, Reply, Roles, eventually, new_tenant, token};

#[tokio::test]
async fn a_tenant_that_floods_leaves_room_for_others() {
    // Everything is claimed from the queue: the node that accepts does not send.
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    let flood = app.customer().await;
    for number in 0..20 {
        let path = format!("/hung/{number}");
        receiver.on(&path, [Reply::status(200).held_by(&gate)]);
        flood.endpoint(&receiver.url(&path)).await;
    }
    for number in 0..70 {
        flood.publish(&json!({ "n": number })).await;
    }
    let worker = app.node_with(&Options::default()).await;
    // 20 endpoints could have 64 places each: more than there are for claims.
    eventually("the flood has all that it gets", async || (receiver.in_flight() >= 500).then_some(())).await;
    let other = Client::new(&app.client.base, Some(&token(&new_tenant())));
    let quiet = Customer::create(&other).await;
    quiet.endpoint(&receiver.url("/quiet")).await;
    for number in 0..20 {
        quiet.publish(&json!({ "n": number })).await;
    }
    receiver.received_at("/quiet", 20).await;
    assert!(app.database.number("select count(*) from queue where lease is null").await > 0, "the flood still waits");
    gate.open();
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 20 * 70 + 20);
    worker.stop().await;
}
