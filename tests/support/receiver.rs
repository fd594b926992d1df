//! A receiver of webhooks on loopback that does what a script says and remembers every byte it got.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// How long a test waits for something that must happen, before it fails.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// One request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// Every header line, in order, with its name as it was written.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body's bytes.
    pub body: Bytes,
    /// When it was complete.
    pub at: Instant,
}

impl Received {
    /// The value of a header; panics if it is missing, doubled or not text.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.all(name);
        assert_eq!(lines.len(), 1, "one `{name}` header in {:?}", self.headers);
        std::str::from_utf8(lines[0]).expect("a header of text")
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice()).collect()
    }

    /// All headers, as the verifying libraries take them.
    pub fn header_map(&self) -> http::HeaderMap {
        let header = |(name, value): &(String, Vec<u8>)| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            (name, http::HeaderValue::from_bytes(value).expect("a header value"))
        };
        self.headers.iter().map(header).collect()
    }

    /// The message id that the webhook carries.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// Keeps a reply back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Lets the replies out.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// How a reply ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Whole,
    Hang,
    Close,
    Drip,
    Raw,
    RawThenClose,
}

/// What the receiver says to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    gate: Option<Gate>,
    delay: Duration,
    manner: Manner,
}

impl Reply {
    /// An empty answer with this status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), gate: None, delay: Duration::ZERO, manner: Manner::Whole }
    }

    /// Never answers, and keeps the connection.
    pub fn hang() -> Self {
        Self { manner: Manner::Hang, ..Self::status(200) }
    }

    /// Closes the connection without an answer.
    pub fn close() -> Self {
        Self { manner: Manner::Close, ..Self::status(200) }
    }

    /// Promises a large body and sends a byte of it now and then, without end.
    pub fn drip() -> Self {
        Self { manner: Manner::Drip, ..Self::status(200) }
    }

    /// Sends these bytes as they are, and keeps the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { manner: Manner::Raw, body: bytes.into(), ..Self::status(200) }
    }

    /// Sends these bytes as they are, and closes the connection.
    pub fn raw_then_close(bytes: impl Into<Vec<u8>>) -> Self {
        Self { manner: Manner::RawThenClose, ..Self::raw(bytes) }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Takes its time, as a busy receiver does.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Keeps the answer back until the gate opens.
    #[must_use]
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

#[derive(Debug, Default)]
struct State {
    received: Mutex<Vec<Received>>,
    count: watch::Sender<usize>,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    server_names: Mutex<Vec<String>>,
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
}

/// A server that records. It lives as long as the runtime that started it.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1 and answers 200 to everything.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    /// Listens on this address.
    pub async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port on loopback");
        let receiver = Self { address: listener.local_addr().expect("a bound listener"), state: Arc::default() };
        let state = receiver.state.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(connection, state.clone()));
            }
        });
        receiver
    }

    /// Listens on a free port of 127.0.0.1 with TLS.
    pub async fn start_tls(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let receiver = Self { address: listener.local_addr().expect("a bound listener"), state: Arc::default() };
        let (state, acceptor) = (receiver.state.clone(), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::Relaxed);
                let (state, acceptor) = (state.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(connection) = acceptor.accept(connection).await else { return };
                    state.server_names.lock().extend(connection.get_ref().1.server_name().map(str::to_owned));
                    serve(connection, state).await;
                });
            }
        });
        receiver
    }

    /// The names that were asked for in TLS handshakes which came about.
    pub fn server_names(&self) -> Vec<String> {
        self.state.server_names.lock().clone()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers requests to `path` with these replies, in order; the last one stays.
    pub fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.scripts.lock().insert(path.to_owned(), replies.into_iter().collect());
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<Received> {
        self.state.received.lock().clone()
    }

    /// How many connections were ever opened.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// How many requests have come in and are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Waits until `n` requests have come in all, and returns them in order.
    pub async fn received(&self, n: usize) -> Vec<Received> {
        self.matching(n, |_| true).await
    }

    /// Waits until `n` requests have come to `path`.
    pub async fn received_at(&self, path: &str, n: usize) -> Vec<Received> {
        self.matching(n, |request| request.path == path).await
    }

    async fn matching(&self, n: usize, wanted: impl Fn(&Received) -> bool) -> Vec<Received> {
        let found = || -> Vec<_> { self.state.received.lock().iter().filter(|request| wanted(request)).cloned().collect() };
        let mut count = self.state.count.subscribe();
        let wait = count.wait_for(|_| found().len() >= n);
        let is_done = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        let found = found();
        assert!(is_done, "waited for {n} webhooks, got {}: {found:#?}", found.len());
        found
    }
}

/// A connection, encrypted or not.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Counts one request while it is being answered.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn begin(state: &'a State) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(&state.in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(mut connection: impl Wire, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut connection, &mut buffer).await {
        let reply = next_reply(&state, &request.path);
        state.received.lock().push(request);
        state.count.send_modify(|count| *count += 1);
        let _in_flight = InFlight::begin(&state);
        tokio::time::sleep(reply.delay).await;
        if let Some(gate) = &reply.gate {
            gate.opened().await;
        }
        if write_reply(&mut connection, &reply).await.is_none() {
            return;
        }
    }
}

fn next_reply(state: &State, path: &str) -> Reply {
    let mut scripts = state.scripts.lock();
    let Some(script) = scripts.get_mut(path) else { return Reply::status(200) };
    let reply = script.front().cloned().unwrap_or_else(|| Reply::status(200));
    if script.len() > 1 {
        script.pop_front();
    }
    reply
}

async fn write_reply(connection: &mut impl Wire, reply: &Reply) -> Option<()> {
    match reply.manner {
        Manner::Close => return None,
        Manner::Hang => std::future::pending().await,
        Manner::Drip => {
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.ok()?;
            loop {
                connection.write_all(b".").await.ok()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Manner::Raw => return connection.write_all(&reply.body).await.ok(),
        Manner::RawThenClose => {
            connection.write_all(&reply.body).await.ok()?;
            return None;
        }
        Manner::Whole => {}
    }
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if reply.status != 204 {
        head.extend(["content-length: ", &reply.body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes()).await.ok()?;
    connection.write_all(&reply.body).await.ok()
}

async fn read_request(connection: &mut impl Wire, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        fill(connection, buffer).await?;
    };
    let head = buffer[..end].to_vec();
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first = String::from_utf8_lossy(lines.next()?).into_owned();
    let headers: Vec<_> = lines.filter_map(header_line).collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0);
    while buffer.len() < end + 4 + length {
        fill(connection, buffer).await?;
    }
    let body = Bytes::copy_from_slice(&buffer[end + 4..end + 4 + length]);
    buffer.drain(..end + 4 + length);
    let mut words = first.split(' ').map(str::to_owned);
    Some(Received { method: words.next()?, path: words.next()?, headers, body, at: Instant::now() })
}

fn header_line(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8_lossy(&line[..colon]).into_owned(), line[colon + 1..].trim_ascii().to_vec()))
}

async fn fill(connection: &mut impl Wire, buffer: &mut Vec<u8>) -> Option<()> {
    let read = connection.read_buf(buffer).await.ok()?;
    (read > 0).then_some(())
}
