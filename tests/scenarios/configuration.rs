//! Every variable changes what the program does, and every writable field changes what another node says or sends.

use serde_json::{Value, json};
use support::{
    App, Client, Customer, Database, JWT_SECRET, MAIN_SECRET, Receiver, Reply,
    customer::message,
    new_tenant,
    processes::{self, ServerProcess},
    scrape::Scrape,
};
use tokio::io::AsyncWriteExt;

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// A server process with these variables, on a database of its own.
struct Configured {
    database: Database,
    server: ServerProcess,
    customer: Customer,
    receiver: Receiver,
}

async fn configured(variables: &[(&str, &str)]) -> Configured {
    let database = Database::create().await;
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), variables).await;
    let customer = Customer::create(&server.client).await;
    Configured { database, server, customer, receiver: Receiver::start().await }
}

/// Starts the server and waits for its refusal; returns what it says.
async fn refusal(variables: &[(&str, &str)]) -> String {
    let database = Database::create().await;
    let mut server = ServerProcess::spawn(PROGRAM, "serve", &database.url, &new_tenant(), processes::free_address(), variables);
    assert!(!server.process.ended().await.success(), "{variables:?} must be refused");
    server.process.log()
}

#[tokio::test]
async fn deliveries_follow_the_configuration() {
    let variables = [
        ("POSTHASTE_RETRY_SCHEDULE", "10ms"),
        ("POSTHASTE_REQUEST_TIMEOUT", "400ms"),
        ("POSTHASTE_SIGNATURE_HEADERS", "svix"),
        ("POSTHASTE_EGRESS_ALLOW", "10.0.0.0/8,127.0.0.0/8"),
    ];
    let Configured { customer, receiver, database, server: _server } = configured(&variables).await;
    receiver.on("/", [Reply::hang(), Reply::status(500)]);
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({})).await;
    let received = receiver.received(2).await;
    assert_eq!((received[0].all("svix-id").len(), received[0].all("webhook-id").len()), (1, 0));
    let attempts = customer.attempts(&message, 2).await;
    assert!(attempts[0].response().contains("400ms"), "{attempts:?}");
    database.nothing_owed().await;
    assert_eq!(customer.attempts_so_far(&message).await.len(), 2, "one wait, two attempts");
}

#[tokio::test]
async fn keys_follow_the_configuration() {
    let variables = [("POSTHASTE_IDEMPOTENCY_POLICY", "svix"), ("POSTHASTE_IDEMPOTENCY_TTL", "2h"), ("POSTHASTE_IDEMPOTENCY_WAIT", "20s")];
    let Configured { customer, database, server, .. } = configured(&variables).await;
    let patch = async |name: &str| {
        let request = server.client.request("PATCH", &customer.path("")).key("key").json(&json!({ "name": name }));
        request.send().await.expect(200).text("name")
    };
    assert_eq!([patch("a").await, patch("b").await], ["a", "b"], "svix: a key means nothing on PATCH");
    let hold = database.hold_inserts("message").await;
    let publish = || {
        let customer = customer.clone();
        tokio::spawn(async move { customer.publish_raw(&message(&json!({})), Some("key")).await })
    };
    let (first, second) = (publish(), publish());
    hold.holds(1).await;
    hold.release().await;
    let answers = [first.await.expect("no panic").expect(202), second.await.expect("no panic").expect(202)];
    assert_eq!(answers.iter().filter(|answer| answer.is_replay()).count(), 1, "the second waited for the first");
    let life =
        database.number("select extract(epoch from expires_at - created_at) from idempotency order by created_at desc limit 1").await;
    assert_eq!(life, 7200);
}

