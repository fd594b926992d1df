//! Clients that are slow, silent, or many: they are answered or let go, and take nothing from anybody else.

use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    App, Client, Customer, Database, JWT_SECRET, MAIN_SECRET, Options, PATIENCE,
    customer::message,
    eventually, new_tenant,
    processes::{Process, command, free_address},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// A connection on which the head of a request was sent, and nothing of its body.
async fn begun(app: &App, token: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(app.node.address).await.expect("a connection");
    let head = format!(
        "POST /api/v1/app HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("an open connection");
    stream
}

/// The status of the answer, which is whole when this returns.
async fn status(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let is_whole = |answer: &[u8]| String::from_utf8_lossy(answer).trim_end().ends_with('}');
    while !is_whole(&answer) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer in time").expect("an answer");
        assert!(read > 0, "the connection ended in the middle of {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1).expect("a status").to_owned()
}

#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    let app = App::start().await;
    let start = Instant::now();
    let stream = begun(&app, app.client.token.as_deref().expect("a token"), 2000).await;
    let (mut answer, mut body) = stream.into_split();
    let drip = tokio::spawn(async move {
        while body.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(status(&mut answer).await, "408");
    assert!(start.elapsed() > Duration::from_secs(29), "so small a body has half a minute");
    tokio::time::timeout(PATIENCE, drip).await.expect("the connection is closed").expect("no panic");
    let left = app.client.get("/api/v1/app").await.expect(200).json();
    assert_eq!(left["data"].as_array().map(Vec::len), Some(0), "nothing was created");
}

#[tokio::test]
async fn who_may_not_send_is_told_so_before_the_body() {
    let app = App::start().await;
    let start = Instant::now();
    let mut stream = begun(&app, "of nobody", 50_000_000).await;
    assert_eq!(status(&mut stream).await, "401");
    assert!(start.elapsed() < Duration::from_secs(10), "nobody waits for the rest");
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok() && start.elapsed() < Duration::from_secs(20), "the connection does not stay open for the rest");
    for path in ["/api/v1/nowhere", "/api/v1/health"] {
        let mut stream = TcpStream::connect(app.node.address).await.expect("a connection");
        let head = format!("PATCH {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("an open connection");
        assert!(status(&mut stream).await.starts_with("40"), "{path}");
        assert!(start.elapsed() < Duration::from_secs(30), "{path}");
    }
}

#[tokio::test]
async fn who_may_not_send_and_does_still_gets_the_answer() {
    let app = App::start().await;
    let refused = app.client.with_token("of nobody").request("POST", "/api/v1/app").bytes(vec![b' '; 20_000_000]).send().await;
    assert_eq!(refused.expect(401).text("code"), "authentication_failed");
    let refused = app.client.request("POST", "/api/v1/app").bytes(vec![b' '; 20_000_000]).send().await;
    assert_eq!(refused.expect(413).text("code"), "payload_too_large");
}

const KIB: usize = 1024;

/// Half of what may be in memory is for others, and what a client has sent of a body is there until it is whole, given up, or too late.
#[tokio::test]
async fn bodies_that_are_half_sent_take_no_more_memory_than_they_may() {
    let app = App::with(Options { max_payload: 64 * KIB, max_body_memory: 256 * KIB, ..Options::default() }).await;
    let token = app.client.token.as_deref().expect("a token");
    let (customer, neighbour) = (app.customer().await, Customer::create(&app.client.with_token(&support::token(&new_tenant()))).await);
    let publish = async |customer: &Customer, size: usize| customer.publish_raw(&message(&json!({ "a": "x".repeat(size) })), None).await;
    publish(&customer, 60 * KIB).await.expect(202);

    // Before anything else is sent, what they sent is there: else it would be they who find no room.
    let address = app.node.address;
    let no_room = async || support::client::is_refused(address, token, 30 * KIB).await.then_some(());
    let (mut slow, other) = (half_sent(&app, token).await, half_sent(&app, token).await);
    eventually("there is no room", no_room).await;
    let refused = publish(&customer, 30 * KIB).await.expect(503);
    assert_eq!((refused.text("code").as_str(), refused.header("retry-after")), ("unavailable", Some("1")));
    publish(&customer, 4 * KIB).await.expect(202);
    publish(&neighbour, 60 * KIB).await.expect(202);
    assert_eq!(app.database.number("select count(*) from message").await, 3);

    drop(other);
    eventually("who hangs up makes room", async || (publish(&customer, 30 * KIB).await.status == 202).then_some(())).await;
    let _other = half_sent(&app, token).await;
    eventually("there is no room again", no_room).await;
    assert_eq!(status(&mut slow).await, "408");
    eventually("who is too slow makes room", async || (publish(&customer, 30 * KIB).await.status == 202).then_some(())).await;
}

/// Nearly all of a body, and no more.
async fn half_sent(app: &App, token: &str) -> TcpStream {
    let mut stream = begun(app, token, 64 * KIB).await;
    stream.write_all(&vec![b' '; 60 * KIB]).await.expect("an open connection");
    stream
}

/// A server that may open 256 files, flooded with a thousand connections that say nothing.
#[tokio::test]
async fn health_is_answered_through_a_flood_of_connections() {
    let database = Database::create().await;
    let address = free_address();
    let listen = address.to_string();
    let environment = [
        ("POSTHASTE_DATABASE_URL", database.url.as_str()),
        ("POSTHASTE_JWT_SECRET", JWT_SECRET),
        ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
        ("POSTHASTE_LISTEN", listen.as_str()),
    ];
    let mut process = Process::spawn(command("sh", &["-c", "ulimit -n 256 && exec \"$0\" serve", PROGRAM], &environment));
    process.printed("started").await;
    let token = support::token(&new_tenant());
    // Each of these asks over a connection of its own.
    let client = || Client::new(&format!("http://{address}"), Some(&token));
    client().get("/api/v1/app").await.expect(200);

    let mut flood = Vec::new();
    for _ in 0..1000 {
        flood.push(TcpStream::connect(address).await.expect("the backlog takes it"));
    }
    for path in ["/api/v1/health", "/api/v1/health/ping"] {
        let asked = Instant::now();
        client().anonymous().get(path).await.expect(204);
        assert!(asked.elapsed() < Duration::from_secs(10), "{path} took {:?}", asked.elapsed());
    }
    client().anonymous().get("/metrics").await.expect(200);
    let refused = client().get("/api/v1/app").await.expect(503);
    assert_eq!((refused.text("code").as_str(), refused.header("retry-after")), ("unavailable", Some("1")));
    process.printed("POSTHASTE_MAX_CLIENT_CONNECTIONS").await;
    assert!(!process.log().contains("cannot accept"), "files are left over:\n{}", process.log());

    drop(flood);
    eventually("who comes after the flood is served", async || (client().get("/api/v1/app").await.status == 200).then_some(())).await;
}
