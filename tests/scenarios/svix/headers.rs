//! Custom headers: what comes of a change is what has to be allowed.

use serde_json::{Map, Value, json};
use support::{App, Receiver};

/// `n` headers with these names' numbers.
fn numbered(numbers: std::ops::Range<usize>) -> Map<String, Value> {
    numbers.map(|number| (format!("X-N-{number}"), json!("v"))).collect()
}

#[tokio::test]
async fn the_most_headers_are_counted_after_a_change() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let path = customer.path(&format!("/endpoint/{endpoint}/headers"));
    let count = async || app.client.get(&path).await.expect(200).json()["headers"].as_object().map(Map::len).expect("headers");
    app.client.put(&path, &json!({ "headers": numbered(0..30) })).await.expect(204);
    app.client.patch(&path, &json!({ "headers": numbered(20..50) })).await.expect(204);
    assert_eq!(count().await, 50, "those that were there already count once");
    for change in [json!({ "headers": numbered(50..51) }), json!({ "headers": numbered(45..55), "deleteHeaders": ["X-N-1"] })] {
        let refusal = app.client.patch(&path, &change).await.expect(422).json();
        assert_eq!(refusal["detail"][0]["loc"], json!(["body", "headers"]), "{refusal}");
        assert!(refusal["detail"][0]["msg"].as_str().expect("a reason").contains("50"), "{refusal}");
    }
    assert_eq!(count().await, 50, "nothing was half-done");
    let mut turnover = numbered(50..100);
    turnover.extend((0..50).map(|number| (format!("x-n-{number}"), Value::Null)));
    app.client.patch(&path, &json!({ "headers": turnover })).await.expect(204);
    assert_eq!(count().await, 50, "fifty go and fifty come");
    let with_sensitive = json!({ "headers": numbered(0..50), "sensitive": ["authorization"] });
    let refusal = app.client.put(&path, &with_sensitive).await.expect(422).json();
    assert_eq!(refusal["detail"][0]["loc"], json!(["body", "sensitive"]), "it keeps nothing that is not there: {refusal}");
    app.client.patch(&path, &json!({ "headers": { "Authorization": "a", "X-N-50": null } })).await.expect(204);
    let refusal = app.client.put(&path, &with_sensitive).await.expect(422).json();
    assert_eq!(refusal["detail"][0]["loc"], json!(["body", "headers"]), "{refusal}");
}

#[tokio::test]
async fn names_that_differ_in_case_alone_are_one_header() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/"), "headers": { "x-A": "old", "X-Kept": "k" } })).await;
    let path = customer.path(&format!("/endpoint/{endpoint}/headers"));
    app.client.patch(&path, &json!({ "headers": { "X-a": "new" } })).await.expect(204);
    customer.publish(&json!({ "n": 1 })).await;
    let webhook = receiver.received(1).await.remove(0);
    assert_eq!((webhook.all("x-a"), webhook.header("x-kept")), (vec![b"new".as_slice()], "k"));
    app.client.patch(&path, &json!({ "headers": {}, "deleteHeaders": ["x-KEPT"] })).await.expect(204);

    let create = customer.path("/endpoint");
    for (method, path) in [("POST", &create), ("PUT", &path), ("PATCH", &path)] {
        for names in [r#""X-a":"1","x-A":"2""#, r#""x-a":"1","x-a":"2""#, r#""x-b":"1","X-B":"1""#] {
            let body = format!(r#"{{"url":"{}","headers":{{{names}}}}}"#, receiver.url("/"));
            let refusal = app.client.request(method, path).bytes(body).send().await.expect(422).json();
            assert_eq!(refusal["detail"][0]["loc"][1], "headers", "{method} {names}: {refusal}");
            assert!(refusal["detail"][0]["msg"].as_str().expect("a reason").contains("twice"), "{method} {names}: {refusal}");
        }
    }
    assert_eq!(app.client.get(&path).await.expect(200).json()["headers"], json!({ "X-a": "new" }));
    assert_eq!(customer.pages(&create).await.len(), 1);
}
