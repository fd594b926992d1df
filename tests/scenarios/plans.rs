//! What the statements of the hot path read does not grow with what is stored: on a short queue, on one that was filled a
//! moment ago and has no statistics, and on one of a million rows. Nor does a page of the messages with one key.
//!
//! Two sessions ask: one that has planned everything while the tables were small, and the queue's indexes larger than they had
//! to be, and keeps those plans; and a new one. A scan or a sort of a whole table would show, as a sequential scan or as pages
//! read.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use support::{App, Customer, Options, Roles, eventually, scrape::Scrape};

/// How many rows are due for one endpoint, and how many sleep, on 10,000 endpoints, when the queue is large.
const LARGE: usize = 500_000;
/// How many new messages and how many results one batch has.
const BATCH: usize = 32;
/// The functions of the hot path without their versions, and the most pages that a call may touch.
const STATEMENTS: [(&str, i64); 4] = [("step", 3_000), ("promote", 25_000), ("claim", 5_000), ("cancel", 25_000)];
/// The token under which the results of the batch were sent.
const LEASE: &str = "11111111-1111-4111-8111-111111111111";

/// The token of a process that died.
const ABANDONED: &str = "22222222-2222-4222-8222-222222222222";

/// What a call cost.
#[derive(Debug)]
struct Cost {
    pages: i64,
    sequential_scans: Vec<String>,
}

/// Whose rows they are.
struct Ids {
    tenant: String,
    application: String,
    endpoint: String,
    /// An endpoint that is disabled.
    disabled: String,
}

async fn text(connection: &mut PgConnection, sql: String) -> String {
    let row = sqlx::query(AssertSqlSafe(sql.clone())).fetch_one(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    row.get(0)
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// What each parameter is given, as SQL.
fn arguments(ids: &Ids) -> BTreeMap<&'static str, String> {
    let Ids { tenant, application, endpoint, .. } = ids;
    let each = |sql: &str| format!("array(select {sql} from generate_series(1, {BATCH}) i)");
    let leased = |column: &str| format!("array(select {column} from queue where lease = '{LEASE}' order by message_id limit {BATCH})");
    let one = |id: &str| format!("array['{id}'::uuid]");
    BTreeMap::from([
        ("p_id", each("uuid_v7()")),
        ("p_tenant", each(&format!("'{tenant}'::uuid"))),
        ("p_application", each(&format!("'{application}'::uuid"))),
        ("p_event_type", each("'invoice.paid'::text")),
        ("p_event_id", each("'event-' || i")),
        ("p_channels", each("null::text")),
        ("p_message_key", each("'key-' || i")),
        ("p_payload", each("'{}'::bytea")),
        ("p_content_type", each("'application/json'::text")),
        ("p_payload_seconds", each("case when i % 2 = 0 then 3600 end::float8")),
        ("p_particulars", each("case when i % 2 = 0 then '{\"query\": \"a=1\"}' end::text")),
        ("p_k", each("gen_random_uuid()")),
        ("p_fingerprint", each("gen_random_uuid()")),
        ("p_ttl", each("86460::float8")),
        ("p_saves_conflict", each("true")),
        ("p_uid_hash", each("gen_random_uuid()")),
        ("p_key_hash", each("gen_random_uuid()")),
        ("p_digest", each("gen_random_uuid()")),
        ("p_lock", each("i::bigint")),
        ("p_uid_lock", each("1000 + i::bigint")),
        ("p_key_lock", each("2000 + i::bigint")),
        ("a_id", one(application)),
        ("a_version", format!("array(select version from application where id = '{application}')")),
        ("d_of", each("i")),
        ("d_endpoint", each(&format!("'{endpoint}'::uuid"))),
        ("d_is_leased", each("i % 2 = 0")),
        ("p_lease", "gen_random_uuid()".into()),
        ("p_lease_seconds", "60".into()),
        ("p_horizon", "interval '7 days'".into()),
        ("p_is_rerun", "false".into()),
        ("f_message", leased("message_id")),
        ("f_endpoint", leased("endpoint_id")),
        ("f_run", leased("run")),
        ("f_lease", leased("lease")),
        ("f_kind", each("(i % 3)::smallint")),
        ("f_attempt", each("uuid_v7()")),
        ("f_number", each("1::smallint")),
        ("f_outcome", each("least(i % 3, 1)::smallint")),
        ("f_status", each("200::smallint")),
        ("f_duration", each("3")),
        ("f_response", each("'ok'::bytea")),
        ("f_url", each("'http://127.0.0.1/'::text")),
        ("f_delay", each("60::float8")),
        ("f_is_resent", each("i % 2 = 0")),
        ("f_event", each("case when i % 3 = 0 then 6 end::smallint")),
    ])
    .into_iter()
    .chain(constants())
    .collect()
}

/// The parameters that do not depend on what is stored.
fn constants() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("p_limit", "1000".into()),
        ("p_total", "512".into()),
        ("p_share", "64".into()),
        ("p_bytes", "8388608".into()),
        ("p_quota", "1024".into()),
        ("t_of", "'{}'".into()),
        ("t_version", "'{}'".into()),
        ("t_task", "'{}'".into()),
        ("p_endpoint", "'{}'".into()),
        ("p_free", "'{}'".into()),
        ("p_taken", "'{}'".into()),
        ("p_held", "'{}'".into()),
        ("p_tenant_taken", "'{}'".into()),
        ("p_from", "'00000000-0000-0000-0000-000000000000'".into()),
        ("p_only", "null".into()),
        ("p_slack_seconds", "0.1".into()),
    ])
}

