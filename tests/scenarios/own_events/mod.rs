//! Operational webhooks: a tenant hears what happens to its own endpoints and messages.

use serde_json::{Value, json};
use support::{App, Client, Customer, Database, Received, Receiver};

/// What is told of deliveries.
mod attempts;
/// Through crashes and with rows that nobody understands.
mod crash;
/// The endpoints that hear, as the official SDK handles them.
mod crud;
/// What is told of endpoints, and to whom.
mod endpoints;
/// The application behind them shows nowhere.
mod hidden;
/// What is told of long work.
mod tasks;

const LIST: &str = "/api/v1/operational-webhook/endpoint";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// What is noted and not published yet.
const NOTED: &str = "select count(*) from own_event";

/// An operational endpoint at this URL; returns its id.
async fn listen(client: &Client, url: &str) -> String {
    client.post(LIST, &json!({ "url": url, "secret": SECRET })).await.expect(201).text("id")
}

/// A server whose tenant has an endpoint that hears everything, and who receives that.
async fn listening() -> (App, Receiver, Customer) {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    listen(&app.client, &receiver.url("/")).await;
    let customer = app.customer().await;
    (app, receiver, customer)
}

/// What was published to the tenants' own endpoints, in the order in which it was.
async fn published(database: &Database) -> Vec<Value> {
    let bodies =
        "select convert_from(m.payload, 'UTF8') from message m join application a on a.id = m.application_id where a.is_own order by m.id";
    let bodies = database.texts(bodies).await;
    bodies.iter().map(|body| serde_json::from_str(body).expect("a JSON body")).collect()
}

/// Waits until nothing is left to be published.
async fn all_is_published(database: &Database) {
    support::eventually("all that was noted is published", async || (database.number(NOTED).await == 0).then_some(())).await;
}

fn types(webhooks: &[Received]) -> Vec<String> {
    let mut types: Vec<_> = webhooks.iter().map(|webhook| webhook.json()["type"].as_str().expect("a type").to_owned()).collect();
    types.sort();
    types
}
