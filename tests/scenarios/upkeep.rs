//! What the hourly upkeep does when something is in its way, or was left half done.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use support::{
    App, Options, Receiver,
    database::{OLD_PARTITION, OLD_PARTITIONS},
    eventually,
    scrape::Scrape,
};

/// Makes a partition of attempts of ten weeks ago.
const OLD_ATTEMPTS: &str = "select ensure_partition('attempt', to_char(week at time zone 'UTC', 'YYYYMMDD'), 'id', uuid_floor(week)::text, uuid_floor(week + interval '168 hours')::text)
    from date_trunc('week', now() - interval '70 days', 'UTC') week";
/// Counts the partitions of attempts that are older than a month.
const OLD_ATTEMPTS_LEFT: &str = "select count(*) from pg_class where relkind = 'r' and relname ~ '^attempt_[0-9]{8}$'
    and relname < 'attempt_' || to_char(now() - interval '31 days', 'YYYYMMDD')";
/// The partition of this week's messages.
const THIS_WEEK: &str = "select 'message_' || to_char(date_trunc('week', now() at time zone 'UTC'), 'YYYYMMDD')";

/// A node that keeps what is older than a month no longer.
fn shorter() -> Options {
    Options { retention: Duration::from_hours(30 * 24), ..Options::default() }
}

async fn gone(app: &App, what: &str, count: &str) {
    eventually(what, async || (app.database.number(count).await == 0).then_some(())).await;
}

/// Detaches the oldest partition of messages as a crash between two statements, or a person, leaves it.
async fn detach_the_oldest(app: &App) {
    let detach = "do $$ begin execute format('alter table message detach partition %I',
        (select relname from pg_class where relkind = 'r' and relname ~ '^message_[0-9]{8}$' order by relname limit 1)); end $$";
    app.database.execute(detach).await;
}

#[tokio::test]
async fn a_long_reader_delays_the_end_of_what_it_reads_and_of_nothing_else() {
    let app = App::start().await;
    app.database.execute(OLD_PARTITION).await;
    app.database.execute(&OLD_PARTITION.replace("70 days", "77 days")).await;
    app.database.execute(OLD_ATTEMPTS).await;
    let mut reader = PgConnection::connect(&app.database.url).await.expect("a connection");
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from message")
        .execute(&mut reader)
        .await
        .expect("a backup reads");

    let node = app.node_with(&shorter()).await;
    gone(&app, "the old attempts are dropped", OLD_ATTEMPTS_LEFT).await;
    let left = async || Scrape::of(&node.client).await.get("partitions_expired").filter(|left| *left >= 2.0);
    eventually("the metrics say that something is left", left).await;
    let pending = "select count(*) from pg_inherits where inhdetachpending";
    eventually("a detachment is begun", async || (app.database.number(pending).await == 1).then_some(())).await;
    let detaching = "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and query ilike 'alter table%detach%'";
    eventually("it is given up", async || (app.database.number(detaching).await == 0).then_some(())).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({})).await;
    receiver.received(1).await;
    node.stop().await;

    drop(reader);
    let node = app.node_with(&shorter()).await;
    gone(&app, "all old messages are dropped", OLD_PARTITIONS).await;
    let none_left = async || (Scrape::of(&node.client).await.get("partitions_expired") == Some(0.0)).then_some(());
    eventually("the metrics say that nothing is left", none_left).await;
}

#[tokio::test]
async fn a_table_that_a_crash_left_alone_is_dropped_and_a_stranger_is_not() {
    let app = App::start().await;
    app.database.execute(OLD_PARTITION).await;
    detach_the_oldest(&app).await;
    let strangers = "create schema other;
        create table other.message (id uuid) partition by range (id);
        create table other.message_20200106 partition of other.message for values from (minvalue) to (maxvalue);
        create table other.attempt_20200106 (id uuid);
        create table message_20200106 (title text);
        create table message_old (like message)";
    app.database.execute(strangers).await;
    let strangers =
        "select count(*) from pg_class where relkind = 'r' and relname in ('message_20200106', 'attempt_20200106', 'message_old')";
    assert_eq!(app.database.number(strangers).await, 4);
    let node = app.node_with(&shorter()).await;
    let ours = format!("{OLD_PARTITIONS} and relname <> 'message_20200106'");
    gone(&app, "what was left alone is dropped", &ours).await;
    let none_left = async || (Scrape::of(&node.client).await.get("partitions_expired") == Some(0.0)).then_some(());
    eventually("upkeep is done", none_left).await;
    assert_eq!(app.database.number(strangers).await, 4, "strangers are left alone");
}