/// A call of the newest version of a function, with its arguments spelt out, so that finding them costs the call nothing.
async fn call(connection: &mut PgConnection, function: &str, ids: &Ids) -> String {
    let newest =
        format!("select proname::text from pg_proc where proname ~ '^{function}_v[0-9]+$' order by length(proname), proname desc limit 1");
    let name = text(connection, newest).await;
    let parameters = format!(
        "select string_agg(proargnames[n] || ' ' || proargtypes[n - 1]::regtype, ',' order by n) from pg_proc, generate_series(1, pronargs) n where proname = '{name}'"
    );
    let arguments = arguments(ids);
    let mut spelt = Vec::new();
    for parameter in text(connection, parameters).await.split(',') {
        let (parameter, kind) = parameter.split_once(' ').expect("a name and a type");
        let off = format!("array['{}'::uuid]", ids.disabled);
        let value = match (function, parameter) {
            // Of the claim this is the list of tenants with sends under way, of the others whose messages they are.
            ("claim", "p_tenant") => Some("'{}'"),
            ("cancel", "p_endpoint") => Some(off.as_str()),
            _ => arguments.get(parameter).map(String::as_str),
        };
        let value = value.unwrap_or_else(|| panic!("{name} has a parameter `{parameter}` that this test does not know"));
        let literal = text(connection, format!("select quote_nullable((({value})::{kind})::text)")).await;
        spelt.push(format!("{parameter} => {literal}::{kind}"));
    }
    format!("select * from {name}({})", spelt.join(", "))
}

/// Runs a statement, and takes back what it did.
async fn cost(connection: &mut PgConnection, call: &str) -> Cost {
    // What this session has scanned before is no longer counted then.
    run(connection, "select pg_stat_force_next_flush()").await;
    run(connection, "begin").await;
    let explain = format!("explain (analyze, buffers, format json) {call}");
    let plan: Value =
        sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *connection).await.unwrap_or_else(|error| panic!("{call}: {error}"));
    let scans = "select relname::text from pg_stat_xact_user_tables where seq_scan > 0 order by 1";
    let sequential_scans = sqlx::query_scalar(scans).fetch_all(&mut *connection).await.expect("the statistics of this transaction");
    run(connection, "rollback").await;
    let pages = |kind: &str| plan[0]["Plan"][kind].as_i64().expect("a count of pages");
    Cost { pages: pages("Shared Hit Blocks") + pages("Shared Read Blocks"), sequential_scans }
}

async fn assert_cheap(connection: &mut PgConnection, ids: &Ids, when: &str) {
    for (function, most) in STATEMENTS {
        let call = call(connection, function, ids).await;
        // The first call of a session reads the catalogue too.
        cost(connection, &call).await;
        let cost = cost(connection, &call).await;
        eprintln!("plans: {function} on {when}: {} pages", cost.pages);
        assert_eq!(cost.sequential_scans, [""; 0], "{function} on {when}");
        assert!(cost.pages <= most, "{function} on {when} touches {} pages, more than {most}", cost.pages);
    }
}

