//! The commands of the program, run as processes.

use std::fs;

use rustix::process::Signal;
use serde_json::json;
use support::{
    Customer, Database, JWT_SECRET, MAIN_SECRET, Receiver, Reply, cluster,
    processes::{self, Process, ServerProcess, command, run},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

#[tokio::test]
async fn the_version_names_the_build() {
    let (status, out, _) = run(command(PROGRAM, &["--version"], &[])).await;
    assert!(status.success());
    assert!(out.contains(env!("CARGO_PKG_VERSION")) && out.contains('('), "{out}");
}

/// What the program's own source declares: the variables that it reads, and its commands.
fn declared() -> (Vec<String>, Vec<String>) {
    let source = |file: &str| fs::read_to_string(format!("{}/../crates/cli/src/{file}", env!("CARGO_MANIFEST_DIR"))).expect("a source");
    let settings = source("config/mod.rs");
    let variables = settings.split("env = \"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned());
    let root = source("lib.rs");
    let (_, variants) = root.split_once("enum Command {\n").expect("the commands");
    let (variants, _) = variants.split_once("\n}").expect("their end");
    let names = variants.lines().filter_map(|line| line.strip_prefix("    ").filter(|item| item.starts_with(char::is_uppercase)));
    let name = |item: &str| item.chars().take_while(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    (variables.collect(), names.map(name).collect())
}

#[tokio::test]
async fn help_explains_every_variable_and_command() {
    let (status, out, _) = run(command(PROGRAM, &["--help"], &[])).await;
    assert!(status.success());
    let (variables, commands) = declared();
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(variables.len() > 20 && commands.len() > 8, "{variables:?} {commands:?}");
    for variable in variables {
        assert!(words.contains(&format!("[env: {variable}]")), "{variable} in:\n{out}");
    }
    for name in commands {
        assert!(out.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name} in:\n{out}");
    }
    let (_, out, _) = run(command(PROGRAM, &["--help"], &[("POSTHASTE_MAIN_SECRET", "sesame-sesame-sesame-sesame-sesame")])).await;
    assert!(!out.contains("sesame"), "help shows no secret that happens to be set");
}

#[tokio::test]
async fn help_is_a_command_too_and_a_command_shows_the_settings_that_it_uses() {
    let help = async |arguments: &[&str]| {
        let (status, out, errors) = run(command(PROGRAM, arguments, &[])).await;
        assert!(status.success(), "{arguments:?}: {errors}");
        out
    };
    assert_eq!(help(&["help"]).await, help(&["--help"]).await);
    assert_eq!(help(&["help", "token"]).await, help(&["token", "--help"]).await);
    let cases = [
        ("token", vec!["JWT_SECRET", "DATA_DIR"], vec!["RETRY_SCHEDULE", "LISTEN", "DATABASE_URL"]),
        ("openapi", vec![], vec!["POSTHASTE_"]),
        ("healthcheck", vec!["LISTEN", "DATA_DIR"], vec!["MAIN_SECRET", "RETENTION"]),
        ("worker", vec!["RETRY_SCHEDULE", "MAIN_SECRET", "EGRESS_ALLOW"], vec!["JWT_SECRET", "DATA_DIR", "HTTPS_ONLY"]),
        ("api", vec!["JWT_SECRET", "MAX_PAYLOAD", "EGRESS_ALLOW", "HTTPS_ONLY"], vec!["RETRY_SCHEDULE", "DATA_DIR"]),
        ("serve", vec!["JWT_SECRET", "RETRY_SCHEDULE"], vec!["DATA_DIR"]),
    ];
    for (name, shown, hidden) in cases {
        let out = help(&[name, "--help"]).await;
        assert!(shown.iter().all(|variable| out.contains(variable)), "{name} uses {shown:?}:\n{out}");
        assert!(hidden.iter().all(|variable| !out.contains(variable)), "{name} uses none of {hidden:?}:\n{out}");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_early_is_no_fault() {
    for arguments in [&["openapi"] as &[_], &["token"], &["help"], &["--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // As `head` does when it has seen enough.
        drop(reader);
        let mut command = command(PROGRAM, arguments, &[("POSTHASTE_JWT_SECRET", JWT_SECRET)]);
        command.stdout(writer);
        let (status, _, errors) = processes::run_as_it_is(command).await;
        assert!(status.success() && errors.is_empty(), "{arguments:?} ended with {status}: {errors}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_sentence() {
    let database = Database::create().await;
    let holder = std::net::TcpListener::bind(processes::free_address()).expect("a free port");
    let address = holder.local_addr().expect("an address");
    for role in ["serve", "api", "worker"] {
        let mut late = ServerProcess::spawn(PROGRAM, role, &database.url, &support::new_tenant(), address, &[]);
        assert!(!late.process.ended().await.success(), "{role}");
        let log = late.process.log();
        assert!(log.contains(&format!("cannot listen on {address}")) && log.contains("POSTHASTE_LISTEN"), "{role}: {log}");
        assert!(!log.contains("panicked"), "{role}: {log}");
    }
}

#[tokio::test]
async fn serve_refuses_to_start_without_what_it_needs_and_says_what_to_set() {
    let database = Database::create().await;
    let all =
        [("POSTHASTE_DATABASE_URL", database.url.as_str()), ("POSTHASTE_JWT_SECRET", JWT_SECRET), ("POSTHASTE_MAIN_SECRET", MAIN_SECRET)];
    for (missing, _) in all {
        let rest: Vec<_> = all.into_iter().filter(|(name, _)| *name != missing).collect();
        let (status, _, errors) = run(command(PROGRAM, &["serve"], &rest)).await;
        assert!(!status.success());
        assert!(errors.contains(missing) && errors.lines().count() <= 2, "one sentence that names {missing}: {errors}");
    }
    let (_, _, errors) = run(command(PROGRAM, &["serve"], &[])).await;
    for (name, _) in all {
        assert!(errors.contains(name), "all at once: {errors}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_a_sentence() {
    let environment = [
        ("POSTHASTE_DATABASE_URL", "postgres://posthaste:hidden-password@127.0.0.1:1/nothing"),
        ("POSTHASTE_JWT_SECRET", JWT_SECRET),
        ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
        ("POSTHASTE_LISTEN", "127.0.0.1:0"),
    ];
    for name in ["serve", "migrate"] {
        let (status, _, errors) = run(command(PROGRAM, &[name], &environment)).await;
        assert!(!status.success());
        assert!(errors.contains("POSTHASTE_DATABASE_URL") && !errors.contains("panicked"), "{errors}");
        assert!(!errors.contains("hidden-password"), "{errors}");
    }
}

#[tokio::test]
async fn the_schema_is_checked_at_start_and_migrated_on_request() {
    let own = cluster::Own::start().await;
    let url = own.empty_database("fresh").await;
    let tenant = support::new_tenant();
    let mut early = ServerProcess::spawn(PROGRAM, "serve", &url, &tenant, processes::free_address(), &[]);
    assert!(!early.process.ended().await.success());
    assert!(early.process.log().contains("posthaste migrate"), "it says who migrates: {}", early.process.log());
    let environment = [("POSTHASTE_DATABASE_URL", url.as_str()), ("POSTHASTE_MAIN_SECRET", MAIN_SECRET)];
    for _ in 0..2 {
        let (status, _, errors) = run(command(PROGRAM, &["migrate"], &environment)).await;
        assert!(status.success(), "{errors}");
    }
    let server = ServerProcess::start(PROGRAM, "serve", &url, &tenant, &[]).await;
    assert_eq!(server.client.get("/api/v1/app").await.status, 200);
    drop(server);
    let other = own.empty_database("other").await;
    let environment = [
        ("POSTHASTE_DATABASE_URL", other.as_str()),
        ("POSTHASTE_MAIN_SECRET", MAIN_SECRET),
        ("POSTHASTE_JWT_SECRET", JWT_SECRET),
        ("POSTHASTE_LISTEN", "127.0.0.1:0"),
    ];
    let mut migrating = Process::spawn(command(PROGRAM, &["serve", "--migrate"], &environment));
    migrating.printed("started").await;
}

#[tokio::test]
async fn a_printed_token_opens_the_api() {
    let database = Database::create().await;
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &support::new_tenant(), &[]).await;
    let environment = [("POSTHASTE_JWT_SECRET", JWT_SECRET)];
    let (status, token, _) = run(command(PROGRAM, &["token"], &environment)).await;
    assert!(status.success());
    assert_eq!(token.lines().count(), 1, "nothing but the token: {token}");
    let client = server.client.with_token(token.trim());
    client.post("/api/v1/app", &json!({ "name": "mine" })).await.expect(201);
    let (_, other, _) = run(command(PROGRAM, &["token", "org_other"], &environment)).await;
    assert_eq!(server.client.with_token(other.trim()).get("/api/v1/app").await.expect(200).json()["data"], json!([]));
    let customer = Customer::create(&client).await;
    let (_, application, _) = run(command(PROGRAM, &["token", "--application", &customer.id], &environment)).await;
    let bearer = server.client.with_token(application.trim());
    bearer.get(&customer.path("/endpoint")).await.expect(200);
    bearer.get("/api/v1/app").await.expect(403);
    let (status, _, errors) = run(command(PROGRAM, &["token", "--application", "acme"], &environment)).await;
    assert!(!status.success() && errors.contains("app_"), "{errors}");
    let (status, _, errors) = run(command(PROGRAM, &["token", "not a tenant"], &environment)).await;
    assert!(!status.success() && errors.contains("org_"), "{errors}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let folder = elsewhere.path().display().to_string();
    let (status, _, errors) = run(command(PROGRAM, &["token"], &[("POSTHASTE_DATA_DIR", &folder)])).await;
    assert!(!status.success() && errors.contains("POSTHASTE_JWT_SECRET"), "{errors}");
}

#[tokio::test]
async fn the_healthcheck_tells_by_its_exit_code() {
    let mut own = cluster::Own::start().await;
    let url = own.database("health").await;
    let mut server = ServerProcess::start(PROGRAM, "serve", &url, &support::new_tenant(), &[]).await;
    let listen = server.address.to_string();
    let check = || run(command(PROGRAM, &["healthcheck"], &[("POSTHASTE_LISTEN", &listen)]));
    assert_eq!(check().await.0.code(), Some(0));
    own.crash().await;
    assert_eq!(check().await.0.code(), Some(1), "without its database it is not ready");
    own.restart().await;
    support::eventually("it is ready again", async || (check().await.0.code() == Some(0)).then_some(())).await;
    server.process.kill().await;
    assert_eq!(check().await.0.code(), Some(1));
}

#[tokio::test]
async fn the_healthcheck_asks_the_server_that_it_belongs_to() {
    let database = Database::create().await;
    for host in ["0.0.0.0", "[::]", "127.0.0.1", "[::1]"] {
        let address = processes::free_address();
        let listen = format!("{host}:{}", address.port());
        let environment = [("POSTHASTE_LISTEN", listen.as_str())];
        let mut server = ServerProcess::spawn(PROGRAM, "serve", &database.url, &support::new_tenant(), address, &environment);
        server.process.printed("started").await;
        let (status, out, errors) = run(command(PROGRAM, &["healthcheck"], &environment)).await;
        assert!(status.success() && out.contains("healthy"), "{listen}: {errors}");
    }
    // Whatever it is asked it answers with a 200, as a development server of somebody else may.
    let stranger = Receiver::start().await;
    let listen = stranger.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (status, out, errors) = run(command(PROGRAM, &["healthcheck"], &[("POSTHASTE_LISTEN", &listen)])).await;
    assert!(!status.success() && errors.contains("not Posthaste") && errors.contains(&listen), "{out}{errors}");
    assert!(errors.contains("POSTHASTE_LISTEN"), "it says what to do: {errors}");
    let (status, _, errors) = run(command(PROGRAM, &["healthcheck"], &[("POSTHASTE_LISTEN", "127.0.0.1:0")])).await;
    assert!(!status.success() && errors.contains("names no port"), "{errors}");
}

#[tokio::test]
async fn openapi_prints_the_file_in_the_tree() {
    let (status, out, _) = run(command(PROGRAM, &["openapi"], &[])).await;
    assert!(status.success());
    let file = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml")).expect("openapi.yaml");
    assert_eq!(out.trim_end(), file.trim_end());
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_with_0() {
    let database = Database::create().await;
    let variables = [("POSTHASTE_REQUEST_TIMEOUT", "2s")];
    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &support::new_tenant(), &variables).await;
    let receiver = Receiver::start().await;
    let gate = support::Gate::default();
    receiver.on("/slow", [Reply::status(200).held_by(&gate)]);
    receiver.on("/hang", [Reply::hang()]);
    let customer = Customer::create(&server.client).await;
    customer.endpoint(&receiver.url("/slow")).await;
    customer.endpoint(&receiver.url("/hang")).await;
    customer.publish(&json!({})).await;
    receiver.received(2).await;
    let begun = std::time::Instant::now();
    server.process.signal(Signal::TERM);
    server.process.printed("stopping").await;
    gate.open();
    let status = server.process.ended().await;
    assert_eq!(status.code(), Some(0), "{}", server.process.log());
    assert!(begun.elapsed().as_secs_f64() < 7.0, "within the request timeout and five seconds");
    assert_eq!(database.number("select count(*) from attempt where outcome = 0").await, 1, "what was answered is recorded");
    assert_eq!(database.number("select count(*) from queue where lease is not null").await, 0, "nothing is left leased");
}

#[tokio::test]
async fn api_and_worker_can_run_apart() {
    let database = Database::create().await;
    let receiver = Receiver::start().await;
    let api = ServerProcess::start(PROGRAM, "api", &database.url, &support::new_tenant(), &[]).await;
    let customer = Customer::create(&api.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({})).await;
    let mut worker = ServerProcess::spawn(PROGRAM, "worker", &database.url, &support::new_tenant(), processes::free_address(), &[]);
    worker.process.printed("started").await;
    assert_eq!(receiver.received(1).await[0].id(), message);
    assert_eq!(customer.attempts(&message, 1).await[0].code(), 200);
    worker.client.request("GET", "/api/v1/app").unchecked().send().await.expect(404);
    worker.client.get("/api/v1/health").await.expect(204);
    let metrics = worker.client.get("/metrics").await.expect(200);
    assert!(String::from_utf8_lossy(&metrics.body).contains("posthaste_deliveries_finished_total{result=\"succeeded\"} 1\n"));
}
