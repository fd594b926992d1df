//! Statistics say what happened, no more and no less: whatever processes did it, when one of them dies, and after years.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::{
    App, Client, Customer, Database, Gate, Node, Options, Receiver, Reply, Roles, cluster, customer::message, eventually, new_tenant,
    processes::ServerProcess, proxy::Proxy, token,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// Two retries at once, and little patience with receivers.
const STORMY: [(&str, &str); 2] = [("POSTHASTE_RETRY_SCHEDULE", "50ms,100ms"), ("POSTHASTE_REQUEST_TIMEOUT", "1s")];

/// What was counted of each endpoint: deliveries, 2xx, 3xx, 4xx, 5xx, without an answer, unknown, canceled, discarded; and response times.
const COUNTED: &str = "select format('%s: %s %s %s %s %s %s %s %s %s, %s', endpoint_id, sum(deliveries), sum(succeeded), sum(redirected),
      sum(client_errors), sum(server_errors), sum(timed_out + refused + blocked + other_failures), sum(unknown), sum(canceled), sum(discarded),
      array[sum(under_16_ms), sum(under_32_ms), sum(under_64_ms), sum(under_128_ms), sum(under_256_ms), sum(under_512_ms), sum(under_1024_ms),
        sum(under_2048_ms), sum(under_4096_ms), sum(under_8192_ms), sum(under_16384_ms), sum(slower)])
    from endpoint_rollup group by endpoint_id order by 1";
/// The same of what is stored.
const STORED: &str = "with owed as (
      select endpoint_id, message_id, run from queue union select endpoint_id, message_id, run from queue_later
      union select endpoint_id, message_id, run from attempt)
    select format('%s: %s %s %s %s %s %s %s %s %s, %s', o.endpoint_id, o.deliveries, a.ok, a.redirected, a.client, a.server, a.silent, a.unknown,
        a.canceled, a.discarded, array(select (select count(*) from attempt t where t.endpoint_id = o.endpoint_id and t.status_code > 0
          and width_bucket(t.duration_ms, array[16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]) = bucket) from generate_series(0, 11) bucket))
      from (select endpoint_id, count(*) as deliveries from owed group by endpoint_id) o
      cross join lateral (select
        count(*) filter (where status_code between 200 and 299) as ok, count(*) filter (where status_code between 300 and 399) as redirected,
        count(*) filter (where status_code between 400 and 499) as client, count(*) filter (where status_code between 500 and 599) as server,
        count(*) filter (where outcome = 1 and status_code = 0) as silent, count(*) filter (where outcome = 2) as unknown,
        count(*) filter (where outcome = 3) as canceled, count(*) filter (where outcome = 4) as discarded
        from attempt a where a.endpoint_id = o.endpoint_id) a order by 1";
/// What was counted of each application and event type: messages, duplicates, deliveries.
const COUNTED_TYPES: &str = "select format('%s %s: %s %s %s', application_id, event_type, sum(messages), sum(duplicates), sum(deliveries))
    from application_rollup group by application_id, event_type order by 1";
/// The same of what is stored.
const STORED_TYPES: &str = "with owed as (
      select endpoint_id, message_id, run from queue union select endpoint_id, message_id, run from queue_later
      union select endpoint_id, message_id, run from attempt)
    select format('%s %s: %s %s %s', application_id, event_type, count(*), count(duplicate_of), sum((select count(*) from owed o where o.message_id = m.id)))
      from message m group by application_id, event_type order by 1";

