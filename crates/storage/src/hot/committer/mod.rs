//! The one writer of the hot path: new messages and finished sends, one statement and one fsync per batch.
//!
//! [`Publisher`] and [`Completer`] are the two ways in; one task per process ([`writer`]) takes whatever both hold, without
//! waiting for more, and runs one statement ([`batch`]) on a connection of its own ([`link`]). Callers learn the outcome
//! after the commit, and what is to be sent now is handed over after the commit too.

mod antidote;
mod aside;
mod batch;
mod line;
mod link;
mod pending;
mod room;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{
    id::{ApplicationId, SourceId, TaskId},
    message::Particulars,
    own_event::Kind,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{
    pending::{Finish, Pending, Settled},
    room::Room,
};
use crate::{
    Db, Error, Result,
    applications::Reference,
    claim::Claim,
    directory::Subscribers,
    flights::{Flight, WAIT_STEP},
    hand_off::{HandOff, Job},
    keys::{self, Standing},
    messages,
    outcomes::Found,
    progress::PATIENCE,
    rollups,
};

pub use crate::{published::Published, report::Report};

/// How long a stop waits for the last counts to be added to the statistics.
const COUNTING_PATIENCE: Duration = Duration::from_secs(1);

/// A message to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// For which customer, and who may be owed it.
    pub subscribers: Arc<Subscribers>,
    /// How the request named the customer: stale subscribers are looked up by it again.
    pub application: Reference<ApplicationId>,
    /// What happened.
    pub event_type: String,
    /// The publisher's name for it, unique in the application.
    pub event_id: Option<String>,
    /// Where it belongs.
    pub channels: Vec<String>,
    /// The key that dedupes messages.
    pub message_key: Option<String>,
    /// Among which ones it does.
    pub key_scope: KeyScope,
    /// The publisher's exact bytes.
    pub payload: Bytes,
    /// What they are.
    pub content_type: String,
    /// What is special about it.
    pub particulars: Option<Arc<Particulars>>,
    /// It goes to all applications of the tenant, by a task of this id.
    pub broadcast: Option<TaskId>,
    /// For how long the payload is kept; otherwise for as long as its message.
    pub payload_retention: Option<Duration>,
    /// The request's idempotency key.
    pub claim: Option<Claim>,
}

/// Among which messages a key has to be the first. Two scopes never meet: the same key in both is two keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyScope {
    /// Those of the application whose keys are of this scope.
    #[default]
    Application,
    /// Those of the tenant, whichever application they are for.
    Tenant,
}

impl NewMessage {
    /// The source that it came by, if it did by one.
    fn source_id(&self) -> Option<SourceId> {
        self.particulars.as_ref().and_then(|particulars| particulars.source)
    }

    /// How many bytes of content it has.
    fn bytes(&self) -> usize {
        self.payload.len() + self.particulars.as_ref().map_or(0, |particulars| particulars.bytes())
    }
}

/// How the committer works.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long a handed-over delivery is leased; it must outlast a send.
    pub lease: Duration,
    /// Where fresh deliveries go; without one they wait in the queue for whoever claims them.
    pub hand_off: Option<HandOff>,
}

/// The running committer.
#[derive(Debug)]
pub struct Committer {
    /// The way in for new messages.
    pub publisher: Publisher,
    /// The way back for finished sends.
    pub completer: Completer,
    db: Db,
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

impl Committer {
    /// Writes what is waiting, adds what was counted to the statistics, then ends. New messages are refused from now on.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        drop((self.publisher, self.completer));
        if self.writer.await.is_err() {
            tracing::error!("the committer ended in a panic");
        }
        let flushed = tokio::time::timeout(COUNTING_PATIENCE, rollups::flush(&self.db, &self.db.node.rollups)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("what was counted in the last second is missing in the statistics");
        }
    }
}

/// Starts the committer. It runs until [`Committer::stop`].
pub fn start(db: &Db, options: Options) -> Committer {
    if let Some(hand_off) = &options.hand_off {
        db.metrics().watch(hand_off.clone());
    }
    let (new, waiting) = mpsc::unbounded_channel();
    let (done, finished) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let shared = Shared { db: db.clone(), new: new.downgrade(), room: Arc::default() };
    let publisher = Publisher { shared: Arc::new(shared), new };
    let completer = Completer { db: db.clone(), done };
    let writer = writer::Writer::new(db, options, Arc::clone(&publisher.shared), waiting, finished, stopped);
    Committer { publisher, completer, db: db.clone(), stop, writer: tokio::spawn(writer.run()) }
}

/// What publishers and the writer share.
#[derive(Debug)]
struct Shared {
    db: Db,
    new: mpsc::WeakUnboundedSender<Pending>,
    room: Arc<Room>,
}

/// The way in for new messages.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Bounded by the room that what waits must have.
    new: mpsc::UnboundedSender<Pending>,
}

