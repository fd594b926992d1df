//! What only some messages have: headers that go along, the one endpoint that may get it, a key of the whole project.

use domain::{endpoint::Settings, id::Id, message::Particulars};
use serde_json::{Value, json};
use storage::committer::KeyScope;
use support::{App, Options, Receiver, Reply};

use super::behind::{Behind, Special, left_out};

fn with(particulars: Particulars) -> Special {
    Special { particulars: Some(particulars), ..Special::default() }
}

#[tokio::test]
async fn headers_of_a_message_go_along_with_every_attempt_and_replace_nothing() {
    let app = App::with(Options::retries(1)).await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let endpoint = customer.endpoint(&receiver.url("/in")).await;
    app.client
        .put(&customer.path(&format!("/endpoint/{endpoint}/headers")), &json!({ "headers": { "X-Team": "billing" } }))
        .await
        .expect(204);
    let behind = Behind::of(&app).await;
    let headers = [
        ("X-Event", "push"),
        ("x-event", "again"),
        ("X-Team", "other"),
        ("Host", "evil"),
        ("Webhook-Id", "forged"),
        ("Content-Type", "a/b"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    receiver.on("/in", [Reply::status(500), Reply::status(200)]);
    let query = Some("token=5".to_owned());
    let (id, _) = behind.publish(&customer, &json!({ "n": 1 }), with(Particulars { headers, query, ..Particulars::default() })).await;
    for webhook in receiver.received(2).await {
        assert_eq!(webhook.all("x-event"), [b"push".as_slice(), b"again"]);
        assert_eq!((webhook.header("x-team"), webhook.header("content-type"), webhook.id()), ("billing", "application/json", id.as_str()));
        assert_eq!(webhook.path, "/in", "the query that it came with stays here");
        assert_ne!(webhook.header("host"), "evil");
    }
    app.database.nothing_owed().await;
    let kept =
        "select coalesce(string_agg(key, ' ' order by key), '') from message m, jsonb_object_keys(m.particulars) key where payload is ";
    assert_eq!(app.database.texts(&format!("{kept} not null")).await, ["headers query"]);
    app.client.delete(&customer.path(&format!("/msg/{id}/content"))).await.expect(204);
    assert_eq!(app.database.texts(&format!("{kept} null")).await, [""], "they are content, and gone with it");
}

#[tokio::test]
async fn a_message_for_one_endpoint_goes_nowhere_else_even_if_it_is_released() {
    let app = App::start().await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let behind = Behind::of(&app).await;
    let chosen = customer.endpoint(&receiver.url("/chosen")).await;
    let other = customer.endpoint(&receiver.url("/other")).await;
    let only = Particulars { only: Some(domain::id::EndpointId::parse(&chosen).expect("an id")), ..Particulars::default() };
    let key = Some((KeyScope::Tenant, "order-1"));
    let (first, _) = behind.publish(&customer, &json!({ "n": 1 }), Special { particulars: Some(only.clone()), key }).await;
    assert_eq!(receiver.received(1).await[0].path, "/chosen");
    let why = left_out(&customer, &first).await;
    assert_eq!(why.iter().find(|(id, _)| *id == other).map(|(_, why)| why), Some(&json!("elsewhere")));
    let (twin, duplicate_of) = behind.publish(&customer, &json!({ "n": 1 }), Special { particulars: Some(only), key }).await;
    assert_eq!(duplicate_of.map(Id::public), Some(first));
    app.client.post(&customer.path(&format!("/msg/{twin}/deliver")), &Value::Null).await.expect(202);
    let webhooks = receiver.received(2).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2);
    assert_eq!((webhooks[1].path.as_str(), webhooks[1].id()), ("/chosen", twin.as_str()));
}

#[tokio::test]
async fn a_key_of_the_project_is_one_key_for_all_of_its_applications_and_not_that_of_any_of_them() {
    let app = App::start().await;
    let [one, other] = [app.customer().await, app.customer().await];
    let behind = Behind::of(&app).await;
    let key = |scope| Special { key: Some((scope, "order-1")), ..Special::default() };
    let (first, none) = behind.publish(&one, &json!({}), key(KeyScope::Tenant)).await;
    assert_eq!(none, None);
    for customer in [&one, &other] {
        let (_, duplicate_of) = behind.publish(customer, &json!({}), key(KeyScope::Tenant)).await;
        assert_eq!(duplicate_of.map(Id::public), Some(first.clone()));
        let (of_application, none) = behind.publish(customer, &json!({}), key(KeyScope::Application)).await;
        assert_eq!(none, None, "it is another key");
        let (_, duplicate_of) = behind.publish(customer, &json!({}), key(KeyScope::Application)).await;
        assert_eq!(duplicate_of.map(Id::public), Some(of_application));
    }
}

#[tokio::test]
async fn filters_look_into_headers_query_and_path() {
    let app = App::start().await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let behind = Behind::of(&app).await;
    let endpoint_id = behind.subscribed_endpoint(&customer, &receiver.url("/"), Settings::default(), None).await;
    let written = json!({ "headers": { "x-event": "push" }, "query": { "team": "a b" }, "path": { "path": "/in" } });
    let create = storage::subscriptions::Create {
        tenant_id: behind.tenant_id,
        endpoint_id,
        source_id: None,
        name: "s".into(),
        event_types: vec!["*".into()],
        filter: domain::content_filter::ContentFilter::parse(written).expect("a filter"),
        settings: json!({}),
        is_only: true,
    };
    behind.write(create).await.expect("it is made");
    let fits = Particulars {
        headers: vec![("X-Event".into(), "push".into())],
        query: Some("team=a+b".into()),
        path: Some("/in".into()),
        ..Particulars::default()
    };
    for almost in [
        None,
        Some(Particulars { headers: vec![("X-Event".into(), "pull".into())], ..fits.clone() }),
        Some(Particulars { query: Some("team=b".into()), ..fits.clone() }),
        Some(Particulars { path: None, ..fits.clone() }),
    ] {
        let (id, _) = behind.publish(&customer, &json!({}), Special { particulars: almost, ..Special::default() }).await;
        assert_eq!(left_out(&customer, &id).await[0].1, "content");
    }
    let (id, _) = behind.publish(&customer, &json!({}), with(fits)).await;
    assert_eq!(receiver.received(1).await[0].id(), id);
}
