//! Lists that take too long have connections of their own: they are told so, and nothing else waits for them.

use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use support::{App, Customer, Receiver, eventually};
use tokio::task::JoinSet;

/// More than a process has connections.
const LISTS: usize = 24;

#[tokio::test]
async fn stuck_lists_keep_nothing_else_waiting_and_are_told_so() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let mut stuck = PgConnection::connect(&app.database.url).await.expect("a session");
    // Nothing but lists of event types reads it here.
    sqlx::raw_sql("begin; lock table event_type in access exclusive mode").execute(&mut stuck).await.expect("a lock");
    let mut lists = JoinSet::new();
    for _ in 0..LISTS {
        let client = app.client.clone();
        lists.spawn(async move { client.get("/api/v1/event-type").await });
    }
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ilike '%event_type%'";
    eventually("lists wait", async || (app.database.number(waiting).await > 1).then_some(())).await;
    for number in 0..10 {
        customer.publish(&json!({ "n": number })).await;
        app.client.get(&customer.path("")).await.expect(200);
        // Of this one nothing is in memory: its publish looks it up.
        let other = Customer::create(&app.client).await;
        other.publish(&json!({})).await;
    }
    assert!(app.database.number(waiting).await > 1, "lists wait all the while");
    receiver.received(10).await;
    for answer in lists.join_all().await {
        let answer = answer.expect(503);
        assert!(answer.text("detail").contains("this list could not be read in time"), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(app.client.get("/api/v1/health").await.status, 204);
    stuck.close().await.expect("it ends");
    app.client.get("/api/v1/event-type").await.expect(200);
}
