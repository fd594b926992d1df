//! The operator's way out: a proxy that does not open the egress guard, and certificates of a private authority.

use std::{fs, time::Duration};

use serde_json::json;
use support::{
    App, Customer, Database, Options, Receiver, new_tenant,
    outgoing::{Kind, Outgoing},
    processes::{ServerProcess, free_address},
    tls::Authority,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
const PASSWORD: &str = "p@ss:word/of-the-proxy";
/// [`PASSWORD`], as a URL and as a header have it.
const ENCODED: [&str; 2] = ["p%40ss%3Aword%2Fof-the-proxy", "cG9zdDpwQHNzOndvcmQvb2YtdGhlLXByb3h5"];
const CREDENTIALS: &str = "post:p@ss:word/of-the-proxy";

async fn serve(database: &Database, variables: &[(&str, &str)]) -> ServerProcess {
    let more = [&[("POSTHASTE_RETRY_SCHEDULE", "1h"), ("POSTHASTE_LOG", "trace")], variables].concat();
    ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &more).await
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_vetted_address_and_the_receiver_for_its_name() {
    for kind in [Kind::Connect, Kind::Socks5] {
        let database = Database::create().await;
        let proxy = Outgoing::start(kind, Some(CREDENTIALS)).await;
        let (named, numbered, v6) = (Receiver::start().await, Receiver::start_on("127.0.0.2:0").await, Receiver::start_on("[::1]:0").await);
        let url = proxy.url(&format!("post:{}@", ENCODED[0])).replace("127.0.0.1", "my_proxy.localhost");
        let variables = [("POSTHASTE_EGRESS_PROXY", url.as_str()), ("POSTHASTE_EGRESS_ALLOW", "127.0.0.0/8,::1")];
        let server = serve(&database, &variables).await;
        let customer = Customer::create(&server.client).await;
        let port = named.address.port();
        customer.endpoint(&format!("http://my_service.localhost:{port}/")).await;
        customer.endpoint(&numbered.url("/")).await;
        customer.endpoint(&v6.url("/")).await;
        let message = customer.publish(&json!({ "n": 1 })).await;
        assert!(customer.attempts(&message, 3).await.iter().all(|attempt| attempt.status() == "success"));
        assert_eq!(named.received(1).await[0].header("host"), format!("my_service.localhost:{port}"));
        numbered.received(1).await;
        v6.received(1).await;
        let mut asked = proxy.asked();
        asked.sort();
        let expected = [format!("127.0.0.1:{port}"), numbered.address.to_string(), v6.address.to_string()];
        assert_eq!(asked, expected, "{kind:?}: addresses, and no names");
        assert_eq!(proxy.credentials(), [CREDENTIALS; 3]);
        assert_eq!([&named, &numbered, &v6].map(Receiver::connections), [1; 3], "nobody is called past the proxy");
        let log = server.process.log();
        assert!(log.contains("delivered"), "{log}");
        for secret in [PASSWORD, ENCODED[0], ENCODED[1]] {
            assert!(!log.contains(secret), "{kind:?}: the log has `{secret}` in it");
        }
    }
}

#[tokio::test]
async fn a_proxy_does_not_open_the_guard() {
    for kind in [Kind::Connect, Kind::Socks5] {
        let proxy = Outgoing::start(kind, None).await;
        let egress_proxy = worker::Proxy::parse(&proxy.url("")).ok();
        let timeout = Duration::from_secs(5);
        let options =
            Options { egress_allow: Vec::new(), schedule: Vec::new(), request_timeout: timeout, egress_proxy, ..Options::default() };
        let app = App::with(options).await;
        let v4 = Receiver::start().await;
        let port = v4.address.port();
        let v6 = Receiver::start_on(&format!("[::1]:{port}")).await;
        let hosts = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "localhost",
            "LOCALHOST.",
            "my_service.localhost",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "10.0.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "[fd00:ec2::254]",
        ];
        let (customer, carefree) = (app.customer().await, app.carefree_node().await);
        let written_before = customer.through(&carefree.client);
        for host in hosts {
            written_before.endpoint(&format!("http://{host}:{port}/")).await;
        }
        // Not even the proxy itself is called as a receiver.
        written_before.endpoint(&format!("http://{}/", proxy.address)).await;
        let message = customer.publish(&json!({ "n": 1 })).await;
        for attempt in customer.attempts(&message, hosts.len() + 1).await {
            assert_eq!((attempt.code(), attempt.status()), (0, "fail"), "{kind:?}: {attempt:?}");
            assert!(attempt.response().starts_with("blocked:"), "{kind:?}: {attempt:?}");
        }
        app.database.nothing_owed().await;
        assert_eq!((proxy.connections(), v4.connections(), v6.connections()), (0, 0, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_private_needs_no_permission_and_what_it_refuses_is_told() {
    for kind in [Kind::Connect, Kind::Socks5] {
        let proxy = Outgoing::start(kind, Some(CREDENTIALS)).await;
        let receiver = Receiver::start_on("127.0.0.2:0").await;
        let told = async |url: &str, target: &str| {
            let egress_proxy = worker::Proxy::parse(url).ok();
            let options = Options { egress_allow: vec!["127.0.0.2/32"], schedule: Vec::new(), egress_proxy, ..Options::default() };
            let app = App::with(options).await;
            let customer = app.customer().await;
            customer.endpoint(target).await;
            let message = customer.publish(&json!({ "n": 1 })).await;
            customer.attempts(&message, 1).await.remove(0)
        };
        let url = proxy.url(&format!("post:{}@", ENCODED[0]));
        assert_eq!(told(&url, &receiver.url("/")).await.code(), 200, "127.0.0.1 is not allowed, but the proxy is there");
        let nobody = free_address().to_string().replace("127.0.0.1", "127.0.0.2");
        let attempt = told(&url, &format!("http://{nobody}/")).await;
        assert!(attempt.code() == 0 && attempt.response().starts_with("proxy: "), "{kind:?}: {attempt:?}");
        assert!(!attempt.response().contains("127.0.0.1"), "where the proxy is, is not the customer's to know: {attempt:?}");
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_if_it_is_named() {
    let [ours, other, stranger] = ["Ours", "Other", "Stranger"].map(Authority::new);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authorities.pem");
    fs::write(&file, format!("The house's own:\n{}\nAnd another one:\n{}", ours.pem, other.pem)).expect("written");
    let file = file.to_str().expect("a plain name");
    let proxy = Outgoing::start(Kind::Connect, None).await;
    let allow = ("POSTHASTE_EGRESS_ALLOW", "127.0.0.0/8,::1");
    let proxied = [allow, ("POSTHASTE_EGRESS_CA", file), ("POSTHASTE_EGRESS_PROXY", &proxy.url(""))];
    for (variables, is_trusted) in [(&[allow][..], false), (&[allow, ("POSTHASTE_EGRESS_CA", file)], true), (&proxied, true)] {
        let database = Database::create().await;
        let server = serve(&database, variables).await;
        let customer = Customer::create(&server.client).await;
        for (authority, name, is_named) in
            [(&ours, "receiver.localhost", true), (&other, "my_service.localhost", true), (&stranger, "receiver.localhost", false)]
        {
            let receiver = Receiver::start_tls(authority.server(name)).await;
            let endpoint = customer.endpoint(&format!("https://{name}:{}/", receiver.address.port())).await;
            let message = customer.publish(&json!({ "n": 1 })).await;
            let attempt = customer.attempts(&message, 1).await.remove(0);
            customer.client.delete(&customer.path(&format!("/endpoint/{endpoint}"))).await.expect(204);
            if is_trusted && is_named {
                assert_eq!(attempt.code(), 200, "{name}: {attempt:?}");
                assert_eq!(receiver.server_names(), [name], "the name is asked for, also through a proxy");
                assert_eq!(receiver.received(1).await[0].id(), message);
            } else {
                assert!(attempt.response().starts_with("tls: "), "{name}: {attempt:?}");
                assert_eq!(receiver.so_far().len(), 0);
            }
        }
    }
    assert!(proxy.asked().iter().all(|target| target.starts_with("127.0.0.1:")), "{:?}", proxy.asked());
    assert_eq!(proxy.asked().len(), 3);
}

#[tokio::test]
async fn what_is_blocked_is_named_to_the_operator_alone() {
    let database = Database::create().await;
    let mut server = serve(&database, &[("POSTHASTE_EGRESS_ALLOW", "127.0.0.2/32"), ("POSTHASTE_LOG", "info")]).await;
    let customer = Customer::create(&server.client).await;
    customer.endpoint("http://my_service.localhost:9/").await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let line = server.process.printed("add 127.0.0.0/8 to POSTHASTE_EGRESS_ALLOW").await;
    assert!(line.contains("my_service.localhost") && line.contains("127.0.0.1 is in 127.0.0.0/8"), "{line}");
    let attempt = customer.attempts(&message, 1).await.remove(0);
    assert!(attempt.response().starts_with("blocked: my_service.localhost "), "{attempt:?}");
    assert!(!attempt.response().contains("127.0.0"), "what a name resolves to is not the customer's to know: {attempt:?}");
}