/// Waits until what was counted is what is stored.
async fn agree(database: &Database) {
    for (counted, stored) in [(COUNTED, STORED), (COUNTED_TYPES, STORED_TYPES)] {
        let mut last = (Vec::new(), Vec::new());
        for _ in 0..200 {
            last = (database.texts(counted).await, database.texts(stored).await);
            if last.0 == last.1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(last.0, last.1, "counted, and stored");
    }
}

async fn stats(client: &Client, customer: &Customer, endpoint: &str) -> Value {
    client.get(&customer.path(&format!("/endpoint/{endpoint}/stats"))).await.expect(200).json()
}

/// Waits until an endpoint has this number of successes.
async fn succeeded(customer: &Customer, endpoint: &str, count: i64) {
    let look = async || Some(stats(&customer.client, customer, endpoint).await).filter(|stats| stats["success"] == count);
    eventually(&format!("{count} successes are counted"), look).await;
}

/// Publishes messages of which each third repeats the key of the one before it; returns the last duplicate.
async fn publish_with_duplicates(customer: &Customer, count: usize) -> String {
    let mut duplicate = String::new();
    for number in 0..count {
        let key = format!("order-{}", if number % 3 == 2 { number - 1 } else { number });
        let event_type = ["invoice.paid", "user.signup"][number % 2];
        let body = json!({ "eventType": event_type, "payload": { "n": number }, "idempotency_key": key });
        let id = customer.publish_raw(&body, None).await.expect(202).text("id");
        if number % 3 == 2 {
            duplicate = id;
        }
    }
    duplicate
}

#[tokio::test]
async fn after_a_storm_the_statistics_agree_with_what_is_stored() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let mut api = ServerProcess::start(PROGRAM, "api", &database.url, &tenant, &STORMY).await;
    let mut worker = ServerProcess::start(PROGRAM, "worker", &database.url, &tenant, &STORMY).await;
    let receiver = Receiver::start().await;
    let gate = Gate::default();
    receiver.on("/fails", [Reply::status(500)]);
    receiver.on("/hangs", [Reply::hang()]);
    receiver.on("/moved", [301, 404, 301, 404, 301, 404, 200].map(Reply::status));
    receiver.on("/slow", [Reply::status(200).after(std::time::Duration::from_millis(40))]);
    receiver.on("/stuck", [Reply::status(200).held_by(&gate)]);
    let customer = Customer::create(&api.client).await;
    let mut endpoints = BTreeMap::new();
    for path in ["/", "/fails", "/hangs", "/moved", "/slow", "/off"] {
        endpoints.insert(path, customer.endpoint(&receiver.url(path)).await);
    }
    let throttled = json!({ "url": receiver.url("/throttled"), "throttleRate": 30, "eventTypes": null });
    endpoints.insert("/throttled", customer.endpoint_with(&throttled).await);
    endpoints.insert("/nobody", customer.endpoint(&format!("http://{}/", support::processes::free_address())).await);

    let duplicate = publish_with_duplicates(&customer, 18).await;
    api.client.patch(&customer.path(&format!("/endpoint/{}", endpoints["/off"])), &json!({ "disabled": true })).await.expect(200);
    let rescue =
        format!("update queue set due_at = now() where lease is not null and endpoint_id <> posthaste_id('{}')", endpoints["/hangs"]);
    database.execute(&rescue).await;
    let other = Customer::create(&api.client).await;
    let stuck = other.endpoint(&receiver.url("/stuck")).await;
    other.publish(&json!({})).await;
    receiver.received_at("/stuck", 1).await;
    database.execute(&rescue).await;
    receiver.received_at("/stuck", 2).await;
    gate.open();
    publish_with_duplicates(&other, 6).await;
    api.client.request("POST", &customer.path(&format!("/msg/{duplicate}/deliver"))).send().await.expect(202);
    let resend = customer.path(&format!("/msg/{duplicate}/endpoint/{}/resend", endpoints["/slow"]));
    api.client.request("POST", &resend).send().await.expect(202);

    let busy = "select count(*) from queue q left join endpoint_health h using (endpoint_id) where coalesce(h.state, 0) <> 1";
    let quiet = async || {
        database.execute("update queue_later set due_at = now()").await;
        (database.number(busy).await == 0 && database.number("select count(*) from queue_later").await == 0).then_some(())
    };
    eventually("the storm is over", quiet).await;
    agree(&database).await;
    let shown = stats(&api.client, &customer, &endpoints["/hangs"]).await;
    let number = |value: &Value| value.as_i64().expect("a number");
    let silent = number(&shown["attempts"]["timeout"]) + number(&shown["attempts"]["unknown"]);
    assert!(silent > 0 && silent == number(&shown["fail"]), "{shown}");
    let shown = stats(&api.client, &other, &stuck).await;
    assert_eq!((&shown["attempts"]["unknown"], &shown["success"], &shown["deliveries"]), (&json!(1), &json!(5), &json!(5)), "{shown}");
    let total = |kind: &str| format!("select sum({kind}) from endpoint_rollup");
    for kind in ["redirected", "client_errors", "server_errors", "timed_out", "refused", "unknown", "canceled"] {
        assert!(database.number(&total(kind)).await > 0, "the storm was to bring {kind}");
    }
    for server in [&mut worker, &mut api] {
        server.process.signal(Signal::TERM);
        server.process.ended().await;
    }
    agree(&database).await;
}

