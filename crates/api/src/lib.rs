//! Speaks HTTP: translates requests into calls of `storage` and results into answers; decides nothing.
//!
//! Reading order:
//! this file, for the route table · [`transport`] from a connection to a request as handlers see it, and back · [`caller`] who asks ·
//! [`svix`] the operations · [`error`] every refusal · [`openapi`] the document · [`front`] what a browser finds · [`playground`] a
//! receiver to try with.

mod caller;
mod error;
mod front;
mod health;
mod metrics;
mod openapi;
mod playground;
mod svix;
mod transport;

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{Uri, header, uri::PathAndQuery},
    middleware::from_fn_with_state,
    routing::{any, get},
};
use domain::url_policy::UrlPolicy;
use storage::{Db, committer::Publisher};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt},
    routes,
};

pub use caller::mint_token;
pub use openapi::openapi_yaml;
pub use transport::listener::SPARE as SPARE_CONNECTIONS;
use transport::{admission, bodies::Bodies, listener, request_id};

/// What the answers to health checks call the server.
pub const SERVER_NAME: &str = "Posthaste";
/// How long a stopping server waits for connections that are in the middle of a request.
const FAREWELL: Duration = Duration::from_secs(10);
/// For how long a browser may remember what cross-origin requests are allowed (as in svix-server).
const CORS_MAX_AGE: Duration = Duration::from_mins(10);
/// How many connections scrape a listener that has nothing but metrics.
const SCRAPERS: usize = 64;

/// How the API behaves.
#[derive(Clone)]
pub struct Config {
    /// Secrets of bearer tokens: all are accepted, the first signs.
    pub jwt_secrets: Vec<String>,
    /// The largest request body, in bytes.
    pub max_payload: usize,
    /// How much of all request bodies is held in memory at a time, in bytes.
    pub max_body_memory: usize,
    /// The base of the URLs that we hand out, such as `http://127.0.0.1:8071`.
    pub public_url: String,
    /// Whether there is a receiver at `/_play/{id}`.
    pub has_playground: bool,
    /// Which URLs endpoints may be given.
    pub urls: UrlPolicy,
    /// What the listener takes and shows.
    pub listener: ListenerConfig,
}

/// What a listener takes and shows besides its operations.
#[derive(Clone, Copy, Debug)]
pub struct ListenerConfig {
    /// The most connections at a time; a few more are open for health, metrics and refusals.
    pub max_connections: usize,
    /// Whether `/metrics` is there.
    pub has_metrics: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("max_payload", &self.max_payload)
            .field("public_url", &self.public_url)
            .field("has_playground", &self.has_playground)
            .finish_non_exhaustive()
    }
}

/// What handlers share.
pub(crate) struct Shared {
    config: Config,
    db: Db,
    publisher: Publisher,
    verifier: caller::Verifier,
    /// What is held of requests.
    bodies: Arc<Bodies>,
    /// The handlers that are running, also those whose client has gone.
    tasks: TaskTracker,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

type Context = Arc<Shared>;

/// Every operation; the OpenAPI document is made from the same list. `guard` is put around those that need a token.
fn operations(guard: impl Fn(UtoipaMethodRouter<Context>) -> UtoipaMethodRouter<Context>) -> OpenApiRouter<Context> {
    use svix::{application, attempt, endpoint, endpoint_headers, endpoint_health, endpoint_secret, event_type, idempotency, message};

    OpenApiRouter::with_openapi(openapi::preamble())
        .routes(guard(routes!(application::list, application::create)))
        .routes(guard(routes!(application::get, application::update, application::patch, application::delete)))
        .routes(guard(routes!(endpoint::list, endpoint::create)))
        .routes(guard(routes!(endpoint::get, endpoint::update, endpoint::patch, endpoint::delete)))
        .routes(guard(routes!(endpoint_headers::get, endpoint_headers::update, endpoint_headers::patch)))
        .routes(guard(routes!(endpoint_health::get)))
        .routes(guard(routes!(endpoint_secret::get)))
        .routes(guard(routes!(endpoint_secret::rotate)))
        .routes(guard(routes!(event_type::list, event_type::create)))
        .routes(guard(routes!(event_type::get, event_type::update, event_type::patch, event_type::delete)))
        .routes(guard(routes!(message::list, message::create)))
        .routes(guard(routes!(message::get)))
        .routes(guard(routes!(message::deliver)))
        .routes(guard(routes!(attempt::list_by_endpoint)))
        .routes(guard(routes!(attempt::list_by_message)))
        .routes(guard(routes!(attempt::get)))
        .routes(guard(routes!(attempt::resend)))
        .routes(guard(routes!(idempotency::get_policy, idempotency::update_policy)))
        .routes(guard(routes!(idempotency::list_records)))
        .routes(routes!(health::ready))
        .routes(routes!(health::ping))
}

/// The operation that may have a listener of its own.
fn metrics_operation() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(metrics::scrape))
}

