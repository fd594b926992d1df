//! A delivery that breaks off because of a fault of ours: the receiver is not blamed, and no attempt is used up.

use domain::{endpoint::EndpointUrl, id::Id};
use serde_json::json;
use storage::{
    applications::Reference,
    endpoints::{Change, Create},
    idempotency::{self, Answer},
};
use support::{Customer, Database, Receiver, eventually, new_tenant, processes::ServerProcess};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// What the log says of it.
const BROKE_OFF: &str = "a delivery broke off by our own fault";
/// Lets the leases of all deliveries that are being sent run out.
const LEASES_RUN_OUT: &str = "update queue set due_at = now() where lease is not null";
/// More than a map of headers can hold: building such a request is a panic. The API accepts no more than 50.
const TOO_MANY_HEADERS: usize = 30_000;

/// Makes an endpoint with headers that no request can have, past the API that would refuse them.
async fn uncallable(database: &Database, customer: &Customer, url: &str) {
    let db = storage::Db::connect(&support::database::config(&database.url)).await.expect("the database");
    let tenant: uuid::Uuid = database.texts("select id::text from tenant").await.remove(0).parse().expect("a uuid");
    let create = Create {
        tenant_id: tenant.into(),
        application: Reference::Id(Id::parse(&customer.id).expect("an id")),
        change: Change { url: Some(EndpointUrl::parse(url).expect("a URL")), ..Change::default() },
        secret: None,
        headers: (0..TOO_MANY_HEADERS).map(|number| (format!("x-{number}"), String::new())).collect(),
    };
    let nothing = Answer { status: 204, body: bytes::Bytes::new(), content_type: None, location: None };
    let written = idempotency::execute(&db, None, create, move |done| done.map(|_| nothing).expect("it is written"));
    written.await.expect("it is written");
}

/// A server that would try again in an hour, and an endpoint for which it panics.
async fn panicking(receiver: &Receiver) -> (Database, ServerProcess, Customer, String) {
    let database = Database::create().await;
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &[("POSTHASTE_RETRY_SCHEDULE", "1h")]).await;
    let customer = Customer::create(&server.client).await;
    uncallable(&database, &customer, &receiver.url("/")).await;
    let endpoint = customer.pages(&customer.path("/endpoint")).await.remove(0)["id"].as_str().expect("an id").to_owned();
    (database, server, customer, endpoint)
}

async fn broken_off(server: &ServerProcess, times: usize) {
    let count = async || (server.process.log().matches(BROKE_OFF).count() >= times).then_some(());
    eventually(&format!("{times} deliveries have broken off"), count).await;
}

#[tokio::test]
async fn a_panic_is_logged_with_its_ids_and_the_delivery_is_tried_again() {
    let receiver = Receiver::start().await;
    let (database, mut server, customer, endpoint) = panicking(&receiver).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let line = server.process.printed(BROKE_OFF).await;
    assert!(line.contains("ERROR") && line.contains(&message) && line.contains(&endpoint) && line.contains("a panic"), "{line}");

    let other = Customer::create(&server.client).await;
    other.endpoint(&receiver.url("/other")).await;
    other.publish(&json!({})).await;
    receiver.received_at("/other", 1).await;
    assert_eq!(customer.attempts_so_far(&message).await.len(), 0, "nothing is made up, and it does not go round in circles");
    eventually("the other's result is recorded", async || (database.owed().await == 1).then_some(())).await;
    assert_eq!(server.process.log().matches(BROKE_OFF).count(), 1);

    server.client.put(&customer.path(&format!("/endpoint/{endpoint}/headers")), &json!({ "headers": {} })).await.expect(204);
    database.execute(LEASES_RUN_OUT).await;
    let attempts = customer.attempts(&message, 2).await;
    assert_eq!(attempts.iter().map(support::Attempt::code).collect::<Vec<_>>(), [0, 200]);
    assert!(attempts[0].response().starts_with("unknown"), "{attempts:?}");
    assert_eq!(receiver.received_at("/", 1).await[0].header("posthaste-attempt"), "1", "it was not used up");
    database.nothing_owed().await;
    assert_eq!(database.number("select count(*) from endpoint_health where failures > 0").await, 0, "the receiver is not blamed");
}

#[tokio::test]
async fn a_delivery_that_panics_three_times_in_a_row_ends() {
    let receiver = Receiver::start().await;
    let (database, server, customer, _) = panicking(&receiver).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    for times in 1..=3 {
        broken_off(&server, times).await;
        database.execute(LEASES_RUN_OUT).await;
    }
    database.nothing_owed().await;
    let attempts = customer.attempts(&message, 3).await;
    assert_eq!(attempts.len(), 3);
    assert!(attempts[2].response().contains("worker crashed"), "{attempts:?}");
    assert_eq!(server.process.log().matches(BROKE_OFF).count(), 3);
    assert_eq!(receiver.so_far().len(), 0);
}
