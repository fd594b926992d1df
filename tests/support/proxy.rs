//! A TCP proxy that plays the network's tricks, some of them when certain bytes pass: it cuts connections or lets them fall silent, keeps
//! bytes back, loses answers.

use std::{collections::VecDeque, net::SocketAddr, pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use crate::cluster::Place;

/// How a Postgres server ends an answer outside of a transaction: `ReadyForQuery`, idle.
const END_OF_ANSWER: &[u8] = b"Z\0\0\0\x05I";
/// Any answer ends with nothing: the first bytes of it are enough.
const BEGUN: &[u8] = b"";

#[derive(Debug, Default)]
struct State {
    /// While false, connections are refused.
    is_open: watch::Sender<bool>,
    /// Each change cuts every connection that there is.
    cuts: watch::Sender<usize>,
    /// Each change silences every connection that there is.
    freezes: watch::Sender<usize>,
    /// What befalls connections, one after the other.
    traps: Mutex<VecDeque<Trap>>,
    /// How often that has happened.
    sprung: watch::Sender<usize>,
}

/// What befalls the connection that carries these bytes to the server.
#[derive(Debug)]
struct Trap {
    bytes: Vec<u8>,
    trick: Trick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    /// None: it is only counted.
    Note,
    /// It is cut as soon as the bytes have passed.
    Cut,
    /// It is cut when the server's answer has come to this end; nothing of the answer passes.
    CutWhenAnswered(&'static [u8]),
    /// The server answers, to this end, and nobody hears it; the connection stays.
    KeepAnswer(&'static [u8]),
    /// The bytes do not pass, nor does anything after them; the connection stays.
    KeepRequest,
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

    /// Cuts every connection that there is; the next one is let through.
    pub fn interrupt(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets every connection that there is fall silent, in both directions, without a word to either end, as a failover does or a
    /// router that forgot them; the next one is let through.
    pub fn freeze(&self) {
        self.state.freezes.send_modify(|freezes| *freezes += 1);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.is_open.send_replace(true);
    }

    /// Counts it when `bytes` pass. Of this and those below, each waits for its turn, and then happens once.
    pub fn note_once(&self, bytes: &[u8]) {
        self.set(bytes, Trick::Note);
    }

    /// Cuts one connection right after it has carried `bytes` to the server: whether the server acts on them is open.
    pub fn cut_once_after(&self, bytes: &[u8]) {
        self.set(bytes, Trick::Cut);
    }

    /// Cuts one connection when the Postgres server has answered the statement that holds `bytes`: it has committed, and
    /// nobody hears of it.
    pub fn lose_answer_once(&self, bytes: &[u8]) {
        self.set(bytes, Trick::CutWhenAnswered(END_OF_ANSWER));
    }

    /// Cuts one connection when the HTTP server begins to answer the request that holds `bytes`; nothing of it passes.
    pub fn lose_http_answer_once(&self, bytes: &[u8]) {
        self.set(bytes, Trick::CutWhenAnswered(BEGUN));
    }

    /// Lets the Postgres server answer the statement that holds `bytes`, and keeps the answer for good.
    pub fn keep_answer_once(&self, bytes: &[u8]) {
        self.set(bytes, Trick::KeepAnswer(END_OF_ANSWER));
    }

    /// Keeps `bytes`, and all that follows them on their connection, from the server for good.
    pub fn keep_request_once(&self, bytes: &[u8]) {
        self.set(bytes, Trick::KeepRequest);
    }

    fn set(&self, bytes: &[u8], trick: Trick) {
        self.state.traps.lock().push_back(Trap { bytes: bytes.to_vec(), trick });
    }

    /// How often one of these has happened.
    pub fn sprung(&self) -> usize {
        *self.state.sprung.borrow()
    }

    /// Waits until one of these has happened.
    pub async fn has_cut(&self) {
        self.has_sprung(1).await;
    }

    /// Waits until so many of these have happened in all.
    pub async fn has_sprung(&self, times: usize) {
        let mut sprung = self.state.sprung.subscribe();
        let waiting = tokio::time::timeout(crate::PATIENCE, sprung.wait_for(|sprung| *sprung >= times));
        waiting.await.expect("the bytes pass in time").expect("the proxy lives");
    }
}

impl State {
    fn count(&self) {
        self.sprung.send_modify(|sprung| *sprung += 1);
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
    let (mut is_open, mut cuts, mut freezes) = (state.is_open.subscribe(), state.cuts.subscribe(), state.freezes.subscribe());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let trick = Mutex::new(None);
    let cut = async {
        tokio::select! {
            _ = is_open.wait_for(|open| !open) => {}
            _ = cuts.changed() => {}
        }
    };
    // Both ends stay as they are while nothing is carried.
    let mut cut = pin!(cut);
    let mut there = pin!(carry_there(from_client, to_server, state, &trick));
    let mut back = pin!(carry_back(from_server, to_client, state, &trick));
    tokio::select! {
        () = &mut there => {}
        () = &mut back => {}
        () = &mut cut => {}
        _ = freezes.changed() => cut.await,
    }
}

async fn carry_there(
    mut from_client: impl AsyncRead + Unpin,
    mut to_server: impl AsyncWrite + Unpin,
    state: &State,
    trick: &Mutex<Option<Trick>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut tail = Vec::new();
    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
        let sprung = sprung(state, &mut tail, &buffer[..read]);
        if let Some(sprung) = sprung {
            *trick.lock() = Some(sprung);
        }
        let is_kept = *trick.lock() == Some(Trick::KeepRequest);
        if !is_kept && to_server.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if matches!(sprung, Some(Trick::Note | Trick::Cut | Trick::KeepRequest)) {
            state.count();
        }
        if sprung == Some(Trick::Cut) {
            return;
        }
    }
}

async fn carry_back(
    mut from_server: impl AsyncRead + Unpin,
    mut to_client: impl AsyncWrite + Unpin,
    state: &State,
    trick: &Mutex<Option<Trick>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = Vec::new();
    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
        let trick = *trick.lock();
        match trick {
            Some(Trick::CutWhenAnswered(end) | Trick::KeepAnswer(end)) => {
                lost.extend_from_slice(&buffer[..read]);
                if lost.ends_with(end) {
                    state.count();
                    if trick == Some(Trick::CutWhenAnswered(end)) {
                        return;
                    }
                }
            }
            _ => {
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The trick that the bytes set off, if they are in what has passed; `tail` keeps what they may have begun in.
fn sprung(state: &State, tail: &mut Vec<u8>, passed: &[u8]) -> Option<Trick> {
    let mut traps = state.traps.lock();
    let Trap { bytes, trick } = traps.front()?;
    tail.extend_from_slice(passed);
    let found = tail.windows(bytes.len()).any(|window| window == bytes).then_some(*trick);
    tail.drain(..tail.len().saturating_sub(bytes.len()));
    if found.is_some() {
        tail.clear();
        traps.pop_front();
    }
    found
}
