//! Where deliveries stand is told for each endpoint of a message and each message of an endpoint, and agrees with what receivers got.

use std::{collections::BTreeMap, time::Duration};

use crate::page_plans;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::{App, Customer, Database, Gate, Options, Receiver, Reply, Roles, eventually, new_tenant, token};
use svix::{
    api::{MessageAttemptListAttemptedDestinationsOptions, MessageAttemptListAttemptedMessagesOptions},
    models::MessageStatus,
};

fn one_retry_in_an_hour() -> Options {
    Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }
}

/// Where the message stands, by endpoint.
async fn standings(customer: &Customer, message: &str, query: &str) -> BTreeMap<String, Value> {
    let listed = customer.pages(&customer.path(&format!("/msg/{message}/endpoint{query}"))).await;
    listed.into_iter().map(|one| (one["id"].as_str().expect("an id").to_owned(), one)).collect()
}

/// Waits until a delivery is in this state.
async fn until(customer: &Customer, message: &str, endpoint: &str, state: &str) -> Value {
    let look = async || standings(customer, message, "").await.remove(endpoint).filter(|one| one["state"] == state);
    eventually(&format!("the delivery is {state}"), look).await
}

/// One message to endpoints of every kind.
struct Stage {
    app: App,
    customer: Customer,
    receiver: Receiver,
    endpoints: BTreeMap<&'static str, String>,
    message: String,
    /// Keeps the answer of `/stuck` back.
    gate: Gate,
}

impl Stage {
    /// Publishes a message when one endpoint is held and another is throttled.
    async fn set() -> Self {
        let app = App::with(one_retry_in_an_hour()).await;
        let (receiver, gate) = (Receiver::start().await, Gate::default());
        for path in ["/held", "/asleep", "/exhausted", "/off"] {
            receiver.on(path, [Reply::status(503)]);
        }
        receiver.on("/stuck", [Reply::status(200).held_by(&gate)]);
        let customer = app.customer().await;
        let mut stage = Self { app, customer, receiver, endpoints: BTreeMap::new(), message: String::new(), gate };
        stage.make("held", json!({})).await;
        for number in 0..25 {
            stage.customer.publish(&json!({ "before": number })).await;
        }
        let held = "select count(*) from endpoint_health where state = 1";
        eventually("an endpoint is held", async || (stage.app.database.number(held).await == 1).then_some(())).await;
        for name in ["fine", "asleep", "exhausted", "off", "stuck", "gone"] {
            stage.make(name, json!({})).await;
        }
        stage.make("throttled", json!({ "throttleRate": 1 })).await;
        stage.make("elsewhere", json!({ "channels": ["elsewhere"] })).await;
        stage.make("disabled", json!({ "disabled": true })).await;
        stage.app.database.execute("update endpoint_rate set tat = now() + interval '1 hour'").await;
        stage.message = stage.customer.publish(&json!({ "n": 1 })).await;
        stage
    }

    async fn make(&mut self, name: &'static str, mut body: Value) {
        body["url"] = json!(self.receiver.url(&format!("/{name}")));
        self.endpoints.insert(name, self.customer.endpoint_with(&body).await);
    }

    /// Waits until the delivery to this endpoint is in this state.
    async fn until(&self, name: &str, state: &str) {
        until(&self.customer, &self.message, &self.endpoints[name], state).await;
    }

    /// Lets the wait of what sleeps for an endpoint pass.
    async fn fall_due(&self, name: &str) {
        let sql = format!("update queue_later set due_at = now() where endpoint_id = posthaste_id('{}')", self.endpoints[name]);
        self.app.database.execute(&sql).await;
    }

    /// How often the message came to this endpoint.
    fn seen(&self, name: &str) -> usize {
        self.receiver.so_far().iter().filter(|got| got.path == format!("/{name}") && got.id() == self.message).count()
    }

