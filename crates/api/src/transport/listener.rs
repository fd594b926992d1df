//! Accepts connections and serves them: a loop of our own, since `axum::serve` neither bounds their number, nor how long a
//! request's head and its answer may take, nor lets a client close its half of the connection before the answer.
//!
//! So many connections are served as the bound says. Those beyond it get one answer each: health and metrics as always, everything
//! else a 503. They too are few: the one that has been silent for longest makes room, and who sends its request at once is answered.

use std::{collections::VecDeque, convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Method, header},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rustix::net::sockopt;
use storage::Db;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tower::ServiceExt;
use tracing::Instrument as _;

use super::{
    admission,
    dialect::{self, Dialects},
    pace::Paced,
    request_id, trailing_slash,
};
use crate::error::ApiError;

/// How long a client may take over the head of a request. An idle connection is closed after it too, so it is longer than
/// the 60 s after which common load balancers close theirs: who closes second loses a request now and then.
const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// The same for a connection beyond the bound, which is there for one request.
const SPARE_HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How many connections are open beyond the bound.
pub const SPARE: usize = 64;
/// What the system may hold of an answer for a client that reads slowly. Without a bound of ours it takes megabytes, and it would look
/// as if the client had read them.
const SEND_BUFFER: usize = 128 * 1024;
/// The rest after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often the log says that the connections are at their bound.
const REMINDER: Duration = Duration::from_mins(1);

/// How a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// As one of those that the bound admits.
    Admitted,
    /// As one beyond it.
    Spare,
}

/// The routes, as two kinds of clients see them.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    /// For requests from pages of other origins.
    pub(crate) with_cors: Router,
    /// For everybody else, who need not pay for it.
    pub(crate) plain: Router,
    /// In whose words a request is refused that no route takes.
    pub(crate) dialects: Dialects,
    /// Counts the answers.
    pub(crate) db: Db,
}

/// Serves at most `bound` connections, and a few beyond, until `stopped`; then lets every one finish the request that it is in.
pub(crate) async fn serve<H, F>(listener: TcpListener, bound: usize, handler: H, stopped: oneshot::Receiver<()>)
where
    H: Fn(Request, Lane) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let connections = GracefulShutdown::new();
    let mut lanes = Lanes::new(bound);
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => lanes.begin(stream, handler.clone(), &connections).await,
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections; trying again until it works");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        // An error means that the server's handle is gone: there is nobody left to serve for.
        _ = stopped => {}
    }
    drop(listener);
    connections.shutdown().await;
}

/// Who is connected.
struct Lanes {
    bound: usize,
    places: Arc<Semaphore>,
    /// The connections beyond the bound, the oldest first.
    spare: VecDeque<JoinHandle<()>>,
    /// When the log last said that they are at their bound.
    reminded: Option<Instant>,
}

impl Lanes {
    fn new(bound: usize) -> Self {
        Self { bound, places: Arc::new(Semaphore::new(bound)), spare: VecDeque::new(), reminded: None }
    }

