//! What is said to a proxy until it has connected us: HTTP CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928, RFC 1929).

use std::{io, net::SocketAddr};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::failure::Failure;

/// The longest head of an answer to CONNECT, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How Squid's 503 says that nobody is at fault but the receiver.
const SQUID_MEANS_THE_RECEIVER: &str = "x-squid-error: err_connect_fail";

/// A user name and a password.
pub(super) type Credentials = (String, String);

/// Why a proxy did not connect us, in words that a customer may read.
pub(super) enum Refusal {
    /// It could not reach the receiver, and says so.
    Receiver(&'static str),
    /// It may be at fault itself, or the receiver may be.
    Unclear(String),
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Unclear("it broke off before it had connected us".into())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Receiver(why) => Self::Proxy(why.into()),
            Refusal::Unclear(why) => Self::WayOut { why, is_certain: false },
        }
    }
}

/// Asks for a connection by HTTP CONNECT.
pub(super) async fn by_connect<S>(stream: &mut S, address: SocketAddr, credentials: Option<&Credentials>) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let authorization = credentials.map(|(user, password)| {
        let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
        format!("Proxy-Authorization: Basic {basic}\r\n")
    });
    let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{}\r\n", authorization.unwrap_or_default());
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = read_head(stream).await?;
    let answer = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = answer.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    match status {
        // Nobody has spoken to the receiver yet, so it has nothing to say.
        Some(200..300) if head.ends_with(b"\r\n\r\n") => Ok(()),
        Some(502) => Err(Refusal::Receiver("it could not connect to the receiver (502)")),
        Some(504) => Err(Refusal::Receiver("it could not connect to the receiver in time (504)")),
        Some(503) if answer.contains(SQUID_MEANS_THE_RECEIVER) => Err(Refusal::Receiver("it could not connect to the receiver (503)")),
        Some(407) => Err(Refusal::Unclear("it does not accept our credentials (407)".into())),
        Some(status) => Err(Refusal::Unclear(format!("it answered {status}"))),
        None => Err(Refusal::Unclear("its answer is not HTTP".into())),
    }
}

/// Reads until the end of the headers; what came with it is in it.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// Asks for a connection by SOCKS5.
pub(super) async fn by_socks<S>(stream: &mut S, address: SocketAddr, credentials: Option<&Credentials>) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const NO_CREDENTIALS: u8 = 0;
    const PASSWORD: u8 = 2;
    let offered = if credentials.is_some() { PASSWORD } else { NO_CREDENTIALS };
    stream.write_all(&[5, 1, offered]).await?;
    stream.flush().await?;
    let [version, chosen] = read(stream).await?;
    if version != 5 {
        return Err(Refusal::Unclear("its answer is not SOCKS5".into()));
    }
    if chosen != offered {
        return Err(Refusal::Unclear("it does not accept our way of authentication".into()));
    }
    if let Some((user, password)) = credentials {
        let mut message = vec![1];
        for part in [user, password] {
            message.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            message.extend_from_slice(part.as_bytes());
        }
        stream.write_all(&message).await?;
        stream.flush().await?;
        let [_, refusal] = read(stream).await?;
        if refusal != 0 {
            return Err(Refusal::Unclear("it does not accept our credentials".into()));
        }
    }
    let mut request = vec![5, 1, 0];
    match address {
        SocketAddr::V4(v4) => [&[1][..], &v4.ip().octets()].into_iter().for_each(|part| request.extend_from_slice(part)),
        SocketAddr::V6(v6) => [&[4][..], &v6.ip().octets()].into_iter().for_each(|part| request.extend_from_slice(part)),
    }
    request.extend_from_slice(&address.port().to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let [_, reply, _, kind] = read(stream).await?;
    is_connected(reply)?;
    // Where it connected us from: an address or a name, and a port.
    let length = match kind {
        1 => 4,
        4 => 16,
        _ => usize::from(read::<1, _>(stream).await?[0]),
    };
    stream.read_exact(&mut vec![0; length + 2]).await?;
    Ok(())
}

/// What a reply code of RFC 1928 §6 means.
fn is_connected(reply: u8) -> Result<(), Refusal> {
    match reply {
        0 => Ok(()),
        3 => Err(Refusal::Receiver("it finds no way to the receiver's network")),
        4 => Err(Refusal::Receiver("it cannot reach the receiver's host")),
        5 => Err(Refusal::Receiver("the receiver refused its connection")),
        6 => Err(Refusal::Receiver("it could not connect to the receiver in time")),
        2 => Err(Refusal::Unclear("its rules forbid the connection".into())),
        code => Err(Refusal::Unclear(format!("it failed (SOCKS reply {code})"))),
    }
}

async fn read<const LENGTH: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
