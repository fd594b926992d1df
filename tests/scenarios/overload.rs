//! More than can be written, and what cannot be written at all: both are told to whom they concern, and stop nobody else.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::id::{ApplicationId, Id, TenantId};
use serde_json::{Value, json};
use storage::{
    applications::Reference,
    committer::{self, NewMessage},
    directory::{self, Subscribers},
};
use support::{App, Customer, Options, Receiver, Reply, Roles, customer::message, database, new_tenant, token};
use tokio::task::JoinSet;

/// The most that may wait for the writer, as `storage::committer` has it, and what it may have in hand besides.
const ROOM: usize = 4096 + 2 * 256;
/// How many messages are offered at once.
const OFFERED: usize = 6000;
/// Makes Postgres refuse rows that hold `poison`, as it would refuse what it cannot represent.
const REFUSES_POISON: &str = "
    create function refuse_poison() returns trigger language plpgsql as
      $$ begin raise 'poison' using errcode = 'data_exception'; end $$;
    create trigger refuse_poison before insert on attempt for each row when (new.response = 'poison'::bytea) execute function refuse_poison();
    create trigger refuse_poison before insert on message for each row when (new.event_type = 'poison') execute function refuse_poison();";

/// A message that costs next to nothing; every fiftieth is wanted by somebody.
fn new(subscribers: &Arc<Subscribers>, application: &Reference<ApplicationId>, number: usize) -> NewMessage {
    NewMessage {
        subscribers: Arc::clone(subscribers),
        application: application.clone(),
        event_type: "x".into(),
        event_id: Some(format!("event-{number}")),
        channels: if number.is_multiple_of(50) { vec!["wanted".into()] } else { vec![] },
        message_key: None,
        key_scope: committer::KeyScope::Application,
        payload: bytes::Bytes::from_static(b"{}"),
        content_type: "application/json".into(),
        particulars: None,
        broadcast: None,
        payload_retention: None,
        claim: None,
    }
}

/// Straight to the writer, since thousands of connections are more than some machines allow. That a refusal for want of room
/// is a 503 with `Retry-After` is for `api::error` to show.
#[tokio::test]
async fn a_flood_on_a_stalled_database_is_refused_and_what_was_accepted_is_delivered() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint_with(&json!({ "url": receiver.url("/"), "channels": ["wanted"] })).await;
    let db = storage::Db::connect(&database::config(&app.database.url)).await.expect("a database");
    let committer = committer::start(&db, committer::Options { lease: Duration::from_mins(1), hand_off: None });
    let application = Reference::Id(ApplicationId::parse(&customer.id).expect("an id"));
    let tenant_id = TenantId(app.database.texts("select id::text from tenant").await[0].parse().expect("a uuid"));
    let subscribers = directory::find(&db, tenant_id, &application).await.expect("an application");
    let hold = app.database.hold_inserts("message").await;
    let publisher = committer.publisher.clone();
    let publish = |number: usize| {
        let (publisher, new) = (publisher.clone(), Arc::new(new(&subscribers, &application, number)));
        async move { (number, publisher.publish(&new).await) }
    };
    let mut flood = JoinSet::new();
    for number in 0..OFFERED {
        flood.spawn(publish(number));
    }
    let mut refused = BTreeSet::new();
    while refused.len() < OFFERED - ROOM {
        let (number, outcome) = flood.join_next().await.expect("more outcomes").expect("no panic");
        assert!(matches!(outcome, Err(storage::Error::Overloaded)), "{outcome:?}");
        refused.insert(number);
    }
    hold.holds(1).await;
    hold.release().await;
    let (mut accepted, mut withdrawn) = (BTreeSet::new(), BTreeSet::new());
    for (number, outcome) in flood.join_all().await {
        match outcome {
            Ok(_) => accepted.insert(number),
            // On a slow machine a publisher may have been told to come back; its message was taken back, or is being stored.
            Err(storage::Error::Unavailable(_)) => withdrawn.insert(number),
            Err(storage::Error::Overloaded) => refused.insert(number),
            other => panic!("{number}: {other:?}"),
        };
    }
    assert!(accepted.len() + withdrawn.len() <= ROOM, "{} waited at once", accepted.len() + withdrawn.len());
    let retried = *refused.first().expect("somebody was refused");
    let again = publish(retried).await.1;
    assert!(matches!(again, Ok(committer::Published::Accepted { is_replay: false, .. })), "there is room again: {again:?}");
    accepted.insert(retried);
    drop(publisher);
    committer.stop().await;
    let stored = stored_numbers(&app).await;
    assert!(accepted.is_subset(&stored), "all that was accepted is stored");
    assert!(stored.is_subset(&(&accepted | &withdrawn)), "and nothing that was refused");
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), stored.iter().filter(|number| number.is_multiple_of(50)).count());
}