#[tokio::test]
async fn a_server_that_is_stopped_loses_no_count_and_one_that_is_killed_those_of_its_last_second() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let receiver = Receiver::start().await;
    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &STORMY).await;
    let customer = Customer::create(&server.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    for number in 0..10 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(10).await;
    database.nothing_owed().await;
    server.process.signal(Signal::TERM);
    server.process.ended().await;
    assert_eq!(database.texts(COUNTED).await, database.texts(STORED).await, "nothing waits for the next second");
    assert_eq!(database.texts(COUNTED_TYPES).await, database.texts(STORED_TYPES).await);

    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &STORMY).await;
    let customer = customer.through(&server.client);
    customer.publish(&json!({ "n": 10 })).await;
    succeeded(&customer, &endpoint, 11).await;
    for number in 11..16 {
        customer.publish(&json!({ "n": number })).await;
    }
    server.process.kill().await;
    database.execute("update queue set due_at = now()").await;
    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &STORMY).await;
    database.nothing_owed().await;
    server.process.signal(Signal::TERM);
    server.process.ended().await;
    let counted = database.number("select sum(deliveries) from endpoint_rollup").await;
    assert!((11..=16).contains(&counted), "{counted} of 16");
    let [counted, stored] = ["select sum(succeeded) from endpoint_rollup", "select count(*) from attempt where outcome = 0"];
    let (counted, stored) = (database.number(counted).await, database.number(stored).await);
    assert!((11..=stored).contains(&counted), "{counted} of {stored}");
}

/// Makes the end of each transaction that first adds to the statistics wait.
const HOLD_COMMITS: &str = "create function hold_commit() returns trigger language plpgsql as
      $$ begin perform pg_advisory_xact_lock_shared(7234567890123); return null; end $$;
    create constraint trigger hold_commit after insert on rollup_writer deferrable initially deferred for each row execute function hold_commit()";

#[tokio::test]
async fn what_was_written_by_a_session_whose_end_was_lost_counts_once() {
    let database = Database::create().await;
    let proxy = Proxy::to(cluster::place_of(&database.url)).await;
    let url = cluster::url_through(&database.url, proxy.address);
    let receiver = Receiver::start().await;
    database.execute(HOLD_COMMITS).await;
    let hold = database.hold_again().await;
    let node = Node::start(&url, &Options::default(), &token(&new_tenant())).await;
    let customer = Customer::create(&node.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    hold.holds(1).await;
    proxy.cut();
    hold.release().await;
    eventually("it is committed", async || (database.number("select count(*) from rollup_writer").await == 1).then_some(())).await;
    proxy.mend();
    let publish = async || (customer.publish_raw(&message(&json!({ "n": 2 })), Some("a key")).await.status == 202).then_some(());
    eventually("messages are accepted again", publish).await;
    receiver.received(2).await;
    database.nothing_owed().await;
    succeeded(&customer, &endpoint, 2).await;
    agree(&database).await;
    node.stop().await;
    agree(&database).await;
}

#[tokio::test]
async fn counts_that_cannot_be_added_are_added_later() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let hold = app.database.hold_inserts("application_rollup").await;
    for number in 0..5 {
        customer.publish(&json!({ "n": number })).await;
    }
    receiver.received(5).await;
    app.database.nothing_owed().await;
    hold.holds(1).await;
    let killed = "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like 'insert into application_rollup%' offset 0) waiting";
    assert_eq!(app.database.number(killed).await, 1);
    hold.release().await;
    succeeded(&customer, &endpoint, 5).await;
    agree(&app.database).await;
}

