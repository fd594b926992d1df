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
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use super::{
    failure::Failure,
    names::Names,
    proxy::WayOut,
    race::race,
    stream::{Counter, VettedStream, Wire},
};

/// How long look-up and connection may take; the exchange's own deadline may be shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens vetted connections.
#[derive(Clone)]
pub(super) struct Connector {
    policy: Arc<EgressPolicy>,
    names: Arc<dyn Names>,
    way_out: Option<Arc<WayOut>>,
    open: Counter,
}

impl Connector {
    pub(super) fn new(policy: EgressPolicy, names: Arc<dyn Names>, way_out: Option<WayOut>) -> Self {
        Self { policy: Arc::new(policy), names, way_out: way_out.map(Arc::new), open: Counter::default() }
    }

    /// Counts the connections that are open, idle ones too.
    pub(super) fn open_connections(&self) -> &Counter {
        &self.open
    }

    /// The way through the proxy, if there is one.
    pub(super) fn way_out(&self) -> Option<&Arc<WayOut>> {
        self.way_out.as_ref()
    }

    async fn open(&self, uri: &Uri) -> Result<VettedStream, Failure> {
        let opening = async {
            let addresses = self.vetted(uri).await?;
            match &self.way_out {
                None => race(&addresses, connect).await.map(Wire::Plain),
                Some(way_out) => race(&addresses, |address| way_out.connect(self.reach(way_out), address)).await,
            }
        };
        let wire = timeout(PATIENCE, opening).await.unwrap_or(Err(Failure::NoConnection(PATIENCE)))?;
        Ok(VettedStream::new(wire, self.open.count()))
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

    /// Connects to the proxy.
    async fn reach(&self, way_out: &WayOut) -> Result<TcpStream, Failure> {
        let (host, port) = (way_out.proxy.host(), way_out.proxy.port());
        let hops: Vec<_> = self.addresses(host).await?.into_iter().map(|hop| SocketAddr::new(hop, port)).collect();
        race(&hops, connect).await
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
