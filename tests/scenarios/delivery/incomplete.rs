//! A status has been given once it has come: what becomes of the body after it is recorded, and changes nothing.

use std::time::Duration;

use serde_json::json;
use support::{App, Attempt, Options, Receiver, Reply, eventually};

/// The ways in which a body does not come whole, each with what is told of it.
fn broken(status: &str, headers: &str) -> [(Reply, &'static str); 4] {
    let head = |framing: &str| format!("HTTP/1.1 {status}\r\n{headers}{framing}\r\n\r\nthe beginning");
    let chunk = |rest: &str| format!("HTTP/1.1 {status}\r\n{headers}transfer-encoding: chunked\r\n\r\nd\r\nthe beginning\r\n{rest}");
    let broke = "incomplete response: connection failed: it broke before the response was complete";
    let late = "incomplete response: timeout: no complete response within 700ms";
    [
        (Reply::raw_then_close(head("content-length: 100")), broke),
        (Reply::raw_then_close(chunk("")), broke),
        (Reply::raw_then_close(chunk("nonsense\r\n")), broke),
        (Reply::raw(head("content-length: 100")), late),
    ]
}

fn options() -> Options {
    Options { schedule: vec![Duration::from_secs(10_000)], request_timeout: Duration::from_millis(700), ..Options::default() }
}

/// Has one endpoint answer so, and returns what is recorded of its first attempt.
async fn attempt(app: &App, reply: Reply, told: &str) -> (support::Customer, String, Attempt) {
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    receiver.on("/", [reply]);
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let attempt = customer.attempts(&message, 1).await.remove(0);
    assert_eq!(attempt.response(), format!("the beginning\n{told}"), "what came, and what broke");
    (customer, endpoint, attempt)
}

#[tokio::test]
async fn a_410_disables_the_endpoint_although_its_body_breaks_off() {
    let app = App::with(options()).await;
    for (reply, told) in broken("410 Gone", "") {
        let (customer, endpoint, attempt) = attempt(&app, reply, told).await;
        assert_eq!((attempt.code(), attempt.status()), (410, "fail"));
        assert_eq!(customer.show(&endpoint).await["disabled"], true, "{told}");
        app.database.nothing_owed().await;
    }
}

#[tokio::test]
async fn retry_after_is_honoured_although_the_body_breaks_off() {
    let app = App::with(options()).await;
    for (reply, told) in broken("503 Service Unavailable", "retry-after: 19000\r\n") {
        let (customer, endpoint, attempt) = attempt(&app, reply, told).await;
        assert_eq!((attempt.code(), attempt.status()), (503, "fail"));
        let wait = app.database.number("select round(extract(epoch from due_at - now())) from queue_later").await;
        assert!((18_900..=19_000).contains(&wait), "{told}: {wait} s");
        app.client.delete(&customer.path(&format!("/endpoint/{endpoint}"))).await.expect(204);
        app.database.let_retries_fall_due().await;
        app.database.nothing_owed().await;
    }
}

#[tokio::test]
async fn a_yes_is_not_taken_back_by_what_follows_it() {
    let app = App::with(options()).await;
    for (reply, told) in broken("200 OK", "") {
        let (_, _, attempt) = attempt(&app, reply, told).await;
        assert_eq!((attempt.code(), attempt.status()), (200, "success"));
        app.database.nothing_owed().await;
    }
}

#[tokio::test]
async fn a_long_beginning_makes_room_for_what_broke() {
    let app = App::with(options()).await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let head = b"HTTP/1.1 500 Oops\r\ncontent-length: 100000\r\n\r\n".to_vec();
    receiver.on("/", [Reply::raw_then_close([head, vec![b'x'; 16 * 1024 - 1]].concat())]);
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let attempt = customer.attempts(&message, 1).await.remove(0);
    assert_eq!((attempt.code(), attempt.response().len()), (500, 16 * 1024));
    assert!(attempt.response().ends_with("x\nincomplete response: connection failed: it broke before the response was complete"));
    eventually("it is retried", async || (app.database.owed().await == 1).then_some(())).await;
}
