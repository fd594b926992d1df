//! How long a client may take over its half of an exchange, and a connection that ends when the client is slower than that.

use std::{
    io,
    pin::Pin,
    task::{self, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// What everybody is given, however little there is to send.
const GRACE: Duration = Duration::from_secs(30);
/// The slowest that a client may be, in bytes a second.
const SLOWEST: u64 = 8_000;

/// How long a client may take over so many bytes.
pub(crate) fn allowed(bytes: u64) -> Duration {
    GRACE + Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST)
}

/// A connection that ends when its client does not read the answer that it asked for.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    answer: Answer,
    /// Goes off if the client takes nothing for too long; there while we wait for it to take something.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// The answer that is being written.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    begun: Option<Instant>,
    sent: u64,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, answer: Answer::default(), alarm: None }
    }

    /// Takes note of what came of a write, and ends one that has been waiting for too long.
    fn watch(&mut self, cx: &mut task::Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.alarm = None;
            self.answer.begun.get_or_insert_with(Instant::now);
            self.answer.sent += written.as_ref().map_or(0, |count| u64::try_from(*count).unwrap_or(u64::MAX));
            return Poll::Ready(written);
        }
        let answer = &mut self.answer;
        let alarm = self.alarm.get_or_insert_with(|| {
            let now = Instant::now();
            let whole = *answer.begun.get_or_insert(now) + allowed(answer.sent);
            Box::pin(sleep_until(whole.min(now + GRACE)))
        });
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut task::Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, into);
        // The next request; but a client cannot win time for the answer to this one by sending more.
        if into.filled().len() > before && this.alarm.is_none() {
            this.answer = Answer::default();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch(cx, written)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut task::Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn more_bytes_may_take_longer() {
        assert_eq!(allowed(0), GRACE);
        assert_eq!(allowed(80_000), GRACE + Duration::from_secs(10));
    }

    /// Writes an answer to a client that reads as `client` does; returns how it ended, and when.
    async fn answer(size: usize, client: impl AsyncFnOnce(tokio::io::DuplexStream)) -> (io::Result<()>, Duration) {
        let (ours, theirs) = tokio::io::duplex(1000);
        let begun = Instant::now();
        let writing = async {
            let written = Paced::new(ours).write_all(&vec![b'x'; size]).await;
            (written, begun.elapsed())
        };
        let (written, ()) = tokio::join!(writing, client(theirs));
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_reads_is_let_go() {
        let (written, after) = answer(10_000, async |stream| {
            tokio::time::sleep(Duration::from_hours(1)).await;
            drop(stream);
        })
        .await;
        assert_eq!(written.expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
        assert!(after.abs_diff(GRACE) < Duration::from_secs(1), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_drop_by_drop_is_let_go_and_a_slow_one_is_not() {
        let read = async |bytes_a_second: usize| {
            answer(800_000, async move |mut stream| {
                let mut bytes = vec![0; bytes_a_second];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    tokio::time::sleep(Duration::from_millis(990)).await;
                }
            })
            .await
        };
        let (written, after) = read(10).await;
        assert_eq!(written.expect_err("too slow").kind(), io::ErrorKind::TimedOut);
        assert!(after < Duration::from_secs(40), "{after:?}");
        let (written, after) = answer(100_000, async |mut stream| {
            let mut bytes = vec![0; 1000];
            while let Ok(1..) = stream.read(&mut bytes).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        assert!(written.is_ok() && after > Duration::from_secs(9), "ten kilobytes a second is enough: {written:?} {after:?}");
    }
}
