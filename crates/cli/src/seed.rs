//! What `dev` starts with: a sample application, an endpoint to our own receiver, event types, and a source. Made through our own
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
/// What the sample source is called, and so the endpoint that gets what comes by it.
const SOURCE: &str = "Sample";
const EVENT_TYPES: [(&str, &str); 2] = [("invoice.paid", "An invoice was paid"), ("user.created", "Somebody signed up")];

/// Makes what is missing. What the user has changed stays, but for the addresses of the endpoints, which follow ours. Returns where the source
/// is; none, if the user has deleted it and left its endpoint.
pub(crate) async fn plant(url: &str, token: &str) -> Result<Option<String>> {
    let api = Api { client: crate::http_client()?, base: format!("{url}/api/v1"), token };
    for (name, description) in EVENT_TYPES {
        api.call(Method::POST, "/event-type/", &json!({"name": name, "description": description})).await?;
    }
    api.call(Method::POST, "/app/?get_if_exists=true", &json!({"name": "Sample", "uid": APPLICATION})).await?;
    let receiver = format!("{url}{RECEIVER}");
    let endpoints = format!("/app/{APPLICATION}/endpoint/");
    let endpoint = json!({"uid": ENDPOINT, "url": receiver, "description": "The built-in receiver"});
    if api.call(Method::POST, &endpoints, &endpoint).await?.0 == StatusCode::CONFLICT {
        api.call(Method::PATCH, &format!("{endpoints}{ENDPOINT}/"), &json!({"url": receiver})).await?;
    }
    plant_source(&api, &receiver).await
}

/// The source comes with an endpoint of the project and what joins the two.
async fn plant_source(api: &Api<'_>, receiver: &str) -> Result<Option<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let project = text(&api.call(Method::GET, "/projects", &Value::Null).await?.1["data"][0]["uid"]).unwrap_or_default();
    let sample = async |what: &str| -> Result<Value> {
        let page = api.call(Method::GET, &format!("/projects/{project}/{what}?q={SOURCE}"), &Value::Null).await?.1;
        Ok(page["data"]["content"][0].clone())
    };
    let make = async |what: &str, body: Value| -> Result<Value> {
        Ok(api.call(Method::POST, &format!("/projects/{project}/{what}"), &body).await?.1["data"].clone())
    };
    if let Some(endpoint) = text(&sample("endpoints").await?["uid"]) {
        api.call(Method::PUT, &format!("/projects/{project}/endpoints/{endpoint}"), &json!({"url": receiver})).await?;
        return Ok(text(&sample("sources").await?["url"]));
    }
    let source = make("sources", json!({"name": SOURCE, "idempotency_keys": ["request.body.id"]})).await?;
    let endpoint = make("endpoints", json!({"name": SOURCE, "url": receiver, "description": "The built-in receiver"})).await?;
    make("subscriptions", json!({"name": SOURCE, "endpoint_id": endpoint["uid"], "source_id": source["uid"]})).await?;
    Ok(text(&source["url"]))
}

struct Api<'a> {
    client: Client,
    base: String,
    token: &'a str,
}

impl Api<'_> {
    /// Makes a request, whose answer is in JSON; a conflict means that the thing is there already, which is as good. A body of null is none.
    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<(StatusCode, Value)> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base)).bearer_auth(self.token);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.context("our own API does not answer")?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        if !status.is_success() && status != StatusCode::CONFLICT {
            bail!("the sample data could not be made: {method} {path} answered {status}: {text}");
        }
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }
}
