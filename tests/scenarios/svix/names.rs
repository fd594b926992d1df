//! Names that a URL resolves away: a request for such a thing would reach another one.

use serde_json::{Value, json};
use support::{App, Receiver};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const RESOLVED: [&str; 2] = [".", ".."];

/// Sends a request whose path nobody resolves on the way, as no ordinary client would; returns the status.
async fn ask_raw(app: &App, method: &str, path: &str, body: &str) -> u16 {
    let mut connection = TcpStream::connect(app.node.address).await.expect("a connection");
    let token = app.client.token.as_deref().expect("a token");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n");
    let request = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    connection.write_all(request.as_bytes()).await.expect("an open connection");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test]
async fn a_name_that_a_url_resolves_away_is_refused_for_every_thing() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    app.client.post("/api/v1/event-type", &json!({ "name": "a", "description": "" })).await.expect(201);
    let of_endpoint = customer.path(&format!("/endpoint/{endpoint}"));
    for name in RESOLVED {
        let with_url = |member: &str, value: Value| json!({ "url": "https://example.com/", member: value });
        let cases = [
            ("POST", "/api/v1/app".to_owned(), json!({ "name": "x", "uid": name }), "uid"),
            ("POST", "/api/v1/app?get_if_exists=true".to_owned(), json!({ "name": "x", "uid": name }), "uid"),
            ("PUT", customer.path(""), json!({ "name": "x", "uid": name }), "uid"),
            ("PATCH", customer.path(""), json!({ "uid": name }), "uid"),
            ("POST", customer.path("/endpoint"), with_url("uid", json!(name)), "uid"),
            ("POST", customer.path("/endpoint"), with_url("eventTypes", json!([name])), "eventTypes"),
            ("PUT", of_endpoint.clone(), with_url("uid", json!(name)), "uid"),
            ("PATCH", of_endpoint.clone(), json!({ "uid": name }), "uid"),
            ("POST", "/api/v1/event-type".to_owned(), json!({ "name": name, "description": "" }), "name"),
            ("POST", customer.path("/msg"), json!({ "eventType": "a", "payload": {}, "eventId": name }), "eventId"),
            ("POST", customer.path("/msg"), json!({ "eventType": name, "payload": {} }), "eventType"),
        ];
        for (method, path, body, field) in cases {
            let refusal = app.client.request(method, &path).json(&body).send().await.expect(422).json();
            assert_eq!(refusal["detail"][0]["loc"][1], field, "{method} {path} {body}: {refusal}");
        }
    }
    let kept = json!({ "eventType": "a", "payload": {}, "eventId": "...", "channels": [".."] });
    customer.publish_raw(&kept, None).await.expect(202);
    assert_eq!(app.client.get(&customer.path("/msg/...")).await.expect(200).text("eventId"), "...", "three dots are a name like any other");
    assert_eq!(customer.pages("/api/v1/app").await.len(), 1);
    assert_eq!(customer.pages(&customer.path("/endpoint")).await.len(), 1);
    assert_eq!(customer.pages("/api/v1/event-type").await.len(), 1);
}

#[tokio::test]
async fn such_a_path_reaches_nothing_however_it_is_written() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    for name in ["..", "%2e%2e", "%2E.", ".%2e", ".", "%2e", "%252e%252e"] {
        let paths = [format!("/api/v1/app/{name}"), customer.path(&format!("/endpoint/{name}")), format!("/api/v1/event-type/{name}")];
        for path in paths {
            for (method, body) in [("DELETE", ""), ("PUT", r#"{"name":"x","url":"https://example.com/","description":""}"#)] {
                assert_eq!(ask_raw(&app, method, &path, body).await, 422, "{method} {path}");
            }
        }
    }
    assert_eq!(customer.show(&endpoint).await["id"], endpoint.as_str());
    assert_eq!(customer.pages("/api/v1/app").await.len(), 1);
    assert_eq!(customer.pages("/api/v1/event-type").await.len(), 0);
}

#[tokio::test]
async fn what_an_older_release_took_under_such_a_name_is_reached_by_its_id() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    for name in ["a", "old", "z"] {
        app.client.post("/api/v1/event-type", &json!({ "name": name, "description": "" })).await.expect(201);
    }
    app.database.execute("update application set uid = '..'; update endpoint set uid = '.';").await;
    app.database.execute("update event_type set name = '..' where name = 'old'").await;
    let shown = app.client.get(&customer.path("")).await.expect(200);
    assert_eq!((shown.text("id"), shown.text("uid")), (customer.id.clone(), "..".into()));
    assert_eq!(customer.show(&endpoint).await["uid"], ".");
    customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    let mut names = Vec::new();
    let mut page = app.client.get("/api/v1/event-type?limit=1").await.expect(200).json();
    loop {
        names.push(page["data"][0]["name"].as_str().expect("a name").to_owned());
        if page["done"] == true {
            break;
        }
        let iterator = page["iterator"].as_str().expect("more");
        page = app.client.get(&format!("/api/v1/event-type?limit=1&iterator={iterator}")).await.expect(200).json();
    }
    assert_eq!(names, ["..", "a", "z"], "a list goes on behind it");

    app.client.patch(&customer.path(&format!("/endpoint/{endpoint}")), &json!({ "uid": "main" })).await.expect(200);
    app.client.patch(&customer.path(""), &json!({ "uid": "acme" })).await.expect(200);
    assert_eq!(app.client.get("/api/v1/app/acme/endpoint/main").await.expect(200).text("id"), endpoint);
    app.database.execute("update application set uid = '..'").await;
    app.client.delete(&customer.path("")).await.expect(204);
    assert_eq!(customer.pages("/api/v1/app").await.len(), 0);
}
