//! A page of any list costs a page: it is read from an index, in order, however long the list is.
//!
//! The statements are those that `.sqlx/` records of the shipped program, with a plan that fits all parameters, which is what a
//! session that has asked often may choose.

use std::{fs, path::Path};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::{App, Customer};

/// How many rows each list has.
const ROWS: usize = 40_000;
/// How many are on a page.
const PAGE: usize = 50;
/// The most pages of tables and indexes that a page of a list may touch.
const MOST: i64 = 300;

/// A list's statement.
struct Statement {
    sql: String,
    /// The types of its parameters: owner, two bounds, how many, and filters.
    types: Vec<String>,
}

impl Statement {
    fn is_of(&self, table: &str) -> bool {
        self.sql.contains(&format!(" from {table} where "))
    }
}

/// The statements of the shipped program, and the types of their parameters as `.sqlx/` has them.
pub(crate) fn recorded() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    let recorded = fs::read_dir(folder).expect("the recorded queries").map(|entry| {
        let text = fs::read_to_string(entry.expect("a file").path()).expect("a text");
        let query = serde_json::from_str::<Value>(&text).expect("JSON");
        let sql = query["query"].as_str().expect("a statement").split_whitespace().collect::<Vec<_>>().join(" ");
        (sql, query["describe"]["parameters"]["Left"].clone())
    });
    recorded.collect()
}

/// The same types as SQL has them.
pub(crate) fn types(recorded: &Value) -> Vec<String> {
    let name = |kind: &Value| match kind.as_str() {
        Some("TextArray") => "text[]".to_owned(),
        Some("Int2Array") => "int2[]".to_owned(),
        Some("UuidArray") => "uuid[]".to_owned(),
        Some("Int8Array") => "int8[]".to_owned(),
        Some("TimestamptzArray") => "timestamptz[]".to_owned(),
        Some(name) => name.to_lowercase(),
        None => panic!("{kind} is a type that this test does not know"),
    };
    recorded.as_array().expect("parameters").iter().map(name).collect()
}

/// Everything that is shown in pages, in both directions.
fn statements() -> Vec<Statement> {
    let mut lists = Vec::new();
    for (sql, parameters) in recorded() {
        // Those of a whole tenant are merged from a page of each of its applications, and these an index has.
        let is_merged = sql.contains(" cross join lateral messages_of_key_v1(");
        assert!(is_merged || !sql.contains("order by case"), "no index has such an order: {sql}");
        if ["id", "a.id", "name"]
            .iter()
            .any(|key| ["asc", "desc"].iter().any(|order| sql.ends_with(&format!("order by {key} {order} limit $4"))))
        {
            lists.push(Statement { types: types(&parameters), sql });
        }
    }
    lists
}

/// One application with as many endpoints, messages and attempts, in a tenant with as many applications, event types, tasks and sources; the attempts
/// are all of one message, and all to one endpoint.
fn fill(tenant: &str, application: &str, endpoint: &str, message: &str) -> String {
    let at = format!("uuid_floor(now() - ({ROWS} - i) * interval '1 s')");
    format!(
        "insert into application (id, tenant_id, name) select {at}, '{tenant}', 'a' from generate_series(1, {ROWS}) i;
         insert into event_type (id, tenant_id, name) select {at}, '{tenant}', 'type-' || i from generate_series(1, {ROWS}) i;
         insert into endpoint (id, tenant_id, application_id, url)
           select {at}, '{tenant}', '{application}', 'http://127.0.0.1/' from generate_series(1, {ROWS}) i;
         insert into subscription (id, tenant_id, application_id, endpoint_id, name)
           select {at}, '{tenant}', '{application}', '{endpoint}', 's' from generate_series(1, {ROWS}) i;
         insert into message (id, tenant_id, application_id, event_type, payload, content_type)
           select {at}, '{tenant}', '{application}', 'a', '{{}}', 'application/json' from generate_series(1, {ROWS}) i;
         insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url, is_latest)
           select {at}, '{message}', '{endpoint}', i, 1, '{tenant}', '{application}', 0, 1, '', false from generate_series(1, {ROWS}) i;
         insert into task (id, tenant_id, application_id, kind) select {at}, '{tenant}', '{application}', 2 from generate_series(1, {ROWS}) i;
         insert into source (id, tenant_id, mask, name) select {at}, '{tenant}', 'mask-' || i, 'a' from generate_series(1, {ROWS}) i;
         insert into portal_access (id, tenant_id, application_id, name, capabilities, hash)
           select {at}, '{tenant}', '{application}', 'a', 1, i::text::bytea from generate_series(1, {ROWS}) i"
    )
}

