//! A tenant as a project of the Convoy dialect. Each answer is held against two contracts: ours, as all are, and Convoy's.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::{Answer, Client};

/// Names and types of Convoy's own answers.
static ANSWERS: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../scenarios/convoy/answers.json")).expect("JSON"));

/// A project, asked by one of its callers.
#[derive(Clone, Debug)]
pub struct Project {
    /// Asks for it.
    pub client: Client,
    /// Its id.
    pub id: String,
}

impl Project {
    /// The project of a client's token or key.
    pub async fn of(client: &Client) -> Self {
        let listed = client.get("/api/v1/projects").await.expect(200).json();
        let id = listed["data"][0]["uid"].as_str().expect("a project").to_owned();
        Self { client: client.clone(), id }
    }

    /// The same project, asked with another token or key.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { client: self.client.with_token(token), ..self.clone() }
    }

    /// A path in it.
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/projects/{}{rest}", self.id)
    }

    /// Asks for something in it; a body of `null` is none.
    pub async fn ask(&self, method: &str, rest: &str, body: &Value) -> Answer {
        let request = self.client.request(method, &self.path(rest));
        let answer = if body.is_null() { request.send().await } else { request.json(body).send().await };
        check(method, &self.path(rest), &answer);
        answer
    }

    /// Asks for something that must go well with this status; returns what is shown.
    pub async fn done(&self, method: &str, rest: &str, body: &Value, status: u16) -> Value {
        let answer = self.ask(method, rest, body).await.expect(status).json();
        assert_eq!(answer["status"], true, "{answer}");
        answer["data"].clone()
    }

    /// Looks at something.
    pub async fn get(&self, rest: &str) -> Value {
        self.done("GET", rest, &Value::Null, 200).await
    }

    /// Makes something.
    pub async fn post(&self, rest: &str, body: &Value) -> Value {
        self.done("POST", rest, body, 201).await
    }

    /// Changes something.
    pub async fn put(&self, rest: &str, body: &Value) -> Value {
        self.done("PUT", rest, body, 202).await
    }

    /// Removes something.
    pub async fn delete(&self, rest: &str) {
        self.done("DELETE", rest, &Value::Null, 200).await;
    }

    /// Asks for something that must be refused with this status; returns what is said.
    pub async fn refused(&self, method: &str, rest: &str, body: &Value, status: u16) -> String {
        let answer = self.ask(method, rest, body).await.expect(status).json();
        assert_eq!((answer["status"].as_bool(), answer.get("data")), (Some(false), None), "{answer}");
        answer["message"].as_str().expect("a message").to_owned()
    }
}

/// The items of a page.
pub fn items(page: &Value) -> Vec<Value> {
    page["content"].as_array().unwrap_or_else(|| panic!("no page: {page}")).clone()
}

/// The id of a thing.
#[track_caller]
pub fn uid(thing: &Value) -> String {
    thing["uid"].as_str().unwrap_or_else(|| panic!("no id: {thing}")).to_owned()
}

/// Fails the test if an answer that went well is not what Convoy's own contract says of its operation, whatever status is written there.
fn check(method: &str, path: &str, answer: &Answer) {
    if answer.status >= 300 {
        return;
    }
    let path = path.split('?').next().unwrap_or(path);
    let segments: Vec<_> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<_> = template.split('/').collect();
        wanted.len() == segments.len() && wanted.iter().zip(&segments).all(|(want, is)| want.starts_with('{') || want == is)
    };
    let paths = ANSWERS["paths"].as_object().expect("paths");
    let known = paths.iter().filter(|(template, _)| fits(template)).min_by_key(|(template, _)| template.matches('{').count());
    let Some(schema) = known.and_then(|(_, methods)| methods.get(method)) else { return };
    let whole = json!({ "components": ANSWERS["components"], "allOf": [schema] });
    let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&whole).expect("a schema");
    let body = answer.json();
    let errors: Vec<_> = validator.iter_errors(&body).map(|error| format!("{error} at `{}`", error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {path} is not as in Convoy's contract: {} in {body}", errors.join("; "));
}
