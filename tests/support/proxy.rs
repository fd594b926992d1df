//! A TCP proxy that cuts connections, at once, when it sees certain bytes pass, or when they have been answered.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use crate::cluster::Place;

/// How a Postgres server ends an answer outside of a transaction: ReadyForQuery, idle.
const END_OF_ANSWER: &[u8] = b"Z\0\0\0\x05I";

#[derive(Debug, Default)]
struct State {
    /// While false, connections are refused.
    is_open: watch::Sender<bool>,
    /// Cut a connection, once.
    trap: Mutex<Option<Trap>>,
    cuts: watch::Sender<usize>,
}

/// When a connection is to be cut.
#[derive(Debug)]
struct Trap {
    /// After these bytes have been passed on to the server,
    bytes: Vec<u8>,
    /// and after the server has answered, with nothing of that answer passed on.
    is_answer_awaited: bool,
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

    /// Cuts one connection right after it has carried `bytes` to the server: whether the server acts on them is open.
    pub fn cut_once_after(&self, bytes: &[u8]) {
        *self.state.trap.lock() = Some(Trap { bytes: bytes.to_vec(), is_answer_awaited: false });
    }

    /// Cuts one connection when the Postgres server has answered the statement that holds `bytes`: it has committed, and
    /// nobody hears of it.
    pub fn lose_answer_once(&self, bytes: &[u8]) {
        *self.state.trap.lock() = Some(Trap { bytes: bytes.to_vec(), is_answer_awaited: true });
    }

    /// Waits until a connection has been cut by one of these.
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
    let is_answer_lost = AtomicBool::new(false);
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut tail = Vec::new();
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            match sprung(state, &mut tail, &buffer[..read]) {
                None => {}
                Some(Trap { is_answer_awaited: true, .. }) => is_answer_lost.store(true, Ordering::Relaxed),
                Some(_) => return state.cuts.send_modify(|cuts| *cuts += 1),
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut lost = Vec::new();
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if is_answer_lost.load(Ordering::Relaxed) {
                lost.extend_from_slice(&buffer[..read]);
                if lost.ends_with(END_OF_ANSWER) {
                    return state.cuts.send_modify(|cuts| *cuts += 1);
                }
            } else if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = is_open.wait_for(|open| !open) => {}
    }
}

/// The trap, if its bytes are in what has passed; `tail` keeps what they may have begun in.
fn sprung(state: &State, tail: &mut Vec<u8>, passed: &[u8]) -> Option<Trap> {
    let mut trap = state.trap.lock();
    let length = trap.as_ref()?.bytes.len();
    tail.extend_from_slice(passed);
    let is_found = tail.windows(length).any(|window| Some(window) == trap.as_ref().map(|trap| trap.bytes.as_slice()));
    let keep = tail.len().saturating_sub(length);
    tail.drain(..keep);
    if is_found { trap.take() } else { None }
}
