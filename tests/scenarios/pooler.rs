//! PgBouncer before the database: as a session pooler it is fine, and otherwise it is refused in a sentence.

use serde_json::json;
use support::{
    Customer, Database, Receiver, Reply, eventually, new_tenant,
    pooler::Pooler,
    processes::{ServerProcess, command, environment, run},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

#[tokio::test]
async fn a_pooler_of_transactions_or_statements_is_refused() {
    let database = Database::create().await;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&database.url, mode).await;
        for arguments in [&["serve"][..], &["api"], &["worker"], &["migrate"], &["reseal"], &["serve", "--migrate"]] {
            // Twice: the second time, sessions wait in the pool.
            for _ in 0..2 {
                let (status, _, errors) = run(command(PROGRAM, arguments, &environment(&pooler.url))).await;
                assert!(!status.success(), "{mode} {arguments:?}");
                assert!(errors.contains("pools transactions or statements"), "{mode} {arguments:?}: {errors}\n{}", pooler.process.log());
            }
        }
    }
}

#[tokio::test]
async fn behind_a_pooler_of_sessions_everything_works() {
    let database = Database::create().await;
    let pooler = Pooler::start(&database.url, "session").await;
    let (status, out, errors) = run(command(PROGRAM, &["migrate"], &environment(&pooler.url))).await;
    assert!(status.success(), "{out}{errors}\n{}", pooler.process.log());
    let tenant = new_tenant();
    let variables = [("POSTHASTE_RETRY_SCHEDULE", "10ms")];
    let mut api = ServerProcess::start(PROGRAM, "api", &pooler.url, &tenant, &variables).await;
    let mut worker = ServerProcess::start(PROGRAM, "worker", &pooler.url, &tenant, &variables).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(200)]);
    let customer = Customer::create(&api.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let body = support::customer::message(&json!({ "n": 1 }));
    let accepted = customer.publish_raw(&body, Some("key")).await.expect(202);
    assert!(customer.publish_raw(&body, Some("key")).await.expect(202).is_replay());
    receiver.received(2).await;
    let listening = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'";
    eventually("the worker listens", async || (database.number(listening).await >= 1).then_some(())).await;
    // Settings are the session's own, and stay: a statement that takes too long is ended.
    let create = |name: &str| api.client.request("POST", "/api/v1/app").key("other key").json(&json!({ "name": name })).send();
    create("x").await.expect(201);
    assert!(create("x").await.is_replay());
    api.client.post(&customer.path(&format!("/endpoint/{endpoint}/secret/rotate")), &json!({})).await;
    customer.publish(&json!({ "n": 2 })).await;
    receiver.received(3).await;
    database.nothing_owed().await;
    assert_eq!(customer.attempts(&accepted.text("id"), 2).await.len(), 2);
    assert_eq!(api.client.get("/api/v1/health").await.status, 204);
    for server in [&mut api, &mut worker] {
        server.process.signal(rustix::process::Signal::TERM);
        assert!(server.process.ended().await.success(), "{}", server.process.log());
    }
}