/// Rows due for one endpoint, a tenth as many for one that is disabled, a few for another, as many asleep, of which some have fallen due, as many keys of each kind, and as
/// many attempts; and a twentieth as many messages, applications and endpoints.
fn fill(ids: &Ids, rows: usize) -> String {
    let Ids { tenant, application, endpoint, disabled } = ids;
    let id = |n: &str| format!("lpad(to_hex({n}), 32, '0')::uuid");
    format!(
        "insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at)
           select {}, '{endpoint}', '{tenant}', '{application}', now() - interval '1 hour' from generate_series(1, {rows}) i;
         insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at, attempts, last_attempt_id)
           select gen_random_uuid(), '{disabled}', '{tenant}', '{application}', now() - interval '1 hour', 1, uuid_v7() from generate_series(1, {rows} / 10);
         insert into queue_later (message_id, endpoint_id, tenant_id, application_id, due_at)
           select {}, {}, '{tenant}', '{application}', now() + (i - 2000) * interval '1 s' from generate_series(1, {rows}) i;
         insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at)
           select {}, {}, '{tenant}', '{application}', now() - interval '1 s' from generate_series(1, 100) i;
         insert into idempotency (k, tenant_id, created_at, expires_at, fingerprint, status, ref)
           select gen_random_uuid(), '{tenant}', now(), now() + interval '1 day', gen_random_uuid(), 202, gen_random_uuid() from generate_series(1, {rows}) i;
         insert into event_uid (scope_hash, tenant_id, message_id) select gen_random_uuid(), '{tenant}', gen_random_uuid() from generate_series(1, {rows});
         insert into message_key (scope_hash, tenant_id, message_id, fingerprint)
           select gen_random_uuid(), '{tenant}', gen_random_uuid(), gen_random_uuid() from generate_series(1, {rows});
         insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url)
           select uuid_v7(), gen_random_uuid(), '{endpoint}', 0, 1, '{tenant}', '{application}', 0, 1, '' from generate_series(1, {rows}) i;
         insert into message (id, tenant_id, application_id, event_type, payload, content_type)
           select uuid_v7(), '{tenant}', '{application}', 'a', '{{}}', 'application/json' from generate_series(1, {rows} / 20) i;
         insert into application (id, tenant_id, name) select gen_random_uuid(), '{tenant}', 'a' from generate_series(1, {rows} / 20);
         insert into endpoint (id, tenant_id, application_id, url)
           select gen_random_uuid(), '{tenant}', '{application}', 'http://127.0.0.1/' from generate_series(1, {rows} / 20);",
        id(&format!("{rows}::bigint * 16 + i")),
        id(&format!("{rows}::bigint * 256 + i")),
        id("1000 + i % 10000"),
        id(&format!("{rows}::bigint * 4096 + i")),
        id("1"),
    )
}

/// Rows under a lease that ends at `due_at`; each has failed once.
fn in_flight(ids: &Ids, lease: &str, due_at: &str) -> String {
    let Ids { tenant, application, endpoint, .. } = ids;
    format!(
        "insert into queue (message_id, endpoint_id, tenant_id, application_id, lease, attempts, due_at, last_attempt_id)
           select gen_random_uuid(), '{endpoint}', '{tenant}', '{application}', '{lease}', 1, {due_at}, uuid_v7() from generate_series(1, {BATCH}) i"
    )
}

#[tokio::test]
async fn no_statement_of_the_hot_path_gets_dearer_with_what_is_stored() {
    let app = App::start().await;
    let customer: Customer = app.customer().await;
    customer.endpoint("http://127.0.0.1:9/").await;
    customer.endpoint_with(&serde_json::json!({ "url": "http://127.0.0.1:9/", "disabled": true })).await;
    let observer = app.node_with(&Options { roles: Roles::Api, ..Options::default() }).await;
    // What the server claims of these rows would be sent.
    app.node.stop().await;
    let mut old = PgConnection::connect(&app.database.url).await.expect("a session");
    let id = async |table: &str| app.database.texts(&format!("select id::text from {table}")).await.remove(0);
    let ids = Ids {
        tenant: id("tenant").await,
        application: id("application").await,
        endpoint: id("endpoint where not is_disabled").await,
        disabled: id("endpoint where is_disabled").await,
    };
    let without_statistics = "alter table queue set (autovacuum_enabled = off); alter table queue_later set (autovacuum_enabled = off)";
    run(&mut old, without_statistics).await;
    run(&mut old, &in_flight(&ids, LEASE, "now() + interval '1 hour'")).await;
    run(&mut old, &in_flight(&ids, ABANDONED, "now() - interval '2 hours'")).await;
    // A queue that was long and is short: its indexes are large, and each looks as dear as reading all of it.
    let passed_by = format!(
        "insert into queue (message_id, endpoint_id, tenant_id, application_id)
           select gen_random_uuid(), '{}', '{}', '{}' from generate_series(1, 50000);
         delete from queue where lease is null",
        ids.endpoint, ids.tenant, ids.application
    );
    run(&mut old, &passed_by).await;
    // Vacuumed while it is small, a table looks as if it would always be, and any of its indexes as good as the right one.
    run(&mut old, "vacuum analyze").await;
    assert_cheap(&mut old, &ids, "a short queue").await;
    for (rows, what) in [(20_000, "a freshly filled queue"), (LARGE, "a queue of a million rows")] {
        run(&mut old, &fill(&ids, rows)).await;
        assert_cheap(&mut old, &ids, &format!("{what}, planned when it was short")).await;
        let mut new = PgConnection::connect(&app.database.url).await.expect("a session");
        assert_cheap(&mut new, &ids, &format!("{what}, in a new session")).await;
    }
    run(&mut old, "analyze queue; analyze queue_later").await;
    assert_cheap(&mut old, &ids, "a queue of a million rows, with statistics").await;
    // A look that takes longer than a second is given up, and shows nothing.
    let look = async || Scrape::of(&observer.client).await.get("queue_due_rows");
    assert!(eventually("the gauges are shown", look).await >= 10_001.0);
}

