//! Which sources there are: they open and close within a second, and strangers learn and cost little.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::distr::{Alphanumeric, SampleString};
use serde_json::json;
use support::{
    App, eventually,
    scrape::{Scrape, counted},
};

use super::{Project, is_duplicate};

/// By when every server must know what has become of a source, with some patience for a busy machine.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_source_that_is_switched_off_or_deleted_takes_nothing_more() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&[]).await;
    let there = source.through(&other_node.client);
    for source in [&source, &there] {
        source.send(&json!({})).await.expect(200);
    }
    let becomes = async |status: u16| {
        let begun = Instant::now();
        for source in [&source, &there] {
            eventually("both servers know", async || (source.send(&json!({})).await.status == status).then_some(())).await;
        }
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    };
    project.update(&source, &json!({ "is_disabled": true })).await;
    becomes(404).await;
    project.update(&source, &json!({ "is_disabled": false })).await;
    becomes(200).await;
    let path = project.path(&format!("/sources/{}", source.id()));
    assert_eq!(project.client.delete(&path).await.expect(200).json()["data"], json!(null));
    becomes(404).await;
    project.client.get(&path).await.expect(404);
    project.client.delete(&path).await.expect(404);
    assert!(app.database.texts("select verifier::text from source where deleted_at is not null and verifier is not null").await.is_empty());
}

#[tokio::test]
async fn unknown_masks_are_a_404_however_many_they_are() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&[]).await;
    let guess = async |_: usize| {
        let mask = Alphanumeric.sample_string(&mut rand::rng(), 32);
        app.client.anonymous().request("POST", &format!("/ingest/{mask}")).bytes("{}").send().await.expect(404)
    };
    let asked = async || {
        app.database.number("select coalesce(sum(seq_scan + idx_scan), 0)::bigint from pg_stat_user_tables where relname = 'source'").await
    };
    let before = asked().await;
    for _ in 0..5 {
        join_all((0..200).map(guess)).await;
    }
    source.send(&json!({})).await.expect(200);
    eventually("the statistics are in", async || (asked().await > before).then_some(())).await;
    let asked = asked().await - before;
    assert!(asked < 500, "the database was asked {asked} times about 1000 guesses");
    for odd in ["short", "%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF", "a%00aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &"x".repeat(3000)] {
        let refused = app.client.anonymous().request("POST", &format!("/ingest/{odd}")).bytes("{}").send().await.expect(404);
        assert_eq!(refused.json(), json!({ "status": false, "message": "source not found" }));
    }
    app.client.anonymous().request("PUT", source.path()).unchecked().bytes("{}").send().await.expect(405);
}

#[tokio::test]
async fn what_is_not_verified_is_counted() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let hmac = json!({ "type": "hmac", "hmac": { "secret": "s" } });
    let source = project.source(&json!({ "name": "github", "provider": "github", "verifier": hmac })).await;
    let before = Scrape::of(&app.client).await;
    for signature in ["sha256=00", "x"] {
        source.request("{}").header("x-hub-signature-256", signature).send().await.expect(400);
    }
    counted(&app.client, &before, &[("sources_unverified_total", 2)]).await;
}

#[tokio::test]
async fn a_key_of_a_request_means_nothing_here_unless_the_source_names_it() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.keyed(&[]).await;
    for key in ["key", "key", "", &"x".repeat(300)] {
        let answer = source.request("{}").key(key).send().await;
        assert!(!is_duplicate(&answer) && !answer.is_replay(), "{key}");
    }
    let source = project.keyed(&["request.header.idempotency-key"]).await;
    assert!(!is_duplicate(&source.request("{}").key("key").send().await));
    assert!(is_duplicate(&source.request("{}").key("key").send().await));
    assert_eq!(app.database.number("select count(*) from idempotency").await, 0);
}

#[tokio::test]
async fn without_a_place_for_it_the_type_of_an_event_is_that_of_its_source() {
    let app = App::start().await;
    let project = Project::of(&app).await;
    let source = project.source(&json!({ "name": "A source", "event_type_location": "request.body.type" })).await;
    for body in
        [json!({ "type": "order.paid" }), json!({}), json!({ "type": { "a": 1 } }), json!({ "type": "a\nb" }), json!({ "type": "  " })]
    {
        source.send(&body).await.expect(200);
    }
    let types: Vec<_> = project.events().await.iter().rev().map(|event| event["eventType"].clone()).collect();
    let own = format!("source.{}", source.id());
    assert_eq!(types, [json!("order.paid"), json!(own), json!(own), json!(own), json!(own)]);
}
