//! Postgres crashes under load, and clients hang up after their last byte.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use support::{Customer, Database, Receiver, Reply, cluster, customer::message, new_tenant, processes::ServerProcess};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    ONE_AT_A_TIME,
    load::{Counts, Load, assert_each_is_delivered, assert_each_is_listed_once, publish},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
const VARIABLES: [(&str, &str); 3] =
    [("POSTHASTE_REQUEST_TIMEOUT", "2s"), ("POSTHASTE_RETRY_SCHEDULE", "100ms,200ms,400ms,1s,2s,4s"), ("POSTHASTE_LOG", "error")];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_postgres_crashes_under_load() {
    let _one = ONE_AT_A_TIME.lock().await;
    let mut own = cluster::Own::start().await;
    let url = own.database("crash").await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(200).after(Duration::from_millis(10))]);
    let mut server = ServerProcess::start(PROGRAM, "serve", &url, &new_tenant(), &VARIABLES).await;
    let customer = Customer::create(&server.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let load = Load::start(&customer, 12);
    let counts = load.counts.clone();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        own.crash().await;
        own.restart().await;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let accepted = load.finish().await;
    let database = Database::existing(&url);
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value = database.texts(&format!("select current_setting('{setting}')")).await;
        assert_eq!(value, ["on"], "{setting}");
    }
    database.nothing_owed().await;
    let copies = assert_each_is_delivered(&receiver, &["/"], &accepted);
    assert_each_is_listed_once(&customer, &accepted).await;
    let put_off = counts.put_off.load(Ordering::Relaxed);
    let replays = counts.replays.load(Ordering::Relaxed);
    eprintln!(
        "postgres crashes: {} messages accepted, {put_off} requests put off, {replays} replays, {copies} extra copies",
        accepted.len()
    );
    assert!(put_off > 0, "the crashes did not hit work");
    assert_eq!(counts.unanswered.load(Ordering::Relaxed), 0, "the server itself never dropped a connection");
    assert!(!server.process.has_ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_after_its_last_byte_finds_its_message_once() {
    let _one = ONE_AT_A_TIME.lock().await;
    let own = cluster::Own::start().await;
    let url = own.database("crash").await;
    let receiver = Receiver::start().await;
    let server = ServerProcess::start(PROGRAM, "serve", &url, &new_tenant(), &VARIABLES).await;
    let customer = Customer::create(&server.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let token = server.client.token.clone().expect("a token");
    for number in 0..300_u64 {
        let body = message(&json!({ "number": number })).to_string();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\nidempotency-key: key-{number}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            customer.path("/msg"),
            body.len()
        );
        let mut connection = TcpStream::connect(server.address).await.expect("a connection");
        connection.write_all((head + &body).as_bytes()).await.expect("the last byte");
    }
    let database = Database::existing(&url);
    let counts = Counts::default();
    let mut accepted = std::collections::BTreeMap::new();
    for number in 0..300 {
        accepted.insert(number, publish(&customer, number, &counts).await);
    }
    database.nothing_owed().await;
    // A request whose client is gone before it is looked at may be left undone; one that has begun is never left half-way.
    let replays = counts.replays.load(Ordering::Relaxed);
    eprintln!("hang-ups: of 300 requests {replays} had taken effect");
    assert!(replays > 0, "the hang-ups did not hit work");
    assert_each_is_listed_once(&customer, &accepted).await;
    assert_eq!(assert_each_is_delivered(&receiver, &["/"], &accepted), 0, "and was delivered once");
}
