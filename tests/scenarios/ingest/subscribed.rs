//! Who gets what came by which source: endpoints of the project, by their subscriptions.

use serde_json::json;
use support::{App, Receiver, project::uid};

use super::{Project, Source};

/// A new endpoint of the project, in Convoy's dialect.
async fn endpoint(project: &Project, url: &str) -> String {
    uid(&project.post("/endpoints", &json!({ "name": "An endpoint", "url": url })).await)
}

async fn subscribe(project: &Project, endpoint: &str, source: &Source, filter: &serde_json::Value) {
    let subscription = json!({ "name": "A subscription", "endpoint_id": endpoint, "source_id": source.id(), "filter_config": filter });
    project.post("/subscriptions", &subscription).await;
}

#[tokio::test]
async fn an_endpoint_gets_what_came_by_the_source_that_it_subscribed_to() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    let (one, other) = (project.keyed(&[]).await, project.keyed(&[]).await);
    for (path, source) in [("/one", &one), ("/other", &other)] {
        subscribe(&project, &endpoint(&project, &receiver.url(path)).await, source, &json!({})).await;
    }
    endpoint(&project, &receiver.url("/none")).await;
    one.send(&json!({ "by": "one" })).await.expect(200);
    other.send(&json!({ "by": "other" })).await.expect(200);
    receiver.received(2).await;
    app.database.nothing_owed().await;
    let got: Vec<_> = receiver.so_far().iter().map(|webhook| (webhook.path.clone(), webhook.json()["by"].clone())).collect();
    assert!(got.len() == 2 && got.iter().all(|(path, by)| path.trim_start_matches('/') == by), "{got:?}");
    // With the source go its subscriptions.
    project.delete(&format!("/sources/{}", one.id())).await;
    let left = project.get("/subscriptions").await["content"].as_array().expect("a page").len();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn headers_query_and_body_of_an_event_are_looked_into() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    let source = project.source(&json!({ "name": "A source", "forward_headers": ["X-Event"] })).await;
    let filters = [
        ("/header", json!({ "headers": { "x-event": "push" } })),
        ("/query", json!({ "query": { "page": "2" } })),
        ("/body", json!({ "body": { "n": { "$gt": 5 } } })),
    ];
    for (path, filter) in filters {
        subscribe(&project, &endpoint(&project, &receiver.url(path)).await, &source, &json!({ "filter": filter })).await;
    }
    source.with_query("page=2", r#"{"n": 1}"#).header("x-event", "pull").send().await.expect(200);
    source.with_query("page=3", r#"{"n": 6}"#).header("x-event", "push").send().await.expect(200);
    receiver.received(3).await;
    app.database.nothing_owed().await;
    let mut got: Vec<_> = receiver.so_far().iter().map(|webhook| (webhook.path.clone(), webhook.json()["n"].clone())).collect();
    got.sort_by_key(|(path, _)| path.clone());
    assert_eq!(got, [("/body".to_owned(), json!(6)), ("/header".to_owned(), json!(6)), ("/query".to_owned(), json!(1))]);
}