#[tokio::test]
async fn the_api_follows_the_configuration() {
    let both = format!("the second secret of two,{JWT_SECRET}");
    let variables = [
        ("POSTHASTE_MAX_PAYLOAD", "2KiB"),
        ("POSTHASTE_JWT_SECRET", both.as_str()),
        ("POSTHASTE_PUBLIC_URL", "https://hooks.example.com/base"),
        ("POSTHASTE_LOG_FORMAT", "json"),
        ("POSTHASTE_LOG", "debug"),
    ];
    let Configured { customer, server, database: _database, .. } = configured(&variables).await;
    assert_eq!(customer.publish_raw(&message(&json!({ "a": "x".repeat(2100) })), None).await.status, 413);
    assert_eq!(customer.publish_raw(&message(&json!({ "a": "x".repeat(1800) })), None).await.status, 202);
    let signed_by_first = api::mint_token("the second secret of two", &new_tenant(), chrono::Utc::now());
    assert_eq!(server.client.with_token(&signed_by_first).get("/api/v1/app").await.status, 200, "both secrets are accepted");
    let created = server.client.post("/api/v1/app", &json!({ "name": "x" })).await.expect(201);
    let location = created.header("location").expect("a Location").to_owned();
    assert_eq!(location, format!("https://hooks.example.com/base/api/v1/app/{}", created.text("id")));
    let log = server.process.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "accepts are logged at debug:\n{log}");
    assert!(log.contains(&customer.id) || log.contains("tenant"), "with their ids:\n{log}");
    let (status, out, _) = processes::run(processes::command(PROGRAM, &["token", "org_x"], &[("POSTHASTE_JWT_SECRET", &both)])).await;
    assert!(status.success());
    assert_eq!(server.client.with_token(out.trim()).get("/api/v1/app").await.status, 200);
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    for role in ["serve", "worker"] {
        let database = Database::create().await;
        let address = processes::free_address();
        let metrics_listen = address.to_string();
        let variables = [("POSTHASTE_METRICS_LISTEN", metrics_listen.as_str())];
        let server = ServerProcess::start(PROGRAM, role, &database.url, &new_tenant(), &variables).await;
        server.client.anonymous().request("GET", "/metrics").unchecked().send().await.expect(404);
        let scraper = Client::new(&format!("http://{address}"), None);
        Scrape::of(&scraper).await;
        for path in ["/api/v1/health", "/api/v1/app", "/"] {
            assert_eq!(scraper.request("GET", path).unchecked().send().await.status, 404, "{role}: {path} is not for those who scrape");
        }
    }
}