    /// Lets some deliveries end, each in its own way.
    async fn end_some(&self) {
        for (name, state) in
            [("fine", "delivered"), ("gone", "delivered"), ("asleep", "sleeping"), ("exhausted", "sleeping"), ("off", "sleeping")]
        {
            self.until(name, state).await;
        }
        self.fall_due("exhausted").await;
        self.until("exhausted", "failed").await;
        let path = |name: &str| self.customer.path(&format!("/endpoint/{}", self.endpoints[name]));
        self.app.client.patch(&path("off"), &json!({ "disabled": true })).await.expect(200);
        self.fall_due("off").await;
        self.until("off", "canceled").await;
        self.app.client.delete(&path("gone")).await.expect(204);
        self.receiver.received_at("/stuck", 1).await;
    }
}

/// Each endpoint with its state, its status, how often it got the message, and what is said of it.
const EXPECTED: [(&str, &str, &str, usize, &str); 8] = [
    ("fine", "delivered", "success", 1, ""),
    ("gone", "delivered", "success", 1, ""),
    ("asleep", "sleeping", "sending", 1, "the receiver answered 503"),
    ("exhausted", "failed", "fail", 2, "the receiver answered 503"),
    ("off", "canceled", "fail", 1, "canceled: the endpoint is disabled"),
    ("stuck", "sending", "sending", 1, ""),
    ("held", "held", "pending", 0, "its endpoint keeps failing: it waits until a probe succeeds"),
    ("throttled", "throttled", "pending", 0, "its endpoint is sent no more than it permits"),
];

#[tokio::test]
async fn a_message_tells_of_each_endpoint_whether_it_got_it_and_if_not_why() {
    let mut stage = Stage::set().await;
    stage.end_some().await;
    stage.make("younger", json!({})).await;

    let shown = standings(&stage.customer, &stage.message, "").await;
    for (name, state, status, count, reason) in EXPECTED {
        let one = &shown[&stage.endpoints[name]];
        assert_eq!((&one["state"], &one["statusText"]), (&json!(state), &json!(status)), "{name}: {one}");
        assert_eq!(one["reason"].as_str().unwrap_or_default(), reason, "{name}");
        assert_eq!((stage.seen(name), one["deleted"] == true), (count, name == "gone"), "{name}: what the receiver got");
        assert_eq!(one["attemptId"].is_null(), count == 0 || state == "sending", "{name}: {one}");
        let waits = ["sleeping", "held", "throttled"].contains(&state);
        assert_eq!((one["until"].is_null(), one["nextAttempt"].is_null()), (!waits, !waits), "{name}: {one}");
        assert_eq!(one["since"].is_null(), state != "held", "{name}: {one}");
    }
    assert_eq!(shown.len(), EXPECTED.len(), "those that it was never owed to are no destinations: {shown:?}");

    let all = standings(&stage.customer, &stage.message, "?with_left_out=true").await;
    for (name, why) in [("elsewhere", "channel"), ("disabled", "disabled"), ("younger", "younger")] {
        let one = &all[&stage.endpoints[name]];
        assert_eq!((&one["state"], &one["leftOut"], &one["statusText"]), (&json!("leftOut"), &json!(why), &json!("canceled")), "{one}");
    }
    assert_eq!(all.len(), shown.len() + 3);
    let expanded = standings(&stage.customer, &stage.message, "?expanded_statuses=true").await;
    let off = &expanded[&stage.endpoints["off"]];
    assert_eq!((&off["statusText"], &off["status"]), (&json!("canceled"), &json!(4)));

    let path = |rest: &str| stage.customer.path(&format!("/msg/{}{rest}", stage.message));
    stage.gate.open();
    stage.until("stuck", "delivered").await;
    let again = Gate::default();
    stage.receiver.on("/fine", [Reply::status(500).held_by(&again)]);
    stage.app.client.request("POST", &path(&format!("/endpoint/{}/resend", stage.endpoints["fine"]))).send().await.expect(202);
    stage.receiver.received_at("/fine", 2).await;
    let fine = async || standings(&stage.customer, &stage.message, "").await[&stage.endpoints["fine"]]["state"].clone();
    assert_eq!(fine().await, "delivered", "while it is sent again");
    again.open();
    let ended = format!("select count(*) from attempt where run = 1 and endpoint_id = posthaste_id('{}')", stage.endpoints["fine"]);
    eventually("that has failed", async || (stage.app.database.number(&ended).await == 1).then_some(())).await;
    assert_eq!(fine().await, "delivered", "and that takes nothing back");
    stage.app.client.delete(&path("/content")).await.expect(204);
    stage.fall_due("asleep").await;
    stage.until("asleep", "discarded").await;
}

