//! Other services send events to a source, as their documentation says they do, and endpoints get them once.

mod bodies;
mod credentials;
mod doors;
mod flood;
mod holes;
mod providers;
mod repeats;
mod seed;
mod subscribed;

use std::ops::Deref;

use bytes::Bytes;
use domain::id::{ApplicationId, Id};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Answer, App, Client, Customer, PUBLIC_URL, client::Request};

/// A project, and the application that its sources send to.
struct Project {
    asked: support::Project,
    customer: Customer,
}

impl Deref for Project {
    type Target = support::Project;

    fn deref(&self) -> &support::Project {
        &self.asked
    }
}

impl Project {
    async fn of(app: &App) -> Self {
        let asked = support::Project::of(&app.client).await;
        asked.put("", &json!({ "type": "incoming" })).await;
        let application = app.database.texts("select application_id::text from project").await.remove(0);
        let application = ApplicationId::from(application.parse::<uuid::Uuid>().expect("an id"));
        Self { asked, customer: Customer { id: application.public(), client: app.client.clone() } }
    }

    /// A new source.
    async fn source(&self, definition: &Value) -> Source {
        // Not held against Convoy's contract, which does not know all of our providers.
        let source = self.client.post(&self.path("/sources"), definition).await.expect(201).json()["data"].clone();
        Source::new(source, &self.client)
    }

    /// A source that whoever knows it may send to, with these locations of its key.
    async fn keyed(&self, locations: &[&str]) -> Source {
        self.source(&json!({ "name": "A source", "idempotency_keys": locations })).await
    }

    /// Changes a source; the servers know within a second.
    async fn update(&self, source: &Source, change: &Value) -> Value {
        self.put(&format!("/sources/{}", source.id()), change).await
    }

    /// Every event, the newest first, without its body.
    async fn events(&self) -> Vec<Value> {
        self.customer.pages(&self.customer.path("/msg?with_content=false")).await
    }
}

/// A source, and a client that has no token.
#[derive(Clone, Debug)]
struct Source {
    shown: Value,
    client: Client,
}

impl Source {
    fn new(shown: Value, client: &Client) -> Self {
        Self { shown, client: client.anonymous() }
    }

    fn id(&self) -> &str {
        self.shown["uid"].as_str().expect("an id")
    }

    fn path(&self) -> &str {
        self.shown["url"].as_str().and_then(|url| url.strip_prefix(PUBLIC_URL)).expect("a URL of ours")
    }

    /// The same source at another server.
    fn through(&self, client: &Client) -> Self {
        Self { client: client.anonymous(), ..self.clone() }
    }

    /// A request with this body, in JSON unless another media type is said.
    fn request(&self, body: impl Into<Bytes>) -> Request {
        self.client.request("POST", self.path()).bytes(body)
    }

    /// A request with this query.
    fn with_query(&self, query: &str, body: impl Into<Bytes>) -> Request {
        self.client.request("POST", &format!("{}?{query}", self.path())).bytes(body)
    }

    /// Sends a body in JSON.
    async fn send(&self, body: &Value) -> Answer {
        self.request(body.to_string()).send().await
    }
}

/// Whether the answer says that it was a repeat; both ways of saying it agree.
#[track_caller]
fn is_duplicate(answer: &Answer) -> bool {
    let answer = answer.clone().expect(200);
    let is_duplicate = answer.header("posthaste-duplicate") == Some("true");
    let said = if is_duplicate { "Duplicate event received, but will not be sent" } else { "Event received" };
    assert_eq!(answer.json()["message"], said);
    is_duplicate
}

/// HMAC-SHA256 (RFC 2104), apart from the code under test.
fn hmac_sha256(secret: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
