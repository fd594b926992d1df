//! The customers' side: takes webhooks on a thread of its own and notes them.

use std::{io, net::SocketAddr, sync::Arc, thread};

use parking_lot::RwLock;
use tokio::net::TcpListener;

use crate::{
    tally::Tally,
    wire::{self, Connection, DIGITS},
};

/// What is before the number in a payload.
pub(crate) const BEFORE_NUMBER: &str = r#"{"n":""#;
/// The path of an endpoint that takes connections and never answers.
pub(crate) const NEVER: &str = "/never";

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// Listens until the process ends; what arrives is noted in the tally of the run that is going on.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    tally: Arc<RwLock<Arc<Tally>>>,
}

impl Receiver {
    /// Starts it on a free port of loopback.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let tally = Arc::new(RwLock::new(Arc::new(Tally::new(0, 0, 0))));
        // One thread: no task of it ever has to wake another core.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let shared = Arc::clone(&tally);
        thread::Builder::new().name("receiver".to_owned()).spawn(move || runtime.block_on(listen(listener, shared)))?;
        Ok(Self { address, tally })
    }

    /// The URL of an endpoint: the number of one that is counted, or a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Begins a new run.
    pub(crate) fn note_in(&self, tally: &Arc<Tally>) {
        *self.tally.write() = Arc::clone(tally);
    }
}

async fn listen(listener: std::net::TcpListener, tally: Arc<RwLock<Arc<Tally>>>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        // An error is one of a connection that has gone already, or of too many open files: the next one may do.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let tally = Arc::clone(&tally);
        tokio::spawn(async move {
            let Ok(mut connection) = Connection::new(stream) else { return };
            while let Ok(true) = connection.serve(|path, headers, body| judge(&tally.read(), path, headers, body)).await {}
        });
    }
}

fn judge(tally: &Tally, path: &str, headers: &[httparse::Header<'_>], body: &[u8]) -> Option<&'static [u8]> {
    if path == NEVER {
        return None;
    }
    let is_signed = wire::header(headers, "webhook-id").is_some() && wire::header(headers, "webhook-signature").is_some();
    let digits = body.strip_prefix(BEFORE_NUMBER.as_bytes()).and_then(|rest| rest.get(..DIGITS)).filter(|_| is_signed);
    let number = digits.and_then(wire::read_number).unwrap_or(u64::MAX);
    let endpoint = path.strip_prefix("/e").and_then(|endpoint| endpoint.parse().ok()).unwrap_or(usize::MAX);
    Some(if tally.arrived(number, endpoint) { TAKEN } else { FAILED })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[tokio::test]
    async fn only_signed_webhooks_with_a_number_count() {
        let receiver = Receiver::start().expect("a receiver");
        let tally = Arc::new(Tally::new(2, 1, 0));
        receiver.note_in(&tally);
        let mut connection = Connection::open(receiver.address).await.expect("a connection");
        let signed = "webhook-id: msg_1\r\nwebhook-signature: v1,x\r\n";
        for (path, headers, body) in [
            ("/e0", signed, r#"{"n":"0000000001"}"#),
            ("/e0", "", r#"{"n":"0000000000"}"#),
            ("/e0", signed, "{}"),
            ("/other", signed, r#"{"n":"0000000000"}"#),
        ] {
            let request = format!("POST {path} HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
            assert_eq!(connection.call(request.as_bytes()).await.expect("an answer").0, 200);
        }
        assert_eq!((tally.delivered.load(Relaxed), tally.stray.load(Relaxed)), (1, 3));
    }
}