#[tokio::test]
async fn as_many_clients_are_connected_as_the_configuration_says() {
    let Configured { server, database: _database, .. } = configured(&[("POSTHASTE_MAX_CLIENT_CONNECTIONS", "3")]).await;
    let mut others = Vec::new();
    // One is the client's own, which has asked before.
    for _ in 0..2 {
        others.push(tokio::net::TcpStream::connect(server.address).await.expect("a connection"));
    }
    server.client.get("/api/v1/app").await.expect(200);
    let beyond = Client::new(&server.client.base, server.client.token.as_deref());
    assert_eq!(beyond.get("/api/v1/app").await.expect(503).header("connection"), Some("close"));
    beyond.get("/api/v1/health").await.expect(204);
    drop(others);
    support::eventually("there is room again", async || (beyond.get("/api/v1/app").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn as_much_of_bodies_is_in_memory_as_the_configuration_says() {
    let variables = [("POSTHASTE_MAX_PAYLOAD", "4KiB"), ("POSTHASTE_MAX_BODY_MEMORY", "8KiB")];
    let Configured { customer, server, database: _database, .. } = configured(&variables).await;
    let publish = async || customer.publish_raw(&message(&json!({ "a": "x".repeat(3000) })), None).await.status;
    assert_eq!(publish().await, 202);
    let mut half = tokio::net::TcpStream::connect(server.address).await.expect("a connection");
    let token = server.client.token.as_deref().expect("a token");
    let head = format!("POST /api/v1/app HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 4000\r\n\r\n{:3000}", "");
    half.write_all(head.as_bytes()).await.expect("an open connection");
    let refused = async || support::client::is_refused(server.address, token, 3000).await.then_some(());
    support::eventually("half a body leaves no room", refused).await;
    assert_eq!(publish().await, 503);
    drop(half);
    support::eventually("there is room again", async || (publish().await == 202).then_some(())).await;
}

#[tokio::test]
async fn a_main_secret_opens_what_it_sealed_and_can_be_rotated() {
    let Configured { customer, server, database, receiver } = configured(&[]).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let secret = customer.secret(&endpoint).await;
    drop(server);
    let new = "another main secret, long enough by far";
    let tenant = new_tenant();
    let mut wrong =
        ServerProcess::spawn(PROGRAM, "serve", &database.url, &tenant, processes::free_address(), &[("POSTHASTE_MAIN_SECRET", new)]);
    assert!(!wrong.process.ended().await.success());
    assert!(wrong.process.log().contains("POSTHASTE_MAIN_SECRET"), "{}", wrong.process.log());
    let rotated = [("POSTHASTE_MAIN_SECRET", new), ("POSTHASTE_MAIN_SECRET_PREVIOUS", MAIN_SECRET)];
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &rotated).await;
    let customer = customer.through(&server.client.with_token(customer.client.token.as_deref().expect("a token")));
    assert_eq!(customer.secret(&endpoint).await, secret);
    customer.publish(&json!({})).await;
    let webhook = receiver.received(1).await.remove(0);
    standardwebhooks::Webhook::new(&secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).expect("it signs still");
}

#[tokio::test]
async fn under_the_policy_novu_a_refusal_is_remembered() {
    let database = Database::create().await;
    let novu = [("POSTHASTE_IDEMPOTENCY_POLICY", "novu")];
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &novu).await;
    let publish = async || server.client.request("POST", "/api/v1/app/late/msg").key("key").json(&message(&json!({}))).send().await;
    publish().await.expect(404);
    server.client.post("/api/v1/app", &json!({ "name": "late", "uid": "late" })).await.expect(201);
    assert!(publish().await.expect(404).is_replay());
}

#[tokio::test]
async fn another_isolation_level_by_default_changes_nothing() {
    let database = Database::create().await;
    let stricter = "do $$ begin execute format('alter database %I set default_transaction_isolation = ''repeatable read''', current_database()); end $$";
    database.execute(stricter).await;
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &[]).await;
    let create = async || server.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await.expect(201);
    assert!(!create().await.is_replay());
    assert!(create().await.is_replay());
    Customer::create(&server.client).await.publish(&json!({})).await;
}

#[tokio::test]
async fn the_retention_bounds_what_is_kept() {
    let database = Database::create().await;
    let old = support::database::OLD_PARTITION;
    database.execute(old).await;
    let is_there = support::database::OLD_PARTITIONS;
    let _server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &[("POSTHASTE_RETENTION", "30d")]).await;
    support::eventually("the old partition is dropped", async || (database.number(is_there).await == 0).then_some(())).await;
}