#[tokio::test]
async fn duplicates_and_what_no_worker_has_taken_are_told_apart() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint_with(&json!({ "url": "http://127.0.0.1:9/", "uid": "by-name" })).await;
    let other = customer.endpoint_with(&json!({ "url": "http://127.0.0.1:9/", "channels": ["c"] })).await;
    let keyed = json!({ "eventType": "invoice.paid", "payload": {}, "idempotency_key": "order-1", "eventId": "first" });
    customer.publish_raw(&keyed, None).await.expect(202);
    let first = standings(&customer, "first", "").await;
    assert_eq!((first.len(), &first[&endpoint]["state"], &first[&endpoint]["status"]), (1, &json!("due"), &json!(1)), "{first:?}");
    let mut again = keyed.clone();
    again["eventId"] = json!("second");
    customer.publish_raw(&again, None).await.expect(202);
    assert_eq!(standings(&customer, "second", "").await.len(), 0);
    let left_out = standings(&customer, "second", "?with_left_out=true").await;
    assert_eq!([&left_out[&endpoint]["leftOut"], &left_out[&other]["leftOut"]], ["duplicate", "duplicate"]);
    app.client.request("POST", &customer.path("/msg/second/deliver")).send().await.expect(202);
    let released = standings(&customer, "second", "?with_left_out=true").await;
    assert_eq!((&released[&endpoint]["state"], &released[&other]["leftOut"]), (&json!("due"), &json!("channel")));
    app.client.patch(&customer.path("/endpoint/by-name"), &json!({ "disabled": true })).await.expect(200);
    let off = standings(&customer, "first", "").await.remove(&endpoint).expect("it is owed");
    assert_eq!((&off["state"], &off["reason"]), (&json!("due"), &json!("its endpoint is off: it will be canceled")));

    let stranger = app.client.with_token(&token(&new_tenant()));
    stranger.get(&customer.path("/msg/first/endpoint")).await.expect(404);
    stranger.get(&customer.path("/endpoint/by-name/msg")).await.expect(404);
    app.client.get(&customer.path("/msg/nothing/endpoint")).await.expect(404);
}

#[tokio::test]
async fn an_endpoint_with_a_throttle_that_was_never_sent_to_is_shown_like_any_other() {
    let app = App::start().await;
    let customer = app.customer().await;
    let message = customer.publish(&json!({})).await;
    let endpoint = customer.endpoint_with(&json!({ "url": "http://127.0.0.1:9/", "throttleRate": 5 })).await;
    assert_eq!(standings(&customer, &message, "?with_left_out=true").await[&endpoint]["leftOut"], "younger");
}

