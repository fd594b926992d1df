//! What `dev` starts with: a sample application, an endpoint to our own receiver, and event types. Made through our own
//! API, so that it is what anybody could have made.

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// The uid of the sample application.
pub(crate) const APPLICATION: &str = "sample";
/// The path of the receiver that the sample endpoint calls.
pub(crate) const RECEIVER: &str = "/_play/first";
/// The uid of the sample endpoint.
const ENDPOINT: &str = "first";
const EVENT_TYPES: [(&str, &str); 2] = [("invoice.paid", "An invoice was paid"), ("user.created", "Somebody signed up")];

/// Makes what is missing. What the user has changed stays, but for the endpoint's address, which follows ours.
pub(crate) async fn plant(url: &str, token: &str) -> Result<()> {
    let api = Api { client: crate::http_client()?, base: format!("{url}/api/v1"), token };
    for (name, description) in EVENT_TYPES {
        api.call(Method::POST, "/event-type/", &json!({"name": name, "description": description})).await?;
    }
    api.call(Method::POST, "/app/?get_if_exists=true", &json!({"name": "Sample", "uid": APPLICATION})).await?;
    let receiver = format!("{url}{RECEIVER}");
    let endpoints = format!("/app/{APPLICATION}/endpoint/");
    let endpoint = json!({"uid": ENDPOINT, "url": receiver, "description": "The built-in receiver"});
    if api.call(Method::POST, &endpoints, &endpoint).await? == StatusCode::CONFLICT {
        api.call(Method::PATCH, &format!("{endpoints}{ENDPOINT}/"), &json!({"url": receiver})).await?;
    }
    Ok(())
}

struct Api<'a> {
    client: Client,
    base: String,
    token: &'a str,
}

impl Api<'_> {
    /// Makes a request; a conflict means that the thing is there already, which is as good.
    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<StatusCode> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.base)).bearer_auth(self.token).json(body);
        let answer = request.send().await.context("our own API does not answer")?;
        let status = answer.status();
        if !status.is_success() && status != StatusCode::CONFLICT {
            let text = answer.text().await.unwrap_or_default();
            bail!("the sample data could not be made: {method} {path} answered {status}: {text}");
        }
        Ok(status)
    }
}
