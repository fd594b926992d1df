//! Somebody sets the clock of the database's server, by weeks: while servers run, or while none does. Nothing stops, no key is forgotten
//! by a clock that went back, and nothing waits for a time that the clock has taken back.

use std::time::Duration;

use serde_json::json;
use support::{
    Clock, Customer, Database, Node, Options, Receiver, Reply,
    client::Answer,
    customer::message,
    database::{OLD_PARTITION, OLD_PARTITIONS},
    eventually, new_tenant, token,
};

/// Everything that a clock which was set back leaves in the future.
const TOO_FAR_AHEAD: &str = "select (select count(*) from queue where due_at > public.now() + interval '1 hour')
    + (select count(*) from queue_later where due_at > public.now() + interval '3 hours')
    + (select count(*) from endpoint_health where greatest(probe_at, changed_at) > public.now() + interval '1 hour')
    + (select count(*) from endpoint_rate where tat > public.now() + interval '1 hour')
    + (select count(*) from idempotency where created_at > public.now() + interval '1 hour')";

/// A customer of a server whose clock can be set, with one endpoint that takes everything, and one that first refuses and is throttled.
struct Stage {
    database: Database,
    tenant: String,
    receiver: Receiver,
}

fn options() -> Options {
    Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }
}

impl Stage {
    async fn set() -> (Self, Node, Customer) {
        let stage = Self { database: Database::create().await, tenant: new_tenant(), receiver: Receiver::start().await };
        Clock::running(&stage.database).await;
        let node = stage.node().await;
        let customer = Customer::create(&node.client).await;
        customer.endpoint(&stage.receiver.url("/fine")).await;
        (stage, node, customer)
    }

    async fn node(&self) -> Node {
        Node::start(&self.database.url, &options(), &token(&self.tenant)).await
    }

    async fn jump(&self, by: &str) {
        self.database.execute(&format!("update clock.hand set at = at + interval '{by}'")).await;
    }

    /// Messages are accepted, delivered and recorded, and keys hold, for them and for other writes.
    async fn all_goes_on(&self, customer: &Customer, name: &str) {
        let (key, before) = (format!("key-{name}"), self.receiver.so_far().iter().filter(|request| request.path == "/fine").count());
        let first = customer.publish_raw(&message(&json!({ "n": name })), Some(&key)).await.expect(202);
        self.receiver.received_at("/fine", before + 1).await;
        assert_eq!(customer.attempts(&first.text("id"), 1).await[0].code(), 200);
        let again = customer.publish_raw(&message(&json!({ "n": name })), Some(&key)).await.expect(202);
        assert!(again.is_replay() && again.text("id") == first.text("id"), "{again:?}");
        assert_eq!(create(customer, &key).await.text("id"), create(customer, &key).await.text("id"));
    }
}

/// Another write under a key.
async fn create(customer: &Customer, key: &str) -> Answer {
    customer.client.request("POST", "/api/v1/app").key(key).json(&json!({ "name": key })).send().await.expect(201)
}

