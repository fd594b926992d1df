//! Jobs on their way to the dispatcher, and the slots that bound how many there are per endpoint and in all.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use domain::{
    delivery::Trigger,
    id::{ApplicationId, EndpointId, MessageId, TenantId},
};
use parking_lot::Mutex;
use sqlx::types::Uuid;
use tokio::sync::{Notify, mpsc};

/// How much longer than its in-flight cap an endpoint's queue in memory may grow: fresh messages wait there instead of
/// being claimed from the database.
const LOCAL_QUEUE: usize = 2;
/// The claimer's part of all slots is a quarter, apart from the hand-off's: retries and fresh messages never starve each
/// other.
const CLAIMED_SHARE: usize = 4;

/// One delivery that this process has leased and is to send.
#[derive(Debug)]
pub struct Job {
    /// What to send.
    pub message_id: MessageId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application_id: ApplicationId,
    /// The application's version when the job was made: [`crate::directory::at_least`] finds the endpoint.
    pub version: i64,
    /// To whom.
    pub endpoint_id: EndpointId,
    /// Which go at delivering.
    pub run: i32,
    /// Which attempt of the run this will be: the first is 1.
    pub number: i16,
    /// Why.
    pub trigger: Trigger,
    /// The token under which the result will be recorded.
    pub lease: Uuid,
    /// When the lease runs out.
    pub lease_ends: Instant,
    /// The publisher's bytes; absent if they have been expunged.
    pub payload: Option<Bytes>,
    /// What they are.
    pub content_type: String,
    /// What `X-Convoy-Idempotency-Key` says.
    pub delivery_key: String,
    /// The place that this job takes until its send has ended.
    pub(crate) slot: Option<Slot>,
}

/// How many jobs a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In flight to one endpoint.
    pub per_endpoint: usize,
    /// Handed over in all; the claimer has a quarter as many of its own.
    pub in_all: usize,
}

/// The way from the committer and the claimer to the dispatcher.
#[derive(Clone, Debug)]
pub struct HandOff {
    shared: Arc<Shared>,
}

/// The dispatcher's end.
#[derive(Debug)]
pub struct Jobs {
    receiver: mpsc::UnboundedReceiver<Job>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    /// Absent once closed. Unbounded, since the slots bound it.
    sender: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    taken: Mutex<HashMap<EndpointId, usize>>,
    handed: AtomicUsize,
    claimed: AtomicUsize,
    /// The last claim left due rows behind for want of slots: a freed slot wakes the claimer.
    is_more_due: AtomicBool,
    due: Mutex<Option<Arc<Notify>>>,
}

/// A place of an endpoint, and one of the process; both are free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    endpoint_id: EndpointId,
    is_claimed: bool,
}

/// Makes both ends.
pub fn channel(limits: Limits) -> (HandOff, Jobs) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Shared {
        limits,
        sender: Mutex::new(Some(sender)),
        taken: Mutex::default(),
        handed: AtomicUsize::new(0),
        claimed: AtomicUsize::new(0),
        is_more_due: AtomicBool::new(false),
        due: Mutex::default(),
    };
    (HandOff { shared: Arc::new(shared) }, Jobs { receiver })
}

impl Jobs {
    /// The next job; `None` once the hand-off is closed and drained.
    pub async fn recv(&mut self) -> Option<Job> {
        self.receiver.recv().await
    }

    /// The next job; `None` once the hand-off is closed and drained.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Job>> {
        self.receiver.poll_recv(cx)
    }
}

impl HandOff {
    /// No more jobs: new deliveries stay in the queue, and [`Jobs`] ends after what it holds.
    pub fn close(&self) {
        self.shared.sender.lock().take();
    }

    /// A slot for a fresh delivery, if the endpoint and the process have room for it in memory.
    pub(crate) fn reserve(&self, endpoint_id: EndpointId) -> Option<Slot> {
        let shared = &self.shared;
        let is_open = shared.sender.lock().is_some();
        if !is_open || shared.handed.load(Ordering::Relaxed) >= shared.limits.in_all {
            return None;
        }
        let mut taken = shared.taken.lock();
        let places = taken.entry(endpoint_id).or_default();
        if *places >= shared.limits.per_endpoint * (1 + LOCAL_QUEUE) {
            return None;
        }
        *places += 1;
        shared.handed.fetch_add(1, Ordering::Relaxed);
        Some(Slot { shared: Arc::clone(shared), endpoint_id, is_claimed: false })
    }

    /// A slot for a row that was claimed within the limits of [`HandOff::room`].
    pub(crate) fn claimed(&self, endpoint_id: EndpointId) -> Slot {
        *self.shared.taken.lock().entry(endpoint_id).or_default() += 1;
        self.shared.claimed.fetch_add(1, Ordering::Relaxed);
        Slot { shared: Arc::clone(&self.shared), endpoint_id, is_claimed: true }
    }

    /// What the claimer may take: rows in all, rows per endpoint, and the exceptions, endpoints that are busy already.
    pub(crate) fn room(&self) -> Room {
        let Limits { per_endpoint, in_all } = self.shared.limits;
        let is_open = self.shared.sender.lock().is_some();
        let quota = (in_all / CLAIMED_SHARE).max(per_endpoint);
        let total = if is_open { quota.saturating_sub(self.shared.claimed.load(Ordering::Relaxed)) } else { 0 };
        let taken = self.shared.taken.lock();
        let busy = taken.iter().map(|(id, places)| (*id, per_endpoint.saturating_sub(*places))).collect();
        Room { total, share: per_endpoint, busy }
    }

    /// Passes a job on; gives it back if the hand-off is closed.
    pub(crate) fn send(&self, job: Job) -> Result<(), Box<Job>> {
        match &*self.shared.sender.lock() {
            Some(sender) => sender.send(job).map_err(|rejected| Box::new(rejected.0)),
            None => Err(Box::new(job)),
        }
    }

    /// From now on a freed slot notifies `due` when [`HandOff::wait_for_room`] was called since.
    pub(crate) fn wakes(&self, due: Arc<Notify>) {
        *self.shared.due.lock() = Some(due);
    }

    /// The claimer left rows behind for want of slots.
    pub(crate) fn wait_for_room(&self) {
        self.shared.is_more_due.store(true, Ordering::Relaxed);
    }
}

/// What the claimer may take.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) total: usize,
    pub(crate) share: usize,
    pub(crate) busy: Vec<(EndpointId, usize)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let counter = if self.is_claimed { &self.shared.claimed } else { &self.shared.handed };
        counter.fetch_sub(1, Ordering::Relaxed);
        let mut taken = self.shared.taken.lock();
        let left = taken.get_mut(&self.endpoint_id).map_or(0, |places| {
            *places = places.saturating_sub(1);
            *places
        });
        if left == 0 {
            taken.remove(&self.endpoint_id);
        }
        drop(taken);
        // Half empty, not merely not full: claims stay batches.
        if left <= self.shared.limits.per_endpoint / 2
            && self.shared.is_more_due.swap(false, Ordering::Relaxed)
            && let Some(due) = &*self.shared.due.lock()
        {
            due.notify_one();
        }
    }
}