/// Counts of three endpoints, of three minutes each hour of the last ten days, and of two applications now and then; and some of long ago.
const HISTORY: &str = "insert into endpoint_rollup (endpoint_id, tenant_id, at, deliveries, succeeded, slower)
      select lpad(to_hex(e), 32, '0')::uuid, uuid_v7(), date_trunc('minute', now()) - make_interval(hours => h, mins => m), h + m, e, m
        from generate_series(1, 3) e, generate_series(0, 240) h, generate_series(0, 54, 27) m;
    insert into application_rollup (application_id, tenant_id, at, event_type, messages, duplicates, deliveries)
      select lpad(to_hex(a), 32, '0')::uuid, uuid_v7(), date_trunc('minute', now()) - make_interval(hours => h, mins => m), 'type-' || t, t, 1, h
        from generate_series(1, 2) a, generate_series(0, 220, 20) h, generate_series(0, 36, 36) m, generate_series(m, m + 130) t;
    update endpoint_rollup set tenant_id = endpoint_id;
    update application_rollup set tenant_id = application_id;
    insert into endpoint_rollup (endpoint_id, tenant_id, at, span, deliveries) values
      (uuid_v7(), uuid_v7(), date_trunc('day', now() - interval '92 days', 'UTC'), 2, 1), (uuid_v7(), uuid_v7(), date_trunc('day', now() - interval '80 days', 'UTC'), 2, 1)";
/// All sums.
const SUMS: &str = "select format('%s: %s %s %s', endpoint_id, sum(deliveries), sum(succeeded), sum(slower)) from endpoint_rollup
      where at > now() - interval '90 days' group by endpoint_id
    union all select format('%s: %s %s %s', application_id, sum(messages), sum(duplicates), sum(deliveries)) from application_rollup group by application_id order by 1";
/// All rows that are not minutes.
const FOLDED: &str =
    "select r::text from endpoint_rollup r where span > 0 union all select r::text from application_rollup r where span > 0 order by 1";

#[tokio::test]
async fn minutes_become_hours_and_hours_days_and_every_sum_is_kept() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    app.database.execute(HISTORY).await;
    let sums = app.database.texts(SUMS).await;
    let worker = Options { roles: Roles::Worker, ..Options::default() };
    let (first, second) = tokio::join!(app.node_with(&worker), app.node_with(&worker));
    let old = "select (select count(*) from endpoint_rollup where span = 0 and at < date_trunc('hour', now() - interval '3 hours', 'UTC')
          or span = 1 and at < date_trunc('day', now() - interval '8 days', 'UTC') or at < now() - interval '91 days')
        + (select count(*) from application_rollup where span = 0 and at < date_trunc('hour', now() - interval '3 hours', 'UTC')
          or span = 1 and at < date_trunc('day', now() - interval '8 days', 'UTC'))";
    eventually("all that is old is folded", async || (app.database.number(old).await == 0).then_some(())).await;
    assert_eq!(app.database.texts(SUMS).await, sums);
    for span in 0..=2 {
        assert!(app.database.number(&format!("select count(*) from endpoint_rollup where span = {span}")).await > 0, "{span}");
    }
    let misplaced = "select count(*) from endpoint_rollup where at <> date_trunc(case span when 0 then 'minute' when 1 then 'hour' else 'day' end, at, 'UTC')";
    assert_eq!(app.database.number(misplaced).await, 0);
    let types =
        "select max(types) from (select count(*) as types from application_rollup where span > 0 group by application_id, span, at) named";
    assert_eq!(app.database.number(types).await, 101, "the types with the most messages, and the rest under one name");
    assert!(app.database.number("select count(*) from application_rollup where span > 0 and event_type = ''").await > 0);

    let folded = app.database.texts(FOLDED).await;
    first.stop().await;
    second.stop().await;
    app.database
        .execute("insert into endpoint_rollup (endpoint_id, tenant_id, at) values (uuid_v7(), uuid_v7(), now() - interval '100 days')")
        .await;
    let _third = app.node_with(&worker).await;
    eventually("upkeep has been there again", async || (app.database.number(old).await == 0).then_some(())).await;
    assert_eq!(app.database.texts(FOLDED).await, folded, "there is nothing to do twice");
    assert_eq!(app.database.texts(SUMS).await, sums);
}

