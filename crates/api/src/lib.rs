//! Speaks HTTP: translates requests into calls of `storage` and results into answers; decides nothing.
//!
//! Reading order:
//! [`routes`] what is at which path, and who may use it · [`transport`] from a connection to a request as handlers see it, and back ·
//! [`caller`] who asks · [`bodies`] how much of requests is in memory · [`svix`] [`convoy`] the operations ·
//! [`ingest`] where others send to, who have no token · [`error`] every refusal ·
//! [`context`] what handlers share · [`openapi`] the document · [`readiness`] [`metrics`] probes · [`front`] what a browser finds ·
//! [`playground`] a receiver to try with.
//!
//! Each module uses only what stands before it in this line: `error` · `caller` `bodies` · `context` · `transport` · `svix` `convoy` ·
//! `ingest` · `readiness` `metrics` `openapi` · `routes` · `front` · `playground`.

mod bodies;
mod caller;
mod catalogue;
mod context;
mod convoy;
mod error;
mod front;
mod ingest;
mod metrics;
mod openapi;
mod playground;
mod readiness;
mod routes;
mod svix;
mod transport;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::header,
    routing::{any, get},
};
use storage::{Db, committer::Publisher};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

pub use caller::{mint_application_token, mint_token};
pub use context::{Config, ListenerConfig};
pub use readiness::SERVER_NAME;
pub use routes::openapi_yaml;
pub use svix::own_event::put_into_words as own_event;
pub use transport::listener::SPARE as SPARE_CONNECTIONS;

use bodies::Bodies;
use context::{Context, Shared};
use convoy::Convoy;
use svix::Svix;
use transport::{admission, dialect::Dialects, listener, request_id};

/// How long a stopping server waits for connections that are in the middle of a request.
const FAREWELL: Duration = Duration::from_secs(10);
/// For how long a browser may remember what cross-origin requests are allowed (as in svix-server).
const CORS_MAX_AGE: Duration = Duration::from_mins(10);
/// How many connections scrape a listener that has nothing but metrics.
const SCRAPERS: usize = 64;
/// Which dialect is spoken where.
const DIALECTS: Dialects =
    Dialects { plain: &Svix, others: &[(convoy::PLACE, &Convoy), (svix::not_yet::INGEST, &Svix), (convoy::source::INGEST, &Convoy)] };

fn router(context: &Context) -> listener::Routes {
    let db = context.db.clone();
    let mut router = routes::router(context).merge(probes(&db, context.config.listener));
    router = router.merge(Router::from(routes::ingest().with_state(context.clone())));
    let extras = front::Extras { playground: context.config.has_playground };
    router = router.route("/", get(front::page).with_state(extras));
    router = router.route("/docs", get(front::docs)).route("/openapi.yaml", get(front::document));
    if extras.playground {
        let receivers = playground::Receivers::default();
        let receiver = any(playground::receive).get(playground::show).with_state((context.clone(), receivers));
        router = router.route("/_play/{id}", receiver);
    }
    let (for_path, for_method) = (context.clone(), context.clone());
    let plain = router
        .fallback(move |request: Request| admission::no_operation(for_path.clone(), DIALECTS, request))
        .method_not_allowed_fallback(move |request: Request| admission::method_not_allowed(for_method.clone(), DIALECTS, request));
    listener::Routes { with_cors: plain.clone().layer(cors()), plain, dialects: DIALECTS, db }
}

/// Any origin may call: requests carry a token, never a cookie.
fn cors() -> CorsLayer {
    use transport::reply::{IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED};

    let exposed =
        [request_id::HEADER, admission::IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, header::RETRY_AFTER, header::LOCATION];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(CORS_MAX_AGE)
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
    let router = probes(&db, config);
    serve(nothing_but(router, db), config.max_connections, listener, TaskTracker::new())
}

/// Serves metrics and nothing else, until [`Server::stop`].
pub fn start_metrics(db: Db, listener: TcpListener) -> Server {
    let router = routes::metrics().with_state(db.clone()).into();
    serve(nothing_but(router, db), SCRAPERS, listener, TaskTracker::new())
}

fn probes(db: &Db, config: ListenerConfig) -> Router {
    let mut probes = routes::probes();
    if config.has_metrics {
        probes = probes.merge(routes::metrics());
    }
    probes.with_state(db.clone()).into()
}

fn nothing_but(router: Router, db: Db) -> listener::Routes {
    let plain = router.fallback(admission::unknown_path);
    listener::Routes { with_cors: plain.clone(), plain, dialects: DIALECTS, db }
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