/// The most pages that a page of the messages with one key may touch: some rows, and a look at the index of each week.
const KEY_PAGES: i64 = 200;
/// How many messages carry a key, all the same one, and how many carry none.
const KEYED: usize = 60_000;

/// Messages of one application, one a second up to now: every second one carries the same key, two a rare one.
fn fill_messages(ids: &Ids) -> String {
    let Ids { tenant, application, .. } = ids;
    format!(
        "insert into message (id, tenant_id, application_id, event_type, message_key, payload, content_type)
           select uuid_floor(now() - (2 * {KEYED} - i) * interval '1 s'), '{tenant}', '{application}', 'invoice.paid',
               case when i in (7, {KEYED}) then 'rare' when i % 2 = 0 then 'frequent' end, '{{}}', 'application/json'
             from generate_series(1, 2 * {KEYED}) i"
    )
}

#[tokio::test]
async fn a_page_of_the_messages_with_one_key_costs_a_page() {
    let app = App::start().await;
    let customer: Customer = app.customer().await;
    let id = async |table: &str| app.database.texts(&format!("select id::text from {table}")).await.remove(0);
    let ids = Ids { tenant: id("tenant").await, application: id("application").await, endpoint: String::new(), disabled: String::new() };
    let without_statistics = "do $$ declare week regclass; begin
        for week in select inhrelid from pg_inherits where inhparent = 'message'::regclass loop
          execute format('alter table %s set (autovacuum_enabled = off)', week);
        end loop; end $$";
    app.database.execute(without_statistics).await;
    let mut old = PgConnection::connect(&app.database.url).await.expect("a session");
    for is_up in [true, false] {
        run(&mut old, &format!("select from messages_of_key_v1(null, null, {is_up}, null, null, null, null, null, 1)")).await;
    }
    app.database.execute(&fill_messages(&ids)).await;
    for statistics in ["", "analyze message"] {
        app.database.execute(statistics).await;
        let mut new = PgConnection::connect(&app.database.url).await.expect("a session");
        for (session, who) in [(&mut old, "planned when it was empty"), (&mut new, "in a new session")] {
            for (key, is_up, first, end) in [
                ("frequent", false, "uuid_floor('1970-01-01')", "uuid_floor('2500-01-01')"),
                ("frequent", true, "uuid_floor('1970-01-01')", "uuid_floor('2500-01-01')"),
                ("frequent", false, "uuid_floor('1970-01-01')", "uuid_floor(now() - interval '8 h')"),
                ("rare", false, "uuid_floor('1970-01-01')", "uuid_floor('2500-01-01')"),
                ("unknown", true, "uuid_floor('1970-01-01')", "uuid_floor('2500-01-01')"),
            ] {
                let call = format!(
                    "select * from messages_of_key_v1('{}', '{key}', {is_up}, {first}, {end}, null, null, null, 51)",
                    ids.application
                );
                cost(session, &call).await;
                let cost = cost(session, &call).await;
                let when = format!("{key}, {who}, {statistics:?}");
                eprintln!("plans: {when}: {} pages", cost.pages);
                assert_eq!(cost.sequential_scans, [""; 0], "{when}");
                assert!(cost.pages <= KEY_PAGES, "{when}: {} pages, more than {KEY_PAGES}", cost.pages);
            }
        }
    }
    let page = app.client.get(&customer.path("/msg?idempotency_key=rare")).await.expect(200).json();
    assert_eq!(page["data"].as_array().map(Vec::len), Some(2));
}
