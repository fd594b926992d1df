//! A newer release has migrated the schema: the older one goes on, starts again, and is refused only where it would break.

use std::{borrow::Cow, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Column as _, Connection, Executor as _, PgConnection, SqlSafeStr as _, Statement as _, TypeInfo as _, migrate::Migrator,
};
use support::{
    Customer, Database, Receiver, Reply, cluster,
    customer::message,
    new_tenant,
    processes::{self, Process, ServerProcess, command, environment, run},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// What the next release might do to the schema: it adds. With the oldest program that may still run on it.
fn next_release(oldest_program: i64) -> String {
    format!(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'colours', true, '', 0);
         create table colour (name text primary key);
         alter table application add column colour text;
         alter table endpoint add column colour text not null default 'red';
         alter table message add column colour text;
         alter table queue add column colour text;
         alter table queue_later add column colour text;
         alter table attempt add column colour text;
         alter table idempotency add column colour text;
         create function step_v99() returns void language sql as '';
         update installation set min_program = {oldest_program}"
    )
}

/// The newest migration that this program knows.
async fn known(database: &Database) -> i64 {
    database.number("select max(version) from _sqlx_migrations").await
}

#[tokio::test]
async fn the_previous_release_runs_on_a_schema_that_allows_it_and_starts_again() {
    let database = Database::create().await;
    let tenant = new_tenant();
    let variables = [("POSTHASTE_RETRY_SCHEDULE", "10ms")];
    let mut running = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &variables).await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&running.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let known = known(&database).await;
    database.execute(&next_release(known)).await;

    let body = message(&json!({ "n": 1 }));
    receiver.on("/", [Reply::status(500), Reply::status(200)]);
    let accepted = customer.publish_raw(&body, Some("key")).await.expect(202);
    receiver.received(2).await;
    running.process.signal(Signal::TERM);
    assert!(running.process.ended().await.success());

    let restarted = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &[("POSTHASTE_RETRY_SCHEDULE", "10ms")]).await;
    let customer = customer.through(&restarted.client);
    let replay = customer.publish_raw(&body, Some("key")).await.expect(202);
    assert!(replay.is_replay() && replay.body == accepted.body);
    customer.publish(&json!({ "n": 2 })).await;
    receiver.received(3).await;
    let resend = customer.path(&format!("/msg/{}/endpoint/{endpoint}/resend", accepted.text("id")));
    restarted.client.post(&resend, &Value::Null).await.expect(202);
    receiver.received(4).await;
    database.nothing_owed().await;
    assert_eq!(customer.attempts(&accepted.text("id"), 3).await.len(), 3);

    let (status, out, errors) = run(command(PROGRAM, &["migrate"], &environment(&database.url))).await;
    assert!(status.success() && out.contains("nothing was changed") && out.contains("newer than this release"), "{out}{errors}");
    let rolled_back = Process::spawn(command(PROGRAM, &["serve", "--migrate"], &environment(&database.url))).printed("started").await;
    assert!(rolled_back.contains("started"));
}

#[tokio::test]
async fn a_schema_that_needs_a_newer_release_refuses_an_older_one_in_a_sentence() {
    let database = Database::create().await;
    let known = known(&database).await;
    database.execute(&next_release(known + 1)).await;
    for arguments in [&["serve"][..], &["api"], &["worker"], &["serve", "--migrate"], &["migrate"]] {
        let (status, out, errors) = run(command(PROGRAM, arguments, &environment(&database.url))).await;
        assert!(!status.success(), "{arguments:?}: {out}{errors}");
        let sentence = errors.lines().last().unwrap_or_default();
        for part in ["newer release", &format!("migration {}", known + 1), &format!("knows {known}")] {
            assert!(sentence.contains(part), "{arguments:?} says {part}: {errors}");
        }
    }
    assert_eq!(database.number("select count(*) from _sqlx_migrations").await, known_count(known, &database).await);
}

/// How many migrations there are, with the one of the next release.
async fn known_count(known: i64, database: &Database) -> i64 {
    database.number(&format!("select count(*) + 1 from _sqlx_migrations where version <= {known}")).await
}

/// A database whose schema is that of the previous release, with an application and an endpoint of that time.
async fn previous(own: &cluster::Own, name: &str, schema: i64) -> String {
    let url = own.empty_database(name).await;
    let mut connection = PgConnection::connect(&url).await.expect("a connection");
    let all = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")).await.expect("the migrations can be read");
    let older = all.iter().filter(|migration| migration.version <= schema).cloned().collect();
    Migrator { migrations: Cow::Owned(older), ..Migrator::DEFAULT }.run(&mut connection).await.expect("an older schema");
    url
}

/// What the previous release asks of the schema.
fn previous_release() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("previous/statements.json");
    serde_json::from_slice(&std::fs::read(path).expect("the fixture")).expect("JSON")
}