    /// Serves one connection in a task of its own.
    async fn begin<H, F>(&mut self, stream: TcpStream, handler: H, connections: &GracefulShutdown)
    where
        H: Fn(Request, Lane) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let lane = if place.is_some() { Lane::Admitted } else { Lane::Spare };
        set_options(&stream);
        let service = service_fn(move |request: hyper::Request<Incoming>| handler(request.map(Body::new), lane).map(Ok::<_, Infallible>));
        let connection = http1::Builder::new()
            // A client may close its half after the last byte and still read its answer.
            .half_close(true)
            .keep_alive(lane == Lane::Admitted)
            .timer(TokioTimer::new())
            .header_read_timeout(if lane == Lane::Admitted { HEAD_PATIENCE } else { SPARE_HEAD_PATIENCE })
            .serve_connection(TokioIo::new(Paced::new(stream)), service);
        let connection = connections.watch(connection);
        let task = tokio::spawn(async move {
            // What is wrong with a connection is its client's affair.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
        if lane == Lane::Spare {
            self.make_room(task).await;
        }
    }

    /// Keeps the connections beyond the bound few: the oldest of them goes.
    async fn make_room(&mut self, newest: JoinHandle<()>) {
        self.spare.retain(|task| !task.is_finished());
        if self.spare.len() >= SPARE
            && let Some(oldest) = self.spare.pop_front()
        {
            oldest.abort();
            // Its file is closed then, and not before.
            let _ = oldest.await;
        }
        self.spare.push_back(newest);
        if self.reminded.is_none_or(|at| at.elapsed() >= REMINDER) {
            self.reminded = Some(Instant::now());
            tracing::warn!(
                connections = self.bound,
                "as many connections are open as may be: new ones are answered 503, but for health and metrics; see POSTHASTE_MAX_CLIENT_CONNECTIONS"
            );
        }
    }
}

fn set_options(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    if let Err(error) = sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER) {
        tracing::debug!(%error, "a connection keeps the system's send buffer");
    }
}

impl Routes {
    /// What answers the requests of all connections.
    pub(crate) fn into_handler(self) -> impl Fn(Request, Lane) -> BoxFuture<'static, Response> + Clone + Send + Sync + 'static {
        let routes = Arc::new(self);
        move |request, lane| Arc::clone(&routes).answer(request, lane).boxed()
    }

    async fn answer(self: Arc<Self>, mut request: Request, lane: Lane) -> Response {
        trailing_slash::trim(&mut request);
        let name = request_id::of(request.headers());
        let dialect = self.dialects.of(request.uri().path());
        let echo = dialect.echoed().and_then(|header| Some((request.headers().get(&header)?.clone(), header)));
        let mut response = dialect::told(self.route(request, lane).instrument(request_id::span(&name)).await, dialect);
        response.headers_mut().insert(request_id::HEADER, name);
        if let Some((value, header)) = echo {
            response.headers_mut().insert(header, value);
        }
        self.db.metrics().answered(response.status().as_u16());
        response
    }

    async fn route(&self, request: Request, lane: Lane) -> Response {
        if lane == Lane::Spare && !is_probe(request.uri().path()) {
            return admission::refuse(request, ApiError::Crowded).into_response();
        }
        // The router would take the empty segment for an empty name.
        if request.uri().path().contains("//") {
            return admission::refuse(request, ApiError::EmptySegment).into_response();
        }
        let comes_from_a_page = request.headers().contains_key(header::ORIGIN) || request.method() == Method::OPTIONS;
        let router = if comes_from_a_page { &self.with_cors } else { &self.plain };
        let Ok(response) = router.clone().oneshot(request).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    }
}

/// Whether this is what shows from outside how the server is.
fn is_probe(path: &str) -> bool {
    matches!(path, "/api/v1/health" | "/api/v1/health/ping" | "/metrics")
}

/// The connection was gone before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that answers everything with nothing, until the sender is dropped.
    async fn serving() -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(serve(listener, 1, |_, _| async { Response::default() }, stopped));
        (address, stop)
    }

    /// Time stands still while there is work, and jumps to the next timer when there is none.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_head_is_let_go() {
        let (address, _stop) = serving().await;
        let begun = Instant::now();
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"POST /api/v1/app HTTP/1.1\r\nhost: x\r\nx-slow:").await.expect("an open connection");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("an end");
        assert!(begun.elapsed() >= HEAD_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_idle_after_its_answer_is_let_go() {
        let (address, _stop) = serving().await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("an open connection");
        let mut some = [0; 12];
        client.read_exact(&mut some).await.expect("an answer");
        assert_eq!(&some, b"HTTP/1.1 200");
        let begun = Instant::now();
        client.read_to_end(&mut Vec::new()).await.expect("an end");
        assert!((HEAD_PATIENCE..HEAD_PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
