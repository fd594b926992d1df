//! Since when a batch has been waiting to be written: a server that does not get on with it is not ready, and each that took too long
//! is counted, so that somebody who looks later knows of it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

/// How long a publisher waits for its outcome. After that it is told that the database is unavailable; what the database has not
/// been sent by then is not stored any more, and of the rest a repeat under the same key finds out what happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a batch may take: as long as its publishers wait for it.
const OVERDUE: Duration = PATIENCE;

/// The batch at hand.
#[derive(Debug)]
pub(crate) struct Progress {
    at_hand: Mutex<Option<AtHand>>,
    overdue: Counter,
}

#[derive(Debug)]
struct AtHand {
    since: Instant,
    is_counted: bool,
}

impl Progress {
    /// Nothing is at hand; `overdue` will count what takes too long.
    pub(crate) fn new(overdue: Counter) -> Self {
        Self { at_hand: Mutex::default(), overdue }
    }

    /// A batch, or a part of it, is to be written, or tried again.
    pub(crate) fn begin(&self) {
        self.at_hand.lock().get_or_insert_with(|| AtHand { since: Instant::now(), is_counted: false });
    }

    /// It was written, or given up.
    pub(crate) fn end(&self) {
        self.age();
        *self.at_hand.lock() = None;
    }

    /// Whether it takes too long.
    pub(crate) fn is_overdue(&self) -> bool {
        self.age().is_some_and(|age| age > OVERDUE)
    }

    /// How long the batch at hand has been waiting, if there is one.
    pub(crate) fn age(&self) -> Option<Duration> {
        let mut at_hand = self.at_hand.lock();
        let at_hand = at_hand.as_mut()?;
        let age = at_hand.since.elapsed();
        if age > OVERDUE && !at_hand.is_counted {
            at_hand.is_counted = true;
            self.overdue.inc();
        }
        Some(age)
    }
}
