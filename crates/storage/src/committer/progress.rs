//! Since when a batch has been waiting to be written: a server that does not get on with it is not ready.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a batch may take: as long as its publishers wait for it.
const OVERDUE: Duration = super::PATIENCE;

/// The batch at hand.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    since: Mutex<Option<Instant>>,
}

impl Progress {
    /// A batch, or a part of it, is to be written, or tried again.
    pub(super) fn begin(&self) {
        self.since.lock().get_or_insert_with(Instant::now);
    }

    /// It was written, or given up.
    pub(super) fn end(&self) {
        *self.since.lock() = None;
    }

    /// Whether it takes too long.
    pub(crate) fn is_overdue(&self) -> bool {
        self.since.lock().is_some_and(|since| since.elapsed() > OVERDUE)
    }
}
