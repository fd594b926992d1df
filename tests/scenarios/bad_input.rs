//! Hostile requests: a 4xx that names the field, the connection kept, and nothing half-done.

use serde_json::{Value, json};
use support::{Answer, App, Customer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Every `loc` of a 422, joined.
fn fields(answer: &Answer) -> String {
    let json = answer.json();
    let Some(problems) = json["detail"].as_array() else { return String::new() };
    let names = problems.iter().flat_map(|problem| problem["loc"].as_array().into_iter().flatten()).filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(".")
}

#[track_caller]
fn refused(answer: &Answer, what: &str, field: &str) {
    assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
    if answer.status == 422 {
        assert!(fields(answer).contains(field), "{what}: `{field}` is not named in {answer:?}");
    }
}

/// Applications that nobody can create, each with the field that is wrong.
fn bad_applications() -> Vec<(Value, &'static str)> {
    let long = "x".repeat(257);
    vec![
        (json!({}), "name"),
        (json!({ "name": 1 }), "name"),
        (json!({ "name": null }), "name"),
        (json!({ "name": "a\u{0}b" }), "name"),
        (json!({ "name": "a", "uid": "a b" }), "uid"),
        (json!({ "name": "a", "uid": "" }), "uid"),
        (json!({ "name": "a", "uid": long }), "uid"),
        (json!({ "name": "a", "uid": "app_x" }), "uid"),
        (json!({ "name": "a", "uid": "a\u{0}" }), "uid"),
        (json!({ "name": "a", "throttleRate": 0 }), "throttleRate"),
        (json!({ "name": "a", "throttleRate": 65_536 }), "throttleRate"),
        (json!({ "name": "a", "throttleRate": 1.5 }), "throttleRate"),
        (json!({ "name": "a", "metadata": [] }), "metadata"),
        (json!({ "name": "a", "metadata": { "a": 1 } }), "metadata"),
        (json!({ "name": "a", "metadata": { "a": "\u{0}" } }), "metadata"),
        (json!({ "name": "a", "metadata": { "a": "x".repeat(5000) } }), "metadata"),
        (json!([]), "body"),
        (json!("name"), "body"),
    ]
}

/// Endpoints that nobody can create.
fn bad_endpoints() -> Vec<(Value, &'static str)> {
    let url = "https://example.com/";
    vec![
        (json!({}), "url"),
        (json!({ "url": "ftp://example.com" }), "url"),
        (json!({ "url": "http://１２７.0.0.1/" }), "url"),
        (json!({ "url": "javascript:alert(1)" }), "url"),
        (json!({ "url": "file:///etc/passwd" }), "url"),
        (json!({ "url": "https://user:pw@example.com/" }), "url"),
        (json!({ "url": "http://" }), "url"),
        (json!({ "url": "http://a b/" }), "url"),
        (json!({ "url": "http://example.com:99999/" }), "url"),
        (json!({ "url": "https://example.com/\u{0}" }), "url"),
        (json!({ "url": "https://example.com/\r\nHost: evil" }), "url"),
        (json!({ "url": format!("https://example.com/{}", "x".repeat(70_000)) }), "url"),
        (json!({ "url": url, "eventTypes": [] }), "eventTypes"),
        (json!({ "url": url, "eventTypes": ["a b"] }), "eventTypes"),
        (json!({ "url": url, "eventTypes": "a" }), "eventTypes"),
        (json!({ "url": url, "channels": [] }), "channels"),
        (json!({ "url": url, "channels": (0..11).map(|n| n.to_string()).collect::<Vec<_>>() }), "channels"),
        (json!({ "url": url, "channels": ["\u{0}"] }), "channels"),
        (json!({ "url": url, "secret": "whsec_short" }), "secret"),
        (json!({ "url": url, "secret": "plain" }), "secret"),
        (json!({ "url": url, "disabled": "yes" }), "disabled"),
        (json!({ "url": url, "throttleRate": 0 }), "throttleRate"),
        (json!({ "url": url, "throttleRate": 65_536 }), "throttleRate"),
        (json!({ "url": url, "throttleRate": -1 }), "throttleRate"),
        (json!({ "url": url, "throttleRate": 1.5 }), "throttleRate"),
        (json!({ "url": url, "description": "a\u{0}" }), "description"),
        (json!({ "url": url, "headers": { "Host": "evil" } }), "headers"),
        (json!({ "url": url, "headers": { "a b": "c" } }), "headers"),
        (json!({ "url": url, "headers": { "a": "b\r\nc: d" } }), "headers"),
        (json!({ "url": url, "headers": { "webhook-id": "x" } }), "headers"),
        (json!({ "url": url, "headers": { "Content-Length": "0" } }), "headers"),
    ]
}

/// Event types that nobody can declare.
fn bad_event_types() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "name": "a b", "description": "" }), "name"),
        (json!({ "name": "", "description": "" }), "name"),
        (json!({ "name": "a" }), "description"),
        (json!({ "name": "a", "description": "", "schemas": [] }), "schemas"),
        (json!({ "name": "a", "description": "", "schemas": { "1": { "type": "nothing" } } }), "schemas"),
    ]
}

