//! Repeats that meet the first request half-way, on the same node and on another one, and what time does to what is saved.

mod batches;
mod clocks;
mod kept;
mod overlap;
mod storm;

use serde_json::Value;
use support::{Answer, Client, Customer};
use tokio::task::JoinHandle;

/// Publishes in a task of its own, through the server of `client`.
fn publishing(customer: &Customer, client: &Client, body: &Value, key: &str) -> JoinHandle<Answer> {
    let (customer, body, key) = (customer.through(client), body.clone(), key.to_owned());
    tokio::spawn(async move { customer.publish_raw(&body, Some(&key)).await })
}
