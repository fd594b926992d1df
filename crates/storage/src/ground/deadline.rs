//! Deadlines for whatever is awaited on the network: a peer that says nothing is the normal case of a bad day.

use std::time::Duration;

use sqlx::Error;
use tokio::time::timeout;

/// How long a connection that nobody uses may take to say that it is well.
pub(crate) const PING: Duration = Duration::from_secs(1);

/// What it is told who was not answered in time.
pub(crate) fn silence() -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"))
}

/// The outcome, if it comes in time.
pub(crate) async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(silence()))
}
