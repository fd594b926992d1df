//! The operator's proxy: where it is, and how it is asked for a connection to an address that we have vetted.

use std::{fmt, io, net::SocketAddr};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::proxy::{SocksV5, Tunnel},
    rt::TokioIo,
};
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt, service_fn};
use url::Url;

use super::failure::Failure;

/// The longest user name and password together, in bytes: what the messages of SOCKS5 have room for.
const MAX_CREDENTIALS: usize = 200;

/// Why a text is no proxy.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidProxy {
    /// Not of the form that is wanted.
    #[error("it is not of the form http://host:port or socks5://host:port, with user:password@ before the host if need be")]
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
    credentials: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connect,
    Socks5,
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
    /// Reads `http://[user:password@]host[:port]` (HTTP CONNECT) or `socks5://…`; the ports are 80 and 1080 unless named.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        let url = Url::parse(text).map_err(|_| InvalidProxy::Form)?;
        let (kind, port) = match url.scheme() {
            "http" => (Kind::Connect, 80),
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

    /// Asks the proxy at the other end of `stream` for a connection to `address`: never for a name, since it would look up
    /// another address than the one that was vetted.
    pub(super) async fn connect(&self, stream: TcpStream, address: SocketAddr) -> Result<TcpStream, Failure> {
        let target = Uri::try_from(format!("http://{address}/")).map_err(|_| Failure::Proxy("the address cannot be named".into()))?;
        let mut stream = Some(TokioIo::new(stream));
        let given = service_fn(move |_: Uri| std::future::ready(stream.take().ok_or_else(|| io::Error::other("it is used once"))));
        // The library's connectors ask for the proxy's URL only to hand it to the connection that is given here.
        let nowhere = Uri::from_static("http://proxy/");
        match (self.kind, &self.credentials) {
            (Kind::Connect, None) => open(Tunnel::new(nowhere, given), target).await,
            (Kind::Connect, Some((user, password))) => {
                let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
                let value =
                    HeaderValue::try_from(format!("Basic {basic}")).map_err(|_| Failure::Proxy("its credentials cannot be sent".into()))?;
                open(Tunnel::new(nowhere, given).with_auth(value), target).await
            }
            (Kind::Socks5, None) => open(SocksV5::new(nowhere, given), target).await,
            (Kind::Socks5, Some((user, password))) => {
                open(SocksV5::new(nowhere, given).with_auth(user.clone(), password.clone()), target).await
            }
        }
    }
}

async fn open<S>(connector: S, target: Uri) -> Result<TcpStream, Failure>
where
    S: Service<Uri, Response = TokioIo<TcpStream>, Error: fmt::Display>,
{
    connector.oneshot(target).await.map(TokioIo::into_inner).map_err(|error| Failure::Proxy(error.to_string()))
}
