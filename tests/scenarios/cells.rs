//! A cell is a schema: two of them in one database hold different tenants, and neither notices the other.

use serde_json::json;
use support::{
    Customer, Database, JWT_SECRET, MAIN_SECRET, Receiver, cluster,
    database::{OLD_PARTITION, OLD_PARTITIONS},
    eventually, new_tenant,
    processes::{ServerProcess, command, run},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// A database with two schemas, and for each the URL that leads to it.
async fn two_cells(own: &cluster::Own) -> [Database; 2] {
    let url = own.empty_database("cells").await;
    Database::existing(&url).execute("create schema one; create schema two").await;
    let into = |schema: &str| format!("{url}{}options=-c%20search_path%3D{schema}", if url.contains('?') { '&' } else { '?' });
    let cells = ["one", "two"].map(|schema| Database::existing(&into(schema)));
    for cell in &cells {
        let environment =
            [("POSTHASTE_DATABASE_URL", cell.url.as_str()), ("POSTHASTE_MAIN_SECRET", MAIN_SECRET), ("POSTHASTE_JWT_SECRET", JWT_SECRET)];
        let (status, out, errors) = run(command(PROGRAM, &["migrate"], &environment)).await;
        assert!(status.success() && out.contains("applied 0001 schema"), "{out}{errors}");
    }
    cells
}

#[tokio::test]
async fn two_cells_of_one_database_do_not_see_each_other() {
    let own = cluster::Own::start().await;
    let [one, two] = two_cells(&own).await;
    let in_public = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(one.number(in_public).await, 0, "nothing went where no cell is");
    two.execute(OLD_PARTITION).await;
    one.execute(OLD_PARTITION).await;

    let receiver = Receiver::start().await;
    let mut running = Vec::new();
    for (cell, retention) in [(&one, "30d"), (&two, "90d")] {
        let variables = [("POSTHASTE_RETENTION", retention), ("POSTHASTE_RETRY_SCHEDULE", "10ms")];
        let server = ServerProcess::start(PROGRAM, "serve", &cell.url, &new_tenant(), &variables).await;
        // The same names and the same key: they mean something in their cell alone.
        server.client.post("/api/v1/app", &json!({ "name": "acme", "uid": "acme" })).await.expect(201);
        let customer = Customer::create(&server.client).await;
        customer.endpoint(&receiver.url("/")).await;
        let accepted = customer.publish_raw(&support::customer::message(&json!({ "retention": retention })), Some("key")).await.expect(202);
        assert!(!accepted.is_replay());
        running.push(server);
    }
    receiver.received(2).await;
    for cell in [&one, &two] {
        cell.nothing_owed().await;
        assert_eq!(cell.number("select count(*) from message").await, 1);
        assert_eq!(cell.number("select count(*) from attempt where outcome = 0").await, 1);
        assert_eq!(cell.number("select count(*) from tenant").await, 1);
    }
    let old = |schema: &str| format!("{OLD_PARTITIONS} and relnamespace = '{schema}'::regnamespace");
    eventually("the one drops what it no longer keeps", async || (one.number(&old("one")).await == 0).then_some(())).await;
    assert_eq!(two.number(&old("two")).await, 1, "what the other keeps longer is still there");
}
