//! The HTTP client of the deliveries: one exchange, one deadline, no redirects, no proxy but the operator's, and nobody called
//! whom the egress policy forbids.

mod answer;
mod connector;
mod failure;
mod names;
mod proxy;
mod race;
mod stream;
#[cfg(test)]
mod tests;
mod trust;
mod tunnel;

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{delivery::Exchange, egress_policy::EgressPolicy};
use http::{HeaderValue, Request, header::CONNECTION};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};
use tokio::time::{Instant, timeout_at};

use self::{
    connector::Connector,
    failure::{Failure, find},
    names::SystemNames,
    proxy::WayOut,
    stream::{Counter, HasAnswered},
};
pub use self::{
    proxy::{InvalidProxy, Proxy},
    trust::{Authorities, InvalidAuthorities},
};
use crate::request::Sending;

/// How long an idle connection is kept: less than the 60 s after which common servers and load balancers close theirs.
const IDLE: Duration = Duration::from_secs(30);
/// How many idle connections are kept per host: as many as four of its endpoints may have in flight, since many customers have theirs
/// at the same service, and a burst would open anew what the one before it has just closed.
const IDLE_PER_HOST: usize = 256;
/// How many idle connections are kept in all: thousands of receivers that get a webhook now and then gain nothing from an open
/// connection, which costs us a file descriptor and, with TLS, some 30 kB.
const IDLE_IN_ALL: usize = 1024;
/// How many servers' TLS sessions are remembered, so that a further connection needs no certificates and a round trip less.
const TLS_SERVERS: usize = 1024;
/// rustls keeps up to eight tickets per server, and counts its capacity in tickets.
const TICKETS_PER_SERVER: usize = 8;
/// The most memory that one connection may read ahead, in bytes; also the most that response headers may take.
const READ_AHEAD: usize = 64 * 1024;
/// The most headers that an answer may have. They are bounded by [`READ_AHEAD`] anyway; this bounds what hyper sets aside.
const MAX_HEADERS: usize = 1000;

type Client = legacy::Client<HttpsConnector<Connector>, Full<Bytes>>;

/// Calls receivers.
pub(crate) struct Egress {
    /// Keeps connections alive. A pooled one was vetted when it was opened, and the policy never changes while we run.
    pooled: Client,
    /// Opens a new connection for each request.
    fresh: Client,
    /// Connections that are open, idle or not,
    open: Counter,
    /// and requests that are under way.
    busy: Counter,
    max_idle: usize,
    timeout: Duration,
    way_out: Option<Arc<WayOut>>,
}

/// An exchange that did not come about because of the operator's proxy.
#[derive(Debug)]
pub(crate) struct Barred {
    /// Where the proxy is.
    pub(crate) proxy: String,
    /// What is wrong with it.
    pub(crate) why: String,
    /// Whether it is certain that the receiver has nothing to do with it.
    pub(crate) is_certain: bool,
    /// How it is recorded, if it is the receiver's fault after all.
    pub(crate) exchange: Exchange,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Egress {
    /// A client that calls whom `policy` permits, through `proxy` if there is one, resolves names as the system does, trusts
    /// `authorities` beside those that everybody trusts, and gives no exchange more than `timeout`.
    pub(crate) fn new(policy: EgressPolicy, authorities: &Authorities, proxy: Option<Proxy>, timeout: Duration) -> Self {
        let way_out = proxy.map(|proxy| WayOut::new(proxy, tls(authorities.roots()), timeout));
        let connector = Connector::new(policy, Arc::new(SystemNames::new()), way_out);
        Self::with(connector, authorities.roots(), IDLE_IN_ALL, timeout)
    }

    fn with(connector: Connector, roots: RootCertStore, max_idle: usize, timeout: Duration) -> Self {
        let (open, way_out) = (connector.open_connections().clone(), connector.way_out().cloned());
        // One configuration for both clients: what one has learnt of a server's TLS, the other resumes.
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(roots)).https_or_http().enable_http1().wrap_connector(connector);
        let client = |idle_per_host: usize| {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle_per_host)
                .http1_max_buf_size(READ_AHEAD)
                // Be liberal in what you accept: a receiver's yes is a yes, however its headers are written.
                .http1_max_headers(MAX_HEADERS)
                .http1_allow_obsolete_multiline_headers_in_responses(true)
                .http1_allow_spaces_after_header_name_in_responses(true)
                .http1_ignore_invalid_headers_in_responses(true)
                .build(connector.clone())
        };
        Self { pooled: client(IDLE_PER_HOST), fresh: client(0), open, busy: Counter::default(), max_idle, timeout, way_out }
    }

    /// When the operator's proxy last connected us to anybody.
    pub(crate) fn last_let_through(&self) -> Option<std::time::Instant> {
        self.way_out.as_ref()?.last_connected()
    }

    /// Sends a request and reads what comes back, all within one deadline, which is `at_most` away. `build` is called again if a kept-alive connection
    /// turns out to be closed: that is rare, and a copy of every request would not be.
    ///
    /// What the receiver does is an exchange, also if that is nothing; an `Err` is the operator's proxy's.
    pub(crate) async fn send(&self, at_most: Duration, build: impl Fn(Sending) -> Request<Full<Bytes>>) -> Result<Exchange, Box<Barred>> {
        let (begun, timeout) = (Instant::now(), self.timeout.min(at_most));
        let deadline = begun + timeout;
        let mut request = build(Sending::First);
        // The pool bounds what is idle per host alone; a request that must not leave its connection behind bounds it in all.
        if self.open.get().saturating_sub(self.busy.get()) >= self.max_idle {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let _busy = self.busy.count();
        let mut is_resent = false;
        let answering = async {
            let mut response = self.pooled.request(request).await;
            if response.as_ref().is_err_and(is_stale) {
                is_resent = true;
                response = self.fresh.request(build(Sending::Again)).await;
            }
            response.map_err(|error| Failure::of_request(&error))
        };
        let answered = timeout_at(deadline, answering).await.unwrap_or(Err(Failure::NoResponse(timeout)));
        let timed = |exchange| Exchange { duration: begun.elapsed(), is_resent, ..exchange };
        match answered {
            Ok(response) => {
                if let Some(has_answered) = response.extensions().get::<HasAnswered>() {
                    has_answered.set();
                }
                Ok(timed(answer::take(response, deadline, timeout).await))
            }
            Err(failure) => self.unanswered(&failure).map(timed),
        }
    }

    fn unanswered(&self, failure: &Failure) -> Result<Exchange, Box<Barred>> {
        let exchange = answer::none(failure);
        let (Failure::WayOut { why, is_certain }, Some(way_out)) = (failure, &self.way_out) else { return Ok(exchange) };
        Err(Box::new(Barred { proxy: way_out.proxy.to_string(), why: why.clone(), is_certain: *is_certain, exchange }))
    }
}

fn tls(roots: RootCertStore) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring speaks TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(TLS_SERVERS * TICKETS_PER_SERVER);
    config
}

/// Whether the receiver closed a kept-alive connection just as we began to use it: it may do so at any time, and that is no
/// failure of the delivery.
fn is_stale(error: &legacy::Error) -> bool {
    let mut extensions = http::Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut extensions);
    }
    let was_used_before = extensions.get::<HasAnswered>().is_some_and(HasAnswered::get);
    let is_closed = find::<hyper::Error>(error).is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
        || find::<io::Error>(error).is_some_and(|error| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
        });
    was_used_before && is_closed
}
