//! An application with endpoints, for scenarios that are about something else than creating them.

use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    eventually,
};

/// One application.
#[derive(Clone, Debug)]
pub struct Customer {
    /// Its id.
    pub id: String,
    /// Asks the server.
    pub client: Client,
}

/// An attempt as the API shows it.
#[derive(Clone, Debug)]
pub struct Attempt(pub Value);

impl Attempt {
    /// The receiver's status code; 0 for none.
    pub fn code(&self) -> i64 {
        self.0["responseStatusCode"].as_i64().expect("a status code")
    }

    /// The recorded response.
    pub fn response(&self) -> &str {
        self.0["response"].as_str().expect("a response")
    }

    /// How it ended: `success`, `fail`, …
    pub fn status(&self) -> &str {
        self.0["statusText"].as_str().expect("a status text")
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().expect("an id")
    }
}

/// A message with this payload, of the type `invoice.paid`.
pub fn message(payload: &Value) -> Value {
    json!({ "eventType": "invoice.paid", "payload": payload })
}

impl Customer {
    /// A new application of the client's tenant.
    pub async fn create(client: &Client) -> Self {
        let id = client.post("/api/v1/app", &json!({ "name": "A customer" })).await.expect(201).text("id");
        Self { id, client: client.clone() }
    }

    /// The same application, asked for through another server.
    #[must_use]
    pub fn through(&self, client: &Client) -> Self {
        Self { id: self.id.clone(), client: client.clone() }
    }

    /// A path below the application.
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/app/{}{rest}", self.id)
    }

    /// A new endpoint at `url`; returns its id.
    pub async fn endpoint(&self, url: &str) -> String {
        self.endpoint_with(&json!({ "url": url })).await
    }

    /// A new endpoint; returns its id.
    pub async fn endpoint_with(&self, body: &Value) -> String {
        self.client.post(&self.path("/endpoint"), body).await.expect(201).text("id")
    }

    /// An endpoint's signing secret.
    pub async fn secret(&self, endpoint: &str) -> String {
        self.client.get(&self.path(&format!("/endpoint/{endpoint}/secret"))).await.expect(200).text("key")
    }

    /// Publishes a message with this payload; returns its id.
    pub async fn publish(&self, payload: &Value) -> String {
        self.publish_raw(&message(payload), None).await.expect(202).text("id")
    }

    /// Publishes a message under a key.
    pub async fn publish_raw(&self, body: &Value, key: Option<&str>) -> Answer {
        let request = self.client.request("POST", &self.path("/msg")).json(body);
        if let Some(key) = key { request.key(key).send().await } else { request.send().await }
    }

    /// Every message of the application, the newest first.
    pub async fn messages(&self) -> Vec<Value> {
        self.pages(&self.path("/msg")).await
    }

    /// Everything in a list, page by page.
    pub async fn pages(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut query = String::from("limit=250");
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = self.client.get(&format!("{path}{separator}{query}")).await.expect(200).json();
            items.extend(page["data"].as_array().expect("a page").iter().cloned());
            let Some(next) = page["iterator"].as_str().filter(|_| page["done"] == false) else { return items };
            query = format!("limit=250&iterator={next}");
        }
    }

    /// All attempts of a message, the oldest first.
    pub async fn attempts_so_far(&self, message: &str) -> Vec<Attempt> {
        let mut attempts = self.pages(&self.path(&format!("/attempt/msg/{message}"))).await;
        attempts.reverse();
        attempts.into_iter().map(Attempt).collect()
    }

    /// Waits until a message has `n` attempts, and returns them, the oldest first.
    pub async fn attempts(&self, message: &str, n: usize) -> Vec<Attempt> {
        let probe = async || Some(self.attempts_so_far(message).await).filter(|attempts| attempts.len() >= n);
        eventually(&format!("{n} attempts of {message} are recorded"), probe).await
    }

    /// An endpoint as the API shows it.
    pub async fn show(&self, endpoint: &str) -> Value {
        self.client.get(&self.path(&format!("/endpoint/{endpoint}"))).await.expect(200).json()
    }
}