impl Publisher {
    /// Accepts a message: returns once the message, its deliveries and its idempotency record are committed together.
    /// Who stops waiting takes back what the database has not been sent yet: a handler does so only when its patience ends, and
    /// goes on waiting for a client that has hung up.
    pub async fn publish(&self, new: &Arc<NewMessage>) -> Result<Published> {
        let outcome = match new.claim {
            Some(claim) => self.publish_once(new, claim).await,
            None => self.submit(Arc::clone(new), None, None).await,
        };
        if let Some(claim) = &new.claim {
            keys::count(&self.shared.db, claim.scope, outcome.as_ref().is_ok_and(Published::is_replay), outcome.as_ref().err());
        }
        self.shared.db.metrics().settled(outcome.as_ref().err());
        outcome
    }

    async fn publish_once(&self, new: &Arc<NewMessage>, mut claim: Claim) -> Result<Published> {
        let (begun, db) = (Instant::now(), &self.shared.db);
        loop {
            let flight = match keys::line_up(db, claim.tenant_id, claim.scope, claim.fingerprint, begun).await? {
                Standing::First(flight) => flight,
                Standing::Settled(found) => return Ok((*found).into()),
            };
            let outcome = self.submit(Arc::clone(new), Some(claim), Some(Arc::clone(&flight))).await;
            let outcome = self.reconsider(outcome, &mut claim).await;
            keys::land(&flight, outcome.as_ref().map(shared));
            drop(flight);
            if !matches!(outcome, Err(Error::KeyInProgress)) || begun.elapsed() >= claim.policy.wait {
                return outcome;
            }
            tokio::time::sleep(WAIT_STEP).await;
        }
    }

    /// The statement found the key in use, or used by another request. It does not know the policy, which may have changed
    /// since this process read it, and may be not to compare; nor whether two fingerprints are of one version; nor whether whoever
    /// holds the key has only come for its outcome, which is final and can be had at once.
    async fn reconsider(&self, outcome: Result<Published>, claim: &mut Claim) -> Result<Published> {
        if !matches!(outcome, Err(Error::KeyInProgress | Error::KeyReused)) {
            return outcome;
        }
        Box::pin(keys::look(&self.shared.db, claim)).await?.map_or(outcome, |found| Ok(found.into()))
    }

    async fn submit(&self, new: Arc<NewMessage>, claim: Option<Claim>, flight: Option<Arc<Flight>>) -> Result<Published> {
        let shared = &self.shared;
        if shared.db.is_down() {
            return Err(Error::Unavailable(None));
        }
        let place = shared.room.take(new.subscribers.application.tenant_id, new.source_id(), new.bytes()).ok_or(Error::Overloaded)?;
        let (reply, outcome) = oneshot::channel();
        let (id, takes_long) = (shared.db.new_id().into(), pending::takes_long(&new, &new.subscribers));
        let make = move || Pending::new(id, new, claim, reply, flight, place);
        let pending = if takes_long { tokio::task::spawn_blocking(make).await.map_err(|_| Error::Unavailable(None))? } else { make() };
        self.new.send(pending).map_err(|_| Error::Unavailable(None))?;
        let settled = tokio::time::timeout(PATIENCE, outcome).await;
        match settled.map_err(|_| Error::Unavailable(None))?.map_err(|_| Error::Unavailable(None))?? {
            Settled::Published(published) => Ok(published),
            Settled::ReplayOf(Some(id)) => {
                let message = Box::pin(messages::by_id(&shared.db, id)).await?.ok_or(Error::NotFound("message"))?;
                Ok(Published::Accepted { message: Box::new(message), is_replay: true })
            }
            // Told what the first was told, which the caller finds where refusals are kept.
            Settled::ReplayOf(None) => Err(Error::KeyReused),
        }
    }
}

/// What repeats of a request that ended so share: that a message was accepted is saved, whatever the policy.
fn shared(published: &Published) -> Option<Found> {
    let Published::Accepted { message, .. } = published else { return None };
    Some(Found::Published(Published::Accepted { message: message.clone(), is_replay: true }))
}

/// The way back for finished sends.
#[derive(Clone, Debug)]
pub struct Completer {
    db: Db,
    done: mpsc::UnboundedSender<Finish>,
}

impl Completer {
    /// Records what a send brought, if the job's lease is still live; never blocks and never loses it while the process
    /// lives.
    pub fn complete(&self, job: Job, report: Report) {
        self.send(job, Some(report));
    }

    /// Hands a job back unsent: it is due at once, for whoever claims it.
    pub fn hand_back(&self, job: Job) {
        self.send(job, None);
    }

    fn send(&self, mut job: Job, report: Option<Report>) {
        // The send has ended: its place and its content are free, whenever the result is written.
        job.slot = None;
        job.payload = None;
        job.particulars = None;
        let event = report.as_ref().and_then(|report| Kind::of_attempt(job.trigger, job.number, report.outcome, report.next));
        let event = event.filter(|_| self.db.node.listeners.want(job.tenant_id, job.application_id));
        let finish = Finish { attempt_id: self.db.new_id().into(), job: Box::new(job), report, event };
        if self.done.send(finish).is_err() {
            tracing::error!("a send ended after the committer: its lease will run out and show it as unknown");
        }
    }
}
