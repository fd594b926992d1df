//! Events for endpoints that were made a moment ago, here or at another server; and for those that a server knows by heart.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use support::{App, Options, Project, Receiver, Roles, new_tenant, project::uid, token};

fn endpoint(url: &str) -> Value {
    json!({ "name": "An endpoint", "url": url, "owner_id": "acme" })
}

fn event(endpoint: &str, number: usize) -> Value {
    json!({ "endpoint_id": endpoint, "event_type": "paid", "data": { "n": number } })
}

#[tokio::test]
async fn an_endpoint_that_was_made_elsewhere_gets_the_very_next_event() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let other = app.node_with(&Options { roles: Roles::Api, ..Options::default() }).await;
    let (here, there) = (Project::of(&app.client).await, Project::of(&other.client).await);
    let subscribed = async |path: &str| {
        let made = uid(&here.post("/endpoints", &endpoint(&receiver.url(path))).await);
        here.post("/subscriptions", &json!({ "name": "all", "endpoint_id": made })).await;
        made
    };
    // The other server knows the owner of the second one since the first.
    for (number, path) in ["/first", "/second"].into_iter().enumerate() {
        let made = subscribed(path).await;
        there.post("/events", &event(&made, number)).await;
        assert_eq!(receiver.received_at(path, 1).await[0].json()["n"], number);
    }
    // So it is with those that an event makes, which all have the same owner.
    for path in ["/third", "/fourth"] {
        for project in [&here, &there] {
            let dynamic = json!({ "url": receiver.url(path), "secret": "a secret", "event_type": "paid", "data": {} });
            project.post("/events/dynamic", &dynamic).await;
        }
        receiver.received_at(path, 2).await;
    }
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 6);
}

#[tokio::test]
async fn an_event_for_an_endpoint_that_is_known_does_not_ask_for_it() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let project = Project::of(&app.client).await;
    let made = uid(&project.post("/endpoints", &endpoint("http://127.0.0.1:9/")).await);
    project.post("/events", &event(&made, 1)).await;
    // Whoever reads the table now waits in vain.
    let mut locked = PgConnection::connect(&app.database.url).await.expect("a session");
    sqlx::raw_sql("begin; lock table endpoint in access exclusive mode").execute(&mut locked).await.expect("a lock");
    project.post("/events", &event(&made, 2)).await;
    sqlx::raw_sql("rollback").execute(&mut locked).await.expect("it is unlocked");
    // What a server knows of one tenant is nothing to another.
    let theirs = Project::of(&app.client.with_token(&token(&new_tenant()))).await;
    for (project, endpoint) in [(&theirs, made.as_str()), (&project, "01HZXJ8C2D3E4F5G6H7J8K9M0N")] {
        project.refused("POST", "/events", &event(endpoint, 3), 404).await;
    }
}