#[tokio::test]
async fn a_migration_says_whom_it_waits_for_ends_at_a_signal_and_goes_on_when_it_can() {
    let own = cluster::Own::start().await;
    let url = own.empty_database("waiting").await;
    let mut other = PgConnection::connect(&url).await.expect("a connection");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut other).await.expect("a pid");
    let trying = "begin; create table installation (name text); select 'hidden-literal-5512', count(*) from installation";
    sqlx::raw_sql(trying).execute(&mut other).await.expect("somebody tries something out for long");

    let mut migrating = Process::spawn(command(PROGRAM, &["migrate"], &environment(&url)));
    let line = migrating.printed("waits for a lock").await;
    assert!(line.contains(&pid.to_string()) && line.contains("from installation"), "{line}");
    assert!(!migrating.log().contains("hidden-literal"), "{}", migrating.log());
    migrating.signal(Signal::TERM);
    assert_eq!(migrating.ended().await.code(), Some(143), "{}", migrating.log());

    let mut migrating = Process::spawn(command(PROGRAM, &["migrate"], &environment(&url)));
    migrating.printed("waits for a lock").await;
    drop(other);
    assert!(migrating.printed("applied 0001").await.contains("schema"));
    assert!(migrating.ended().await.success(), "{}", migrating.log());
    let (status, out, _) = run(command(PROGRAM, &["migrate"], &environment(&url))).await;
    assert!(status.success() && out.contains("nothing to do"), "{out}");
}

#[tokio::test]
async fn what_an_earlier_release_stored_is_there_after_an_upgrade() {
    let own = cluster::Own::start().await;
    let url = previous(&own, "upgraded", previous_release()["schema"].as_i64().expect("a number")).await;
    let rows = "insert into tenant (id, subject) values ('01890a5d-ac96-774b-bcce-b302099a8057', 'org_upgraded');
        insert into application (id, tenant_id, uid, name) values ('01890a5d-ac96-774b-bcce-b302099a8058', '01890a5d-ac96-774b-bcce-b302099a8057', 'old', 'old')";
    Database::existing(&url).execute(rows).await;
    let (status, out, errors) = run(command(PROGRAM, &["migrate"], &environment(&url))).await;
    assert!(status.success(), "{out}{errors}");
    let server = ServerProcess::start(PROGRAM, "serve", &url, "org_upgraded", &[]).await;
    assert_eq!(server.client.get("/api/v1/app/old").await.expect(200).text("name"), "old");
    let receiver = Receiver::start().await;
    server.client.post("/api/v1/app/old/endpoint", &json!({ "url": receiver.url("/") })).await.expect(201);
    server.client.post("/api/v1/app/old/msg", &message(&json!({}))).await.expect(202);
    receiver.received(1).await;
}

/// How Postgres calls a type that the recorded queries call by its name in the library.
fn type_name(recorded: &str) -> String {
    let name = recorded.to_uppercase();
    name.strip_suffix("ARRAY").map_or(name.clone(), |of| format!("{of}[]"))
}

#[tokio::test]
async fn every_statement_of_the_previous_release_means_on_this_schema_what_it_meant() {
    let database = Database::create().await;
    let mut connection = PgConnection::connect(&database.url).await.expect("a connection");
    let previous = previous_release();
    let statements = previous["statements"].as_array().expect("a list");
    assert!(statements.len() > 90, "all of them");
    let mut needed = Vec::new();
    for statement in statements {
        let query = statement["query"].as_str().expect("a text");
        let prepared = (&mut connection).prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await;
        let prepared = prepared.unwrap_or_else(|error| panic!("it can no longer be run: {error}\n{query}"));
        let columns: Vec<_> =
            prepared.columns().iter().map(|column| (column.name().to_owned(), column.type_info().name().to_owned())).collect();
        let recorded = statement["columns"].as_array().expect("a list").iter();
        let text = |column: &Value, member: &str| column[member].as_str().expect("a text").to_owned();
        let recorded: Vec<_> = recorded.map(|column| (text(column, "name"), type_name(&text(column, "type")))).collect();
        assert_eq!(columns, recorded, "{query}");
        needed.extend(["step_v", "claim_v", "promote_v", "record_health_v"].iter().filter(|function| query.contains(**function)));
    }
    for function in ["step_v", "claim_v", "promote_v", "record_health_v"] {
        assert!(needed.contains(&&function), "the hot path is among them: {function}");
    }
}

#[tokio::test]
async fn a_fresh_process_says_which_migrations_it_applied() {
    let own = cluster::Own::start().await;
    let url = own.empty_database("fresh").await;
    let (status, out, errors) = run(command(PROGRAM, &["migrate"], &environment(&url))).await;
    assert!(status.success() && out.contains("applied 0001 schema") && out.contains("is current"), "{out}{errors}");
    let tenant = new_tenant();
    let mut server = ServerProcess::spawn(PROGRAM, "serve", &url, &tenant, processes::free_address(), &[]);
    server.ready().await;
}
