//! An outgoing proxy such as companies have: connects to whatever it is asked for, and remembers what that was.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP CONNECT.
    Connect,
    /// SOCKS5.
    Socks5,
}

/// How it feels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It connects, or says that it cannot.
    #[default]
    Well,
    /// Whatever it does not connect, also for want of a receiver, is a 503, or SOCKS5's general failure.
    Vague,
    /// It connects nobody, with the same words.
    Ill,
    /// It accepts nobody's credentials.
    Strict,
    /// It hangs up when it is asked for a connection.
    Gone,
}

impl Mood {
    /// What CONNECT and SOCKS5 say of a receiver that cannot be reached.
    fn refusal(self) -> (&'static str, u8) {
        if self == Self::Well { ("502 Bad Gateway", 5) } else { ("503 Service Unavailable", 1) }
    }
}

#[derive(Debug, Default)]
struct State {
    asked: Mutex<Vec<String>>,
    credentials: Mutex<Vec<String>>,
    connections: AtomicUsize,
    mood: Mutex<Mood>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A proxy that wants credentials if `user:password` is given.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it listens.
    pub address: SocketAddr,
    kind: Kind,
    wants: Option<&'static str>,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<State>,
}

impl Outgoing {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(kind: Kind, wants: Option<&'static str>) -> Self {
        Self::start_on("127.0.0.1:0", kind, wants, None).await
    }

    /// Listens there, with TLS if there is something to do it with.
    pub async fn start_on(address: &str, kind: Kind, wants: Option<&'static str>, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound listener");
        let proxy = Self { address, kind, wants, tls: tls.map(Arc::new), state: Arc::default() };
        let served = proxy.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                served.state.connections.fetch_add(1, Ordering::Relaxed);
                let proxy = served.clone();
                tokio::spawn(async move { proxy.serve(connection).await });
            }
        });
        proxy
    }

    async fn serve(&self, connection: TcpStream) -> Option<()> {
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => Box::new(TlsAcceptor::from(Arc::clone(tls)).accept(connection).await.ok()?),
            None => Box::new(connection),
        };
        match self.kind {
            Kind::Connect => self.serve_connect(&mut stream).await,
            Kind::Socks5 => self.serve_socks(&mut stream).await,
        }
    }

    /// Its URL, with these characters before the host.
    pub fn url(&self, credentials: &str) -> String {
        let scheme = match (self.kind, &self.tls) {
            (Kind::Connect, None) => "http",
            (Kind::Connect, Some(_)) => "https",
            (Kind::Socks5, _) => "socks5",
        };
        format!("{scheme}://{credentials}{}", self.address)
    }

    /// From now on it feels like this.
    pub fn is(&self, mood: Mood) {
        *self.state.mood.lock() = mood;
    }

    fn mood(&self) -> Mood {
        *self.state.mood.lock()
    }

    /// Connects to the target, if it feels like it.
    async fn connect(&self, target: &str) -> Option<TcpStream> {
        self.state.asked.lock().push(target.to_owned());
        if self.mood() == Mood::Ill { None } else { TcpStream::connect(target).await.ok() }
    }

    /// What it was asked to connect to, as it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().clone()
    }

    /// The credentials that it was given, as `user:password`.
    pub fn credentials(&self) -> Vec<String> {
        self.state.credentials.lock().clone()
    }

    /// How many connections were ever opened to it.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    fn accepts(&self, given: Option<String>) -> bool {
        let is_right = self.mood() != Mood::Strict && (self.wants.is_none() || given.as_deref() == self.wants);
        self.state.credentials.lock().extend(given);
        is_right
    }

    async fn serve_connect(&self, client: &mut impl Stream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).expect("text");
        let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
        let basic = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
        let given = basic.map(|text| String::from_utf8(BASE64_STANDARD.decode(text).expect("base64")).expect("text"));
        if !self.accepts(given) {
            return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await.ok();
        }
        if self.mood() == Mood::Gone {
            return None;
        }
        let Some(mut server) = self.connect(&target).await else {
            let answer = format!("HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", self.mood().refusal().0);
            return client.write_all(answer.as_bytes()).await.ok();
        };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
        copy_bidirectional(client, &mut server).await.ok().map(drop)
    }

    async fn serve_socks(&self, client: &mut impl Stream) -> Option<()> {
        let [_, methods] = read(client).await?;
        read_text(client, methods).await?;
        let method = match (self.wants, self.mood()) {
            (None, Mood::Strict) => 255,
            (None, _) => 0,
            (Some(_), _) => 2,
        };
        client.write_all(&[5, method]).await.ok()?;
        if method == 2 {
            let [_, length] = read(client).await?;
            let user = read_text(client, length).await?;
            let [length] = read(client).await?;
            let password = read_text(client, length).await?;
            let is_right = self.accepts(Some(format!("{user}:{password}")));
            client.write_all(&[1, u8::from(!is_right)]).await.ok()?;
            is_right.then_some(())?;
        }
        let [_, _, _, kind] = read(client).await?;
        let host = match kind {
            1 => Ipv4Addr::from(read::<4>(client).await?).to_string(),
            4 => format!("[{}]", Ipv6Addr::from(read::<16>(client).await?)),
            _ => {
                let [length] = read(client).await?;
                read_text(client, length).await?
            }
        };
        let target = format!("{host}:{}", client.read_u16().await.ok()?);
        if self.mood() == Mood::Gone {
            return None;
        }
        let connected = self.connect(&target).await;
        client.write_all(&[5, if connected.is_some() { 0 } else { self.mood().refusal().1 }, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
        copy_bidirectional(client, &mut connected?).await.ok().map(drop)
    }
}

async fn read<const LENGTH: usize>(client: &mut impl Stream) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    client.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

async fn read_text(client: &mut impl Stream, length: u8) -> Option<String> {
    let mut bytes = vec![0; usize::from(length)];
    client.read_exact(&mut bytes).await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