#[tokio::test]
async fn statistics_are_of_a_range_and_of_the_tenant_alone() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({})).await;
    succeeded(&customer, &endpoint, 1).await;
    let path = customer.path(&format!("/endpoint/{endpoint}/stats"));
    app.database.execute("update endpoint_rollup set at = at - interval '40 days'").await;
    assert_eq!(app.client.get(&path).await.expect(200).json()["success"], 0, "by default, of four weeks");
    let since = chrono::Utc::now() - chrono::TimeDelta::days(41);
    let since = since.format("%Y-%m-%dT%H:%M:%SZ");
    assert_eq!(app.client.get(&format!("{path}?since={since}")).await.expect(200).json()["success"], 1);
    assert_eq!(app.client.get(&format!("{path}?since={since}&until={since}")).await.expect(200).json()["success"], 0);
    let refused = app.client.get(&format!("{path}?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z")).await.expect(422).json();
    assert_eq!(refused["detail"][0]["loc"], json!(["query", "until"]), "{refused}");
    app.client.with_token(&token(&new_tenant())).get(&path).await.expect(404);

    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({})).await;
    customer.publish(&json!({})).await;
    app.database.execute("update queue set lease = uuid_v7(), due_at = now() + interval '1 hour' where message_id = (select min(message_id::text)::uuid from queue)").await;
    let shown = stats(&app.client, &customer, &endpoint).await;
    assert_eq!((&shown["pending"], &shown["sending"]), (&json!(1), &json!(1)), "what is owed at the moment");
}

/// How many endpoints are busy in one second, and for how many seconds.
const BUSY: i64 = 10_000;
const SECONDS: i64 = 12;

#[tokio::test]
async fn counting_of_ten_thousand_busy_endpoints_leaves_indexes_and_tables_small() {
    let database = Database::create().await;
    let recorded = crate::page_plans::recorded();
    let (sql, parameters) =
        recorded.iter().find(|(sql, _)| sql.starts_with("insert into endpoint_rollup as r (endpoint_id, at,")).expect("the statement");
    let mut session = PgConnection::connect(&database.url).await.expect("a session");
    // While it looks at a table, the old versions of its rows cannot go, which here come within seconds.
    run(&mut session, "alter table endpoint_rollup set (autovacuum_enabled = off)".into()).await;
    let prepare = format!("prepare added ({}) as {sql}", crate::page_plans::types(parameters).join(", "));
    run(&mut session, prepare).await;
    let list = |items: Vec<String>| format!("'{{{}}}'", items.join(","));
    let counts = list(vec!["1".to_owned(); 24_000]);
    for _ in 0..SECONDS {
        let minute = database.texts("select date_trunc('minute', now(), 'UTC')::text").await.remove(0);
        let at = list(vec![format!("\"{minute}\""); 1_000]);
        for first in (1..=BUSY).step_by(1_000) {
            let ids = list((first..first + 1_000).map(|number| format!("{number:032x}")).collect());
            run(&mut session, format!("execute added ({ids}, {at}, {ids}, {counts}, 24)")).await;
        }
    }
    run(&mut session, "select pg_stat_force_next_flush()".into()).await;
    let rows = BUSY * SECONDS;
    assert_eq!(database.number("select sum(deliveries + slower) from endpoint_rollup").await, 2 * rows, "each count is in its column");
    let updated =
        async |what: &str| database.number(&format!("select {what} from pg_stat_user_tables where relname = 'endpoint_rollup'")).await;
    let all = async || (updated("n_tup_upd").await >= rows - 2 * BUSY).then_some(());
    eventually("the session has said what it did", all).await;
    let (hot, all) = (updated("n_tup_hot_upd").await, updated("n_tup_upd").await);
    let sizes =
        database.texts("select format('%s + %s', pg_relation_size('endpoint_rollup'), pg_relation_size('endpoint_rollup_pkey'))").await;
    eprintln!("rollups: {hot} of {all} updates without an index entry; {sizes:?} bytes");
    // All but a few, if nothing else runs on the cluster. While a transaction of another database is as old as the last round, old versions stay,
    // and a page has room for one new version of each of its rows: then it is every second round.
    assert!(hot * 2 >= all, "{hot} of {all}");
}

async fn run(session: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(session).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}