/// The numbers of the events that are stored, each of them once.
async fn stored_numbers(app: &App) -> BTreeSet<usize> {
    let names = app.database.texts("select event_id from message").await;
    let numbers: BTreeSet<_> = names.iter().map(|name| name.trim_start_matches("event-").parse().expect("a number")).collect();
    assert_eq!(names.len(), numbers.len());
    numbers
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_is_recorded_as_such_and_stops_nothing() {
    let app = App::start().await;
    app.database.execute(REFUSES_POISON).await;
    let receiver = Receiver::start().await;
    receiver.on("/poison", [Reply::status(200).body("poison")]);
    receiver.on("/", [Reply::status(200).body("fine")]);
    let customer = app.customer().await;
    let poisonous = customer.endpoint_with(&json!({ "url": receiver.url("/poison"), "channels": ["poison"] })).await;
    customer.endpoint(&receiver.url("/")).await;
    let mut publishing = JoinSet::new();
    for number in 0..40 {
        let customer = customer.clone();
        let channels = if number % 10 == 0 { json!(["poison"]) } else { Value::Null };
        let body = json!({ "eventType": "x", "payload": {}, "channels": channels });
        publishing.spawn(async move { customer.publish_raw(&body, None).await.expect(202).text("id") });
    }
    publishing.join_all().await;
    app.database.nothing_owed().await;
    let by_response = "select convert_from(response, 'utf8') || ' ' || status_code || ' ' || count(*) from attempt group by response, status_code order by 1";
    assert_eq!(app.database.texts(by_response).await, ["fine 200 40", "the response could not be stored 200 4"]);
    let attempts = customer.pages(&customer.path(&format!("/attempt/endpoint/{poisonous}"))).await;
    assert_eq!(attempts.len(), 4);
    for attempt in attempts {
        assert_eq!((&attempt["statusText"], &attempt["url"]), (&json!("success"), &json!(receiver.url("/poison"))), "{attempt}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_stored_is_refused_and_its_batch_is_accepted() {
    let app = App::start().await;
    app.database.execute(REFUSES_POISON).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    // The first is held half-way, so that all others wait for the next batch.
    let hold = app.database.hold_inserts("message").await;
    let first = tokio::spawn({
        let customer = customer.clone();
        async move { customer.publish(&json!({})).await }
    });
    hold.holds(1).await;
    let mut publishing = JoinSet::new();
    for number in 0..20 {
        let customer = customer.clone();
        let event_type = if number == 7 { "poison" } else { "fine" };
        publishing.spawn(async move {
            let body = json!({ "eventType": event_type, "payload": {} });
            (number, customer.publish_raw(&body, Some(&format!("key-{number}"))).await)
        });
    }
    // The server answers this in its turn, after it has read those that came before.
    app.client.get("/api/v1/health/ping").await.expect(204);
    hold.release().await;
    for (number, answer) in publishing.join_all().await {
        assert_eq!(answer.status, if number == 7 { 500 } else { 202 }, "{number}: {answer:?}");
    }
    first.await.expect("accepted");
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 20);
    assert_eq!(customer.messages().await.len(), 20, "the one that was refused has left no trace");
    assert_eq!(app.database.number("select count(*) from idempotency").await, 19);
}

/// How many endpoints the large application has: four of its messages fill a batch to the last row, so that only who comes first has a place
/// in it. How many publish to it at once.
const ENDPOINTS: usize = 499;
const PUBLISHERS: usize = 60;

/// How long the neighbour goes on after everybody else.
const AFTERWARDS: usize = 3;

#[tokio::test]
async fn an_application_of_hundreds_of_endpoints_is_served_and_keeps_no_neighbour_waiting() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let large = app.customer().await;
    large.endpoint("http://127.0.0.1:9/").await;
    app.database.copy_endpoint(&large.id, ENDPOINTS).await;
    let neighbour = Customer::create(&app.node.client.with_token(&token(&new_tenant()))).await;
    neighbour.endpoint("http://127.0.0.1:9/").await;
    let mut publishing = JoinSet::new();
    for number in 0..PUBLISHERS {
        publishing.spawn(until_accepted(large.clone(), number));
    }
    // It publishes one message after the other for as long as the large one has any left, and each is accepted.
    let (mut own, mut accepted, mut left) = (0, BTreeSet::new(), AFTERWARDS);
    while left > 0 {
        neighbour.publish(&json!({ "n": own })).await;
        own += 1;
        while let Some(id) = publishing.try_join_next() {
            assert!(accepted.insert(id.expect("accepted")), "each is another message");
        }
        left -= usize::from(publishing.is_empty());
    }
    let stored = large.messages().await;
    assert_eq!(
        accepted,
        stored.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect(),
        "what was accepted, and nothing else"
    );
    assert_eq!(app.database.number("select count(*) from queue").await, i64::try_from(ENDPOINTS * PUBLISHERS + own).expect("a number"));
    assert_eq!(app.database.number(LARGEST_SHARED).await, 0, "no transaction stores more than it may");
    let overtaken = app.database.texts(OVERTAKEN).await;
    assert_eq!(overtaken.len(), own);
    assert!(own > 2 * AFTERWARDS, "the neighbour published all the while, {own} messages");
    let most = overtaken.iter().map(|count| count.parse::<usize>().expect("a number")).max();
    // One that was being put together when it came, and one more if the two looked at the clock at once.
    assert!(most <= Some(2), "so many batches of the large application overtook each message of the neighbour: {overtaken:?}");
}

/// Publishes under a key, and comes back when it is told to, until the message is accepted; returns its id.
async fn until_accepted(customer: Customer, number: usize) -> String {
    let key = format!("key-{number}");
    loop {
        let answer = customer.publish_raw(&message(&json!({ "n": number })), Some(&key)).await;
        assert!(matches!(answer.status, 202 | 409 | 429 | 503), "{answer:?}");
        if answer.status == 202 {
            return answer.text("id");
        }
        let wait = answer.header("retry-after").expect("it says when to come back").parse().expect("seconds");
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}

/// How many transactions stored more than they may. A row shows which transaction wrote it.
const LARGEST_SHARED: &str = "select count(*) from (select from queue group by xmin::text having count(*) > 2000) shared";

/// For each message of an application of one endpoint: how many transactions began after it had come, which its id says, and
/// ended before its own, though they were for others. What is due without a lease says when its transaction began.
const OVERTAKEN: &str = "
    with stored as materialized (
      select message_id, count(*) = 1 as is_small, min(due_at) as begun, min(xmin::text::bigint) as transaction from queue group by message_id
    )
    select (select count(distinct l.transaction) from stored l where not l.is_small and l.transaction < s.transaction
        and uuid_floor(l.begun) > s.message_id)::text
      from stored s where s.is_small order by s.message_id";
