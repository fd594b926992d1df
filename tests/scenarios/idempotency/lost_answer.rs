//! An SDK whose first answer is lost asks again by itself, under the key that it made up, and there is one message.

use std::time::Duration;

use domain::idempotency::Policy;
use serde_json::json;
use support::{App, Customer, Options, Receiver, proxy::Proxy, scrape::Scrape, witness};
use svix::{
    api::{MessageCreateOptions, Svix},
    error::Error,
    models::{ApplicationIn, MessageIn},
};

/// A publisher that uses the official SDK as it comes, by way of a proxy that loses what it is told to.
struct Publisher {
    app: App,
    customer: Customer,
    receiver: Receiver,
    sdk: Svix,
    proxy: Proxy,
}

impl Publisher {
    async fn under(policy: Policy) -> Self {
        let app = App::with(Options { policy, ..Options::default() }).await;
        let receiver = Receiver::start().await;
        let customer = app.customer().await;
        customer.endpoint(&receiver.url("/")).await;
        let (sdk, proxy) = witness::sdk_through_a_proxy(&app.client).await;
        Self { app, customer, receiver, sdk, proxy }
    }

    /// Publishes as a caller does who leaves the key to the SDK.
    async fn publish(&self, marker: &str) -> Result<String, Error> {
        self.publish_with(marker, None).await
    }

    async fn publish_with(&self, marker: &str, options: Option<MessageCreateOptions>) -> Result<String, Error> {
        let new = MessageIn::new("invoice.paid".into(), json!({ "marker": marker }));
        self.sdk.message().create(self.customer.id.clone(), new, options).await.map(|message| message.id)
    }

    /// How many requests were answered with a saved outcome.
    async fn replays_since(&self, before: &Scrape) -> f64 {
        Scrape::of(&self.app.client).await.moved_since(before).get("idempotency_replays_total").copied().unwrap_or(0.0)
    }

    /// Each of these ids is a message, each was delivered once, and there is nothing else.
    async fn assert_each_is_one_message(&self, ids: &[String]) {
        self.receiver.received(ids.len()).await;
        self.app.database.nothing_owed().await;
        let sorted = |mut ids: Vec<String>| {
            ids.sort_unstable();
            ids
        };
        let stored = self.customer.messages().await.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(sorted(stored), sorted(ids.to_vec()), "the caller knows every message");
        let received = self.receiver.so_far().iter().map(|webhook| webhook.id().to_owned()).collect();
        assert_eq!(sorted(received), sorted(ids.to_vec()), "each was delivered once");
    }
}

/// The two policies under which the SDK must never notice.
fn policies() -> [Policy; 2] {
    [Policy::default(), Policy::svix()]
}

#[tokio::test]
async fn an_sdk_that_does_not_hear_the_answer_asks_again_and_gets_the_message_that_there_is() {
    for policy in policies() {
        let publisher = Publisher::under(policy).await;
        let before = Scrape::of(&publisher.app.client).await;
        publisher.proxy.lose_http_answer_once(b"5d20f1-unheard");
        let id = publisher.publish("5d20f1-unheard").await.expect("no error for the caller");
        publisher.proxy.has_cut().await;
        publisher.assert_each_is_one_message(&[id]).await;
        assert!(publisher.replays_since(&before).await >= 1.0, "the second answer is a saved one");
    }
}

#[tokio::test]
async fn an_sdk_that_makes_something_else_and_does_not_hear_the_answer_has_made_one() {
    for policy in policies() {
        let publisher = Publisher::under(policy).await;
        publisher.proxy.lose_http_answer_once(b"c81b7a-unheard");
        let made = publisher.sdk.application().create(ApplicationIn::new("c81b7a-unheard".into()), None).await.expect("no error");
        publisher.proxy.has_cut().await;
        let all = publisher.customer.pages("/api/v1/app").await;
        let found: Vec<_> = all.iter().filter(|app| app["name"] == "c81b7a-unheard").map(|app| app["id"].clone()).collect();
        assert_eq!(found, [json!(made.id)]);
    }
}

/// The line breaks as soon as the request is through. The SDK asks again after 20 ms, and finds the first request at an end or
/// about to end.
#[tokio::test]
async fn an_sdk_whose_line_breaks_while_its_request_is_under_way_gets_the_message_that_there_is() {
    for policy in policies() {
        let publisher = Publisher::under(policy).await;
        let before = Scrape::of(&publisher.app.client).await;
        let mut ids = Vec::new();
        for number in 0..10 {
            let marker = format!("91aa{number}-broken");
            publisher.proxy.cut_once_after(marker.as_bytes());
            ids.push(publisher.publish(&marker).await.expect("no error for the caller"));
        }
        publisher.proxy.has_sprung(10).await;
        publisher.assert_each_is_one_message(&ids).await;
        assert!(publisher.replays_since(&before).await >= 1.0, "the first requests were not even looked at");
    }
}

#[tokio::test]
async fn under_the_svix_policy_an_sdk_waits_for_a_slow_first_request_and_gets_its_message() {
    let publisher = Publisher::under(Policy::svix()).await;
    let hold = publisher.app.database.hold_inserts("message").await;
    let (id, ()) = tokio::join!(publisher.publish("07be44-slow"), async {
        hold.holds(1).await;
        publisher.proxy.note_once(b"07be44-slow");
        publisher.proxy.interrupt();
        publisher.proxy.has_sprung(1).await;
        // Longer than a repeat is kept waiting where no policy says so.
        tokio::time::sleep(Duration::from_millis(300)).await;
        hold.release().await;
    });
    publisher.assert_each_is_one_message(&[id.expect("no error for the caller")]).await;
}

/// The SDK takes every 4xx for final, so it cannot be told to come back: whoever publishes through it wants a policy that waits,
/// or keys of its own.
#[tokio::test]
async fn under_the_default_policy_a_slow_first_request_is_a_409_for_the_sdk_and_its_key_finds_the_message_later() {
    let publisher = Publisher::under(Policy::default()).await;
    let options = || Some(MessageCreateOptions { idempotency_key: Some("my own".into()), ..Default::default() });
    let hold = publisher.app.database.hold_inserts("message").await;
    let (answer, ()) = tokio::join!(publisher.publish_with("slow", options()), async {
        hold.holds(1).await;
        publisher.proxy.interrupt();
    });
    let refused = answer.expect_err("the first is still running");
    let Error::Http(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.status.as_u16(), 409);
    assert_eq!(refusal.payload.expect("a body").code, "idempotency_in_progress");
    hold.release().await;
    publisher.receiver.received(1).await;
    let id = publisher.publish_with("slow", options()).await.expect("the same request under the same key");
    publisher.assert_each_is_one_message(&[id]).await;
}
