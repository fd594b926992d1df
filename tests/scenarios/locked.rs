//! Somebody's session locks rows that a result is to be written to, and does not go on: only that result waits.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use support::{App, Attempt, Gate, Options, Receiver, Reply, eventually};

/// How long a publish may take: far longer than it does, and less than its lock would keep it waiting.
const SPEED: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_result_whose_row_is_locked_waits_alone_and_is_recorded_once() {
    for rows in ["queue", "attempt"] {
        let app = App::with(Options::retries(1)).await;
        let receiver = Receiver::start().await;
        let gate = Gate::default();
        receiver.on("/", [Reply::status(500), Reply::status(200).held_by(&gate)]);
        let customer = app.customer().await;
        customer.endpoint(&receiver.url("/")).await;
        let other = app.customer().await;
        other.endpoint(&receiver.url("/other")).await;
        let message = customer.publish(&json!({ "n": 1 })).await;
        receiver.received(2).await;
        // As somebody at `psql` would who looks at a delivery, begins to change it, and goes for lunch.
        let mut stuck = PgConnection::connect(&app.database.url).await.expect("a session");
        let lock = format!("begin; select * from {rows} for update");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut stuck).await.expect("locked rows");
        gate.open();
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("the result meets the lock", async || (app.database.number(waiting).await > 0).then_some(())).await;
        for number in 0..50 {
            let begun = Instant::now();
            other.publish(&json!({ "n": number })).await;
            assert!(begun.elapsed() < SPEED, "publish {number} took {:?} while a row of {rows} was locked", begun.elapsed());
        }
        // The results of others go on, too.
        let arrived = async || (receiver.so_far().len() == 52).then_some(());
        eventually("the others' webhooks arrive", arrived).await;
        eventually("and are recorded", async || (app.database.owed().await == 1).then_some(())).await;
        assert_eq!(customer.attempts_so_far(&message).await.len(), 1, "it has not been recorded");
        assert_eq!(app.client.get("/api/v1/health").await.status, 204);
        stuck.close().await.expect("it ends");
        let attempts = customer.attempts(&message, 2).await;
        app.database.nothing_owed().await;
        assert_eq!(attempts.iter().map(Attempt::code).collect::<Vec<_>>(), [500, 200]);
        assert_eq!(customer.attempts_so_far(&message).await.len(), 2, "once");
        assert_eq!(receiver.so_far().len(), 52, "and it was sent once");
    }
}

#[tokio::test]
async fn a_process_that_stops_records_what_was_set_aside_if_it_can() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/", [Reply::status(200).held_by(&gate)]);
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    let mut stuck = PgConnection::connect(&app.database.url).await.expect("a session");
    sqlx::raw_sql("begin; select * from queue for update").execute(&mut stuck).await.expect("locked rows");
    gate.open();
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the result meets the lock", async || (app.database.number(waiting).await > 0).then_some(())).await;
    let second = app.second_node().await;
    let stopping = tokio::spawn(app.node.stop());
    stuck.close().await.expect("it ends");
    stopping.await.expect("it stops");
    assert_eq!(app.database.owed().await, 0, "recorded before the process ended");
    let attempts = customer.through(&second.client).attempts(&message, 1).await;
    assert_eq!(attempts[0].code(), 200);
}