#[tokio::test]
async fn a_table_that_stands_alone_before_its_time_is_attached_with_all_that_is_in_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let first = customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    app.database.nothing_owed().await;
    let two_weeks_old = OLD_PARTITION.replace("70 days", "14 days");
    app.database.execute(&two_weeks_old).await;
    let old = "insert into message (id, tenant_id, application_id, event_type, content_type)
        select uuid_floor(date_trunc('week', now() - interval '14 days', 'UTC') + interval '1 day'), id, id, 'x', 'x' from tenant";
    app.database.execute(old).await;
    detach_the_oldest(&app).await;
    let this_week = app.database.texts(THIS_WEEK).await.remove(0);
    app.database.execute(&format!("alter table message detach partition {this_week}")).await;

    // The next message needs it, and does not wait for the hour.
    customer.publish(&json!({ "n": 2 })).await;
    receiver.received(2).await;
    assert!(customer.messages().await.iter().any(|message| message["id"] == first), "what was in it is there again");
    let _node = app.second_node().await;
    let count = "select count(*) from message where event_type = 'x'";
    eventually("the older one is attached too", async || (app.database.number(count).await == 1).then_some(())).await;
}

/// The partitions of messages, attempts and keys, by the number of the table that each is.
const TABLES: &str = "select c.oid::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent in ('message'::regclass, 'attempt'::regclass, 'idempotency'::regclass) order by 1";

#[tokio::test]
async fn a_short_retention_does_not_make_and_drop_the_same_table_every_hour() {
    let app = App::start().await;
    // Last week's attempts are past their time, and their table is made whenever it is missing.
    let options = Options { retention: Duration::from_secs(1), ..Options::default() };
    let old = "insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url)
        select uuid_floor(date_trunc('week', now(), 'UTC') - interval '1 hour'), uuid_v7(), uuid_v7(), 0, 1, uuid_v7(), uuid_v7(), 0, 1, ''";
    app.database.execute(old).await;
    let node = app.node_with(&options).await;
    let none_left = async |node: &support::Node| {
        let scrape = Scrape::of(&node.client).await;
        (scrape.get("partitions_expired") == Some(0.0)).then_some(())
    };
    gone(&app, "what is past its time is dropped", "select count(*) from attempt").await;
    eventually("upkeep is done", async || none_left(&node).await).await;
    node.stop().await;
    // The next round makes last week's table once more, and from then on it stays.
    let node = app.node_with(&options).await;
    eventually("upkeep is done", async || none_left(&node).await).await;
    node.stop().await;
    let tables = app.database.texts(TABLES).await;
    for _ in 0..2 {
        let node = app.node_with(&options).await;
        eventually("upkeep is done", async || none_left(&node).await).await;
        node.stop().await;
    }
    assert_eq!(app.database.texts(TABLES).await, tables);
}

/// How many pages of a table were looked at, from memory or from disk.
const PAGES_READ: &str =
    "select sum(heap_blks_read + heap_blks_hit) from pg_statio_user_tables where relname in ('event_uid', 'message_key')";

#[tokio::test]
async fn what_refers_to_messages_that_are_gone_is_trimmed_by_reading_each_page_once() {
    let app = App::start().await;
    let rows = "insert into event_uid select gen_random_uuid(), gen_random_uuid(), uuid_floor(now()) from generate_series(1, 180000);
        insert into event_uid select gen_random_uuid(), gen_random_uuid(), uuid_floor(now() - interval '100 days') from generate_series(1, 500);
        insert into event_uid select gen_random_uuid(), gen_random_uuid(), uuid_floor(now()) from generate_series(1, 500);
        insert into message_key select gen_random_uuid(), gen_random_uuid(), uuid_floor(now() - interval '100 days'), gen_random_uuid() from generate_series(1, 500);
        insert into message_key select gen_random_uuid(), gen_random_uuid(), uuid_floor(now()), gen_random_uuid() from generate_series(1, 500)";
    app.database.execute(rows).await;
    app.database.execute("update trimming set below = '00000000-0000-0000-0000-000000000000', passing = null, page = 0").await;
    let pages = app.database.number("(pg_relation_size('event_uid') + pg_relation_size('message_key')) / 8192").await;
    assert!(pages > 1024, "more than one slice");
    app.database.execute("select pg_stat_force_next_flush()").await;
    let before = app.database.number(PAGES_READ).await;

    // No partition is past its time: what is gone may have gone long ago.
    let node = app.second_node().await;
    let done = "select count(*) from trimming where passing is null and below > '00000000-0000-0000-0000-000000000000'";
    eventually("both tables are trimmed", async || (app.database.number(done).await == 2).then_some(())).await;
    node.stop().await;
    let read = async || app.database.number(PAGES_READ).await - before;
    eventually("the session has said what it read", async || (read().await >= pages).then_some(())).await;
    let once = read().await;
    assert!(once <= pages + 5_000, "{once} pages of {pages} were read, with some for each dead row");
    assert_eq!(app.database.number("select (select count(*) from event_uid) + (select count(*) from message_key)").await, 181_000);

    app.database.execute("select pg_stat_force_next_flush()").await;
    let after_count = app.database.number(PAGES_READ).await;
    app.database.execute(OLD_PARTITION).await;
    let node = app.node_with(&shorter()).await;
    gone(&app, "upkeep has been there again", OLD_PARTITIONS).await;
    node.stop().await;
    let read = app.database.number(PAGES_READ).await - after_count;
    assert!(read <= pages + 100, "nothing is read again while no more is gone: {read} of {pages}");
}
