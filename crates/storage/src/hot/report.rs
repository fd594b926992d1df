//! What a send brought, as the dispatcher reports it.

use std::time::Duration;

use bytes::Bytes;
use domain::delivery::{AttemptClass, Next, Outcome};

/// What a send brought.
#[derive(Clone, Debug)]
pub struct Report {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// How the exchange went, seen from afar, if there was one.
    pub class: AttemptClass,
    /// The status code; 0 for none.
    pub status_code: u16,
    /// The response, or our words on why there is none.
    pub response: Bytes,
    /// How long it took.
    pub duration: Duration,
    /// The URL that was called.
    pub url: String,
    /// Whether it was sent once more on a new connection, because the kept one turned out to be closed.
    pub is_resent: bool,
    /// What follows.
    pub next: Next,
}
