//! Postgres has no room for more locks: what does not fit in one batch is written in several.

use futures::future::join_all;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use support::{Customer, Database, Node, Options, Receiver, cluster, customer::message, new_tenant, token};

use crate::ONE_AT_A_TIME;

/// How many messages wait while the first batch is being written: with three names each, too many locks for what is left.
const WAITING: usize = 240;
/// How many locks are left: enough for a part of them, beside those of the tables.
const LEFT: i32 = 500;
/// Takes advisory locks until there is no room for another, then gives some back.
const FILL: &str = "
    do $$ declare taken integer := 0;
    begin
      loop
        begin
          perform pg_advisory_lock(-1, taken);
          taken := taken + 1;
        exception when out_of_memory then exit;
        end;
      end loop;
      for number in taken - $LEFT .. taken - 1 loop
        perform pg_advisory_unlock(-1, number);
      end loop;
    end $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_lock_table_parts_the_batch_and_no_client_notices() {
    let _one = ONE_AT_A_TIME.lock().await;
    let own = cluster::Own::start().await;
    let url = own.database("crash").await;
    let database = Database::existing(&url);
    let node = Node::start(&url, &Options::default(), &token(&new_tenant())).await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let publish = async |number: usize| {
        let mut body = message(&json!({ "number": number }));
        body["eventId"] = format!("event-{number}").into();
        body["idempotency_key"] = format!("order-{number}").into();
        customer.publish_raw(&body, Some(&format!("key-{number}"))).await
    };
    let hold = database.hold_inserts("message").await;
    let mut side = PgConnection::connect(&url).await.expect("a side connection");
    let (answers, ()) = tokio::join!(join_all((0..=WAITING).map(publish)), async {
        hold.holds(1).await;
        // A round trip through the server: those that came before it wait for the next batch by then.
        node.client.get("/api/v1/health/ping").await.expect(204);
        let fill = sqlx::AssertSqlSafe(FILL.replace("$LEFT", &LEFT.to_string()));
        sqlx::raw_sql(fill).execute(&mut side).await.expect("locks");
        hold.release().await;
    });
    for answer in answers {
        answer.expect(202);
    }
    sqlx::raw_sql("select pg_advisory_unlock_all()").execute(&mut side).await.expect("unlocked");
    receiver.received(WAITING + 1).await;
    database.nothing_owed().await;
    assert_eq!((customer.messages().await.len(), receiver.so_far().len()), (WAITING + 1, WAITING + 1));
    node.stop().await;
}
