//! The operator's proxy: where it is, how it is reached, and how it is asked for a connection to an address that we have vetted.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{
    failure::Failure,
    stream::Wire,
    tunnel::{self, Credentials},
};

/// How long it may take to reach the proxy: less than what a receiver behind it has, so that it is known which of the two is silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest user name and password together, in bytes: what the messages of SOCKS5 have room for.
const MAX_CREDENTIALS: usize = 200;

/// Why a text is no proxy.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidProxy {
    /// Not of the form that is wanted.
    #[error(
        "it is not of the form http://host:port, https://host:port or socks5://host:port, with user:password@ before the host if need be"
    )]
    Form,
    /// Credentials that cannot be sent.
    #[error("its user name and password have more than {MAX_CREDENTIALS} bytes, or are not UTF-8 once percent-decoded")]
    Credentials,
}

/// A proxy through which receivers are called. What it shows of itself has no credentials in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connect,
    /// The same, over TLS.
    ConnectTls,
    Socks5,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_credentials = self.credentials.is_some();
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("has_credentials", &has_credentials)
            .finish()
    }
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]` (HTTP CONNECT), `https://…` (the same over TLS) or `socks5://…`; the ports are
    /// 80, 443 and 1080 unless named.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        let url = Url::parse(text).map_err(|_| InvalidProxy::Form)?;
        let (kind, port) = match url.scheme() {
            "http" => (Kind::Connect, 80),
            "https" => (Kind::ConnectTls, 443),
            "socks5" => (Kind::Socks5, 1080),
            _ => return Err(InvalidProxy::Form),
        };
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().filter(|host| is_bare && !host.is_empty()).ok_or(InvalidProxy::Form)?;
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| InvalidProxy::Credentials);
        let (user, password) = (decoded(url.username())?, decoded(url.password().unwrap_or_default())?);
        if user.len() + password.len() > MAX_CREDENTIALS {
            return Err(InvalidProxy::Credentials);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let credentials = (!user.is_empty() || !password.is_empty()).then_some((user, password));
        Ok(Self { kind, host, port: url.port().unwrap_or(port), credentials })
    }

    /// Where it is: an address or a name, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// The way through a proxy.
pub(super) struct WayOut {
    pub(super) proxy: Proxy,
    tls: TlsConnector,
    patience: Duration,
    last_connected: Mutex<Option<Instant>>,
}

impl WayOut {
    /// The way through `proxy`, whose own certificate is checked as `tls` says; a whole exchange has no more than `timeout`.
    pub(super) fn new(proxy: Proxy, tls: ClientConfig, timeout: Duration) -> Self {
        Self { proxy, tls: Arc::new(tls).into(), patience: PATIENCE.min(timeout / 2), last_connected: Mutex::default() }
    }

    /// When the proxy last connected us to anybody.
    pub(super) fn last_connected(&self) -> Option<Instant> {
        *self.last_connected.lock()
    }

    /// Has the proxy, to which `reaching` opens a connection, connect to `address`: never to a name, since it would look up another
    /// address than the one that was vetted.
    pub(super) async fn connect(
        &self,
        reaching: impl Future<Output = Result<TcpStream, Failure>>,
        address: SocketAddr,
    ) -> Result<Wire, Failure> {
        let reached = async {
            let tcp = reaching.await.map_err(|failure| failure.to_string())?;
            self.encrypted(tcp).await
        };
        let silent = || Err("it does not answer".to_owned());
        let reached = timeout(self.patience, reached).await.unwrap_or_else(|_| silent());
        let mut wire = reached.map_err(|why| Failure::WayOut { why: format!("it cannot be reached ({why})"), is_certain: true })?;
        let credentials = self.proxy.credentials.as_ref();
        match self.proxy.kind {
            Kind::Connect | Kind::ConnectTls => tunnel::by_connect(&mut wire, address, credentials).await?,
            Kind::Socks5 => tunnel::by_socks(&mut wire, address, credentials).await?,
        }
        *self.last_connected.lock() = Some(Instant::now());
        Ok(wire)
    }

    async fn encrypted(&self, tcp: TcpStream) -> Result<Wire, String> {
        if self.proxy.kind != Kind::ConnectTls {
            return Ok(Wire::Plain(tcp));
        }
        let name = ServerName::try_from(self.proxy.host.clone()).map_err(|error| error.to_string())?;
        let tls = self.tls.connect(name, tcp).await.map_err(|error| error.to_string())?;
        Ok(Wire::Encrypted(Box::new(tls)))
    }
}
