//! Accepts connections and serves them: a loop of our own, since `axum::serve` neither limits how long a request's head may
//! take nor lets a client close its half of the connection before the answer.

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Method, header},
    response::Response,
};
use futures::{FutureExt, future::BoxFuture};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use storage::Db;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tower::ServiceExt;

/// How long a client may take over the head of a request. An idle connection is closed after it too, so it is longer than
/// the 60 s after which common load balancers close theirs: who closes second loses a request now and then.
const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// The rest after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The routes, as two kinds of clients see them.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    /// For requests from pages of other origins.
    pub(crate) with_cors: Router,
    /// For everybody else, who need not pay for it.
    pub(crate) plain: Router,
    /// Counts the answers.
    pub(crate) db: Db,
}

/// Serves until `stopped`, then lets every connection finish the request that it is in.
pub(crate) async fn serve<H, F>(listener: TcpListener, handler: H, stopped: oneshot::Receiver<()>)
where
    H: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let connections = GracefulShutdown::new();
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => begin(stream, handler.clone(), &connections),
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

/// Serves one connection in a task of its own.
fn begin<H, F>(stream: TcpStream, handler: H, connections: &GracefulShutdown)
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| handler(request.map(Body::new)).map(Ok::<_, Infallible>));
    let connection = http1::Builder::new()
        // A client may close its half after the last byte and still read its answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // What is wrong with a connection is its client's affair.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
}

impl Routes {
    /// What answers the requests of all connections.
    pub(crate) fn into_handler(self) -> impl Fn(Request) -> BoxFuture<'static, Response> + Clone + Send + Sync + 'static {
        let routes = Arc::new(self);
        move |request| Arc::clone(&routes).answer(request).boxed()
    }

    async fn answer(self: Arc<Self>, mut request: Request) -> Response {
        crate::trim_trailing_slash(&mut request);
        let comes_from_a_page = request.headers().contains_key(header::ORIGIN) || request.method() == Method::OPTIONS;
        let router = if comes_from_a_page { &self.with_cors } else { &self.plain };
        let Ok(mut response) = router.clone().oneshot(request).await;
        crate::name_answer(&mut response);
        self.db.metrics().answered(response.status().as_u16());
        response
    }
}

/// The connection was gone before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Time stands still while there is work, and jumps to the next timer when there is none.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_head_is_let_go() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (_stop, stopped) = oneshot::channel();
        tokio::spawn(serve(listener, |_| async { Response::default() }, stopped));
        let begun = tokio::time::Instant::now();
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"POST /api/v1/app HTTP/1.1\r\nhost: x\r\nx-slow:").await.expect("an open connection");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("an end");
        assert!(begun.elapsed() >= HEAD_PATIENCE);
    }
}
