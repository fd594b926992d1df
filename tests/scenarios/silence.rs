//! The network falls silent, as in a failover: no connection is closed, none gets an answer any more, and new ones work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    Attempt, Client, Customer, Database, Node, Options, PATIENCE, Receiver, Reply, cluster, customer::message, new_tenant, proxy::Proxy,
    scrape::Scrape, token,
};
use tokio::task::JoinSet;

/// How long ingest may stand still.
const STANDSTILL: Duration = Duration::from_secs(15);

/// A node whose connections to Postgres can fall silent.
async fn node_behind_a_proxy() -> (Database, Proxy, Node) {
    let database = Database::create().await;
    let proxy = Proxy::to(cluster::place_of(&database.url)).await;
    let url = cluster::url_through(&database.url, proxy.address);
    let options = Options { schedule: vec![Duration::from_hours(1)], ..Options::default() };
    let node = Node::start(&url, &options, &token(&new_tenant())).await;
    (database, proxy, node)
}

async fn health(client: &Client) -> u16 {
    client.get("/api/v1/health").await.status
}

/// Publishes under a key until it is accepted; returns the message's id, and when that was.
async fn insist(customer: Customer, body: Value, key: String) -> (String, Instant) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let answer = customer.publish_raw(&body, Some(&key)).await;
        assert!(matches!(answer.status, 202 | 409 | 503), "{answer:?}");
        if answer.status == 202 {
            return (answer.text("id"), Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{key} is not accepted")
}

#[tokio::test]
async fn ingest_goes_on_and_nothing_is_lost_or_doubled() {
    let (database, proxy, node) = node_behind_a_proxy().await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 0 })).await;
    receiver.received(1).await;

    // A batch is being written, and more wait behind it.
    let hold = database.hold_inserts("message").await;
    let mut publishing = JoinSet::new();
    for number in 1..=20 {
        publishing.spawn(insist(customer.clone(), message(&json!({ "n": number })), format!("key-{number}")));
    }
    hold.holds(1).await;
    let begun = Instant::now();
    proxy.freeze();
    // The server goes on by itself, and nobody hears what it answers.
    hold.release().await;
    support::eventually("the server says that it is not ready", async || (health(&node.client).await == 503).then_some(())).await;
    support::eventually("and so does the gauge that the alert is about", async || {
        (Scrape::of(&node.client).await.samples["posthaste_database_up"] < 0.5).then_some(())
    })
    .await;
    let accepted = publishing.join_all().await;
    let first = accepted.iter().map(|(_, when)| when.duration_since(begun)).min().expect("some");
    assert!(first < STANDSTILL, "ingest stood still for {first:?}");
    let overdue = Scrape::of(&node.client).await.samples["posthaste_batches_overdue_total"];
    assert!(overdue >= 1.0, "whoever looks only now can still see that it stood still");
    support::eventually("the server is ready again", async || (health(&node.client).await == 204).then_some(())).await;

    database.nothing_owed().await;
    let mut ids: Vec<_> = accepted.into_iter().map(|(id, _)| id).collect();
    ids.sort();
    let mut got: Vec<_> = receiver.so_far().into_iter().skip(1).map(|got| got.id().to_owned()).collect();
    got.sort();
    assert_eq!(got, ids, "each is delivered once");
    assert_eq!(customer.messages().await.len(), 21);
}

#[tokio::test]
async fn whatever_else_talks_to_postgres_gets_over_it_again_and_again() {
    let (database, proxy, node) = node_behind_a_proxy().await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    for round in 0..3 {
        receiver.on("/", [Reply::status(500), Reply::status(200)]);
        let id = customer.publish(&json!({ "round": round })).await;
        customer.attempts(&id, 1).await;
        // Every connection of the pool has been made, and rests.
        let mut lists = JoinSet::new();
        for _ in 0..24 {
            let customer = customer.clone();
            lists.spawn(async move { customer.messages().await });
        }
        lists.join_all().await;
        let begun = Instant::now();
        proxy.freeze();
        support::eventually("lists are answered", async || (node.client.get(&customer.path("/msg")).await.status == 200).then_some(()))
            .await;
        support::eventually("so are writes under a key", async || {
            let request = node.client.request("POST", "/api/v1/app").key(&format!("round {round}")).json(&json!({ "name": "x" }));
            (request.send().await.status == 201).then_some(())
        })
        .await;
        assert!(begun.elapsed() < STANDSTILL, "the pool stood still for {:?}", begun.elapsed());
        // The claimer finds what is due by a connection of its own.
        database.let_retries_fall_due().await;
        let attempts = customer.attempts(&id, 2).await;
        assert_eq!(attempts.iter().map(Attempt::code).collect::<Vec<_>>(), [500, 200]);
        // Its connection and the one for results rested: they are found silent without waiting for a statement in vain.
        assert!(begun.elapsed() < STANDSTILL, "the claimer stood still for {:?}", begun.elapsed());
    }
    assert_eq!(node.client.get("/api/v1/app?limit=250").await.expect(200).json()["data"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn a_connection_that_falls_silent_while_it_rests_keeps_no_publisher_waiting() {
    let (database, proxy, node) = node_behind_a_proxy().await;
    let customer = Customer::create(&node.client).await;
    customer.publish(&json!({ "n": 0 })).await;
    let committers = "select application_name || backend_start from pg_stat_activity
        where datname = current_database() and application_name like 'posthaste-committer-%'";
    let before = database.texts(committers).await;
    proxy.freeze();
    let is_another = async || {
        let now = database.texts(committers).await;
        (now.len() == 1 && now != before).then_some(())
    };
    support::eventually("the connection is made anew, though nobody publishes", is_another).await;
    support::eventually("the server is ready", async || (health(&node.client).await == 204).then_some(())).await;
    let begun = Instant::now();
    customer.publish(&json!({ "n": 1 })).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}