#[tokio::test]
async fn what_cannot_be_configured_is_refused_by_name() {
    let cases = [
        ("POSTHASTE_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("POSTHASTE_IDEMPOTENCY_POLICY", "stripe"),
        ("POSTHASTE_IDEMPOTENCY_TTL", "30d"),
        ("POSTHASTE_IDEMPOTENCY_WAIT", "soon"),
        ("POSTHASTE_RETRY_SCHEDULE", "5s,later"),
        ("POSTHASTE_REQUEST_TIMEOUT", "0s"),
        ("POSTHASTE_EGRESS_ALLOW", "everything"),
        ("POSTHASTE_EGRESS_CA", "/nowhere/ca.pem"),
        ("POSTHASTE_EGRESS_CA", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
        ("POSTHASTE_EGRESS_PROXY", "ftp://proxy.example.com"),
        ("POSTHASTE_EGRESS_PROXY", "proxy.example.com:3128"),
        ("POSTHASTE_ENDPOINT_HTTPS_ONLY", "perhaps"),
        ("POSTHASTE_MAX_PAYLOAD", "lots"),
        ("POSTHASTE_MAX_BODY_MEMORY", "1MiB"),
        ("POSTHASTE_SIGNATURE_HEADERS", "none"),
        ("POSTHASTE_PUBLIC_URL", "ftp://example.com"),
        ("POSTHASTE_RETENTION", "-1d"),
        ("POSTHASTE_JWT_SECRET", "short"),
        ("POSTHASTE_MAIN_SECRET", "short"),
        ("POSTHASTE_MAIN_SECRET_PREVIOUS", "short"),
        ("POSTHASTE_LISTEN", "nowhere"),
        ("POSTHASTE_METRICS_LISTEN", "nowhere"),
        ("POSTHASTE_MAX_CLIENT_CONNECTIONS", "0"),
        ("POSTHASTE_LOG_FORMAT", "xml"),
        ("POSTHASTE_DATABASE_URL", "mysql://localhost/x"),
        ("POSTHASTE_DATABASE_URL", "postgres://a,b/x?target_session_attrs=standby"),
        ("POSTHASTE_DATABASE_CONNECTIONS", "0"),
    ];
    for (name, value) in cases {
        let said = refusal(&[(name, value)]).await;
        assert!(said.contains(name), "the refusal of {name}={value} names it: {said}");
        assert!(!said.contains("panicked"), "{said}");
        if name.contains("SECRET") {
            assert!(!said.contains("short"), "a secret is not printed: {said}");
        }
    }
}

#[tokio::test]
async fn an_unknown_variable_is_reported() {
    let Configured { mut server, database: _database, .. } = configured(&[("POSTHASTE_RETRY_SHEDULE", "5s")]).await;
    server.process.printed("POSTHASTE_RETRY_SHEDULE").await;
}

/// Sets a field of an endpoint through one node, and sees the next webhook of another.
#[tokio::test]
async fn every_field_of_an_endpoint_acts_on_another_node() {
    let app = App::start().await;
    let other = app.second_node().await;
    let receiver = Receiver::start().await;
    app.client.post("/api/v1/event-type", &json!({ "name": "wanted", "description": "" })).await.expect(201);
    let customer = app.customer().await;
    let there = customer.through(&other.client);
    let endpoint = customer.endpoint_with(&json!({ "url": receiver.url("/0") })).await;
    let path = customer.path(&format!("/endpoint/{endpoint}"));
    let marker = customer.endpoint(&receiver.url("/marker")).await;
    let publish = async |event_type: &str, channels: Value| {
        let body = json!({ "eventType": event_type, "payload": {}, "channels": channels });
        let id = there.publish_raw(&body, None).await.expect(202).text("id");
        app.database.nothing_owed().await;
        receiver
            .so_far()
            .into_iter()
            .filter(|webhook| webhook.id() == id && webhook.path != "/marker")
            .map(|webhook| webhook.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(publish("other", Value::Null).await, ["/0"], "and this node caches the endpoint from here on");
    let steps: [(Value, &str, Value, &[&str]); 8] = [
        (json!({ "url": receiver.url("/1") }), "other", Value::Null, &["/1"]),
        (json!({ "eventTypes": ["wanted"] }), "other", Value::Null, &[]),
        (json!({ "description": "x" }), "wanted", Value::Null, &["/1"]),
        (json!({ "eventTypes": null, "channels": ["here"] }), "other", Value::Null, &[]),
        (json!({ "metadata": { "a": "b" } }), "other", json!(["here", "there"]), &["/1"]),
        (json!({ "channels": null }), "other", Value::Null, &["/1"]),
        (json!({ "disabled": true }), "other", Value::Null, &[]),
        (json!({ "disabled": false }), "other", Value::Null, &["/1"]),
    ];
    for (change, event_type, channels, expected) in steps {
        app.client.patch(&path, &change).await.expect(200);
        assert_eq!(publish(event_type, channels).await, expected, "after {change}");
        let shown = there.show(&endpoint).await;
        for (member, value) in change.as_object().expect("an object") {
            assert_eq!(&shown[member], value, "another node shows `{member}`");
        }
    }
    app.client.put(&format!("{path}/headers"), &json!({ "headers": { "x-set": "here" } })).await.expect(204);
    app.client.post(&format!("{path}/secret/rotate"), &json!({ "gracePeriodSeconds": 0 })).await.expect(200);
    app.client.patch(&path, &json!({ "uid": "renamed" })).await.expect(200);
    publish("other", Value::Null).await;
    let webhook = receiver.so_far().into_iter().rfind(|webhook| webhook.path == "/1").expect("a webhook");
    assert_eq!(webhook.header("x-set"), "here");
    let secret = there.secret("renamed").await;
    standardwebhooks::Webhook::new(&secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).expect("the new secret signs");
    app.client.delete(&customer.path(&format!("/endpoint/{marker}"))).await.expect(204);
    app.client.delete(&path).await.expect(204);
    assert_eq!(publish("other", Value::Null).await, [""; 0]);
}

#[tokio::test]
async fn every_field_of_an_application_and_an_event_type_shows_on_another_node() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    customer.through(&other.client).publish(&json!({})).await;
    for change in [json!({ "name": "b" }), json!({ "uid": "u" }), json!({ "metadata": { "k": "v" } })] {
        app.client.patch(&customer.path(""), &change).await.expect(200);
        let shown = other.client.get(&customer.path("")).await.expect(200).json();
        for (member, value) in change.as_object().expect("an object") {
            assert_eq!(&shown[member], value);
        }
    }
    let by_uid = other.client.post("/api/v1/app/u/msg", &message(&json!({}))).await;
    assert_eq!(by_uid.status, 202, "the new uid leads to it");
    app.client.post("/api/v1/event-type", &json!({ "name": "a", "description": "" })).await.expect(201);
    let changes = [
        json!({ "description": "d" }),
        json!({ "archived": true }),
        json!({ "deprecated": true }),
        json!({ "schemas": { "1": { "type": "object" } } }),
        json!({ "groupName": "g" }),
        json!({ "featureFlag": "f" }),
    ];
    for change in changes {
        app.client.patch("/api/v1/event-type/a", &change).await.expect(200);
        let shown = other.client.get("/api/v1/event-type/a").await.expect(200).json();
        for (member, value) in change.as_object().expect("an object") {
            assert_eq!(&shown[member], value, "{shown}");
        }
    }
}

#[tokio::test]
async fn a_field_that_is_not_supported_is_refused_by_name() {
    let app = App::start().await;
    let customer = app.customer().await;
    let message = |member: &str, value: Value| {
        let mut body = message(&json!({}));
        body[member] = value;
        body
    };
    let unsupported = [("transformationsParams", json!({ "rawPayload": "x" })), ("deliverAt", json!("2999-01-01T00:00:00Z"))];
    for (member, value) in unsupported {
        let answer = customer.publish_raw(&message(member, value), None).await;
        assert!((400..500).contains(&answer.status), "{member}: {answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains(member), "{member} is named: {answer:?}");
    }
    let elsewhere = [
        ("/api/v1/app".to_owned(), json!({ "name": "x", "throttleRate": 5 }), "throttleRate"),
        ("/api/v1/app".to_owned(), json!({ "name": "x", "rateLimit": 5 }), "rateLimit"),
        ("/api/v1/event-type".to_owned(), json!({ "name": "x", "description": "", "featureFlags": ["a"] }), "featureFlags"),
    ];
    for (path, body, member) in elsewhere {
        let answer = app.client.post(&path, &body).await.expect(422);
        assert!(String::from_utf8_lossy(&answer.body).contains(member), "{path}: {answer:?}");
    }
    assert!(customer.messages().await.is_empty());
}
