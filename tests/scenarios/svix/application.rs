//! Applications through the SDK.

use serde_json::json;
use support::{App, Customer, Receiver, new_tenant, token};
use svix::{
    api::ApplicationListOptions,
    models::{ApplicationIn, ApplicationPatch, MessageIn, Ordering},
};

use super::status_of;

#[tokio::test]
async fn an_application_is_created_changed_listed_and_deleted() {
    let app = App::start().await;
    let api = app.sdk().await;
    let mut new = ApplicationIn::new("Acme".into());
    new.uid = Some("acme".into());
    new.metadata = Some([("plan".to_owned(), "gold".to_owned())].into());
    let created = api.application().create(new, None).await.expect("a new application");
    assert_eq!(api.application().get("acme".into()).await.expect("by its uid"), created);
    assert_eq!(api.application().get(created.id.clone()).await.expect("by its id"), created);
    assert_eq!(created.metadata["plan"], "gold");

    let change = ApplicationPatch { name: Some("Acme Ltd".into()), ..ApplicationPatch::new() };
    api.application().patch("acme".into(), change).await.expect("a change");
    let listed = api.application().list(None).await.expect("a list");
    assert_eq!(listed.data.iter().map(|app| app.name.as_str()).collect::<Vec<_>>(), ["Acme Ltd"]);
    assert_eq!(listed.data[0].metadata["plan"], "gold", "what a PATCH does not name stays");
    assert!(listed.data[0].updated_at > created.updated_at);

    api.application().upsert(created.id.clone(), ApplicationIn::new("Replaced".into())).await.expect("a replacement");
    let replaced = api.application().get(created.id.clone()).await.expect("still there");
    assert_eq!((replaced.name.as_str(), replaced.uid), ("Replaced", None), "PUT drops what it does not name");
    assert!(replaced.metadata.is_empty());

    api.application().delete(created.id.clone()).await.expect("its end");
    assert_eq!(status_of(api.application().get(created.id.clone()).await), 404);
    let message = MessageIn::new("invoice.paid".into(), json!({}));
    assert_eq!(status_of(api.message().create(created.id, message, None).await), 404, "nobody can publish to it");
    assert!(api.application().list(None).await.expect("a list").data.is_empty());
}

#[tokio::test]
async fn a_uid_belongs_to_one_application_until_that_is_deleted() {
    let app = App::start().await;
    let api = app.sdk().await;
    let new = |name: &str| ApplicationIn { uid: Some("acme".into()), ..ApplicationIn::new(name.into()) };
    let first = api.application().create(new("first"), None).await.expect("a new application");
    assert_eq!(status_of(api.application().create(new("second"), None).await), 409);
    let found = api.application().get_or_create(new("third"), None).await.expect("the one that exists");
    assert_eq!((found.id.as_str(), found.name.as_str()), (first.id.as_str(), "first"), "it is returned unchanged");
    let other = api.application().create(ApplicationIn::new("other".into()), None).await.expect("another");
    let claim = ApplicationPatch { uid: js_option::JsOption::Some("acme".into()), ..ApplicationPatch::new() };
    assert_eq!(status_of(api.application().patch(other.id, claim).await), 409);
    api.application().delete("acme".into()).await.expect("its end");
    let again = api.application().get_or_create(new("fourth"), None).await.expect("a new one");
    assert_ne!(again.id, first.id);

    let path = "/api/v1/app?get_if_exists=true";
    assert_eq!(app.client.post(path, &json!({ "name": "x", "uid": "acme" })).await.status, 200);
    assert_eq!(app.client.post(path, &json!({ "name": "x", "uid": "new" })).await.status, 201);
    assert_eq!(app.client.put("/api/v1/app/absent", &json!({ "name": "made by PUT" })).await.status, 201);
    assert_eq!(app.client.put("/api/v1/app/new", &json!({ "name": "changed by PUT" })).await.status, 200);
}

