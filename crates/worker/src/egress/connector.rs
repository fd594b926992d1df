//! Opens connections, and only to addresses that the egress policy permits.
//!
//! A name is looked up once per connection, every address that it has is vetted (those of a remembered answer too), and the
//! connection goes to one of exactly those: no second look-up could bring another answer.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use domain::{delivery::Silence, egress_policy::EgressPolicy};
use futures::future::BoxFuture;
use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use super::names::Names;

/// How long look-up and connection may take; the exchange's own deadline may be shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many addresses of a name are tried, one after the other.
const MAX_ADDRESSES: usize = 4;

/// How a [`Failure::Connection`] says that nobody listens.
const REFUSED: &str = "refused";

/// Why there is no response, in words that a customer may read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Failure {
    /// The policy forbids the address, or one of the addresses of the name.
    #[error("blocked: {0} is not on the public internet; the operator can allow its network with POSTHASTE_EGRESS_ALLOW")]
    Blocked(String),
    /// The name has no address.
    #[error("dns: the name {0} could not be resolved")]
    Unresolved(String),
    /// No connection in time.
    #[error("timeout: no connection within {0:?}")]
    NoConnection(Duration),
    /// No complete response in time.
    #[error("timeout: no complete response within {0:?}")]
    NoResponse(Duration),
    /// There was no connection, or it broke.
    #[error("connection failed: {0}")]
    Connection(&'static str),
    /// No encrypted connection came about.
    #[error("tls: {0}")]
    Tls(String),
}

impl Failure {
    /// The same for those who count.
    pub(super) fn silence(&self) -> Silence {
        match self {
            Self::NoConnection(_) | Self::NoResponse(_) => Silence::Timeout,
            Self::Connection(REFUSED) => Silence::Refused,
            Self::Blocked(_) => Silence::Blocked,
            Self::Unresolved(_) | Self::Connection(_) | Self::Tls(_) => Silence::Other,
        }
    }
}

/// Opens vetted connections.
#[derive(Clone)]
pub(super) struct Connector {
    policy: Arc<EgressPolicy>,
    names: Arc<dyn Names>,
    open: Counter,
}

impl Connector {
    pub(super) fn new(policy: EgressPolicy, names: Arc<dyn Names>) -> Self {
        Self { policy: Arc::new(policy), names, open: Counter::default() }
    }

    /// Counts the connections that are open, idle ones too.
    pub(super) fn open_connections(&self) -> &Counter {
        &self.open
    }

    async fn open(&self, uri: &Uri) -> Result<VettedStream, Failure> {
        let opening = async {
            let addresses = self.vetted(uri).await?;
            connect(&addresses).await
        };
        let tcp = timeout(PATIENCE, opening).await.unwrap_or(Err(Failure::NoConnection(PATIENCE)))?;
        Ok(VettedStream { tcp: TokioIo::new(tcp), has_answered: HasAnswered::default(), _counted: self.open.count() })
    }

    /// The addresses of the URI's host, if the policy permits every one of them.
    async fn vetted(&self, uri: &Uri) -> Result<Vec<SocketAddr>, Failure> {
        let host = uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let addresses = match bare.parse() {
            Ok(address) => vec![address],
            Err(_) => self.names.addresses(bare).await,
        };
        if addresses.is_empty() {
            return Err(Failure::Unresolved(host.to_owned()));
        }
        if !addresses.iter().all(|address| self.policy.permits(*address)) {
            return Err(Failure::Blocked(host.to_owned()));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// Connects to the first address that lets us, giving each its share of the time.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let tried = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let share = PATIENCE / u32::try_from(tried.len()).unwrap_or(1).max(1);
    let mut failure = Failure::NoConnection(PATIENCE);
    for address in tried {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|_| Failure::Connection("it broke"))?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = Failure::Connection(why(&error)),
            Err(_) => failure = Failure::NoConnection(share),
        }
    }
    Err(failure)
}

fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => REFUSED,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the address cannot be reached",
        io::ErrorKind::TimedOut => "the address does not answer",
        _ => "it could not be opened",
    }
}

impl Service<Uri> for Connector {
    type Response = VettedStream;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<VettedStream, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open(&uri).await })
    }
}

/// How many of something there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<AtomicUsize>);

/// One that is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Counter);

impl Counter {
    pub(super) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a connection has carried a whole exchange before.
#[derive(Clone, Debug, Default)]
pub(super) struct HasAnswered(Arc<AtomicBool>);

impl HasAnswered {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection to a vetted address, which remembers whether it has been used.
pub(super) struct VettedStream {
    tcp: TokioIo<TcpStream>,
    has_answered: HasAnswered,
    _counted: Counted,
}

impl Connection for VettedStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.has_answered.clone())
    }
}

impl Read for VettedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl Write for VettedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }
}
