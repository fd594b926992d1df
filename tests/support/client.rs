//! An HTTP client of the API that holds every answer against the contract.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::contract;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
    asked: String,
}

impl Answer {
    /// Fails the test unless the status is this one.
    #[expect(clippy::return_self_not_must_use, reason = "often only the check is wanted")]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{} answered {} with {}", self.asked, self.status, text.chars().take(2000).collect::<String>());
        self
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{} answered {:?}: {error}", self.asked, self.body))
    }

    /// The text of a member of the JSON body.
    #[track_caller]
    pub fn text(&self, member: &str) -> String {
        let json = self.json();
        json[member].as_str().unwrap_or_else(|| panic!("{} answered without a text `{member}`: {json}", self.asked)).to_owned()
    }

    /// The name of the error for programs: `code`, or of a 422 the `type` of the first thing that is wrong.
    #[track_caller]
    pub fn code(&self) -> String {
        let json = self.json();
        let code = json["code"].as_str().or_else(|| json["detail"][0]["type"].as_str());
        code.unwrap_or_else(|| panic!("{} answered without a code: {json}", self.asked)).to_owned()
    }

    /// A header's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the answer says that it is the saved one.
    pub fn is_replay(&self) -> bool {
        self.header("idempotency-replay") == Some("true")
    }
}

/// A caller of one server with one token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The server, for example `http://127.0.0.1:8071`.
    pub base: String,
    /// The bearer token; none sends no `Authorization`.
    pub token: Option<String>,
}

/// A request that is being put together.
#[derive(Clone, Debug)]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Bytes>,
    is_checked: bool,
}

impl Client {
    /// A client of the server at `base`.
    pub fn new(base: &str, token: Option<&str>) -> Self {
        // The client asks for one although it speaks plain HTTP; an error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_mins(1)).no_proxy();
        let http = http.redirect(reqwest::redirect::Policy::none()).build().expect("a client without TLS");
        Self { http, base: base.to_owned(), token: token.map(str::to_owned) }
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client without a token.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// Begins a request.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Request { client: self.clone(), method, path: path.to_owned(), headers: Vec::new(), body: None, is_checked: true }
    }

    /// Sends a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send().await
    }

    /// Sends a POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).json(body).send().await
    }

    /// Sends a PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path).json(body).send().await
    }

    /// Sends a PATCH with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.request("PATCH", path).json(body).send().await
    }

    /// Sends a DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path).send().await
    }
}

impl Request {
    /// Adds a header; a second one of the same name is a second line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.push((name, HeaderValue::from_bytes(value.as_ref()).expect("a header value")));
        self
    }

    /// Adds an `Idempotency-Key`.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.bytes(serde_json::to_vec(body).expect("JSON"))
    }

    /// Sets the body's bytes, as `application/json` unless another content type is given later.
    #[must_use]
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        if !self.headers.iter().any(|(name, _)| name == http::header::CONTENT_TYPE) {
            self.headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        self
    }

    /// Sets the body's bytes, and says nothing of what they are.
    #[must_use]
    pub fn untyped(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Does not hold the answer against the contract: for paths that are not part of it.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.is_checked = false;
        self
    }

    /// Sends it; fails the test if no answer comes.
    pub async fn send(self) -> Answer {
        let asked = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{asked} got no answer: {error:?}"))
    }

    /// Sends it; an error is a connection that broke.
    pub async fn try_send(self) -> reqwest::Result<Answer> {
        let url = format!("{}{}", self.client.base, self.path);
        let mut request = self.client.http.request(self.method.clone(), url);
        if let Some(token) = &self.client.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?;
        if self.is_checked {
            let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
            if let Err(violation) = contract::check(self.method.as_str(), &self.path, status, content_type, &body) {
                panic!("outside the contract: {violation}");
            }
            assert!(headers.contains_key("x-request-id"), "{} {} carries no X-Request-Id", self.method, self.path);
        }
        Ok(Answer { status, headers, body, asked: format!("{} {}", self.method, self.path) })
    }
}

/// Whether a server refuses a body of so many bytes, of which it is not sent any.
pub async fn is_refused(address: SocketAddr, token: &str, length: usize) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!("POST /api/v1/app HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("an open connection");
    let mut answer = [0; 12];
    // One that waits for the body says nothing.
    let is_answered = tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut answer)).await;
    matches!(is_answered, Ok(Ok(_))) && &answer == b"HTTP/1.1 503"
}
