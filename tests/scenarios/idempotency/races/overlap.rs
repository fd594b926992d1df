//! A repeat while the first request is being executed: one of them takes effect, and nobody waits for a key.

use domain::idempotency::Policy;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use support::{App, Client, Options, Receiver, customer::message, eventually};

use super::publishing;
use crate::idempotency::same;

/// One of two equal requests is executed; the other is answered while the first is still held.
async fn one_of_two_is_executed(app: &App, there: &Client) {
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let body = message(&json!({ "n": 1 }));
    let hold = app.database.hold_inserts("message").await;
    let first = publishing(&customer, &app.client, &body, "key");
    hold.holds(1).await;
    let second = customer.through(there).publish_raw(&body, Some("key")).await.expect(409);
    assert_eq!(second.text("code"), "idempotency_in_progress");
    assert!(!first.is_finished(), "the second did not wait for it");
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    same(&first, &customer.through(there).publish_raw(&body, Some("key")).await);
    receiver.received(1).await;
    app.database.nothing_owed().await;
    assert_eq!((receiver.so_far().len(), customer.messages().await.len()), (1, 1));
}

#[tokio::test]
async fn of_two_that_overlap_on_one_node_one_is_executed() {
    let app = App::start().await;
    one_of_two_is_executed(&app, &app.client).await;
}

#[tokio::test]
async fn of_two_that_overlap_on_two_nodes_one_is_executed() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    one_of_two_is_executed(&app, &other_node.client).await;
}

#[tokio::test]
async fn of_two_with_different_bodies_that_overlap_one_is_executed_and_the_other_refused() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let (body, other) = (message(&json!({ "n": 1 })), message(&json!({ "n": 2 })));
    let hold = app.database.hold_inserts("message").await;
    let first = publishing(&customer, &app.client, &body, "key");
    hold.holds(1).await;
    let here = customer.publish_raw(&other, Some("key")).await.expect(422);
    assert_eq!(here.code(), "idempotency_key_reused", "its own node sees at once that it is another request");
    let there = customer.through(&other_node.client);
    assert_eq!(there.publish_raw(&other, Some("key")).await.expect(409).text("code"), "idempotency_in_progress");
    assert!(!first.is_finished());
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    assert_eq!(there.publish_raw(&other, Some("key")).await.expect(422).code(), "idempotency_key_reused");
    same(&first, &there.publish_raw(&body, Some("key")).await);
    assert_eq!(customer.messages().await.len(), 1);
}

/// Makes every insert into a table fail once it is released; `hold_insert` goes before `refuse_insert`.
fn refuse_inserts(table: &str) -> String {
    format!(
        "create function refuse_insert() returns trigger language plpgsql as
           $$ begin raise 'refused' using errcode = 'data_exception'; end $$;
         create trigger refuse_insert before insert on {table} for each row execute function refuse_insert();"
    )
}

#[tokio::test]
async fn when_the_first_rolls_back_the_one_that_was_told_to_come_back_is_executed() {
    let requests =
        [("message", "/msg", message(&json!({ "n": 1 })), 202), ("endpoint", "/endpoint", json!({ "url": "https://example.com/" }), 201)];
    for (table, path, body, status) in requests {
        let app = App::start().await;
        let other_node = app.second_node().await;
        let customer = app.customer().await;
        let post = |client: &Client| client.request("POST", &customer.path(path)).key("key").json(&body).send();
        app.database.execute(&refuse_inserts(table)).await;
        let hold = app.database.hold_inserts(table).await;
        let first = tokio::spawn(post(&app.client));
        hold.holds(1).await;
        post(&other_node.client).await.expect(409);
        hold.release().await;
        first.await.expect("no panic").expect(500);
        app.database.execute("drop function refuse_insert() cascade").await;
        let retry = post(&other_node.client).await.expect(status);
        assert!(!retry.is_replay(), "nothing of the first was kept");
        same(&retry, &post(&app.client).await);
        assert_eq!(app.database.number(&format!("select count(*) from {table}")).await, 1);
    }
}

#[tokio::test]
async fn every_other_write_waits_for_its_twin_too() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let hold = app.database.hold_inserts("application").await;
    let create = |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" }));
    let first = tokio::spawn(create(&app.client).send());
    hold.holds(1).await;
    for client in [&other_node.client, &app.client] {
        let second = create(client).send().await.expect(409);
        assert_eq!(second.text("code"), "idempotency_in_progress");
        assert_eq!(second.header("retry-after"), Some("1"));
    }
    assert!(!first.is_finished());
    hold.release().await;
    let first = first.await.expect("no panic").expect(201);
    same(&first, &create(&other_node.client).send().await);
}

#[tokio::test]
async fn a_policy_can_make_the_second_wait_for_the_first() {
    let app = App::with(Options { policy: Policy::svix(), ..Options::default() }).await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let hold = app.database.hold_inserts("message").await;
    let body = message(&json!({ "n": 1 }));
    let first = publishing(&customer, &app.client, &body, "key");
    hold.holds(1).await;
    let second = publishing(&customer, &other_node.client, &body, "key");
    let third = publishing(&customer, &app.client, &body, "key");
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    same(&first, &second.await.expect("no panic"));
    same(&first, &third.await.expect("no panic"));
}

