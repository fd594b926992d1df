//! What is told of deliveries that fail, and of those that succeed after all.

use serde_json::{Value, json};
use support::{App, Customer, Options, Receiver, Reply};

use super::{LIST, all_is_published, listen, published};

/// A server with this many retries whose tenant hears of deliveries at `/ops`, and who knows that by now.
async fn listening_to_attempts(retries: usize) -> (App, Receiver, Customer) {
    let app = App::with(Options::retries(retries)).await;
    let receiver = Receiver::start().await;
    listen(&app.client, &receiver.url("/known")).await;
    let kinds = ["message.attempt.failing", "message.attempt.exhausted", "message.attempt.recovered"];
    app.client.post(LIST, &json!({ "url": receiver.url("/ops"), "eventTypes": kinds })).await.expect(201);
    let customer = app.customer().await;
    customer.endpoint_with(&json!({ "url": "https://example.com/", "disabled": true })).await;
    receiver.received_at("/known", 1).await;
    (app, receiver, customer)
}

/// The data of an event about an attempt, as it must be.
fn data(customer: &Customer, endpoint: &str, message: &str, event_id: Option<&str>, attempt: &support::Attempt) -> Value {
    json!({
        "appId": customer.id,
        "appUid": null,
        "endpointId": endpoint,
        "msgId": message,
        "msgEventId": event_id,
        "lastAttempt": { "id": attempt.id(), "responseStatusCode": attempt.code(), "timestamp": attempt.0["timestamp"] },
    })
}

#[tokio::test]
async fn a_delivery_that_has_failed_for_good_is_told_of_once() {
    let (app, receiver, customer) = listening_to_attempts(1).await;
    receiver.on("/broken", [Reply::status(503)]);
    let endpoint = customer.endpoint(&receiver.url("/broken")).await;
    let body = json!({ "eventType": "invoice.paid", "eventId": "invoice-1", "payload": {} });
    let message = customer.publish_raw(&body, None).await.expect(202).text("id");
    let heard = receiver.received_at("/ops", 1).await.remove(0).json();
    let attempts = customer.attempts(&message, 2).await;
    assert_eq!(heard["type"], "message.attempt.exhausted");
    assert_eq!(heard["data"], data(&customer, &endpoint, &message, Some("invoice-1"), &attempts[1]));

    let resend = customer.path(&format!("/msg/{message}/endpoint/{endpoint}/resend"));
    customer.client.request("POST", &resend).send().await.expect(202);
    customer.attempts(&message, 3).await;
    app.database.nothing_owed().await;
    all_is_published(&app.database).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.received_at("/ops", 1).await.len(), 1, "a resend that fails is no news");
}

#[tokio::test]
async fn one_that_keeps_failing_is_told_of_and_so_is_its_recovery() {
    let (app, receiver, customer) = listening_to_attempts(8).await;
    receiver.on("/shaky", [500, 501, 502, 503, 504, 200].map(Reply::status));
    receiver.on("/slow", [500, 500, 500, 200].map(Reply::status));
    let shaky = customer.endpoint(&receiver.url("/shaky")).await;
    let message = customer.publish(&json!({})).await;
    let heard = receiver.received_at("/ops", 2).await;
    let attempts = customer.attempts(&message, 6).await;
    for (kind, attempt) in [("message.attempt.failing", &attempts[3]), ("message.attempt.recovered", &attempts[5])] {
        let told = heard.iter().map(support::Received::json).find(|told| told["type"] == kind).expect("it was told");
        assert_eq!(told["data"], data(&customer, &shaky, &message, None, attempt));
    }
    customer.client.delete(&customer.path(&format!("/endpoint/{shaky}"))).await.expect(204);
    customer.endpoint(&receiver.url("/slow")).await;
    let message = customer.publish(&json!({})).await;
    customer.attempts(&message, 4).await;
    all_is_published(&app.database).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.received_at("/ops", 2).await.len(), 2, "who succeeds at the fourth attempt was not said to fail");
}

#[tokio::test]
async fn nothing_is_told_of_what_is_told_and_nothing_is_noted_for_those_who_do_not_listen() {
    let app = App::with(Options::retries(0)).await;
    let receiver = Receiver::start().await;
    for path in ["/ops", "/broken"] {
        receiver.on(path, [Reply::status(500)]);
    }
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/broken")).await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
        create trigger refuse before insert on own_event for each row execute function refuse()";
    app.database.execute(refuse).await;
    let message = customer.publish(&json!({})).await;
    customer.attempts(&message, 1).await;
    app.database.nothing_owed().await;

    app.database.execute("drop trigger refuse on own_event").await;
    listen(&app.client, &receiver.url("/ops")).await;
    customer.endpoint_with(&json!({ "url": "https://example.com/", "disabled": true })).await;
    receiver.received_at("/ops", 1).await;
    customer.publish(&json!({})).await;
    receiver.received_at("/ops", 2).await;
    all_is_published(&app.database).await;
    app.database.nothing_owed().await;
    let told: Vec<_> = published(&app.database).await.into_iter().map(|event| event["type"].clone()).collect();
    assert_eq!(told, ["endpoint.created", "message.attempt.exhausted"], "its own failures are not reported to itself");
}