#[tokio::test]
async fn a_wrong_value_is_refused_by_the_name_of_its_field() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let endpoints = customer.path("/endpoint");
    let tables = [("/api/v1/app", bad_applications()), (&endpoints, bad_endpoints()), ("/api/v1/event-type", bad_event_types())];
    for (path, table) in tables {
        for (body, field) in table {
            let answer = app.client.post(path, &body).await;
            refused(&answer, &body.to_string().chars().take(200).collect::<String>(), field);
        }
    }
    let of_endpoint = format!("{endpoints}/{endpoint}");
    for (body, field) in
        [(json!({ "url": null }), "url"), (json!({ "url": "gopher://x" }), "url"), (json!({ "disabled": null }), "disabled")]
    {
        let answer = app.client.patch(&of_endpoint, &body).await;
        refused(&answer, &body.to_string(), field);
    }
    assert_eq!(customer.pages("/api/v1/app").await.len(), 1, "nothing was created");
    assert_eq!(customer.pages(&endpoints).await.len(), 1);
    assert_eq!(customer.pages("/api/v1/event-type").await.len(), 0);
    assert_eq!(customer.show(&endpoint).await["url"], "https://example.com/");
}

#[tokio::test]
async fn a_wrong_message_is_refused_by_the_name_of_its_field() {
    let app = App::start().await;
    let customer = app.customer().await;
    let with = |member: &str, value: Value| {
        let mut body = json!({ "eventType": "a", "payload": {} });
        body[member] = value;
        body
    };
    let cases = [
        (json!({ "payload": {} }), "eventType"),
        (json!({ "eventType": "a" }), "payload"),
        (with("eventType", json!("a b")), "eventType"),
        (with("eventType", json!("a\u{0}")), "eventType"),
        (with("eventType", json!(1)), "eventType"),
        (with("eventType", json!("x".repeat(257))), "eventType"),
        (with("payload", json!("text")), "payload"),
        (with("payload", json!([1])), "payload"),
        (with("payload", Value::Null), "payload"),
        (with("eventId", json!("")), "eventId"),
        (with("eventId", json!("a\u{0}b")), "eventId"),
        (with("eventId", json!("x".repeat(257))), "eventId"),
        (with("channels", json!([])), "channels"),
        (with("channels", json!(["a", "b", "c", "d", "e", "f"])), "channels"),
        (with("channels", json!(["\u{0}"])), "channels"),
        (with("channels", json!("a")), "channels"),
        (with("idempotency_key", json!("")), "idempotency"),
        (with("idempotency_key", json!("a\u{0}")), "idempotency"),
        (with("idempotencyKey", json!("x".repeat(256))), "idempotency"),
        (with("idempotencyKey", json!(7)), "idempotency"),
    ];
    for (body, field) in cases {
        let answer = customer.publish_raw(&body, Some("the same key each time")).await;
        refused(&answer, &body.to_string().chars().take(200).collect::<String>(), field);
    }
    assert!(customer.messages().await.is_empty());
    let harmless = with("payload", json!({ "text": "a\u{0}b", "\u{0}": "\u{ffff}" }));
    let created = customer.publish_raw(&harmless, Some("the same key each time")).await.expect(202);
    assert_eq!(created.json()["payload"], harmless["payload"], "a NUL inside a payload is the publisher's business");
    assert!(!created.is_replay());
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let app = App::start().await;
    let customer = app.customer().await;
    let path = customer.path("/msg");
    let deep = |open: &str, close: &str| format!("{{\"eventType\":\"a\",\"payload\":{{\"a\":{}{}}}}}", open.repeat(600), close.repeat(600));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("half an object", b"{\"eventType\":".to_vec()),
        ("more than one value", b"{\"eventType\":\"a\",\"payload\":{}} {}".to_vec()),
        ("not UTF-8", b"{\"eventType\":\"a\",\"payload\":{\"a\":\"\xff\xfe\"}}".to_vec()),
        ("a lone surrogate", b"{\"eventType\":\"\\ud800\",\"payload\":{}}".to_vec()),
        ("a raw NUL", b"{\"eventType\":\"a\0\",\"payload\":{}}".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{\"eventType\":\"a\",\"payload\":{}}".to_vec()),
        ("600 arrays", deep("[", "]").into_bytes()),
        ("600 objects", deep("{\"a\":", "}").replace("}}}", "1}}}").into_bytes()),
        ("600 unclosed arrays", "[".repeat(600).into_bytes()),
        ("NaN", b"{\"eventType\":\"a\",\"payload\":{\"a\":NaN}}".to_vec()),
        ("a form", b"eventType=a&payload=b".to_vec()),
    ];
    for (what, body) in bodies {
        let answer = app.client.request("POST", &path).bytes(body).send().await;
        assert!(matches!(answer.status, 400 | 422), "{what}: {answer:?}");
    }
    let form = app.client.request("POST", &path).header("content-type", "application/x-www-form-urlencoded").bytes("a=b").send().await;
    assert_eq!(form.status, 415);
    let eight_megabytes = vec![b' '; 8 * 1024 * 1024];
    let large = app.client.request("POST", &path).bytes(eight_megabytes).send().await.expect(413);
    assert_eq!(large.text("code"), "payload_too_large");
    assert!(customer.messages().await.is_empty());
}