#[tokio::test]
async fn lists_are_paged_in_both_directions_and_orders() {
    let app = App::start().await;
    let api = app.sdk().await;
    for number in 0..5 {
        api.application().create(ApplicationIn::new(number.to_string()), None).await.expect("a new application");
    }
    let page = async |iterator: Option<String>, order| {
        let options = ApplicationListOptions { limit: Some(2), iterator, order, ..Default::default() };
        let page = api.application().list(Some(options)).await.expect("a page");
        let names: String = page.data.iter().map(|app| app.name.as_str()).collect();
        (names, page.done, page.iterator, page.prev_iterator)
    };
    let (first, done, next, _) = page(None, None).await;
    assert_eq!((first.as_str(), done), ("01", false));
    let (second, done, next, _) = page(next, None).await;
    assert_eq!((second.as_str(), done), ("23", false));
    let (third, done, _, back) = page(next, None).await;
    assert_eq!((third.as_str(), done), ("4", true));
    let (again, _, _, back) = page(back, None).await;
    assert_eq!(again, "23", "the way back shows the same page, in the list's order");
    let (start, _, _, _) = page(back, None).await;
    assert_eq!(start, "01");
    let descending = Some(Ordering::Descending);
    let (last, _, next, _) = page(None, descending).await;
    assert_eq!(last, "43");
    let (before, _, _, _) = page(next, descending).await;
    assert_eq!(before, "21");
    assert_eq!(app.client.get("/api/v1/app?limit=250").await.status, 200);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "a": 1 })).await;
    receiver.received(1).await;
    let attempt = customer.attempts(&message, 1).await[0].id().to_owned();
    app.client.post("/api/v1/event-type", &json!({ "name": "invoice.paid", "description": "" })).await.expect(201);
    let stranger = app.client.with_token(&token(&new_tenant()));
    let paths = [
        customer.path(""),
        customer.path("/endpoint"),
        customer.path(&format!("/endpoint/{endpoint}")),
        customer.path(&format!("/endpoint/{endpoint}/secret")),
        customer.path(&format!("/endpoint/{endpoint}/headers")),
        customer.path("/msg"),
        customer.path(&format!("/msg/{message}")),
        customer.path(&format!("/attempt/msg/{message}")),
        customer.path(&format!("/attempt/endpoint/{endpoint}")),
        customer.path(&format!("/msg/{message}/attempt/{attempt}")),
        "/api/v1/event-type/invoice.paid".to_owned(),
    ];
    for path in paths {
        assert_eq!(customer.client.get(&path).await.status, 200, "{path}");
        assert_eq!(stranger.get(&path).await.status, 404, "{path}");
    }
    let theirs = Customer::create(&stranger).await;
    let crossed = theirs.path(&format!("/endpoint/{endpoint}"));
    assert_eq!(stranger.get(&crossed).await.status, 404, "a foreign endpoint under one's own application");
    assert_eq!(stranger.delete(&customer.path("")).await.status, 404);
    let resend = customer.path(&format!("/msg/{message}/endpoint/{endpoint}/resend"));
    assert_eq!(stranger.request("POST", &resend).send().await.status, 404);
    assert_eq!(theirs.publish_raw(&support::customer::message(&json!({})), None).await.status, 202);
    assert_eq!(customer.messages().await.len(), 1, "nothing has crossed over");
    assert_eq!(receiver.so_far().len(), 1);
}

#[tokio::test]
async fn only_a_good_token_is_let_in() {
    let app = App::start().await;
    let good = token(&new_tenant());
    let mut tampered = good.clone();
    tampered.truncate(good.len() - 4);
    let foreign = api::mint_token("another secret of the right size", &new_tenant(), chrono::Utc::now());
    let stale = api::mint_token(support::JWT_SECRET, &new_tenant(), chrono::Utc::now() - chrono::TimeDelta::days(36_500));
    for (bad, why) in [(tampered, "a broken signature"), (foreign, "another secret"), (stale, "long expired"), ("x".into(), "no token")] {
        let answer = app.client.with_token(&bad).get("/api/v1/app").await;
        assert_eq!((answer.status, answer.text("code").as_str()), (401, "authentication_failed"), "{why}");
    }
    let anonymous = support::Client::new(&app.client.base, None);
    assert_eq!(anonymous.get("/api/v1/app").await.status, 401);
    let broken = anonymous.request("POST", "/api/v1/app").bytes("{").send().await;
    assert_eq!(broken.status, 401, "the token is looked at before the body");
    assert_eq!(app.client.with_token(&good).get("/api/v1/app").await.status, 200);
}