#[tokio::test]
async fn an_endpoint_lists_what_was_attempted_and_how_far_each_message_got() {
    let app = App::with(one_retry_in_an_hour()).await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    receiver.on("/", [200, 500, 500, 200].map(Reply::status));
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.endpoint(&receiver.url("/other")).await;
    let mut messages = Vec::new();
    for number in 0..4 {
        let body = json!({ "eventType": format!("type.{number}"), "payload": { "n": number }, "channels": [format!("channel.{number}")] });
        messages.push(customer.publish_raw(&body, None).await.expect(202).text("id"));
        customer.attempts(&messages[number], 2).await;
    }
    receiver.on("/", [Reply::status(500)]);
    app.database.execute(&format!("update queue_later set due_at = now() where message_id = posthaste_id('{}')", messages[1])).await;
    until(&customer, &messages[1], &endpoint, "failed").await;

    let options = |status| MessageAttemptListAttemptedMessagesOptions { status, ..Default::default() };
    let ids = async |status| -> Vec<String> {
        let list = api.message_attempt().list_attempted_messages(customer.id.clone(), endpoint.clone(), Some(options(status))).await;
        list.expect("a list").data.into_iter().map(|message| message.id).collect()
    };
    let newest_first: Vec<_> = messages.iter().rev().cloned().collect();
    assert_eq!(ids(None).await, newest_first);
    assert_eq!(ids(Some(MessageStatus::Success)).await, [messages[3].clone(), messages[0].clone()]);
    assert_eq!(ids(Some(MessageStatus::Fail)).await, [messages[1].clone()]);
    assert_eq!(ids(Some(MessageStatus::Sending)).await, [messages[2].clone()]);
    assert_eq!(ids(Some(MessageStatus::Pending)).await, Vec::<String>::new());

    shows_and_filters(&customer, &endpoint).await;
    pages(&customer, &endpoint, &messages[0]).await;
    let page = |iterator| MessageAttemptListAttemptedDestinationsOptions { limit: Some(1), iterator };
    let destinations = async |iterator| {
        api.message_attempt()
            .list_attempted_destinations(customer.id.clone(), messages[0].clone(), Some(page(iterator)))
            .await
            .expect("a page")
    };
    let one = destinations(None).await;
    assert_eq!((one.data.len(), one.data[0].id.as_str(), one.done), (1, endpoint.as_str(), false), "there is another");
    let two = destinations(one.iterator).await;
    assert_eq!((two.data.len(), two.done), (1, true));
    let back = destinations(two.prev_iterator).await;
    assert_eq!(back.data[0].id, endpoint);
}

async fn list(customer: &Customer, endpoint: &str, query: &str) -> Value {
    customer.client.get(&customer.path(&format!("/endpoint/{endpoint}/msg?{query}"))).await.expect(200).json()
}

/// Four messages, the second of which has failed, and the third is asleep.
async fn shows_and_filters(customer: &Customer, endpoint: &str) {
    let list = async |query: &str| list(customer, endpoint, query).await;
    let all = list("").await;
    let shown: Vec<_> =
        all["data"].as_array().expect("a page").iter().map(|one| (one["state"].clone(), one["payload"]["n"].clone())).collect();
    assert_eq!(shown, [("delivered", 3), ("sleeping", 2), ("failed", 1), ("delivered", 0)].map(|(state, n)| (json!(state), json!(n))));
    let counts = async |query: &str| list(query).await["data"].as_array().map(Vec::len).expect("a page");
    assert_eq!(counts("event_types=type.0,type.2").await, 2);
    assert_eq!(counts("channel=channel.1").await, 1);
    assert_eq!(counts("after=2999-01-01T00:00:00Z").await, 0);
    assert_eq!(list("with_content=false").await["data"][0]["payload"], json!({}));
}

async fn pages(customer: &Customer, endpoint: &str, oldest: &str) {
    let first = list(customer, endpoint, "limit=3").await;
    assert_eq!((first["data"].as_array().map(Vec::len), &first["done"]), (Some(3), &json!(false)));
    let next = first["iterator"].as_str().expect("more");
    let rest = list(customer, endpoint, &format!("limit=3&iterator={next}")).await;
    assert_eq!((&rest["data"][0]["id"], &rest["done"]), (&json!(oldest), &json!(true)));
    let before = rest["prevIterator"].as_str().expect("a page before it");
    let back = list(customer, endpoint, &format!("limit=3&iterator={before}")).await;
    assert_eq!(back["data"], first["data"]);
}

/// How many messages an endpoint got, and how many endpoints the application has.
const ROWS: usize = 40_000;
/// How many are owed each message of the page that is read.
const FAN_OUT: usize = 100;
/// The most pages of tables and indexes that a page may touch: for each of its fifty items an index, its table and the queue, once.
const MOST: i64 = 3_000;