#[tokio::test]
async fn unknown_things_and_odd_ids_are_not_found() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let message = customer.publish(&json!({})).await;
    let ids = [
        "app_000000000000000000000000000",
        "app_",
        "app_zzzzzzzzzzzzzzzzzzzzzzzzzzz",
        "nobody",
        "%00",
        "%ff",
        "a%20b",
        "'; drop table message; --",
        "0",
    ];
    for id in ids.map(|id| id.replace(' ', "%20")) {
        let paths = [
            format!("/api/v1/app/{id}"),
            customer.path(&format!("/endpoint/{id}")),
            customer.path(&format!("/endpoint/{id}/secret")),
            customer.path(&format!("/msg/{id}")),
            customer.path(&format!("/attempt/msg/{id}")),
            customer.path(&format!("/attempt/endpoint/{id}")),
            customer.path(&format!("/msg/{message}/attempt/{id}")),
            format!("/api/v1/event-type/{id}"),
        ];
        for path in paths {
            let answer = app.client.get(&path).await;
            assert!(matches!(answer.status, 400 | 404 | 422), "{path}: {answer:?}");
        }
        let resend = customer.path(&format!("/msg/{message}/endpoint/{id}/resend"));
        assert!(matches!(app.client.request("POST", &resend).send().await.status, 400 | 404 | 422));
        let publish = app.client.post(&format!("/api/v1/app/{id}/msg"), &json!({ "eventType": "a", "payload": {} })).await;
        assert!(matches!(publish.status, 400 | 404 | 422), "{id}: {publish:?}");
    }
    let wrong_kind = app.client.get(&customer.path(&format!("/msg/{endpoint}"))).await;
    assert_eq!(wrong_kind.status, 404, "an endpoint's id is no message's");
    assert_eq!(app.client.request("GET", "/api/v1/no-such-thing").unchecked().send().await.status, 404);
    assert_eq!(app.client.request("DELETE", "/api/v1/app").unchecked().send().await.status, 405);
    assert_eq!(app.database.number("select count(*) from message").await, 1);
}

