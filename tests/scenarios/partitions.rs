//! Time-sliced tables: made ahead, made again when one is missing, dropped when their time is over.

use std::time::Duration;

use serde_json::json;
use support::{App, Options, Receiver};

/// The partitions of today, which every write needs.
const TODAYS: &str = "select inhrelid::regclass::text from pg_inherits
    where inhrelid::regclass::text in ('message_' || to_char(date_trunc('week', now() at time zone 'UTC'), 'YYYYMMDD'),
      'attempt_' || to_char(date_trunc('week', now() at time zone 'UTC'), 'YYYYMMDD'), 'idempotency_' || to_char(now() at time zone 'UTC', 'YYYYMMDD'))";

#[tokio::test]
async fn a_missing_partition_is_made_and_nobody_notices() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let todays = app.database.texts(TODAYS).await;
    assert_eq!(todays.len(), 3, "{todays:?}");
    app.database.execute(&format!("drop table {}", todays.join(", "))).await;
    let body = support::customer::message(&json!({ "n": 1 }));
    let accepted = customer.publish_raw(&body, Some("key")).await.expect(202);
    receiver.received(1).await;
    assert_eq!(customer.attempts(&accepted.text("id"), 1).await[0].code(), 200);
    assert!(customer.publish_raw(&body, Some("key")).await.is_replay());
    app.database.execute(&format!("drop table {}", todays.iter().find(|name| name.starts_with("idem")).expect("a name"))).await;
    app.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await.expect(201);
    assert_eq!(app.database.texts(TODAYS).await.len(), 3);
}

#[tokio::test]
async fn partitions_are_made_four_weeks_ahead_and_dropped_past_the_retention() {
    let app = App::start().await;
    let ahead = async |table: &str, days: u32| {
        let sql = format!(
            "select count(*) from pg_inherits where inhrelid::regclass::text = '{table}_' || to_char(date_trunc('{}', now() + interval '{days} days', 'UTC') at time zone 'UTC', 'YYYYMMDD')",
            if table == "idempotency" { "day" } else { "week" }
        );
        app.database.number(&sql).await
    };
    for table in ["message", "attempt", "idempotency"] {
        assert_eq!(ahead(table, 28).await, 1, "{table}");
    }
    let old = support::database::OLD_PARTITION;
    app.database.execute(old).await;
    app.database.execute("insert into message (id, tenant_id, application_id, event_type, content_type) select uuid_floor(date_trunc('week', now() - interval '70 days', 'UTC') + interval '1 day'), id, id, 'x', 'x' from tenant").await;
    let is_there = support::database::OLD_PARTITIONS;
    let _shorter = app.node_with(&Options { retention: Duration::from_hours(30 * 24), ..Options::default() }).await;
    support::eventually("the old partition is dropped", async || (app.database.number(is_there).await == 0).then_some(())).await;
    assert_eq!(ahead("message", 0).await, 1, "today's is not");
}

/// Makes the partition of the keys of four days ago, with one that has expired in it.
const FOUR_DAYS_AGO: &str = "select ensure_partition('idempotency', to_char(day at time zone 'UTC', 'YYYYMMDD'), 'created_at', day::text, (day + interval '24 hours')::text)
    from date_trunc('day', now() - interval '4 days', 'UTC') day;
    insert into idempotency (k, tenant_id, created_at, expires_at, fingerprint, status, ref)
    values (gen_random_uuid(), gen_random_uuid(), now() - interval '4 days', now() - interval '3 days', gen_random_uuid(), 202, gen_random_uuid())";

#[tokio::test]
async fn keys_are_dropped_by_the_day_when_no_policy_remembers_any_of_them() {
    let app = App::start().await;
    let old = async || app.database.number("select count(*) from idempotency where created_at < now() - interval '3 days'").await;
    app.database.execute(FOUR_DAYS_AGO).await;
    let restarted = app.second_node().await;
    support::eventually("the old keys are gone", async || (old().await == 0).then_some(())).await;
    restarted.stop().await;
    app.client.put("/api/v1/idempotency/policy", &json!({ "ttlSeconds": 604_800 })).await.expect(200);
    app.database.execute(FOUR_DAYS_AGO).await;
    app.database.execute(support::database::OLD_PARTITION).await;
    let _restarted = app.node_with(&Options { retention: Duration::from_hours(30 * 24), ..Options::default() }).await;
    let is_there = support::database::OLD_PARTITIONS;
    support::eventually("upkeep has been there", async || (app.database.number(is_there).await == 0).then_some(())).await;
    assert_eq!(old().await, 1, "a tenant's keys are remembered for seven days");
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_refused_and_its_batch_is_accepted() {
    let app = App::start().await;
    app.database.execute("alter table message add constraint no_poison check (event_type <> 'poison')").await;
    let customer = app.customer().await;
    let publish = async |event_type: &str| customer.publish_raw(&json!({ "eventType": event_type, "payload": {} }), None).await.status;
    let (fine, poison, also_fine) = tokio::join!(publish("fine"), publish("poison"), publish("fine"));
    assert_eq!([fine, poison, also_fine], [202, 500, 202]);
    assert_eq!(customer.messages().await.len(), 2);
}
