//! Just enough HTTP/1.1 for a generator that must cost little: one buffer per connection, requests patched in place.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Of how many bytes a number is in a request or a payload.
pub(crate) const DIGITS: usize = 10;
/// More headers than any of our peers sends.
const HEADERS: usize = 48;

/// A keep-alive connection with what has arrived on it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What the head of a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    head: usize,
    body: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).await.and_then(Self::new)
    }

    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8192) })
    }

    /// Sends a request and reads the whole answer; returns its status and its body.
    pub(crate) async fn call(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            self.more().await?;
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let Some(frame) = frame(response.parse(&self.buffer), response.headers)? else { continue };
            let status = response.code.unwrap_or(0);
            while self.buffer.len() < frame.head + frame.body {
                self.more().await?;
            }
            return Ok((status, &self.buffer[frame.head..frame.head + frame.body]));
        }
    }

    /// Reads the next request; `judge` is given its path, its headers and its body, and returns the answer, or none to never
    /// answer. Returns whether the peer may ask again.
    pub(crate) async fn serve(
        &mut self,
        mut judge: impl FnMut(&str, &[httparse::Header<'_>], &[u8]) -> Option<&'static [u8]>,
    ) -> io::Result<bool> {
        let (answer, used) = loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = if self.buffer.is_empty() { None } else { frame(request.parse(&self.buffer), request.headers)? };
            if let Some(frame) = parsed
                && let Some(body) = self.buffer.get(frame.head..frame.head + frame.body)
            {
                break (judge(request.path.unwrap_or_default(), request.headers, body), frame.head + frame.body);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        };
        self.buffer.drain(..used);
        match answer {
            Some(answer) => self.stream.write_all(answer).await.map(|()| true),
            None => self.until_closed().await.map(|()| false),
        }
    }

    async fn until_closed(&mut self) -> io::Result<()> {
        while self.stream.read_buf(&mut self.buffer).await? > 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Where head and body end, if the whole head is there.
fn frame(parsed: httparse::Result<usize>, headers: &[httparse::Header<'_>]) -> io::Result<Option<Frame>> {
    let httparse::Status::Complete(head) = parsed.map_err(io::Error::other)? else { return Ok(None) };
    let value = header(headers, "content-length").and_then(|value| value.parse().ok());
    if value.is_none() && header(headers, "transfer-encoding").is_some() {
        return Err(io::Error::other("a body without a length: the benchmark reads bodies of known length only"));
    }
    Ok(Some(Frame { head, body: value.unwrap_or(0) }))
}

/// The value of a header, if it is there and text.
pub(crate) fn header<'a>(headers: &'a [httparse::Header<'_>], name: &str) -> Option<&'a str> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).and_then(|header| std::str::from_utf8(header.value).ok())
}

/// Writes a number with leading zeros over [`DIGITS`] bytes.
pub(crate) fn write_number(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// Reads such a number.
pub(crate) fn read_number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn numbers_survive_the_way() {
        let mut digits = [b'x'; DIGITS];
        write_number(&mut digits, 12_034);
        assert_eq!(&digits, b"0000012034");
        assert_eq!(read_number(&digits), Some(12_034));
        assert_eq!(read_number(b"no number!"), None);
    }

    #[tokio::test]
    async fn requests_and_answers_are_framed_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = async {
            let mut connection = Connection::new(listener.accept().await.expect("a peer").0).expect("a socket");
            let mut seen = Vec::new();
            for _ in 0..3 {
                let judge = |path: &str, headers: &[httparse::Header<'_>], body: &[u8]| {
                    seen.push(format!("{path} {} {}", header(headers, "X-Mark").unwrap_or("-"), String::from_utf8_lossy(body)));
                    Some(&b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok"[..])
                };
                assert!(connection.serve(judge).await.expect("a request"));
            }
            seen
        };
        let client = async {
            let mut connection = Connection::open(address).await.expect("a connection");
            // Two in one packet, and one in three.
            let two = b"POST /a HTTP/1.1\r\ncontent-length: 1\r\n\r\nAPOST /b HTTP/1.1\r\nx-mark: m\r\n\r\n";
            assert_eq!(connection.call(two).await.expect("an answer"), (202, &b"ok"[..]));
            for part in [&b"POST /c HT"[..], b"TP/1.1\r\ncontent-length: 4\r\n\r\nab", b"cd"] {
                connection.stream.write_all(part).await.expect("written");
                tokio::task::yield_now().await;
            }
            connection
        };
        let (seen, _connection) = tokio::join!(server, client);
        assert_eq!(seen, ["/a - A", "/b m ", "/c - abcd"]);
    }
}
