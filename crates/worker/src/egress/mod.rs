//! The HTTP client of the deliveries: one exchange, one deadline, no redirects, no proxy, and nobody called whom the egress
//! policy forbids.

mod connector;
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
    HeaderMap, HeaderName, Request,
    header::{DATE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::crypto::ring;

use self::connector::{Connector, Failure, HasAnswered, Names, SystemNames};

/// How long an idle connection is kept: less than the 60 s after which common servers and load balancers close theirs.
const IDLE: Duration = Duration::from_secs(30);
/// How many idle connections are kept per host; as many as one endpoint may have in flight.
const IDLE_PER_HOST: usize = 64;
/// The most memory that one connection may read ahead, in bytes; also the most that response headers may take.
const READ_AHEAD: usize = 64 * 1024;

type Client = legacy::Client<HttpsConnector<Connector>, Full<Bytes>>;

/// Calls receivers.
pub(crate) struct Egress {
    /// Keeps connections alive. A pooled one was vetted when it was opened, and the policy never changes while we run.
    pooled: Client,
    /// Opens a new connection for each request.
    fresh: Client,
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
        Self::with_names(policy, timeout, Arc::new(SystemNames::new()))
    }

    fn with_names(policy: EgressPolicy, timeout: Duration, names: Arc<dyn Names>) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring::default_provider())
            .expect("ring speaks TLS 1.2 and 1.3")
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector::new(policy, names));
        let client = |idle_per_host: usize| {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle_per_host)
                .http1_max_buf_size(READ_AHEAD)
                .build(connector.clone())
        };
        Self { pooled: client(IDLE_PER_HOST), fresh: client(0), timeout }
    }

    /// Sends a request and reads what comes back, all within one deadline.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Exchange {
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        let answer = answer.unwrap_or(Err(Failure::NoResponse(self.timeout)));
        let duration = begun.elapsed();
        match answer {
            Ok(Answer { status_code, retry_after, body }) => Exchange { status_code, response: body, duration, retry_after },
            Err(failure) => Exchange { status_code: 0, response: failure.to_string().into(), duration, retry_after: None },
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let again = request.clone();
        let mut response = self.pooled.request(request).await;
        if response.as_ref().is_err_and(is_stale) {
            response = self.fresh.request(again).await;
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
