//! What came is what goes on: no byte is lost, changed or added, and what is too much is refused whole.

use serde_json::json;
use support::{App, Options, Receiver};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Project, Source, hex, hmac_sha256};

const LIMIT: usize = 4096;

#[tokio::test]
async fn binary_and_empty_bodies_reach_endpoints_byte_for_byte() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let source = project.keyed(&["request.body.id", "request.header.x-id"]).await;
    let all_bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let bodies: [(&str, Vec<u8>); 5] = [
        ("application/octet-stream", all_bytes),
        ("application/json", b"{ \"b\" :1.10,\n\t\"a\": \"\\u00e9\\u0000\", \"a\": 1e400 }  ".to_vec()),
        ("application/json", b"\xff\x00 no JSON".to_vec()),
        ("text/xml; charset=ISO-8859-1", b"<a>\xe9</a>".to_vec()),
        ("image/png", Vec::new()),
    ];
    for (media_type, body) in &bodies {
        let request = source.client.request("POST", source.path()).header("content-type", media_type).bytes(body.clone());
        assert_eq!(request.send().await.expect(200).json()["data"], body.len());
    }
    let received = receiver.received(bodies.len()).await;
    for (media_type, body) in &bodies {
        let webhook = received.iter().find(|webhook| webhook.body == *body).unwrap_or_else(|| panic!("{body:?} has not come"));
        assert_eq!(webhook.header("content-type"), *media_type);
    }
    app.database.nothing_owed().await;
}

/// Sends a request as it is written here, and returns the status of the answer.
async fn raw(source: &Source, address: std::net::SocketAddr, head: &str, body: &[u8]) -> u16 {
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let request = format!("POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n\r\n", source.path());
    connection.write_all(&[request.as_bytes(), body].concat()).await.expect("it is read");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {answer}"))
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_never_cut_short() {
    let app = App::with(Options { max_payload: LIMIT, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let source = project.keyed(&[]).await;
    let chunked = |length: usize| {
        let chunks = [length / 2, length - length / 2].map(|part| format!("{part:x}\r\n{}\r\n", "x".repeat(part)));
        [chunks.concat().as_bytes(), b"0\r\n\r\n"].concat()
    };
    for (length, status) in [(LIMIT, 200), (LIMIT + 1, 413), (100 * LIMIT, 413)] {
        let announced = format!("content-type: text/plain\r\ncontent-length: {length}");
        assert_eq!(raw(&source, app.node.address, &announced, "x".repeat(length).as_bytes()).await, status, "{length} announced");
        let head = "content-type: text/plain\r\ntransfer-encoding: chunked";
        assert_eq!(raw(&source, app.node.address, head, &chunked(length)).await, status, "{length} in chunks");
    }
    let received = receiver.received(2).await;
    assert!(received.iter().all(|webhook| webhook.body.len() == LIMIT));
    assert_eq!(project.events().await.len(), 2);
    assert_eq!(source.request(vec![b'x'; LIMIT + 1]).send().await.expect(413).json()["status"], false);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_event() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&[]).await;
    let mut connection = TcpStream::connect(app.node.address).await.expect("a connection");
    let request = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{\"a\": 1}}", source.path());
    connection.write_all(request.as_bytes()).await.expect("it is read");
    connection.shutdown().await.expect("half of the connection");
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
    source.send(&json!({ "n": 1 })).await.expect(200);
    assert_eq!(project.events().await.len(), 1);
}

#[tokio::test]
async fn a_compressed_body_is_refused_since_it_would_go_on_without_saying_so() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&[]).await;
    let refused = source.request("x").header("content-encoding", "gzip").send().await.expect(400);
    assert!(refused.text("message").contains("content-encoding"));
    source.request("x").header("content-encoding", "identity").send().await.expect(200);
}

#[tokio::test]
async fn whoever_hangs_up_after_the_last_byte_has_sent_an_event() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source =
        project.source(&json!({ "name": "github", "provider": "github", "verifier": { "type": "hmac", "hmac": { "secret": "s" } } })).await;
    let hold = app.database.hold_inserts("message").await;
    let mut connection = TcpStream::connect(app.node.address).await.expect("a connection");
    let signature = hex(&hmac_sha256("s", &[b"{}"]));
    let head = format!("host: x\r\ncontent-length: 2\r\nx-hub-signature-256: sha256={signature}");
    connection.write_all(format!("POST {} HTTP/1.1\r\n{head}\r\n\r\n{{}}", source.path()).as_bytes()).await.expect("it is read");
    hold.holds(1).await;
    drop(connection);
    hold.release().await;
    support::eventually("the event is stored", async || (project.events().await.len() == 1).then_some(())).await;
}
