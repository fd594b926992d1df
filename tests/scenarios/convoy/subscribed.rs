//! An endpoint gets what its subscriptions let through, from the very next message on, whoever accepts that.

use chrono::Utc;
use domain::{
    content_filter::ContentFilter,
    endpoint::Settings,
    id::{EndpointId, Id, SourceId, SubscriptionId},
    message::Particulars,
    subscription::Subscription,
};
use serde_json::{Value, json};
use storage::{
    Conflict, Error,
    page::PageRequest,
    subscriptions::{self, Change, ChangeFilters, Create, Delete, FilterChange, NewFilter, Update},
};
use support::{App, Customer, Receiver};

use super::behind::{Behind, Special, left_out};

/// An application with one endpoint, which is subscribed to nothing yet.
struct Stage {
    app: App,
    receiver: Receiver,
    customer: Customer,
    behind: Behind,
    endpoint_id: EndpointId,
}

fn filter(written: Value) -> ContentFilter {
    ContentFilter::parse(written).expect("a filter")
}

impl Stage {
    async fn new() -> Self {
        let app = App::start().await;
        let (receiver, customer, behind) = (Receiver::start().await, app.customer().await, Behind::of(&app).await);
        let endpoint_id = behind.subscribed_endpoint(&customer, &receiver.url("/"), Settings::default(), None).await;
        Self { app, receiver, customer, behind, endpoint_id }
    }

    fn create(&self, event_types: &[&str], written: Value) -> Create {
        Create {
            tenant_id: self.behind.tenant_id,
            endpoint_id: self.endpoint_id,
            source_id: None,
            name: "What is due".into(),
            event_types: event_types.iter().map(ToString::to_string).collect(),
            filter: filter(written),
            settings: json!({ "note": 1 }),
            is_only: true,
        }
    }

    async fn update(&self, id: SubscriptionId, change: Change) -> Result<Subscription, Error> {
        self.behind.write(Update { tenant_id: self.behind.tenant_id, id, change, is_only: true }).await
    }

    async fn filters(&self, id: SubscriptionId, change: FilterChange) -> Subscription {
        let changes = ChangeFilters { tenant_id: self.behind.tenant_id, id, changes: vec![change] };
        self.behind.write(changes).await.expect("the filters are changed").0
    }

    /// Publishes through the server, and says why the endpoint does not get it; null, if it does.
    async fn why_not(&self, payload: Value) -> Value {
        let before = self.receiver.so_far().len();
        let id = self.customer.publish(&payload).await;
        self.app.database.nothing_owed().await;
        let endpoint = self.endpoint_id.public();
        let why = left_out(&self.customer, &id).await.into_iter().find(|(id, _)| *id == endpoint).expect("the endpoint").1;
        let arrived = self.receiver.so_far().split_off(before);
        assert_eq!(arrived.len(), usize::from(why.is_null()), "{why}");
        assert!(arrived.iter().all(|webhook| webhook.id() == id));
        why
    }
}

#[tokio::test]
async fn whatever_becomes_of_a_subscription_counts_for_the_next_message() {
    let stage = Stage::new().await;
    let (small, large) = (json!({ "amount": 5 }), json!({ "amount": 50 }));
    assert_eq!(stage.why_not(large.clone()).await, "subscription", "there is none");
    let made =
        stage.behind.write(stage.create(&["invoice.sent"], json!({ "body": { "amount": { "$gt": 9 } } }))).await.expect("it is made");
    assert_eq!(stage.why_not(large.clone()).await, "eventType");
    let event_types = Some(vec!["other".into(), "invoice.paid".into()]);
    let changed = stage.update(made.id, Change { event_types, ..Change::default() }).await.expect("it is changed");
    assert_eq!(stage.why_not(large.clone()).await, Value::Null);
    assert_eq!(stage.why_not(small.clone()).await, "content");

    // What is asked of one type is asked beside what is asked of all.
    let type_filter =
        |event_type: &str, enabled_at, written| NewFilter { event_type: event_type.into(), enabled_at, filter: filter(written) };
    let only_eur = json!({ "body": { "currency": "EUR" } });
    let with_filter = stage.filters(made.id, FilterChange::Add(type_filter("*", None, only_eur.clone()))).await;
    assert_eq!(stage.why_not(large.clone()).await, Value::Null, "it is off");
    let filter_id = with_filter.filters[0].id;
    stage.filters(made.id, FilterChange::Replace(filter_id, type_filter("*", Some(Utc::now()), only_eur.clone()))).await;
    assert_eq!(stage.why_not(large.clone()).await, "content");
    assert_eq!(stage.why_not(json!({ "amount": 50, "currency": "EUR" })).await, Value::Null);
    assert_eq!(stage.why_not(json!({ "amount": 5, "currency": "EUR" })).await, "content");
    stage.filters(made.id, FilterChange::Add(type_filter("invoice.paid", Some(Utc::now()), json!({})))).await;
    assert_eq!(stage.why_not(large.clone()).await, Value::Null, "that of its own type goes first");
    let left = stage.filters(made.id, FilterChange::Remove(filter_id)).await;
    assert_eq!(left.filters.len(), 1);

    let shown = subscriptions::get(&stage.behind.db, stage.behind.tenant_id, made.id).await.expect("it is there");
    assert_eq!((&shown, &shown.settings, &shown.event_types), (&left, &made.settings, &changed.event_types));
    stage.behind.write(Delete { tenant_id: stage.behind.tenant_id, id: made.id }).await.expect("it is deleted");
    assert_eq!(stage.why_not(large).await, "subscription");
    assert!(matches!(stage.update(made.id, Change::default()).await, Err(Error::NotFound("subscription"))));
}

