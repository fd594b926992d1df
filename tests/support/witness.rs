//! Stands between an SDK and the server, and holds each answer that passes against the contract.

use std::net::SocketAddr;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use svix::api::{Svix, SvixOptions};
use tokio::net::TcpListener;

use crate::{client::Client, cluster::Place, contract, proxy::Proxy};

/// A status that no server of ours sends: the SDK shows it, with the violation as its body, and does not retry it.
const VIOLATION: u16 = 499;

/// The official SDK with the client's token, talking to the client's server through a witness.
pub async fn sdk(client: &Client) -> Svix {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let router = Router::new().fallback(pass).with_state(client.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    sdk_at(client, address)
}

/// The official SDK with the client's token, talking to the client's server by way of a proxy, with nobody else between.
pub async fn sdk_through_a_proxy(client: &Client) -> (Svix, Proxy) {
    let server = client.base.trim_start_matches("http://").parse().expect("an address");
    let proxy = Proxy::to(Place::Port(server)).await;
    (sdk_at(client, proxy.address), proxy)
}

fn sdk_at(client: &Client, address: SocketAddr) -> Svix {
    let server_url = Some(format!("http://{address}"));
    Svix::new(client.token.clone().expect("a token"), Some(SvixOptions { server_url, ..SvixOptions::default() }))
}

async fn pass(State(client): State<Client>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = client.request(method.as_str(), path).unchecked().bytes(body);
    for (name, value) in &headers {
        if !matches!(name.as_str(), "host" | "content-length" | "authorization" | "content-type") {
            request = request.header(name.as_str(), value.as_bytes());
        }
    }
    let answer = request.send().await;
    let content_type = answer.header("content-type");
    let verdict = contract::check(method.as_str(), path, answer.status, content_type, &answer.body);
    let (status, body) = match verdict {
        Ok(()) => (answer.status, answer.body.clone()),
        Err(violation) => (VIOLATION, serde_json::json!({ "code": "outside_the_contract", "detail": violation }).to_string().into()),
    };
    let mut response = Response::builder().status(status);
    for (name, value) in &answer.headers {
        if name != "content-length" && name != "transfer-encoding" {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(body)).expect("a response")
}
