//! The null server: the same HTTP as Posthaste's, and nothing behind it. It answers 202 and forwards the payload from memory,
//! once. No server that speaks this HTTP can be faster on the same machine.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpListener, sync::Semaphore};

/// How many webhooks are under way at most.
const SENDS: usize = 256;

struct Null {
    client: Client<HttpConnector, Full<Bytes>>,
    endpoints: RwLock<Arc<Vec<Endpoint>>>,
    sends: Semaphore,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    url: String,
    filter_types: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    event_type: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Serves until the process ends.
pub async fn run(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let null = Arc::new(Null {
        client: Client::builder(TokioExecutor::new()).build(connector),
        endpoints: RwLock::default(),
        sends: Semaphore::new(SENDS),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let null = Arc::clone(&null);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&null), request));
            // An error is a client that has gone.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(null: Arc<Null>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path();
    if head.method == Method::POST && path.ends_with("/msg") {
        return Ok(accept(&null, &body));
    }
    if path.ends_with("/endpoint")
        && let Ok(endpoint) = serde_json::from_slice(&body)
    {
        let mut endpoints = null.endpoints.write();
        let mut more = Vec::new();
        more.extend(endpoints.iter().map(|endpoint| Endpoint { url: endpoint.url.clone(), filter_types: endpoint.filter_types.clone() }));
        more.push(endpoint);
        *endpoints = Arc::new(more);
    }
    Ok(respond(StatusCode::OK, r#"{"id":"null"}"#.into()))
}

fn accept(null: &Arc<Null>, body: &Bytes) -> Response<Full<Bytes>> {
    let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else {
        return respond(StatusCode::BAD_REQUEST, "{}".into());
    };
    let endpoints = Arc::clone(&null.endpoints.read());
    let payload = body.slice_ref(message.payload.get().as_bytes());
    let id = format!("null_{}", payload.len());
    for (at, endpoint) in endpoints.iter().enumerate() {
        if endpoint.filter_types.iter().any(|wanted| wanted == message.event_type) {
            tokio::spawn(forward(Arc::clone(null), Arc::clone(&endpoints), at, payload.clone()));
        }
    }
    respond(StatusCode::ACCEPTED, format!(r#"{{"id":"{id}","eventType":"{}","payload":{}}}"#, message.event_type, message.payload))
}

async fn forward(null: Arc<Null>, endpoints: Arc<Vec<Endpoint>>, at: usize, payload: Bytes) {
    let Ok(_permit) = null.sends.acquire().await else { return };
    let request = Request::post(&endpoints[at].url)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header("webhook-id", HeaderValue::from_static("null"))
        .header("webhook-signature", HeaderValue::from_static("v1,none"))
        .body(Full::new(payload));
    let Ok(request) = request else { return };
    if let Ok(response) = null.client.request(request).await {
        // Read to its end, so that the connection can be used again.
        let _ = response.into_body().collect().await;
    }
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