#[tokio::test]
async fn an_endpoint_that_two_subscriptions_let_a_message_through_to_gets_it_once() {
    let stage = Stage::new().await;
    let first = stage.behind.write(stage.create(&["*"], json!({}))).await.expect("it is made");
    let refused = stage.behind.write(stage.create(&["*"], json!({}))).await.expect_err("a second one");
    assert!(matches!(refused, Error::Conflict(Conflict::Subscribed)), "{refused}");
    let second = Create { is_only: false, name: "Another".into(), ..stage.create(&["invoice.paid"], json!({})) };
    stage.behind.write(second).await.expect("it is made all the same");
    assert_eq!(stage.why_not(json!({ "n": 1 })).await, Value::Null);

    let page = PageRequest { limit: 10, cursor: None, is_backwards: false, is_ascending: true };
    let names = async |endpoints: Option<&[EndpointId]>, name: Option<&str>| {
        let found = subscriptions::list(&stage.behind.db, stage.behind.tenant_id, endpoints, name, &page).await.expect("a list");
        found.items.into_iter().map(|found| found.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None, None).await, ["What is due", "Another"]);
    assert_eq!(names(Some(&[stage.endpoint_id]), Some("ANOTHER")).await, ["Another"]);
    assert!(names(Some(&[]), None).await.is_empty());

    // They go with their endpoint.
    stage.app.client.delete(&stage.customer.path(&format!("/endpoint/{}", stage.endpoint_id.public()))).await.expect(204);
    assert!(names(None, None).await.is_empty());
    assert!(matches!(stage.update(first.id, Change::default()).await, Err(Error::NotFound("subscription"))));
    assert!(matches!(stage.behind.write(stage.create(&["*"], json!({}))).await, Err(Error::NotFound("endpoint"))));
}

#[tokio::test]
async fn a_subscription_moves_with_all_that_it_lets_through() {
    let stage = Stage::new().await;
    let made = stage.behind.write(stage.create(&["*"], json!({}))).await.expect("it is made");
    let other_customer = stage.app.customer().await;
    let other = stage.behind.subscribed_endpoint(&other_customer, &stage.receiver.url("/other"), Settings::default(), None).await;
    let moved = stage.update(made.id, Change { endpoint_id: Some(other), ..Change::default() }).await.expect("it moves");
    assert_eq!((moved.endpoint_id, moved.application_id.public()), (other, other_customer.id.clone()));
    assert_eq!(stage.why_not(json!({})).await, "subscription");
    other_customer.publish(&json!({})).await;
    stage.receiver.received_at("/other", 1).await;
    stage.behind.write(stage.create(&["*"], json!({}))).await.expect("there is room again");
    let refused = stage.update(made.id, Change { endpoint_id: Some(stage.endpoint_id), ..Change::default() }).await;
    assert!(matches!(refused, Err(Error::Conflict(Conflict::Subscribed))), "{refused:?}");
}

#[tokio::test]
async fn a_subscription_to_a_source_is_for_endpoints_of_the_project_itself() {
    let stage = Stage::new().await;
    let source = "01890a5d-ac96-774b-bcce-b302099a8057";
    let tenant = "(select id from tenant)";
    stage.app.database.execute(&format!("insert into source (id, tenant_id, mask, name) values ('{source}', {tenant}, 'mask', 's')")).await;
    let source_id = SourceId(source.parse().expect("a uuid"));
    let create = || Create { source_id: Some(source_id), ..stage.create(&["*"], json!({})) };
    let Err(Error::Invalid { field, why }) = stage.behind.write(create()).await else { panic!("it is refused") };
    assert_eq!(field, "endpoint_id");
    assert!(why.contains("without an owner_id") && why.contains("leave source_id out"), "{why}");
    let unknown = Create { source_id: Some(SourceId(uuid::Uuid::nil())), ..create() };
    assert!(matches!(stage.behind.write(unknown).await, Err(Error::NotFound("source"))));

    let own = format!(
        "insert into project (tenant_id, application_id, name) select tenant_id, id, 'p' from application where id = posthaste_id('{}')",
        stage.customer.id
    );
    stage.app.database.execute(&own).await;
    stage.behind.write(create()).await.expect("the application is the project's own");
    assert_eq!(stage.why_not(json!({})).await, "subscription", "it came by no source");
    let by = |source: SourceId| Special {
        particulars: Some(Particulars { source: Some(source), ..Particulars::default() }),
        ..Special::default()
    };
    let (id, _) = stage.behind.publish(&stage.customer, &json!({}), by(source_id)).await;
    assert_eq!(stage.receiver.received(1).await[0].id(), id);
}

