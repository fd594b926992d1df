//! The operator's proxy is down, overloaded or misconfigured: what is owed waits, and no receiver is blamed.

use std::fs;

use serde_json::{Value, json};
use support::{
    Customer, Database, Receiver, eventually, new_tenant,
    outgoing::{Kind, Mood, Outgoing},
    processes::{ServerProcess, free_address},
    scrape::Scrape,
    tls::Authority,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// What the log says of it.
const BARRED: &str = "the proxy of POSTHASTE_EGRESS_PROXY does not connect us";
/// Once it is over.
const OPEN: &str = "the proxy of POSTHASTE_EGRESS_PROXY connects us again";
/// More than the failures in a row after which an endpoint is held.
const MESSAGES: usize = 30;

/// A server that calls through this proxy, and would try what failed again in an hour.
async fn serve(database: &Database, proxy: &str, more: &[(&str, &str)]) -> ServerProcess {
    let all = [&[("POSTHASTE_RETRY_SCHEDULE", "1h"), ("POSTHASTE_EGRESS_PROXY", proxy)], more].concat();
    ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &all).await
}

async fn health(customer: &Customer, endpoint: &str) -> Value {
    customer.client.get(&customer.path(&format!("/endpoint/{endpoint}/health"))).await.expect(200).json()
}

async fn put_off(server: &ServerProcess, times: f64) {
    let look = async || Scrape::of(&server.client).await.get("sends_put_off_total").filter(|count| *count >= times);
    eventually(&format!("{times} sends are put off"), look).await;
}

/// Nobody is blamed: neither are there attempts, nor has the endpoint's health heard of it.
async fn nobody_is_blamed(server: &ServerProcess, customer: &Customer, endpoint: &str, messages: &[String]) {
    for message in messages {
        assert_eq!(customer.attempts_so_far(message).await.len(), 0);
    }
    let health = health(customer, endpoint).await;
    assert_eq!((&health["state"], &health["consecutiveFailures"]), (&json!("healthy"), &json!(0)), "{health}");
    assert_eq!(Scrape::of(&server.client).await.get("attempts_total{class=\"other\"}"), Some(0.0));
}

