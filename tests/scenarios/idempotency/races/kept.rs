//! What is saved under a key stays what it was: whoever asks, whatever has changed since, and in whichever release.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use domain::idempotency::Policy;
use serde_json::json;
use support::{App, Client, Clock, JWT_SECRET, Options, customer::message, new_tenant, token};

use crate::idempotency::same;

#[tokio::test]
async fn a_rotated_token_replays() {
    let app = App::start().await;
    let customer = app.customer().await;
    let rotated = app.client.with_token(&api::mint_token(JWT_SECRET, &app.tenant, Utc::now() + TimeDelta::seconds(5)));
    assert_ne!(rotated.token, app.client.token);
    let body = message(&json!({ "n": 1 }));
    let first = customer.publish_raw(&body, Some("key")).await.expect(202);
    same(&first, &customer.through(&rotated).publish_raw(&body, Some("key")).await);
    let create = async |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await;
    same(&create(&rotated).await.expect(201), &create(&app.client).await);
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn a_key_is_the_tenants_own() {
    let app = App::start().await;
    let stranger = app.client.with_token(&token(&new_tenant()));
    let mut ids = Vec::new();
    for client in [&app.client, &stranger] {
        let create = async || client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x", "uid": "acme" })).send().await;
        let created = create().await.expect(201);
        same(&created, &create().await);
        let publish = async || client.request("POST", "/api/v1/app/acme/msg").key("key").json(&message(&json!({}))).send().await;
        let published = publish().await.expect(202);
        same(&published, &publish().await);
        ids.extend([created.text("id"), published.text("id")]);
    }
    assert!(ids[0] != ids[2] && ids[1] != ids[3], "neither tenant was told of the other's: {ids:?}");
    let other_body = stranger.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "y" })).send().await;
    assert_eq!(other_body.status, 422, "within a tenant it is one key");
}

/// The time that the newest record is remembered for, in seconds.
const LIFE: &str = "select extract(epoch from expires_at - created_at) from idempotency order by created_at desc limit 1";

#[tokio::test]
async fn a_policy_that_changes_leaves_what_is_saved_alone() {
    let app = App::start().await;
    let clock = Clock::of(&app.database).await;
    let ttl = |hours: u64| Options { policy: Policy { ttl: Duration::from_hours(hours), ..Policy::default() }, ..Options::default() };
    let (longer, shorter) = (app.node_with(&ttl(72)).await, app.node_with(&ttl(1)).await);
    let default = app.second_node().await;
    let customer = app.customer().await;
    let publish = async |client: &Client, key: &str| customer.through(client).publish_raw(&message(&json!({})), Some(key)).await;
    let clients = [&default.client, &shorter.client, &longer.client];
    for (client, seconds) in clients.iter().zip([24 * 3600 + 60, 3600, 72 * 3600]) {
        let key = seconds.to_string();
        clock.advance("1 second").await;
        let first = publish(client, &key).await.expect(202);
        assert_eq!(app.database.number(LIFE).await, seconds);
        clock.advance(&format!("{} seconds", seconds - 1)).await;
        for asked in clients {
            same(&first, &publish(asked, &key).await);
        }
        assert_eq!(app.database.number(LIFE).await, seconds, "whichever node is asked, it goes by what the record says");
        clock.advance("1 second").await;
        assert!(!publish(&longer.client, &key).await.expect(202).is_replay(), "nor does a longer policy bring it back");
    }
}

#[tokio::test]
async fn a_message_whose_content_is_gone_still_answers_its_key() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let body = json!({ "eventType": "invoice.paid", "eventId": "evt", "payload": { "n": 1 } });
    let first = customer.publish_raw(&body, Some("key")).await.expect(202);
    app.database.execute("update message set payload = null").await;
    for client in [&app.client, &other_node.client] {
        let again = customer.through(client).publish_raw(&body, Some("key")).await.expect(202);
        assert!(again.is_replay());
        let (mut was, is) = (first.json(), again.json());
        was["payload"] = json!({ "expired": true });
        assert_eq!(was, is, "the same but for what is gone");
        assert_eq!(first.header("location"), again.header("location"));
    }
    assert_eq!(customer.messages().await.len(), 1);
}

#[tokio::test]
async fn a_fingerprint_of_another_release_is_taken_for_the_same_request() {
    let app = App::start().await;
    let customer = app.customer().await;
    let publish = async |n: u32| customer.publish_raw(&message(&json!({ "n": n })), Some("key")).await;
    let create = async |name: &str| app.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": name })).send().await;
    let (first, created) = (publish(1).await.expect(202), create("a").await.expect(201));
    publish(2).await.expect(422);
    create("b").await.expect(422);
    app.database.execute("update idempotency set fingerprint_version = 99, fingerprint = gen_random_uuid()").await;
    same(&first, &publish(1).await);
    same(&created, &create("a").await);
    assert_eq!(customer.messages().await.len(), 1, "a release that counts differently does not make a second message");
}