fn router(context: &Context) -> listener::Routes {
    let guard = |routes: UtoipaMethodRouter<Context>| {
        routes.map(|methods| methods.route_layer(from_fn_with_state(context.clone(), admission::admit)))
    };
    let (mut router, _) = operations(guard).split_for_parts();
    if context.config.listener.has_metrics {
        router = router.merge(metrics_operation().split_for_parts().0);
    }
    router = router.route("/", get(front::page)).route("/docs", get(front::docs)).route("/openapi.yaml", get(front::document));
    if context.config.has_playground {
        let receivers = playground::Receivers::default();
        let receiver = any(playground::receive).get(playground::show).with_state((context.clone(), receivers));
        router = router.route("/_play/{id}", receiver);
    }
    let plain =
        router.fallback(admission::no_operation).method_not_allowed_fallback(admission::method_not_allowed).with_state(context.clone());
    listener::Routes { with_cors: plain.clone().layer(cors()), plain, db: context.db.clone() }
}

/// Any origin may call: requests carry a token, never a cookie.
fn cors() -> CorsLayer {
    use transport::idempotency::{IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED};

    let exposed =
        [request_id::HEADER, admission::IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, header::RETRY_AFTER, header::LOCATION];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(CORS_MAX_AGE)
}

/// Every path is the same with and without a trailing slash. This happens before routing, so that a route's template
/// never has one.
fn trim_trailing_slash(request: &mut Request) {
    if let Some(uri) = trimmed(request.uri()) {
        *request.uri_mut() = uri;
    }
}

fn trimmed(uri: &Uri) -> Option<Uri> {
    // Two slashes are not a trailing one: they stay, so that the answer can speak of them.
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty() && !path.ends_with('/'))?;
    let trimmed = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(trimmed).ok()?);
    Uri::from_parts(parts).ok()
}

/// A running API server.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    tasks: TaskTracker,
}

/// Serves the API on `listener` until [`Server::stop`].
pub fn start(mut config: Config, db: Db, publisher: Publisher, listener: TcpListener) -> Server {
    config.public_url.truncate(config.public_url.trim_end_matches('/').len());
    let verifier = caller::Verifier::new(&config.jwt_secrets);
    let tasks = TaskTracker::new();
    let bound = config.listener.max_connections;
    let bodies = Bodies::new(config.max_body_memory);
    let context = Arc::new(Shared { config, db, publisher, verifier, bodies, tasks: tasks.clone() });
    serve(router(&context), bound, listener, tasks)
}

/// Serves health and metrics alone, for a process that has no API, until [`Server::stop`].
pub fn start_probes(db: Db, listener: TcpListener, config: ListenerConfig) -> Server {
    let mut router = Router::new()
        .route("/api/v1/health", get(async |State(db): State<Db>| health::readiness(&db).await))
        .route("/api/v1/health/ping", get(health::ping));
    if config.has_metrics {
        router = router.merge(metrics_alone());
    }
    let plain = router.fallback(admission::unknown_path).with_state(db.clone());
    serve(listener::Routes { with_cors: plain.clone(), plain, db }, config.max_connections, listener, TaskTracker::new())
}

/// Serves metrics and nothing else, until [`Server::stop`].
pub fn start_metrics(db: Db, listener: TcpListener) -> Server {
    let plain = metrics_alone().fallback(admission::unknown_path).with_state(db.clone());
    serve(listener::Routes { with_cors: plain.clone(), plain, db }, SCRAPERS, listener, TaskTracker::new())
}

fn metrics_alone() -> Router<Db> {
    Router::new().route("/metrics", get(async |State(db): State<Db>| metrics::of(&db).await))
}

fn serve(routes: listener::Routes, bound: usize, listener: TcpListener, tasks: TaskTracker) -> Server {
    let (stop, stopped) = oneshot::channel();
    Server { stop, serving: tokio::spawn(listener::serve(listener, bound, routes.into_handler(), stopped)), tasks }
}

impl Server {
    /// Stops accepting, lets the handlers finish, and gives clients ten seconds to finish what they are sending.
    pub async fn stop(self) {
        let Self { stop, mut serving, tasks } = self;
        let _ = stop.send(());
        if tokio::time::timeout(FAREWELL, &mut serving).await.is_err() {
            tracing::warn!("connections in the middle of a request were closed");
            serving.abort();
        }
        tasks.close();
        tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_changes_nothing() {
        let trim = |uri: &str| trimmed(&uri.parse().expect("a URI")).map(|uri| uri.to_string());
        assert_eq!(trim("/api/v1/app/"), Some("/api/v1/app".into()));
        assert_eq!(trim("/api/v1/app/?limit=1&x=/"), Some("/api/v1/app?limit=1&x=/".into()));
        assert_eq!(trim("/api/v1/app/%2F/"), Some("/api/v1/app/%2F".into()));
        for unchanged in ["/", "/api/v1/app", "/api/v1/app?next=/", "/api/v1/app//", "//"] {
            assert_eq!(trim(unchanged), None, "{unchanged}");
        }
    }
}