#[tokio::test]
async fn a_server_that_starts_after_the_clock_was_set_works_as_ever() {
    for jump in ["60 days", "-30 days"] {
        let (stage, node, customer) = Stage::set().await;
        stage.all_goes_on(&customer, "before").await;
        node.stop().await;
        stage.jump(jump).await;
        let node = stage.node().await;
        let customer = customer.through(&node.client);
        stage.all_goes_on(&customer, "after").await;
        node.stop().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_while_servers_run_stops_nothing() {
    for jump in ["30 days", "-30 days"] {
        let (stage, node, customer) = Stage::set().await;
        stage.all_goes_on(&customer, "before").await;
        stage.jump(jump).await;
        stage.all_goes_on(&customer, "at once").await;
        let is_followed = format!(
            "select count(*) from message where id > uuid_floor(pg_catalog.now() + interval '{jump}' - interval '1 hour')
            and id < uuid_floor(pg_catalog.now() + interval '{jump}' + interval '1 hour')"
        );
        eventually("new messages have the new time", async || {
            customer.publish(&json!({})).await;
            (stage.database.number(&is_followed).await > 0).then_some(())
        })
        .await;
        stage.all_goes_on(&customer, "later").await;
        stage.database.nothing_owed().await;
        node.stop().await;
    }
}

/// What runs while the clock is ahead, and what has to come of it when it is right again.
#[tokio::test]
async fn nothing_waits_for_a_time_that_the_clock_has_taken_back() {
    for is_running in [true, false] {
        let (stage, node, mut customer) = Stage::set().await;
        let (receiver, database) = (&stage.receiver, &stage.database);
        receiver.on("/held", [Reply::status(500)]);
        receiver.on("/retried", [Reply::status(500), Reply::status(200)]);
        customer.endpoint_with(&json!({ "url": receiver.url("/held"), "channels": ["held"] })).await;
        customer.endpoint_with(&json!({ "url": receiver.url("/retried"), "channels": ["retried"] })).await;
        customer.endpoint_with(&json!({ "url": receiver.url("/throttled"), "channels": ["throttled"], "throttleRate": 5 })).await;
        let publish = async |customer: &Customer, channel: &str, key: Option<&str>| {
            let body = json!({ "eventType": "x", "payload": {}, "channels": [channel] });
            customer.publish_raw(&body, key).await.expect(202)
        };
        let accepted = publish(&customer, "retried", Some("of the future")).await;
        publish(&customer, "throttled", None).await;
        receiver.received_at("/throttled", 1).await;
        let attempts = customer.attempts(&accepted.text("id"), 2).await;
        assert_eq!(attempts.len(), 2, "one of them to wait");
        for _ in 0..60 {
            publish(&customer, "held", None).await;
        }
        eventually("an endpoint is held", async || {
            (database.number("select count(*) from endpoint_health where state = 1").await == 1).then_some(())
        })
        .await;
        eventually("nothing is on its way", async || {
            (database.number("select count(*) from queue where lease is not null").await == 0).then_some(())
        })
        .await;

        let probes = receiver.so_far().iter().filter(|request| request.path == "/held").count();
        let node = if is_running {
            stage.jump("-30 days").await;
            node
        } else {
            node.stop().await;
            stage.jump("-30 days").await;
            stage.node().await
        };
        customer = customer.through(&node.client);
        eventually("all is brought back", async || (database.number(TOO_FAR_AHEAD).await == 0).then_some(())).await;
        let again = publish(&customer, "retried", Some("of the future")).await;
        assert!(again.is_replay() && again.text("id") == accepted.text("id"), "{again:?}");
        // An hour later, and when the endpoint has cooled down.
        let asleep = "select count(*) from queue_later where due_at between public.now() + interval '40 minutes' and public.now() + interval '80 minutes'";
        assert_eq!(
            database.number(asleep).await,
            database.number("select count(*) from queue_later").await,
            "retries wait as long as they had to"
        );
        database
            .execute("update queue_later set due_at = public.now(); update endpoint_health set probe_at = public.now() where state = 1")
            .await;
        publish(&customer, "throttled", None).await;
        receiver.received_at("/throttled", 2).await;
        receiver.received_at("/retried", 2).await;
        receiver.received_at("/held", probes + 1).await;
        node.stop().await;
    }
}

/// A process may not have heard yet what the server's clock shows by now. Here it never does.
#[tokio::test]
async fn a_process_that_is_months_ahead_of_the_server_is_served_and_drops_nothing_of_today() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let ahead = "create function public.clock_timestamp() returns timestamptz language sql volatile as
          $$ select pg_catalog.clock_timestamp() + interval '60 days' $$;
        do $$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database()); end $$";
    database.execute(ahead).await;
    database.execute(OLD_PARTITION).await;
    let options = Options { retention: Duration::from_hours(30 * 24), ..Options::default() };
    let node = Node::start(&database.url, &options, &token(&tenant)).await;
    let (customer, receiver) = (Customer::create(&node.client).await, Receiver::start().await);
    customer.endpoint(&receiver.url("/")).await;
    let publish = async |key: &str| customer.publish_raw(&message(&json!({ "key": key })), Some(key)).await.expect(202);
    let first = publish("first").await;
    receiver.received(1).await;
    assert_eq!(customer.attempts(&first.text("id"), 1).await[0].code(), 200);
    eventually("upkeep has been there", async || (database.number(OLD_PARTITIONS).await == 0).then_some(())).await;
    let again = publish("first").await;
    assert!(again.is_replay() && again.text("id") == first.text("id"), "{again:?}");
    assert!(!publish("second").await.is_replay());
}
