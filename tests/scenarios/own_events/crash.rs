//! Through crashes, each event is one message; and a row that nobody understands is in nobody's way.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use support::{App, Customer, Database, Options, Receiver, Roles, eventually, new_tenant, processes::ServerProcess, scrape::Scrape};

use super::{NOTED, all_is_published, listen, published};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

#[tokio::test]
async fn a_worker_that_dies_before_it_has_deleted_what_it_published_does_not_publish_it_twice() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let api = ServerProcess::start(PROGRAM, "api", &database.url, &tenant, &[]).await;
    let receiver = Receiver::start().await;
    listen(&api.client, &receiver.url("/")).await;
    let customer = Customer::create(&api.client).await;
    database
        .execute(
            "create function keep() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger keep before delete on own_event for each row execute function keep()",
        )
        .await;
    let mut worker = ServerProcess::start(PROGRAM, "worker", &database.url, &tenant, &[]).await;
    for _ in 0..3 {
        customer.endpoint("https://example.com/").await;
    }
    receiver.received(3).await;
    worker.process.kill().await;
    assert_eq!(database.number(NOTED).await, 3, "it could delete nothing");
    database.execute("drop trigger keep on own_event").await;
    let _second = ServerProcess::start(PROGRAM, "worker", &database.url, &tenant, &[]).await;
    all_is_published(&database).await;
    assert_eq!(published(&database).await.len(), 3);
    assert_eq!(receiver.so_far().iter().map(|webhook| webhook.id().to_owned()).collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn whatever_happens_while_workers_are_killed_is_told_under_one_id() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let api = ServerProcess::start(PROGRAM, "api", &database.url, &tenant, &[]).await;
    let receiver = Receiver::start().await;
    listen(&api.client, &receiver.url("/")).await;
    let customer = Customer::create(&api.client).await;
    let mut made = BTreeSet::new();
    for round in 0..3 {
        let mut worker = ServerProcess::start(PROGRAM, "worker", &database.url, &tenant, &[]).await;
        let target = receiver.so_far().len() + 1;
        for _ in 0..10 {
            made.insert(customer.endpoint("https://example.com/").await);
        }
        if round > 0 {
            receiver.received(target).await;
        }
        worker.process.kill().await;
        // Others need not wait until the leases of the dead one run out.
        database.execute("update queue set due_at = now() where lease is not null").await;
    }
    let _worker = ServerProcess::start(PROGRAM, "worker", &database.url, &tenant, &[]).await;
    all_is_published(&database).await;
    database.nothing_owed().await;
    let mut heard: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for webhook in receiver.so_far() {
        let endpoint = webhook.json()["data"]["endpointId"].as_str().expect("an id").to_owned();
        heard.entry(endpoint).or_default().insert(webhook.id().to_owned());
    }
    assert_eq!(heard.keys().cloned().collect::<BTreeSet<_>>(), made);
    assert!(heard.values().all(|ids| ids.len() == 1), "{heard:?}");
}

#[tokio::test]
async fn a_row_that_nobody_understands_is_in_nobodys_way() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    listen(&app.client, &receiver.url("/")).await;
    let customer = app.customer().await;
    customer.endpoint("https://example.com/").await;
    let poison = "insert into own_event (tenant_id, id, kind, facts)
        select tenant_id, uuid_floor(now() - interval '1 hour'), 99, '{}' from application where is_own";
    app.database.execute(poison).await;
    let worker = app.node_with(&Options { roles: Roles::Worker, ..Options::default() }).await;
    receiver.received(1).await;
    let put_off = "select count(*) from own_event where kind = 99 and due_at > created_at";
    eventually("the odd one is put off", async || (app.database.number(put_off).await == 1).then_some(())).await;
    assert_eq!(app.database.number(NOTED).await, 1);
    let waiting = async || (Scrape::of(&app.client).await.get("own_events_waiting") == Some(1.0)).then_some(());
    eventually("operators see that it waits", waiting).await;
    app.database.execute("update own_event set created_at = now() - interval '2 days', due_at = now()").await;
    customer.endpoint("https://example.com/").await;
    receiver.received(2).await;
    all_is_published(&app.database).await;
    worker.stop().await;
}

#[tokio::test]
async fn what_nobody_wants_to_hear_any_more_is_dropped() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let endpoint = listen(&app.client, "https://example.com/").await;
    let customer = app.customer().await;
    customer.endpoint("https://example.com/").await;
    assert_eq!(app.database.number(NOTED).await, 1);
    app.client.delete(&format!("{}/{endpoint}", super::LIST)).await.expect(204);
    let worker = app.node_with(&Options { roles: Roles::Worker, ..Options::default() }).await;
    all_is_published(&app.database).await;
    assert!(published(&app.database).await.is_empty());
    let patch = json!({ "description": "x" });
    app.client.patch(&customer.path(&format!("/endpoint/{}", customer.endpoint("https://example.com/").await)), &patch).await.expect(200);
    assert_eq!(app.database.number(NOTED).await, 0);
    worker.stop().await;
}