#[tokio::test]
async fn what_an_endpoint_keeps_of_its_subscriptions_has_a_bound() {
    let stage = Stage::new().await;
    let made = stage.behind.write(stage.create(&["*"], json!({}))).await.expect("it is made");
    let long = filter(json!({ "body": { "name": "x".repeat(60_000) } }));
    let add = |number: usize| {
        FilterChange::Add(NewFilter { event_type: format!("type-{number}"), enabled_at: Some(Utc::now()), filter: long.clone() })
    };
    let all = |numbers: std::ops::Range<usize>| ChangeFilters {
        tenant_id: stage.behind.tenant_id,
        id: made.id,
        changes: numbers.map(add).collect(),
    };
    stage.behind.write(all(0..15)).await.expect("there is room");
    let refused = stage.behind.write(all(15..30)).await;
    assert!(matches!(refused, Err(Error::LimitReached(why)) if why.contains("1 MiB")), "{refused:?}");
    let shown = subscriptions::get(&stage.behind.db, stage.behind.tenant_id, made.id).await.expect("it is there");
    assert_eq!(shown.filters.len(), 15, "all of them or none");
    assert_eq!(stage.why_not(json!({})).await, Value::Null);
}

#[tokio::test]
async fn a_large_fan_out_goes_to_those_whose_subscriptions_let_it_through() {
    let stage = Stage::new().await;
    let source_id = SourceId(uuid::Uuid::now_v7());
    stage.behind.write(stage.create(&["*"], json!({ "query": { "team": "a" } }))).await.expect("it is made");
    stage.app.database.copy_endpoint(&stage.customer.id, 620).await;
    let subscribe = format!(
        "update endpoint set subscriptions = case when place <= 20 then '[]' else jsonb_set(wanted, '{{0,source}}', '\"{}\"') end
           from (select row_number() over (order by id) as place, id as copy from endpoint) all_of_them,
                (select subscriptions as wanted from endpoint where subscriptions is not null) made
           where id = copy;
         update application set version = version + 1",
        source_id.0
    );
    stage.app.database.execute(&subscribe).await;
    let by = |source, query: &str| Special {
        particulars: Some(Particulars { source: Some(source), query: Some(query.to_owned()), ..Particulars::default() }),
        ..Special::default()
    };
    stage.behind.publish(&stage.customer, &json!({}), by(SourceId(uuid::Uuid::nil()), "team=a")).await;
    stage.behind.publish(&stage.customer, &json!({}), by(source_id, "team=b")).await;
    let (id, _) = stage.behind.publish(&stage.customer, &json!({}), by(source_id, "team=a")).await;
    let webhooks = stage.receiver.received(600).await;
    stage.app.database.nothing_owed().await;
    assert!(webhooks.iter().all(|webhook| webhook.id() == id));
    assert_eq!(stage.receiver.so_far().len(), 600);
}

#[tokio::test]
async fn what_was_missed_before_it_was_subscribed_can_be_replayed_and_nothing_else() {
    let stage = Stage::new().await;
    let mut wanted = Vec::new();
    for amount in [5, 50, 500] {
        let id = stage.customer.publish(&json!({ "amount": amount })).await;
        wanted.extend((amount > 9).then_some(id));
    }
    let elsewhere = Particulars { only: Some(EndpointId(uuid::Uuid::nil())), ..Particulars::default() };
    stage.behind.publish(&stage.customer, &json!({ "amount": 50 }), Special { particulars: Some(elsewhere), ..Special::default() }).await;
    let tagged = Particulars { query: Some("amount=50".into()), ..Particulars::default() };
    let (by_query, _) =
        stage.behind.publish(&stage.customer, &json!({ "amount": 50 }), Special { particulars: Some(tagged), ..Special::default() }).await;
    wanted.push(by_query.clone());
    stage.behind.write(stage.create(&["invoice.paid"], json!({ "body": { "amount": { "$gt": 9 } } }))).await.expect("it is made");
    let since = json!({ "since": "2020-01-01T00:00:00Z" });
    let replay = stage.customer.path(&format!("/endpoint/{}/replay-missing", stage.endpoint_id.public()));
    stage.app.client.post(&replay, &since).await.expect(202);
    stage.receiver.received(3).await;
    stage.app.database.nothing_owed().await;
    support::eventually("the task is done", async || {
        (stage.app.database.number("select count(*) from task where state = 0").await == 0).then_some(())
    })
    .await;
    let mut got: Vec<_> = stage.receiver.so_far().iter().map(|webhook| webhook.id().to_owned()).collect();
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted);
}
