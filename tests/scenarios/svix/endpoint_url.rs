//! Where an endpoint may be: what could never be called, or not the way that the operator wants, is refused when it is written.

use serde_json::{Value, json};
use support::{Answer, App, Customer, Options, Receiver, Roles};

/// Tries to write this URL in every way that there is: POST, PUT that makes one, PUT and PATCH of one that exists.
async fn write_everywhere(customer: &Customer, existing: &str, url: &str) -> Vec<Answer> {
    let body = json!({ "url": url });
    let client = &customer.client;
    vec![
        client.post(&customer.path("/endpoint"), &body).await,
        client.put(&customer.path("/endpoint/by-name"), &body).await,
        client.put(&customer.path(&format!("/endpoint/{existing}")), &body).await,
        client.patch(&customer.path(&format!("/endpoint/{existing}")), &body).await,
    ]
}

fn assert_refused(answers: &[Answer], words: &[&str]) {
    for answer in answers {
        let problem = &answer.clone().expect(422).json()["detail"][0];
        assert_eq!(problem["loc"], json!(["body", "url"]), "the field is named");
        let msg = problem["msg"].as_str().expect("words");
        assert!(words.iter().all(|word| msg.contains(word)), "{msg}");
    }
}

async fn urls(customer: &Customer) -> Vec<Value> {
    customer.pages(&customer.path("/endpoint")).await.into_iter().map(|endpoint| endpoint["url"].clone()).collect()
}

#[tokio::test]
async fn an_address_that_could_never_be_called_is_refused_with_the_remedy() {
    let app = App::with(Options { egress_allow: vec!["127.0.0.2/32"], ..Options::default() }).await;
    let customer = app.customer().await;
    let existing = customer.endpoint("https://example.com/").await;
    let hosts = [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:7f00:1]",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "0",
    ];
    for host in hosts {
        for scheme in ["http", "https"] {
            let answers = write_everywhere(&customer, &existing, &format!("{scheme}://{host}:8080/hook")).await;
            assert_refused(&answers, &["not on the public internet", "POSTHASTE_EGRESS_ALLOW"]);
        }
    }
    assert_eq!(urls(&customer).await, ["https://example.com/"], "and nothing was written");
    for url in ["http://127.0.0.2:9/", "http://localhost:9/", "http://1.1.1.1:9/"] {
        let shown = app.client.patch(&customer.path(&format!("/endpoint/{existing}")), &json!({ "url": url })).await.expect(200);
        assert_eq!(shown.text("url"), url, "an address that is allowed or public, and a name, may be written");
    }
}

#[tokio::test]
async fn where_https_is_demanded_no_other_url_is_written() {
    let app = App::with(Options { is_https_only: true, ..Options::default() }).await;
    let customer = app.customer().await;
    let existing = customer.endpoint_with(&json!({ "url": "https://example.com/", "disabled": true })).await;
    assert_refused(&write_everywhere(&customer, &existing, "http://example.com/").await, &["https", "POSTHASTE_ENDPOINT_HTTPS_ONLY"]);
    assert_eq!(urls(&customer).await, ["https://example.com/"]);

    // What another node wrote before is there still, can be changed in all else, and gets its webhooks.
    let before = app.node_with(&Options { roles: Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let old = customer.through(&before.client).endpoint(&receiver.url("/")).await;
    app.client.patch(&customer.path(&format!("/endpoint/{old}")), &json!({ "description": "old" })).await.expect(200);
    assert_eq!(customer.show(&old).await["url"], receiver.url("/").as_str());
    let id = customer.publish(&json!({})).await;
    assert_eq!(receiver.received(1).await[0].id(), id);
}
