//! By what the deliveries to an endpoint go: its own settings, else its project's, else the installation's; from the next message on.

use std::time::Duration;

use domain::{
    convoy_signature::{Version, advanced, simple},
    endpoint::{Settings, SignatureStyle},
    id::{EndpointId, Id},
    mac::{Encoding, Hash, SharedSecret},
    retry_strategy::{Growth, RetryStrategy},
    signing::Secret,
};
use serde_json::json;
use storage::{
    applications::Reference,
    endpoints::{self, Address, RotateSecret},
};
use support::{App, Attempt, Customer, Options, Project, Received, Receiver, Reply};

use super::behind::{Behind, application};

fn address(behind: &Behind, customer: &Customer, endpoint_id: EndpointId) -> Address {
    Address { tenant_id: behind.tenant_id, application: application(customer), endpoint: Reference::Id(endpoint_id) }
}

async fn set(behind: &Behind, customer: &Customer, endpoint_id: EndpointId, settings: Settings) {
    let change = endpoints::Change { settings: Some(settings), ..endpoints::Change::default() };
    let update = endpoints::Update { address: address(behind, customer, endpoint_id), change, or_create: false };
    behind.write(update).await.expect("the settings are changed");
}

#[tokio::test]
async fn deliveries_are_tried_again_as_the_endpoint_says_else_the_project_else_the_installation() {
    let app = App::with(Options::retries(0)).await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let endpoint_id = EndpointId::parse(&endpoint).expect("an id");
    let other = app.second_node().await;
    let project = Project::of(&other.client).await;
    receiver.on("/", vec![Reply::status(500); 20]);
    let attempts = async |n: usize| {
        let id = customer.publish(&json!({})).await;
        for number in 1..=n {
            customer.attempts(&id, number).await;
            app.database.let_retries_fall_due().await;
        }
        app.database.nothing_owed().await;
        let attempts = customer.attempts_so_far(&id).await;
        assert_eq!(attempts.len(), n);
        attempts
    };
    attempts(1).await;
    project.put("", &json!({ "config": { "strategy": { "type": "linear", "duration": 60, "retry_count": 3 } } })).await;
    let of_project = attempts(3).await;
    // Within ±20 %, less what has passed since.
    let wait = async |first: &Attempt| {
        let left = "select extract(epoch from next_attempt_at - now())::bigint from attempt where id = posthaste_id";
        app.database.number(&format!("{left}('{}')", first.id())).await
    };
    assert!((30..=73).contains(&wait(&of_project[0]).await));
    let behind = Behind::of(&app).await;
    let retry = RetryStrategy::new(Growth::Exponential, Duration::from_mins(10), 2).ok();
    set(&behind, &customer, endpoint_id, Settings { retry, ..Settings::default() }).await;
    let of_endpoint = attempts(2).await;
    assert!((450..=721).contains(&wait(&of_endpoint[0]).await));
    let told = receiver.so_far().pop().expect("the last attempt").header("posthaste-redelivery-until").to_owned();
    let first = receiver.so_far().iter().rev().nth(1).expect("the first attempt").header("posthaste-redelivery-until").to_owned();
    let left = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().expect("RFC 3339");
    assert!(left(&first) > left(&told) + Duration::from_mins(10), "{first} {told}: the promise goes by the same strategy");
    set(&behind, &customer, endpoint_id, Settings::default()).await;
    project.put("", &json!({ "config": { "strategy": null } })).await;
    attempts(1).await;
}

#[tokio::test]
async fn a_wait_that_was_asked_for_is_not_taken_for_a_clock_that_was_ahead() {
    let app = App::with(Options::retries(1)).await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let behind = Behind::of(&app).await;
    let endpoint_id = EndpointId::parse(&customer.endpoint(&receiver.url("/")).await).expect("an id");
    let retry = RetryStrategy::new(Growth::Linear, Duration::from_hours(7 * 24), 2).ok();
    set(&behind, &customer, endpoint_id, Settings { retry, ..Settings::default() }).await;
    receiver.on("/", [Reply::status(500)]);
    customer.attempts(&customer.publish(&json!({})).await, 1).await;
    let upkeep = async || {
        storage::ahead::bring_back(&behind.db, Duration::from_mins(1), Duration::from_hours(1)).await.expect("it is looked at");
        app.database.number("select extract(epoch from due_at - now())::bigint from queue_later").await
    };
    let week = 7 * 24 * 3600;
    assert!(upkeep().await > week / 2);
    set(&behind, &customer, endpoint_id, Settings::default()).await;
    assert!(upkeep().await <= 3600, "nobody asks for such a wait any more");
}