#[tokio::test]
async fn two_that_come_after_the_time_of_a_key_is_over_make_one_more_message() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let body = message(&json!({ "n": 1 }));
    let first = customer.publish_raw(&body, Some("key")).await.expect(202);
    app.database.execute("update idempotency set expires_at = now() + interval '1 minute'").await;
    same(&first, &customer.publish_raw(&body, Some("key")).await);
    app.database.execute("update idempotency set expires_at = now()").await;
    let hold = app.database.hold_inserts("message").await;
    let anew = publishing(&customer, &app.client, &body, "key");
    hold.holds(1).await;
    customer.through(&other_node.client).publish_raw(&body, Some("key")).await.expect(409);
    hold.release().await;
    let anew = anew.await.expect("no panic").expect(202);
    assert!(!anew.is_replay());
    assert_ne!(anew.text("id"), first.text("id"));
    same(&anew, &customer.through(&other_node.client).publish_raw(&body, Some("key")).await);
    assert_eq!(customer.messages().await.len(), 2);
}

/// The locks of header keys that somebody holds (name-space 1, the highest byte), as `pg_advisory_lock` takes them.
const HELD_KEYS: &str = "select ((classid::bigint << 32) | objid::bigint)::text from pg_locks
    where locktype = 'advisory' and granted and objsubid = 1 and classid::bigint >> 24 = 1
      and database = (select oid from pg_database where datname = current_database())";

#[tokio::test]
async fn a_key_that_somebody_sits_on_delays_no_other_key() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let body = message(&json!({ "n": 1 }));
    let hold = app.database.hold_inserts("message").await;
    let first = publishing(&customer, &app.client, &body, "stalled");
    hold.holds(1).await;
    let locks = app.database.texts(HELD_KEYS).await;
    assert_eq!(locks.len(), 1, "one key is in use");
    hold.release().await;
    first.await.expect("no panic").expect(202);
    app.database.execute("delete from idempotency").await;

    let mut somebody = PgConnection::connect(&app.database.url).await.expect("a side connection");
    let lock = format!("select pg_advisory_lock({})", locks[0]);
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut somebody).await.expect("the lock");
    let clients = [&app.client, &other_node.client];
    for round in 0..10 {
        let stalled = clients.map(|client| publishing(&customer, client, &body, "stalled"));
        let others = clients.map(|client| publishing(&customer, client, &body, &format!("{}-{round}", client.base)));
        for answer in stalled {
            assert_eq!(answer.await.expect("no panic").expect(409).text("code"), "idempotency_in_progress");
        }
        for answer in others {
            assert!(!answer.await.expect("no panic").expect(202).is_replay());
        }
    }
    let patch = app.client.request("PATCH", &customer.path("")).key("stalled").json(&json!({ "name": "x" })).send().await;
    assert_eq!(patch.status, 200, "nor does it delay another operation with the same key");
    somebody.close().await.expect("closed");
    let freed = async || {
        let answer = customer.publish_raw(&body, Some("stalled")).await;
        (answer.status == 202).then_some(answer)
    };
    assert!(!eventually("the key is free", freed).await.is_replay());
    assert_eq!(customer.messages().await.len(), 22);
}

/// Puts the records that are inserted from now on at random into yesterday's last moment or into this one, as if half of the
/// requests had begun before midnight.
const AROUND_MIDNIGHT: &str = "alter table idempotency alter created_at set default
    case when random() < 0.5 then date_trunc('day', now(), 'UTC') - interval '0.1 seconds' else now() end";
/// How many partitions hold records.
const PARTITIONS: &str = "select count(distinct tableoid) from idempotency";

#[tokio::test]
async fn a_first_before_midnight_and_a_second_after_it_are_one() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let publish = async |client: &Client, n: usize| {
        let (there, key) = (customer.through(client), format!("key-{n}"));
        loop {
            let answer = there.publish_raw(&message(&json!({ "n": n })), Some(&key)).await;
            if answer.status != 409 {
                return answer.expect(202);
            }
        }
    };
    let first = publish(&app.client, 0).await;
    app.database.execute("update idempotency set created_at = date_trunc('day', now(), 'UTC') - interval '0.1 seconds'").await;
    same(&first, &publish(&app.client, 0).await);
    same(&first, &publish(&other_node.client, 0).await);

    app.database.execute(AROUND_MIDNIGHT).await;
    for n in 1..40 {
        let (one, other) = tokio::join!(publish(&app.client, n), publish(&other_node.client, n));
        assert_eq!((&one.body, one.is_replay()), (&other.body, !other.is_replay()), "one was executed, the other replayed");
    }
    assert_eq!(app.database.number(PARTITIONS).await, 2, "records lie on both sides of midnight");
    let names: Vec<Value> = customer.messages().await.iter().map(|message| message["id"].clone()).collect();
    assert_eq!(names.len(), 40);
    assert_eq!(app.database.number("select count(*) from idempotency").await, 40, "one record each");
}
