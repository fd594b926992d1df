//! The keys whose requests this process is executing: no batch holds one key twice (its lock would not tell them apart), and
//! repeats share what became of the first without a database call of their own.

use std::{collections::HashMap, sync::Arc};

use domain::message::Message;
use parking_lot::Mutex;
use sqlx::types::Uuid;
use tokio::sync::oneshot;

use super::Published;
use crate::{Error, Result, idempotency::Claim};

/// The keys in flight.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<Uuid, Flight>>);

#[derive(Debug)]
struct Flight {
    fingerprint: Uuid,
    repeats: Vec<oneshot::Sender<Landing>>,
}

/// What became of the first request, as its repeats are told.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// This message, which is what a repeat is answered with.
    Accepted(Box<Message>),
    /// Another process is executing a request with the key.
    InProgress,
    /// Another request has had the key.
    Reused,
}

/// How a request stands to the others with its key.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is the only one, and executes.
    First(Arc<KeyInFlight>),
    /// It waits for the first; nothing comes if that one failed.
    Repeat(oneshot::Receiver<Landing>),
}

/// Holds a key until its request is settled: the writer and the publisher have a share each.
#[derive(Debug)]
pub(super) struct KeyInFlight {
    keys: Arc<Keys>,
    scope: Uuid,
}

impl Keys {
    /// Lines up for the key; refused if another request is using it.
    pub(super) fn enter(self: &Arc<Self>, claim: &Claim) -> Result<Entry> {
        let mut keys = self.0.lock();
        match keys.get_mut(&claim.scope) {
            None => {
                keys.insert(claim.scope, Flight { fingerprint: claim.fingerprint, repeats: Vec::new() });
                Ok(Entry::First(Arc::new(KeyInFlight { keys: Arc::clone(self), scope: claim.scope })))
            }
            Some(flight) if flight.fingerprint == claim.fingerprint => {
                let (landing, outcome) = oneshot::channel();
                flight.repeats.push(landing);
                Ok(Entry::Repeat(outcome))
            }
            Some(_) => Err(Error::KeyReused),
        }
    }
}

impl KeyInFlight {
    /// Tells the repeats that wait what became of the request.
    pub(super) fn land(&self, outcome: &Result<Published>) {
        let repeats = self.keys.0.lock().get_mut(&self.scope).map(|flight| std::mem::take(&mut flight.repeats));
        let Some(repeats) = repeats.filter(|repeats| !repeats.is_empty()) else { return };
        let landing = match outcome {
            Ok(Published::Accepted { message, .. }) => Landing::Accepted(message.clone()),
            Err(Error::KeyInProgress) => Landing::InProgress,
            Err(Error::KeyReused) => Landing::Reused,
            // Nothing may be saved under the key then: each repeat finds out for itself.
            Ok(Published::EventIdTaken { .. }) | Err(_) => return,
        };
        for repeat in repeats {
            // One that has gone away misses nothing.
            repeat.send(landing.clone()).ok();
        }
    }
}

impl Drop for KeyInFlight {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.scope);
    }
}