/// All is delivered, at the first attempt.
async fn all_arrive(receiver: &Receiver, customer: &Customer, messages: &[String]) {
    for webhook in receiver.received(messages.len()).await {
        assert_eq!(webhook.header("posthaste-attempt"), "1");
    }
    for message in messages {
        assert_eq!(customer.attempts(message, 1).await.iter().map(support::Attempt::code).collect::<Vec<_>>(), [200]);
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_delays_deliveries_and_blames_nobody() {
    for kind in [Kind::Connect, Kind::Socks5] {
        let (database, receiver, address) = (Database::create().await, Receiver::start().await, free_address().to_string());
        let scheme = if kind == Kind::Connect { "http" } else { "socks5" };
        let mut server = serve(&database, &format!("{scheme}://{address}"), &[]).await;
        let customer = Customer::create(&server.client).await;
        let endpoint = customer.endpoint(&receiver.url("/")).await;
        let mut messages = Vec::new();
        for number in 0..MESSAGES {
            messages.push(customer.publish(&json!({ "n": number })).await);
        }
        let line = server.process.printed(BARRED).await;
        assert!(line.contains("ERROR") && line.contains(&address) && line.contains("refused"), "{line}");
        put_off(&server, 2.0).await;
        nobody_is_blamed(&server, &customer, &endpoint, &messages).await;
        assert_eq!(server.process.log().matches(BARRED).count(), 1, "an outage is one line");

        let proxy = Outgoing::start_on(&address, kind, None, None).await;
        all_arrive(&receiver, &customer, &messages).await;
        server.process.printed(OPEN).await;
        database.nothing_owed().await;
        assert!(proxy.connections() > 0);
        let look = async || Scrape::of(&server.client).await.get("endpoints_put_off").filter(|count| *count == 0.0);
        eventually("nothing is put off", look).await;
    }
}

#[tokio::test]
async fn a_proxy_that_connects_nobody_delays_deliveries_and_blames_nobody() {
    for kind in [Kind::Connect, Kind::Socks5] {
        for mood in [Mood::Ill, Mood::Strict, Mood::Gone] {
            let (database, receiver, proxy) = (Database::create().await, Receiver::start().await, Outgoing::start(kind, None).await);
            proxy.is(mood);
            let mut server = serve(&database, &proxy.url(""), &[]).await;
            let customer = Customer::create(&server.client).await;
            let endpoint = customer.endpoint(&receiver.url("/")).await;
            let messages = [customer.publish(&json!({ "n": 1 })).await];
            let line = server.process.printed(BARRED).await;
            assert!(line.contains("ERROR") && line.contains(&proxy.address.to_string()), "{kind:?} {mood:?}: {line}");
            put_off(&server, 2.0).await;
            nobody_is_blamed(&server, &customer, &endpoint, &messages).await;
            proxy.is(Mood::Well);
            all_arrive(&receiver, &customer, &messages).await;
        }
    }
}

#[tokio::test]
async fn a_dead_receiver_behind_a_proxy_that_works_is_found_out_whatever_the_proxy_says() {
    for kind in [Kind::Connect, Kind::Socks5] {
        let (database, receiver, proxy) = (Database::create().await, Receiver::start().await, Outgoing::start(kind, None).await);
        proxy.is(Mood::Vague);
        let server = serve(&database, &proxy.url(""), &[]).await;
        let (customer, neighbour) = (Customer::create(&server.client).await, Customer::create(&server.client).await);
        customer.endpoint(&format!("http://{}/", free_address())).await;
        let message = customer.publish(&json!({ "n": 1 })).await;
        put_off(&server, 1.0).await;
        neighbour.endpoint(&receiver.url("/")).await;
        neighbour.publish(&json!({ "n": 2 })).await;
        receiver.received(1).await;
        let attempt = customer.attempts(&message, 1).await.remove(0);
        assert!(attempt.code() == 0 && attempt.response().starts_with("proxy: "), "{kind:?}: {attempt:?}");
        assert!(!attempt.response().contains("127.0.0.1"), "where the proxy is, is not the customer's to know: {attempt:?}");
        // Now that it is known, the next one fails at once if the proxy has let others through.
        neighbour.endpoint(&Receiver::start().await.url("/")).await;
        let next = neighbour.publish(&json!({ "n": 3 })).await;
        neighbour.attempts(&next, 2).await;
        let message = customer.publish(&json!({ "n": 4 })).await;
        assert_eq!(customer.attempts(&message, 1).await[0].code(), 0);
    }
}

#[tokio::test]
async fn the_way_to_the_proxy_may_be_encrypted() {
    let (ours, stranger) = (Authority::new("Ours"), Authority::new("Stranger"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authorities.pem");
    fs::write(&file, &ours.pem).expect("written");
    let variables = [("POSTHASTE_EGRESS_CA", file.to_str().expect("a plain name")), ("POSTHASTE_EGRESS_ALLOW", "127.0.0.0/8,::1")];
    let credentials = Some("post:haste");
    let receivers = [Receiver::start().await, Receiver::start_tls(ours.server("receiver.localhost")).await];
    let proxy = Outgoing::start_on("127.0.0.1:0", Kind::Connect, credentials, Some(ours.server("localhost"))).await;
    let database = Database::create().await;
    let server = serve(&database, &proxy.url("post:haste@").replace("127.0.0.1", "localhost"), &variables).await;
    let customer = Customer::create(&server.client).await;
    customer.endpoint(&receivers[0].url("/")).await;
    customer.endpoint(&format!("https://receiver.localhost:{}/", receivers[1].address.port())).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    for attempt in customer.attempts(&message, 2).await {
        assert_eq!(attempt.code(), 200, "{attempt:?}");
    }
    assert_eq!(proxy.asked().len(), 2);

    let other = Outgoing::start_on("127.0.0.1:0", Kind::Connect, None, Some(stranger.server("localhost"))).await;
    let database = Database::create().await;
    let mut server = serve(&database, &other.url("").replace("127.0.0.1", "localhost"), &variables).await;
    let customer = Customer::create(&server.client).await;
    let endpoint = customer.endpoint(&receivers[0].url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let line = server.process.printed(BARRED).await;
    assert!(line.contains("certificate"), "{line}");
    nobody_is_blamed(&server, &customer, &endpoint, &[message]).await;
    assert_eq!(other.asked().len(), 0);
}
