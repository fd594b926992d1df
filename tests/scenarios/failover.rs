//! Postgres fails over to its standby, or takes no writes for a while: the server follows by itself, and what it has accepted is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use support::{
    Customer, Database, JWT_SECRET, MAIN_SECRET, Node, Options, PATIENCE, Receiver,
    cluster::Own,
    customer::message,
    eventually, new_tenant,
    pair::Pair,
    processes::{command, run},
    token,
};
use tokio::{sync::watch, task::JoinSet};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// How many publish at once.
const PUBLISHERS: usize = 4;

/// Publishes under a key until it is accepted; returns the message's id.
async fn insist(customer: &Customer, key: &str) -> String {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let answer = customer.publish_raw(&message(&json!({ "key": key })), Some(key)).await;
        assert!(matches!(answer.status, 202 | 409 | 503), "{answer:?}");
        if answer.status == 202 {
            return answer.text("id");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{key} is not accepted")
}

#[tokio::test]
async fn the_server_follows_to_the_standby_and_nothing_is_lost_or_doubled() {
    let pair = Pair::start().await;
    let node = Node::start(&pair.url(), &Options::default(), &token(&new_tenant())).await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let (accepted, (enough, is_enough)) = (Arc::<AtomicUsize>::default(), watch::channel(false));
    let mut publishing = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (customer, accepted, is_enough) = (customer.clone(), Arc::clone(&accepted), is_enough.clone());
        publishing.spawn(async move {
            let mut ids = Vec::new();
            while !*is_enough.borrow() {
                ids.push(insist(&customer, &format!("{publisher}-{}", ids.len())).await);
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            ids
        });
    }
    let so_far = || accepted.load(Ordering::Relaxed);
    eventually("messages are accepted", async || (so_far() >= 20).then_some(())).await;
    pair.fail_over().await;
    let before = so_far();
    eventually("messages are accepted again", async || (so_far() >= before + 20).then_some(())).await;
    enough.send_replace(true);
    let mut ids: Vec<_> = publishing.join_all().await.into_iter().flatten().collect();
    ids.sort();

    pair.second().nothing_owed().await;
    let mut stored: Vec<_> = customer.messages().await.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect();
    stored.sort();
    assert_eq!(stored, ids, "each that was accepted is there, and no other");
    let mut got: Vec<_> = receiver.so_far().into_iter().map(|got| got.id().to_owned()).collect();
    got.sort();
    assert_eq!(got, ids, "each is delivered once");
    // Whatever else talks to Postgres has followed, too.
    node.client.post("/api/v1/app", &json!({ "name": "x" })).await.expect(201);
    eventually("the server is ready", async || (node.client.get("/api/v1/health").await.status == 204).then_some(())).await;
}

#[tokio::test]
async fn nothing_is_accepted_that_the_standby_does_not_have() {
    let pair = Pair::start().await;
    let node = Node::start(&pair.url(), &Options::default(), &token(&new_tenant())).await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    pair.replication.cut();
    let publish = async || customer.publish_raw(&message(&json!({ "key": "key" })), Some("key")).await;
    publish().await.expect(503);
    // The session whose commit waits for the standby has been given up and ended: its rows can be seen, and must not count.
    let first = pair.first();
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ilike 'update installation%'";
    eventually("the next session waits, too", async || (first.number(waits).await > 0).then_some(())).await;
    assert_eq!(first.number("select count(*) from message").await, 1, "it is on the first server");
    for _ in 0..3 {
        let answer = publish().await;
        assert!(matches!(answer.status, 409 | 503), "it is not promised: {answer:?}");
    }
    pair.fail_over().await;
    let id = insist(&customer, "key").await;
    assert_eq!(receiver.received(1).await[0].id(), id);
    pair.second().nothing_owed().await;
    assert_eq!((customer.messages().await.len(), receiver.so_far().len()), (1, 1));
}

#[tokio::test]
async fn a_standby_alone_is_refused_by_every_command_and_named() {
    let pair = Pair::start().await;
    let url = pair.second_url();
    for arguments in [&["serve"][..], &["api"], &["worker"], &["migrate"], &["reseal"], &["serve", "--migrate"]] {
        let environment = [
            ("POSTHASTE_DATABASE_URL", url.as_str()),
            ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
            ("POSTHASTE_JWT_SECRET", JWT_SECRET),
            ("POSTHASTE_LISTEN", "127.0.0.1:0"),
        ];
        let (status, _, errors) = run(command(PROGRAM, arguments, &environment)).await;
        assert!(!status.success(), "{arguments:?}");
        assert!(errors.contains("POSTHASTE_DATABASE_URL") && errors.contains("it takes no writes"), "{arguments:?}: {errors}");
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_for_a_while_is_away_and_comes_back() {
    let own = Own::start().await;
    let url = own.database("read_only").await;
    let node = Node::start(&url, &Options::default(), &token(&new_tenant())).await;
    let customer = Customer::create(&node.client).await;
    customer.publish(&json!({ "n": 0 })).await;
    let database = Database::existing(&url);
    database.execute("alter system set default_transaction_read_only = on").await;
    database.execute("select pg_reload_conf()").await;
    let create = async || node.client.request("POST", "/api/v1/app").json(&json!({ "name": "x" })).send().await.status;
    let publish = async || customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await.status;
    eventually("sessions have heard of it", async || (create().await == 503 && publish().await == 503).then_some(())).await;
    assert_eq!(node.client.get("/api/v1/health").await.status, 503);
    database.execute("alter system reset default_transaction_read_only").await;
    database.execute("select pg_reload_conf()").await;
    eventually("it takes writes again", async || (create().await == 201 && publish().await == 202).then_some(())).await;
    assert_eq!(customer.messages().await.len(), 2);
}
