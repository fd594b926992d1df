//! A receiver's answer is understood however it is written: what counts is whether it said yes.

use serde_json::json;
use support::{App, Options, Receiver, Reply};

/// So many lines of headers.
fn headers(count: usize) -> String {
    let lines: Vec<_> = (0..count).map(|index| format!("x-{index}: {index}\r\n")).collect();
    lines.concat()
}

/// Answers that mean "200, and `ok`".
fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let answer = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok").into_bytes();
    let mut not_text =
        b"HTTP/1.1 200 Tr\xe8s bien\r\nx-latin: caf\xe9\r\nx-\xff: 1\r\nx-bell: a\x07b\r\ncontent-length: 2\r\n\r\n".to_vec();
    not_text.extend(b"ok");
    vec![
        ("a hundred headers", answer(&headers(100))),
        ("many headers", answer(&headers(950))),
        ("a long header", answer(&format!("x-long: {}\r\n", "x".repeat(50_000)))),
        ("a folded header", answer("x-folded: one\r\n two\r\n\tthree\r\n \r\nx-next: 1\r\n")),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\nx-tab\t: 1\r\n\r\nok".to_vec()),
        ("no space after the colon", b"HTTP/1.1 200 OK\r\ncontent-length:2\r\nx-empty:\r\nx-padded: \t 1 \t \r\n\r\nok".to_vec()),
        ("lines that are no headers", answer("this is no header\r\n: nor this\r\nb@d n(me): 1\r\n=?utf-8?q?x?=: 1\r\n")),
        ("a proxy's banner", answer("HTTP/1.1 200 OK\r\n")),
        ("bytes that are no text", not_text),
        ("bare line feeds", b"HTTP/1.1 200 OK\nx-one: 1\ncontent-length: 2\n\nok".to_vec()),
        ("no reason", b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        ("an empty reason", b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok".to_vec()),
        ("a line before it", b"\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        ("HTTP/1.0 that keeps the connection", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        ("its length twice", answer("content-length: 2\r\n")),
        ("its length twice in one line", b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok".to_vec()),
        ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n".to_vec()),
        (
            "chunks with a trailer",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n".to_vec(),
        ),
        ("chunks and a length", b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec()),
        (
            "interim answers",
            [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".as_slice(), &answer("")].concat(),
        ),
        ("more than its length", [answer(""), b" and more".to_vec()].concat()),
    ]
}

/// The same, of receivers that close the connection.
fn last_answers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nok".to_vec()),
        ("no length", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok".to_vec()),
        ("no length, and it does not say that it closes", b"HTTP/1.1 200 OK\r\nserver: old\r\n\r\nok".to_vec()),
        ("an encoding of transfer that nobody knows", b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nok".to_vec()),
    ]
}

#[tokio::test]
async fn a_yes_is_a_yes_however_it_is_written() {
    let app = App::with(Options { schedule: Vec::new(), ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let all = answers().into_iter().map(|(name, bytes)| (name, Reply::raw(bytes)));
    let all: Vec<_> = all.chain(last_answers().into_iter().map(|(name, bytes)| (name, Reply::raw_then_close(bytes)))).collect();
    for (index, (_, reply)) in all.iter().enumerate() {
        receiver.on(&format!("/{index}"), [reply.clone()]);
        customer.endpoint(&receiver.url(&format!("/{index}"))).await;
    }
    // Once more: what the first answer left on its connection must not hurt the next one.
    for _ in 0..3 {
        let message = customer.publish(&json!({ "n": 1 })).await;
        let attempts = customer.attempts(&message, all.len()).await;
        for (index, (name, _)) in all.iter().enumerate() {
            let url = receiver.url(&format!("/{index}"));
            let attempt = attempts.iter().find(|attempt| attempt.0["url"] == url.as_str()).expect("an attempt");
            assert_eq!((attempt.code(), attempt.status(), attempt.response()), (200, "success", "ok"), "{name}: {attempt:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_or_too_large_is_a_failure_that_says_so() {
    let app = App::with(Options { schedule: Vec::new(), ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let cases = [
        ("/garbage", b"220 mail.example.com ESMTP\r\n\r\n".to_vec()),
        ("/other", b"HTTP/3.0 200 OK\r\n\r\n".to_vec()),
        ("/many", format!("HTTP/1.1 200 OK\r\n{}", headers(20_000)).into_bytes()),
        ("/long", format!("HTTP/1.1 200 OK\r\nx-long: {}", "x".repeat(100_000)).into_bytes()),
    ];
    for (path, bytes) in &cases {
        receiver.on(path, [Reply::raw(bytes.clone())]);
        customer.endpoint(&receiver.url(path)).await;
    }
    let message = customer.publish(&json!({ "n": 1 })).await;
    for attempt in customer.attempts(&message, cases.len()).await {
        assert_eq!((attempt.code(), attempt.status()), (0, "fail"), "{attempt:?}");
        assert_eq!(attempt.response(), "connection failed: the answer is not HTTP/1.1, or its headers are too large");
    }
}