#[tokio::test]
async fn a_request_may_take_as_long_as_the_endpoint_says_and_never_longer_than_the_installation_does() {
    let app = App::with(Options { request_timeout: Duration::from_millis(1500), ..Options::retries(0) }).await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let behind = Behind::of(&app).await;
    receiver.on("/", vec![Reply::hang(); 2]);
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let endpoint_id = EndpointId::parse(&endpoint).expect("an id");
    for (timeout, says) in [(Duration::from_millis(300), "300ms"), (Duration::from_mins(1), "1.5s")] {
        set(&behind, &customer, endpoint_id, Settings { timeout: Some(timeout), ..Settings::default() }).await;
        let id = customer.publish(&json!({})).await;
        let attempt = customer.attempts(&id, 1).await.remove(0);
        assert!(attempt.response().contains(says), "{}", attempt.response());
    }
}

#[tokio::test]
async fn the_other_signature_is_what_the_project_says_over_the_bytes_that_are_sent() {
    let app = App::start().await;
    let (receiver, customer) = (Receiver::start().await, app.customer().await);
    let behind = Behind::of(&app).await;
    let project = Project::of(&app.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let endpoint_id = EndpointId::parse(&endpoint).expect("an id");
    // Any text is a secret there.
    let secrets = ["x", "another secret, as Convoy's clients choose them"];
    let grace = Duration::from_hours(1);
    for (text, grace) in secrets.into_iter().zip([Duration::ZERO, grace]) {
        let secret = Some(Secret::symmetric(text.into()));
        behind.write(RotateSecret { address: address(&behind, &customer, endpoint_id), secret, grace }).await.expect("it is rotated");
    }
    let received = async |n: usize| -> Received {
        customer.publish(&json!({ "b": 1.10, "a": "ä" })).await;
        receiver.received(n).await.pop().expect("a webhook")
    };
    assert!(received(1).await.all("x-convoy-signature").is_empty(), "it was not asked for");
    let shared = secrets.map(SharedSecret::new);
    let sha256 = [Version::default()];
    set(&behind, &customer, endpoint_id, Settings { signature: Some(SignatureStyle::Simple), ..Settings::default() }).await;
    let webhook = received(2).await;
    assert_eq!(webhook.header("x-convoy-signature"), simple(&sha256, &shared, &webhook.body).expect("a signature"));
    set(&behind, &customer, endpoint_id, Settings { signature: Some(SignatureStyle::Advanced), ..Settings::default() }).await;
    let webhook = received(3).await;
    let seconds = webhook.header("webhook-timestamp").parse().expect("seconds");
    assert_eq!(webhook.header("x-convoy-signature"), advanced(&sha256, &shared, seconds, &webhook.body).expect("a signature"));
    let standard = domain::signing::signature_header(
        &secrets.map(|text| Secret::symmetric(text.into())).into_iter().rev().collect::<Vec<_>>(),
        webhook.id(),
        seconds,
        &webhook.body,
    );
    assert_eq!(webhook.header("webhook-signature"), standard, "the same secrets sign in our own headers");

    let versions = json!([{ "hash": "SHA256", "encoding": "hex" }, { "hash": "SHA512", "encoding": "base64" }]);
    project.put("", &json!({ "config": { "signature": { "header": "X-Acme-Signature", "versions": versions } } })).await;
    let webhook = received(4).await;
    let seconds = webhook.header("webhook-timestamp").parse().expect("seconds");
    let both = [Version::default(), Version { hash: Hash::Sha512, encoding: Encoding::Base64 }];
    assert_eq!(webhook.header("x-acme-signature"), advanced(&both, &shared, seconds, &webhook.body).expect("a signature"));
    assert!(webhook.all("x-convoy-signature").is_empty());
}
