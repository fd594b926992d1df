//! Opens connections, and only to addresses that the egress policy permits.
//!
//! A name is looked up once per connection, every address that it has is vetted (those of a remembered answer too), and the
//! connection goes to one of exactly those: no second look-up could bring another answer. A proxy changes nothing of that: it
//! is asked for a vetted address. Where the proxy itself is, is the operator's business.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use domain::egress_policy::EgressPolicy;
use futures::future::BoxFuture;
use http::{Uri, uri::Scheme};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use super::{
    failure::Failure,
    names::Names,
    proxy::Proxy,
    race::race,
    stream::{Counter, VettedStream},
};

/// How long look-up and connection may take; the exchange's own deadline may be shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens vetted connections.
#[derive(Clone)]
pub(super) struct Connector {
    policy: Arc<EgressPolicy>,
    names: Arc<dyn Names>,
    proxy: Option<Arc<Proxy>>,
    open: Counter,
}

impl Connector {
    pub(super) fn new(policy: EgressPolicy, names: Arc<dyn Names>, proxy: Option<Proxy>) -> Self {
        Self { policy: Arc::new(policy), names, proxy: proxy.map(Arc::new), open: Counter::default() }
    }

    /// Counts the connections that are open, idle ones too.
    pub(super) fn open_connections(&self) -> &Counter {
        &self.open
    }

    async fn open(&self, uri: &Uri) -> Result<VettedStream, Failure> {
        let opening = async {
            let addresses = self.vetted(uri).await?;
            match &self.proxy {
                None => race(&addresses, connect).await,
                Some(proxy) => race(&addresses, |address| self.through(proxy, address)).await,
            }
        };
        let tcp = timeout(PATIENCE, opening).await.unwrap_or(Err(Failure::NoConnection(PATIENCE)))?;
        Ok(VettedStream::new(TokioIo::new(tcp), self.open.count()))
    }

    /// The addresses of the URI's host, if the policy permits every one of them.
    async fn vetted(&self, uri: &Uri) -> Result<Vec<SocketAddr>, Failure> {
        let host = uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let addresses = self.addresses(bare).await?;
        if let Some(forbidden) = addresses.iter().find_map(|address| self.policy.forbids(*address)) {
            return Err(Failure::Blocked(host.to_owned(), forbidden));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        let addresses = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => self.names.addresses(host).await,
        };
        if addresses.is_empty() { Err(Failure::Unresolved(host.to_owned())) } else { Ok(addresses) }
    }

    /// Has the proxy connect to a vetted address.
    async fn through(&self, proxy: &Proxy, address: SocketAddr) -> Result<TcpStream, Failure> {
        let reached = async {
            let hops: Vec<_> = self.addresses(proxy.host()).await?.into_iter().map(|hop| SocketAddr::new(hop, proxy.port())).collect();
            race(&hops, connect).await
        };
        let stream = reached.await.map_err(|_| Failure::Proxy("it cannot be reached".into()))?;
        proxy.connect(stream, address).await
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| Failure::of_opening(&error))?;
    stream.set_nodelay(true).map_err(|_| Failure::Connection("it broke"))?;
    Ok(stream)
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
