//! The keys whose requests this process is executing: equal requests share what becomes of the first of them, so that a storm
//! of repeats costs no database call of its own.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{id::TenantId, idempotency::Policy};
use parking_lot::Mutex;
use sqlx::types::Uuid;
use tokio::{
    sync::{OnceCell, oneshot},
    time::timeout_at,
};

use crate::{Database, Error, Result, outcomes::Found, policies};

/// How long a repeat waits for the first request with its key, whatever the policy: nearly all have ended by then, and an
/// outcome is a better answer than "in progress".
const GLANCE: Duration = Duration::from_millis(100);

/// How often a request that may wait for another one's end looks again.
pub(crate) const WAIT_STEP: Duration = Duration::from_millis(25);

/// The keys in flight, by scope.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Uuid, InFlight>>);

#[derive(Debug)]
struct InFlight {
    fingerprint: Uuid,
    policy: Arc<OnceCell<Policy>>,
    repeats: Vec<oneshot::Sender<Landing>>,
}

/// What became of the first request, as its repeats are told.
#[derive(Clone, Debug)]
pub(crate) enum Landing {
    /// This is what a repeat is answered with.
    Outcome(Found),
    /// Another process is executing a request with the key.
    InProgress,
    /// Another request has had the key.
    Reused,
}

/// How a request stands to the others with its key.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It is the only one, and executes.
    First(Arc<Flight>),
    /// It waits for the first.
    Repeat(Repeat),
    /// A request with another fingerprint is using the key.
    Stranger,
}

/// Holds a key until its request is settled. What it is shared by are those who may still execute it.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    scope: Uuid,
    policy: Arc<OnceCell<Policy>>,
}

/// A place in the line behind the first request.
#[derive(Debug)]
pub(crate) struct Repeat {
    landing: oneshot::Receiver<Landing>,
    policy: Arc<OnceCell<Policy>>,
}

impl Flights {
    /// Lines up for the key.
    pub(crate) fn enter(self: &Arc<Self>, scope: Uuid, fingerprint: Uuid) -> Entry {
        let mut flights = self.0.lock();
        match flights.get_mut(&scope) {
            None => {
                let policy = Arc::default();
                flights.insert(scope, InFlight { fingerprint, policy: Arc::clone(&policy), repeats: Vec::new() });
                Entry::First(Arc::new(Flight { flights: Arc::clone(self), scope, policy }))
            }
            Some(flight) if flight.fingerprint == fingerprint => Entry::Repeat(flight.line_up()),
            Some(_) => Entry::Stranger,
        }
    }

    /// Lines up behind whatever request is using the key, as if it were the same one; nothing if there is none any more.
    pub(crate) fn join(&self, scope: Uuid) -> Option<Repeat> {
        self.0.lock().get_mut(&scope).map(InFlight::line_up)
    }
}

impl InFlight {
    fn line_up(&mut self) -> Repeat {
        let (sender, landing) = oneshot::channel();
        self.repeats.push(sender);
        Repeat { landing, policy: Arc::clone(&self.policy) }
    }
}

impl Flight {
    /// The policy that holds for the request, read once.
    pub(crate) async fn policy(&self, db: &Database, tenant_id: TenantId) -> Result<Policy> {
        self.policy.get_or_try_init(|| policies::find(db, tenant_id)).await.copied()
    }

    /// Tells the repeats that wait what became of the request.
    pub(crate) fn land(&self, landing: &Landing) {
        let repeats = self.flights.0.lock().get_mut(&self.scope).map(|flight| std::mem::take(&mut flight.repeats));
        for repeat in repeats.into_iter().flatten() {
            // One that has gone away misses nothing.
            repeat.send(landing.clone()).ok();
        }
    }
}

impl Repeat {
    /// Waits for the first request: a glance, or as long as the policy says. Without an outcome that can be shared, the request
    /// has to find out for itself.
    ///
    /// # Errors
    /// [`Error::KeyInProgress`] if it has waited long enough; [`Error::KeyReused`] if the first was told so.
    pub(crate) async fn landed(mut self, db: &Database, tenant_id: TenantId, begun: Instant) -> Result<Option<Found>> {
        let policy = || self.policy.get_or_try_init(|| policies::find(db, tenant_id));
        let landed = if let Ok(landed) = timeout_at((begun + GLANCE).into(), &mut self.landing).await {
            landed
        } else {
            let wait = Box::pin(policy()).await?.wait;
            timeout_at((begun + wait).into(), &mut self.landing).await.map_err(|_| Error::KeyInProgress)?
        };
        match landed {
            Ok(Landing::Outcome(outcome)) => Ok(Some(outcome)),
            Ok(Landing::Reused) => Err(Error::KeyReused),
            Ok(Landing::InProgress) if begun.elapsed() >= Box::pin(policy()).await?.wait => Err(Error::KeyInProgress),
            Ok(Landing::InProgress) => {
                tokio::time::sleep(WAIT_STEP).await;
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.scope);
    }
}
