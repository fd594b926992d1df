//! Nobody is called who is not on the public internet, however the address is written.

use std::time::Duration;

use serde_json::json;
use support::{App, Customer, Options, Receiver, Reply};

fn closed() -> Options {
    Options { egress_allow: Vec::new(), schedule: Vec::new(), request_timeout: Duration::from_secs(5), ..Options::default() }
}

#[tokio::test]
async fn with_nothing_allowed_no_notation_of_a_private_address_is_called() {
    let app = App::with(closed()).await;
    let v4 = Receiver::start().await;
    let port = v4.address.port();
    let v6 = Receiver::start_on(&format!("[::1]:{port}")).await;
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "127.255.255.254",
        "localhost",
        "LOCALHOST.",
        "my_service.localhost",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::2]",
        "168.63.129.16",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
    ];
    let (customer, carefree) = (app.customer().await, app.carefree_node().await);
    for host in hosts {
        let url = format!("http://{host}:{port}/");
        let endpoint = customer.through(&carefree.client).endpoint(&url).await;
        assert_eq!(customer.show(&endpoint).await["url"], url.as_str(), "what was written before stays readable");
    }
    let message = customer.publish(&json!({ "n": 1 })).await;
    for attempt in customer.attempts(&message, hosts.len()).await {
        assert_eq!((attempt.code(), attempt.status()), (0, "fail"), "{attempt:?}");
        assert!(attempt.response().starts_with("blocked:"), "the customer sees why: {attempt:?}");
    }
    app.database.nothing_owed().await;
    assert_eq!((v4.connections(), v6.connections()), (0, 0));
}

#[tokio::test]
async fn a_network_is_opened_by_the_operator_alone_and_no_further_than_it_reaches() {
    let app = App::with(Options { egress_allow: vec!["127.0.0.0/8"], ..closed() }).await;
    let v4 = Receiver::start().await;
    let port = v4.address.port();
    let v6 = Receiver::start_on(&format!("[::1]:{port}")).await;
    v4.on("/away", [Reply::status(307).header("Location", &format!("http://[::1]:{port}/"))]);
    let customer = app.customer().await;
    customer.endpoint(&v4.url("/here")).await;
    customer.endpoint(&v4.url("/away")).await;
    let carefree = app.carefree_node().await;
    let written_before: Customer = customer.through(&carefree.client);
    written_before.endpoint(&format!("http://[::1]:{port}/")).await;
    written_before.endpoint("http://169.254.169.254/latest/meta-data/").await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let attempts = customer.attempts(&message, 4).await;
    let blocked = attempts.iter().filter(|attempt| attempt.response().starts_with("blocked:")).count();
    assert_eq!(blocked, 2);
    assert_eq!(v4.received(2).await.len(), 2);
    assert_eq!(v6.connections(), 0);
}

#[tokio::test]
async fn a_proxy_variable_does_not_lead_around_the_guard() {
    let database = support::Database::create().await;
    let (proxy, receiver) = (Receiver::start().await, Receiver::start().await);
    let url = proxy.url("");
    let tenant = support::new_tenant();
    let more = [
        ("POSTHASTE_EGRESS_ALLOW", "127.0.0.2/32"),
        ("HTTP_PROXY", &url),
        ("http_proxy", &url),
        ("ALL_PROXY", &url),
        ("POSTHASTE_RETRY_SCHEDULE", "1h"),
    ];
    let program = env!("CARGO_BIN_EXE_posthaste-under-test");
    let server = support::processes::ServerProcess::start(program, "serve", &database.url, &tenant, &more).await;
    let customer = Customer::create(&server.client).await;
    customer.endpoint(&format!("http://localhost:{}/", receiver.address.port())).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    assert!(customer.attempts(&message, 1).await[0].response().starts_with("blocked:"));
    assert_eq!((proxy.connections(), receiver.connections()), (0, 0));
}
