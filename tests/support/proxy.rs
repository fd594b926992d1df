//! A TCP proxy that cuts connections, at once or when it sees certain bytes pass.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use crate::cluster::Place;

#[derive(Debug, Default)]
struct State {
    /// While false, connections are refused.
    is_open: watch::Sender<bool>,
    /// Cut a connection, once, after these bytes have been passed on to the server; its answer is lost.
    cut_after: Mutex<Option<Vec<u8>>>,
    cuts: watch::Sender<usize>,
}

/// A way to a server that can be cut.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Where to connect instead of to the server.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// An open way to `target`.
    pub async fn to(target: Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Self { address: listener.local_addr().expect("a bound listener"), state: Arc::default() };
        proxy.mend();
        let state = proxy.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target.clone(), state.clone()));
            }
        });
        proxy
    }

    /// Cuts every connection and closes each further one.
    pub fn cut(&self) {
        self.state.is_open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.is_open.send_replace(true);
    }

    /// Cuts one connection right after it has carried `bytes` to the server: what the server answers to them is lost.
    pub fn cut_once_after(&self, bytes: &[u8]) {
        *self.state.cut_after.lock() = Some(bytes.to_vec());
    }

    /// Waits until [`Proxy::cut_once_after`] has happened.
    pub async fn has_cut(&self) {
        let mut cuts = self.state.cuts.subscribe();
        tokio::time::timeout(crate::PATIENCE, cuts.wait_for(|cuts| *cuts > 0)).await.expect("a cut in time").expect("the proxy lives");
    }
}

async fn pass(client: TcpStream, target: Place, state: Arc<State>) {
    if !*state.is_open.borrow() {
        return;
    }
    match target {
        Place::Port(address) => {
            if let Ok(server) = TcpStream::connect(address).await {
                carry(client, server, &state).await;
            }
        }
        Place::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                carry(client, server, &state).await;
            }
        }
    }
}

async fn carry(client: TcpStream, server: impl AsyncRead + AsyncWrite, state: &State) {
    let mut is_open = state.is_open.subscribe();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut tail = Vec::new();
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if to_server.write_all(&buffer[..read]).await.is_err() || is_to_be_cut(state, &mut tail, &buffer[..read]) {
                return;
            }
        }
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = there => {}
        _ = back => {}
        _ = is_open.wait_for(|open| !open) => {}
    }
}

/// Whether the awaited bytes are in what has passed; `tail` keeps what they may have begun in.
fn is_to_be_cut(state: &State, tail: &mut Vec<u8>, passed: &[u8]) -> bool {
    let mut wanted = state.cut_after.lock();
    let Some(bytes) = wanted.as_ref() else { return false };
    tail.extend_from_slice(passed);
    let found = tail.windows(bytes.len()).any(|window| window == bytes.as_slice());
    let keep = tail.len().saturating_sub(bytes.len());
    tail.drain(..keep);
    if found {
        *wanted = None;
        state.cuts.send_modify(|cuts| *cuts += 1);
    }
    found
}