#[tokio::test]
async fn odd_queries_are_refused_by_the_name_of_the_parameter() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let (msg, att) = (customer.path("/msg"), customer.path(&format!("/attempt/endpoint/{endpoint}")));
    let cases = [
        ("/api/v1/app".to_owned(), "limit=251", "limit"),
        ("/api/v1/app".to_owned(), "limit=-1", "limit"),
        ("/api/v1/app".to_owned(), "limit=many", "limit"),
        ("/api/v1/app".to_owned(), "limit=99999999999999999999", "limit"),
        ("/api/v1/app".to_owned(), "order=sideways", "order"),
        ("/api/v1/app".to_owned(), "iterator=app_bad", "iterator"),
        ("/api/v1/app".to_owned(), "iterator=msg_000000000000000000000000000", "iterator"),
        ("/api/v1/app".to_owned(), "iterator=%00", "iterator"),
        (msg.clone(), "iterator=msg_bad", "iterator"),
        (msg.clone(), "iterator=--msg_bad", "iterator"),
        (msg.clone(), "before=yesterday", "before"),
        (msg.clone(), "after=2020-99-99T00:00:00Z", "after"),
        (msg.clone(), "with_content=maybe", "with_content"),
        (att.clone(), "status=17", "status"),
        (att.clone(), "status=ok", "status"),
        (att.clone(), "status_code_class=123", "status_code_class"),
        (att, "iterator=atmpt_bad", "iterator"),
    ];
    for (path, query, field) in cases {
        let answer = app.client.get(&format!("{path}?{query}")).await;
        refused(&answer, &format!("{path}?{query}"), field);
        assert!(String::from_utf8_lossy(&answer.body).contains(field), "{query}: {answer:?}");
    }
    assert_eq!(app.client.get(&format!("{msg}?channel=%00&event_types=%00")).await.status / 100, 4);
    let list = app.client.get(&format!("{msg}?limit=0")).await.expect(200).json();
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn hostile_headers_are_refused_on_all_three_ways_in() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let path = customer.path(&format!("/endpoint/{endpoint}/headers"));
    app.client.put(&path, &json!({ "headers": { "X-Kept": "yes" } })).await.expect(204);
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("x-{n}"), json!("v"))).collect();
    let hostile = [
        json!({ "Host": "evil" }),
        json!({ "Transfer-Encoding": "chunked" }),
        json!({ "svix-signature": "v1,forged" }),
        json!({ "Webhook-Timestamp": "0" }),
        json!({ "X-Convoy-Idempotency-Key": "forged" }),
        json!({ "": "x" }),
        json!({ "x": "a\nb" }),
        json!({ "x": "a\u{0}" }),
        json!({ "x": "é" }),
        json!({ "x": "v".repeat(5000) }),
        json!({ "x": 1 }),
        json!({ "x y": "z" }),
        json!({ "x:": "z" }),
        Value::Object(many),
    ];
    for headers in hostile {
        for method in ["PUT", "PATCH"] {
            let answer = app.client.request(method, &path).json(&json!({ "headers": headers })).send().await.expect(422);
            refused(&answer, &headers.to_string(), "headers");
        }
    }
    assert_eq!(app.client.get(&path).await.expect(200).json()["headers"], json!({ "X-Kept": "yes" }), "nothing was half-done");
}

/// Reads one HTTP answer off a connection; returns its status.
async fn read_answer(connection: &mut TcpStream) -> u16 {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|window: &[u8]| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
            }
        }
        assert_ne!(connection.read_buf(&mut bytes).await.expect("an open connection"), 0, "the connection was dropped");
    }
}

#[tokio::test]
async fn the_connection_outlives_every_refusal() {
    let app = App::start().await;
    let customer: Customer = app.customer().await;
    let mut connection = TcpStream::connect(app.node.address).await.expect("a connection");
    let token = app.client.token.clone().expect("a token");
    let path = customer.path("/msg");
    let mut ask = async |method: &str, path: &str, body: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n");
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        connection.write_all(request.as_bytes()).await.expect("an open connection");
        read_answer(&mut connection).await
    };
    let big = " ".repeat(8 * 1024 * 1024);
    assert_eq!(ask("POST", &path, &"[".repeat(600)).await, 422);
    assert_eq!(ask("POST", &path, "{").await, 422);
    assert_eq!(ask("POST", &path, &big).await, 413);
    assert_eq!(ask("GET", &format!("{path}?iterator=msg_bad"), "").await, 422);
    assert_eq!(ask("GET", "/api/v1/app/nobody", "").await, 404);
    assert_eq!(ask("PUT", &path, "{}").await, 405);
    assert_eq!(ask("GET", "/nowhere", "").await, 404);
    assert_eq!(ask("POST", &path, "{\"eventType\":\"a\",\"payload\":{}}").await, 202, "the same connection still works");
}

#[tokio::test]
async fn a_base_url_with_a_slash_too_many_is_told_so() {
    let app = App::start().await;
    let path = app.customer().await.path("/msg");
    for wrong in [format!("/{path}"), "//api/v1/app".into(), "/api/v1//app".into(), "/api/v1/app//".into(), "/api/v1/app//msg".into()] {
        for method in ["GET", "POST"] {
            let refused = app.client.request(method, &wrong).unchecked().json(&json!({})).send().await.expect(404);
            assert!(refused.text("detail").contains("`//`"), "{method} {wrong}: {refused:?}");
            assert!(refused.text("detail").contains("base URL"), "{method} {wrong}: {refused:?}");
        }
    }
    app.client.get(&format!("{path}/")).await.expect(200);
}
