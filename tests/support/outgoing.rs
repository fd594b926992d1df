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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP CONNECT.
    Connect,
    /// SOCKS5.
    Socks5,
}

#[derive(Debug, Default)]
struct State {
    asked: Mutex<Vec<String>>,
    credentials: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

/// A proxy that wants credentials if `user:password` is given.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it listens.
    pub address: SocketAddr,
    kind: Kind,
    wants: Option<&'static str>,
    state: Arc<State>,
}

impl Outgoing {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(kind: Kind, wants: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let proxy = Self { address: listener.local_addr().expect("a bound listener"), kind, wants, state: Arc::default() };
        let served = proxy.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                served.state.connections.fetch_add(1, Ordering::Relaxed);
                let proxy = served.clone();
                tokio::spawn(async move {
                    match proxy.kind {
                        Kind::Connect => proxy.serve_connect(connection).await,
                        Kind::Socks5 => proxy.serve_socks(connection).await,
                    }
                });
            }
        });
        proxy
    }

    /// Its URL, with these characters before the host.
    pub fn url(&self, credentials: &str) -> String {
        let scheme = if self.kind == Kind::Connect { "http" } else { "socks5" };
        format!("{scheme}://{credentials}{}", self.address)
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
        let is_right = self.wants.is_none() || given.as_deref() == self.wants;
        self.state.credentials.lock().extend(given);
        is_right
    }

    async fn serve_connect(&self, mut client: TcpStream) -> Option<()> {
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
        self.state.asked.lock().push(target.clone());
        let Ok(mut server) = TcpStream::connect(&target).await else {
            return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await.ok();
        };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
    }

    async fn serve_socks(&self, mut client: TcpStream) -> Option<()> {
        let [_, methods] = read(&mut client).await?;
        read_text(&mut client, methods).await?;
        let method = if self.wants.is_some() { 2 } else { 0 };
        client.write_all(&[5, method]).await.ok()?;
        if method == 2 {
            let [_, length] = read(&mut client).await?;
            let user = read_text(&mut client, length).await?;
            let [length] = read(&mut client).await?;
            let password = read_text(&mut client, length).await?;
            let is_right = self.accepts(Some(format!("{user}:{password}")));
            client.write_all(&[1, u8::from(!is_right)]).await.ok()?;
            is_right.then_some(())?;
        }
        let [_, _, _, kind] = read(&mut client).await?;
        let host = match kind {
            1 => Ipv4Addr::from(read::<4>(&mut client).await?).to_string(),
            4 => format!("[{}]", Ipv6Addr::from(read::<16>(&mut client).await?)),
            _ => {
                let [length] = read(&mut client).await?;
                read_text(&mut client, length).await?
            }
        };
        let target = format!("{host}:{}", client.read_u16().await.ok()?);
        self.state.asked.lock().push(target.clone());
        let connected = TcpStream::connect(&target).await;
        client.write_all(&[5, if connected.is_ok() { 0 } else { 5 }, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
        copy_bidirectional(&mut client, &mut connected.ok()?).await.ok().map(drop)
    }
}

async fn read<const LENGTH: usize>(client: &mut TcpStream) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    client.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

async fn read_text(client: &mut TcpStream, length: u8) -> Option<String> {
    let mut bytes = vec![0; usize::from(length)];
    client.read_exact(&mut bytes).await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