#[tokio::test]
async fn a_page_of_deliveries_costs_a_page_however_much_there_is() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("http://127.0.0.1:9/").await;
    app.node.stop().await;
    let id = async |what: &str| app.database.texts(&format!("select ({what})::text")).await.remove(0);
    let (tenant, application) = (id("select id from tenant").await, id(&format!("posthaste_id('{}')", customer.id)).await);
    let (endpoint, message) = (id(&format!("posthaste_id('{endpoint}')")).await, id("uuid_floor(now())").await);
    let at = format!("uuid_floor(now() - ({ROWS} - i) * interval '1 s')");
    app.database
        .execute(&format!(
            "insert into endpoint (id, tenant_id, application_id, url) select {at}, '{tenant}', '{application}', 'http://127.0.0.1/' from generate_series(1, {ROWS}) i;
             insert into message (id, tenant_id, application_id, event_type, payload, content_type)
               select {at}, '{tenant}', '{application}', 'a', '{{}}', 'application/json' from generate_series(1, {ROWS}) i on conflict do nothing;
             insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url)
               select uuid_v7(), {at}, '{endpoint}', 0, 1, '{tenant}', '{application}', 0, i % 2, '' from generate_series(1, {ROWS}) i;
             insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, url)
               select uuid_v7(), '{message}', {at}, 0, 1, '{tenant}', '{application}', 0, 1, '' from generate_series(1, {FAN_OUT}) i;
             insert into queue (message_id, endpoint_id, tenant_id, application_id)
               select {at}, '{endpoint}', '{tenant}', '{application}' from generate_series(1, {ROWS}) i;
             analyze endpoint, message, attempt, queue"
        ))
        .await;
    costs_of_pages(&app.database, &tenant, &application, &endpoint, &message).await;
}

/// Runs the statements as a session may that has asked often.
async fn costs_of_pages(database: &Database, tenant: &str, application: &str, endpoint: &str, message: &str) {
    let statements = page_plans::recorded();
    let find = |what: &str| -> Vec<_> { statements.iter().filter(|(sql, _)| sql.contains(what)).cloned().collect() };
    let (destinations, attempted, facts) =
        (find("destination order by endpoint_id"), find("select distinct on (uuid_send"), find("as \"token_at?\""));
    assert_eq!((destinations.len(), attempted.len(), facts.len()), (2, 2, 1), "a statement that this test has lost");
    let bounds = "'00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 51";
    let latest = format!("(array(select message_id from queue where endpoint_id = '{endpoint}' order by message_id desc limit 50))::text");
    let latest = database.texts(&format!("select {latest}")).await.remove(0);
    let pairs = format!("'{latest}', '{{{}}}'", vec![endpoint; 50].join(","));
    let calls = [
        (&destinations, format!("'{message}', {bounds}, '{tenant}', false, '{application}'"), 51),
        (&destinations, format!("'{message}', {bounds}, '{tenant}', true, '{application}'"), 51),
        (&attempted, format!("'{endpoint}', {bounds}, null, null, null, '{tenant}', null"), 51),
        (&facts, format!("{pairs}, '{tenant}'"), 50),
    ];
    let mut session = PgConnection::connect(&database.url).await.expect("a session");
    let settings = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off;
        set enable_hashagg = off; set max_parallel_workers_per_gather = 0; set jit = off";
    sqlx::raw_sql(settings).execute(&mut session).await.expect("settings");
    let mut place = 0;
    for (statements, arguments, wanted) in calls {
        for (sql, parameters) in statements {
            place += 1;
            let prepare = format!("prepare deliveries_{place} ({}) as {sql}", page_plans::types(parameters).join(", "));
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut session).await.expect("a statement");
            let explain = format!("explain (analyze, buffers, format json) execute deliveries_{place} ({arguments})");
            let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut session).await.expect("a plan");
            let plan = &plan[0]["Plan"];
            let pages = plan["Shared Hit Blocks"].as_i64().expect("pages") + plan["Shared Read Blocks"].as_i64().expect("pages");
            eprintln!("deliveries: {pages} pages: {sql}");
            assert_eq!(plan["Actual Rows"].as_f64(), Some(f64::from(wanted)), "{sql}");
            assert!(pages <= MOST, "{pages} pages, more than {MOST}: {plan:#}");
        }
    }
}