async fn run(session: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(session).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// How many pages a statement touches, and whether it brings a page.
async fn cost(session: &mut PgConnection, call: &str) -> (i64, usize) {
    let explain = format!("explain (analyze, buffers, format json) {call}");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(session).await.unwrap_or_else(|error| panic!("{call}: {error}"));
    let plan = &plan[0]["Plan"];
    let pages = |kind: &str| plan[kind].as_i64().expect("a count of pages");
    let rows = plan["Actual Rows"].as_f64().expect("a count of rows");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "dozens of rows")]
    (pages("Shared Hit Blocks") + pages("Shared Read Blocks"), rows as usize)
}

#[tokio::test]
async fn a_page_of_any_list_costs_a_page() {
    let app = App::start().await;
    let customer: Customer = app.customer().await;
    let endpoint = customer.endpoint("http://127.0.0.1:9/").await;
    app.node.stop().await;
    let id = async |what: &str| app.database.texts(&format!("select ({what})::text")).await.remove(0);
    let (tenant, application) = (id("select id from tenant").await, id(&format!("posthaste_id('{}')", customer.id)).await);
    let (endpoint, message) = (id(&format!("posthaste_id('{endpoint}')")).await, id("uuid_v7()").await);
    app.database.execute(&fill(&tenant, &application, &endpoint, &message)).await;
    let statements = statements();
    let of = |table: &str| statements.iter().filter(|statement| statement.is_of(table)).count();
    let counts =
        ["application", "endpoint", "event_type", "message", "attempt a", "task", "subscription", "source", "portal_access"].map(of);
    assert_eq!((counts, statements.len()), ([2, 4, 2, 2, 4, 2, 2, 2, 2], 22), "a list that this test does not know, or has lost");
    app.database.execute("analyze application, endpoint, event_type, message, attempt, task, subscription, source, portal_access").await;
    let mut session = PgConnection::connect(&app.database.url).await.expect("a session");
    run(&mut session, "set plan_cache_mode = force_generic_plan".into()).await;
    for (place, statement) in statements.iter().enumerate() {
        run(&mut session, format!("prepare page_{place} ({}) as {}", statement.types.join(", "), statement.sql)).await;
        let owner = match () {
            () if ["application", "event_type", "task", "subscription", "source", "portal_access"]
                .iter()
                .any(|table| statement.is_of(table)) =>
            {
                &tenant
            }
            () if statement.sql.contains("from endpoint where tenant_id = $1") => &tenant,
            () if statement.sql.contains("a.message_id = $1") => &message,
            () if statement.is_of("attempt a") => &endpoint,
            () => &application,
        };
        let bounds = if statement.is_of("event_type") {
            ["''".into(), "'~'".into()]
        } else {
            ["'00000000-0000-0000-0000-000000000000'".to_owned(), "'ffffffff-ffff-ffff-ffff-ffffffffffff'".to_owned()]
        };
        let mut given = vec![format!("'{owner}'"), bounds[0].clone(), bounds[1].clone(), (PAGE + 1).to_string()];
        given.extend(statement.types.iter().skip(given.len()).map(|kind| if kind == "bool" { "true" } else { "null" }.to_owned()));
        let call = format!("execute page_{place} ({})", given.join(", "));
        cost(&mut session, &call).await;
        let (pages, rows) = cost(&mut session, &call).await;
        eprintln!("page plans: {pages} pages: {}", statement.sql);
        assert_eq!(rows, PAGE + 1, "{}", statement.sql);
        assert!(pages <= MOST, "{pages} pages, more than {MOST}, for {}", statement.sql);
    }
}
