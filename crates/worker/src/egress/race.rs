//! Connects to one of several addresses without waiting for each that is silent (RFC 8305, "happy eyeballs").

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use super::failure::Failure;

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;
/// How long the next address waits for the one before it to answer (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the addresses in turn, the next one as soon as the one before has failed or been silent for a moment; the
/// first connection wins. If none comes about, the last failure is the answer.
pub(super) async fn race<T, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    if let [only] = addresses {
        return connect(*only).await;
    }
    let mut waiting = alternating(addresses).into_iter().take(MAX_ADDRESSES);
    let mut running = FuturesUnordered::new();
    let mut failure = Failure::Connection("it could not be opened");
    loop {
        match waiting.next() {
            Some(address) => running.push(connect(address)),
            None if running.is_empty() => return Err(failure),
            None => {}
        }
        let is_last = waiting.len() == 0;
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            },
            () = sleep(HEAD_START), if !is_last => {}
        }
    }
}

/// The families in turn, each in the order in which its addresses came. IPv4 is first: receivers that let only known senders
/// in know them by that address.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let (mut v4, mut v6): (Vec<_>, Vec<_>) = addresses.iter().rev().copied().partition(SocketAddr::is_ipv4);
    let mut ordered = Vec::with_capacity(addresses.len());
    while !(v4.is_empty() && v6.is_empty()) {
        ordered.extend(v4.pop());
        ordered.extend(v6.pop());
    }
    ordered
}
