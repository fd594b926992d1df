//! The HTTP client of the deliveries: one exchange, one deadline, no redirects, no proxy, and nobody called whom the egress
//! policy forbids.

mod connector;
mod names;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    fmt, io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use domain::{
    delivery::{Exchange, MAX_RESPONSE},
    egress_policy::EgressPolicy,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{CONNECTION, DATE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};

use self::{
    connector::{Connector, Counter, Failure, HasAnswered},
    names::SystemNames,
};

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
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What a receiver answered.
struct Answer {
    status_code: u16,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl Egress {
    /// A client that calls whom `policy` permits, resolves names as the system does, and gives each exchange `timeout`.
    pub(crate) fn new(policy: EgressPolicy, timeout: Duration) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self::with(Connector::new(policy, Arc::new(SystemNames::new())), roots, IDLE_IN_ALL, timeout)
    }

    fn with(connector: Connector, roots: RootCertStore, max_idle: usize, timeout: Duration) -> Self {
        let open = connector.open_connections().clone();
        // One configuration for both clients: what one has learnt of a server's TLS, the other resumes.
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(roots)).https_or_http().enable_http1().wrap_connector(connector);
        let client = |idle_per_host: usize| {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle_per_host)
                .http1_max_buf_size(READ_AHEAD)
                .build(connector.clone())
        };
        Self { pooled: client(IDLE_PER_HOST), fresh: client(0), open, busy: Counter::default(), max_idle, timeout }
    }

    /// Sends a request and reads what comes back, all within one deadline. `build` is called again if a kept-alive connection
    /// turns out to be closed: that is rare, and a copy of every request would not be.
    pub(crate) async fn send(&self, build: impl Fn() -> Request<Full<Bytes>>) -> Exchange {
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.timeout, self.exchange(build)).await;
        let answer = answer.unwrap_or(Err(Failure::NoResponse(self.timeout)));
        let duration = begun.elapsed();
        match answer {
            Ok(Answer { status_code, retry_after, body }) => Exchange { status_code, response: body, duration, retry_after, silence: None },
            Err(failure) => {
                let silence = Some(failure.silence());
                Exchange { status_code: 0, response: failure.to_string().into(), duration, retry_after: None, silence }
            }
        }
    }

    async fn exchange(&self, build: impl Fn() -> Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let mut request = build();
        // The pool bounds what is idle per host alone; a request that must not leave its connection behind bounds it in all.
        if self.open.get().saturating_sub(self.busy.get()) >= self.max_idle {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let _busy = self.busy.count();
        let mut response = self.pooled.request(request).await;
        if response.as_ref().is_err_and(is_stale) {
            response = self.fresh.request(build()).await;
        }
        let response = response.map_err(|error| explain(&error))?;
        if let Some(has_answered) = response.extensions().get::<HasAnswered>() {
            has_answered.set();
        }
        let status_code = response.status().as_u16();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let body = read(response.into_body()).await.map_err(|error| explain(&error))?;
        Ok(Answer { status_code, retry_after, body })
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

/// Reads the first [`MAX_RESPONSE`] bytes, whatever they are. A longer body is left unread, which ends the connection.
async fn read(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut kept = BytesMut::new();
    while kept.len() < MAX_RESPONSE
        && let Some(frame) = body.frame().await
    {
        if let Some(bytes) = frame?.data_ref() {
            kept.extend_from_slice(&bytes[..bytes.len().min(MAX_RESPONSE - kept.len())]);
        }
    }
    Ok(kept.freeze())
}

/// What `Retry-After` asks for (RFC 9110 §10.2.3): seconds, or a date, which is read by the receiver's own clock if it says
/// what that shows.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let from = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    until.duration_since(from).ok()
}

/// Puts into words why there is no response.
fn explain(error: &(dyn Error + 'static)) -> Failure {
    if let Some(failure) = find::<Failure>(error) {
        return failure.clone();
    }
    if let Some(error) = find::<rustls::Error>(error) {
        return Failure::Tls(error.to_string());
    }
    let Some(error) = find::<hyper::Error>(error) else { return Failure::Connection("it broke") };
    if error.is_incomplete_message() {
        Failure::Connection("the receiver closed it before it had answered")
    } else if error.is_parse() {
        Failure::Connection("the answer is not HTTP/1.1, or its headers are too large")
    } else {
        Failure::Connection("it broke")
    }
}

/// The first error of type `T` among `error` and its causes. An `io::Error` hides the error that it wraps from `source()`.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.and_then(|inner| find(inner)).or_else(|| find(error.source()?))
}
