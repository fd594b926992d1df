//! Jobs on their way to the dispatcher, and the slots that bound how many there are: per endpoint, per tenant, and in all.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    delivery::Trigger,
    endpoint::Endpoint,
    id::{ApplicationId, EndpointId, MessageId, TenantId},
    message::Particulars,
};
use parking_lot::Mutex;
use sqlx::types::Uuid;
use tokio::sync::{Notify, mpsc};

use crate::{gates::Gates, reference::Owner, switched_off::SwitchedOff};

/// How much longer than its in-flight cap an endpoint's queue in memory may grow: fresh messages wait there instead of
/// being claimed from the database.
const LOCAL_QUEUE: usize = 2;
/// The claimer's part of all slots is a quarter, apart from the hand-off's: retries and fresh messages never starve each
/// other.
const CLAIMED_SHARE: usize = 4;
/// The most bytes of payload that handed jobs hold.
const HANDED_BYTES: usize = 64 << 20;
/// The most bytes of payload that claimed jobs hold; a claim may exceed it by one payload.
const CLAIMED_BYTES: usize = 32 << 20;

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
    /// What is special about it.
    pub particulars: Option<Arc<Particulars>>,
    /// What `X-Convoy-Idempotency-Key` says.
    pub delivery_key: String,
    /// When its message was accepted, or, of a duplicate, released.
    pub owed_since: DateTime<Utc>,
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
    places: Mutex<Places>,
    gates: Gates,
    switched_off: SwitchedOff,
    due: Mutex<Option<Arc<Notify>>>,
}

/// Who holds how much.
#[derive(Debug, Default)]
struct Places {
    endpoints: HashMap<EndpointId, usize>,
    handed: Pool,
    claimed: Pool,
    awaited: Crowded,
    throttled: HashSet<EndpointId>,
}

/// The slots of one way in.
#[derive(Debug, Default)]
struct Pool {
    slots: usize,
    bytes: usize,
    tenants: HashMap<TenantId, usize>,
}

/// What a claim left behind for want of slots: the first that becomes free wakes the claimer.
#[derive(Debug, Default)]
pub(crate) struct Crowded {
    pub(crate) endpoints: HashSet<EndpointId>,
    pub(crate) tenants: HashSet<TenantId>,
    /// Nothing could be claimed at all.
    pub(crate) is_full: bool,
}

/// By which way a job came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the committer.
    Handed,
    /// From the queue.
    Claimed,
    /// From the queue, to find out whether a held endpoint is back.
    Probe,
}

/// A place of an endpoint, of its tenant and of the process; all are free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    tenant_id: TenantId,
    endpoint_id: EndpointId,
    bytes: usize,
    way: Way,
}

impl Pool {
    fn take(&mut self, tenant_id: TenantId, bytes: usize) {
        self.slots += 1;
        self.bytes += bytes;
        *self.tenants.entry(tenant_id).or_default() += 1;
    }

    fn give_back(&mut self, tenant_id: TenantId, bytes: usize) {
        self.slots = self.slots.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = self.tenants.get_mut(&tenant_id) {
            *held -= 1;
            if *held == 0 {
                self.tenants.remove(&tenant_id);
            }
        }
    }

    /// Whether one more is fair: there is always room for one tenant more than there are.
    fn is_fair(&self, tenant_id: TenantId, of: usize) -> bool {
        let held = self.tenants.get(&tenant_id).copied().unwrap_or(0);
        held < (of / (1 + self.tenants.len())).max(1)
    }
}

impl Job {
    /// Whether it is to find out if a held endpoint is back.
    pub fn is_probe(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.way == Way::Probe)
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        Owner { tenant_id: self.tenant_id, application_id: self.application_id }
    }

    /// Its endpoint was found to be disabled or deleted: the claimer ends what else is due to it, and claims none of that.
    pub fn is_to_nobody(&self) {
        if let Some(slot) = &self.slot
            && slot.shared.switched_off.note(self.endpoint_id, self.owner())
        {
            slot.shared.wake();
        }
    }
}

/// Makes both ends.
pub fn channel(limits: Limits) -> (HandOff, Jobs) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Shared {
        limits,
        sender: Mutex::new(Some(sender)),
        places: Mutex::default(),
        gates: Gates::default(),
        switched_off: SwitchedOff::default(),
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

    /// How many jobs this process holds.
    pub(crate) fn jobs(&self) -> JobCount {
        let places = self.shared.places.lock();
        JobCount { handed: places.handed.slots, claimed: places.claimed.slots }
    }

    /// A slot for a fresh delivery, if the endpoint may be sent to without asking the database and there is room for the
    /// delivery in memory: of the endpoint, of its tenant's share and of the process.
    pub(crate) fn reserve(&self, endpoint: &Endpoint, bytes: usize) -> Option<Slot> {
        let shared = &self.shared;
        let Limits { per_endpoint, in_all } = shared.limits;
        let is_open = shared.sender.lock().is_some();
        if !is_open || endpoint.throttle_rate.is_some() || shared.gates.has(endpoint.id) {
            return None;
        }
        let mut places = shared.places.lock();
        let Places { endpoints, handed, .. } = &mut *places;
        if handed.slots >= in_all || handed.bytes + bytes > HANDED_BYTES || !handed.is_fair(endpoint.tenant_id, in_all) {
            return None;
        }
        let taken = endpoints.entry(endpoint.id).or_default();
        if *taken >= per_endpoint * (1 + LOCAL_QUEUE) {
            return None;
        }
        *taken += 1;
        handed.take(endpoint.tenant_id, bytes);
        drop(places);
        Some(self.slot(endpoint.tenant_id, endpoint.id, bytes, Way::Handed))
    }

    /// A slot for a row that was claimed within the limits of [`HandOff::room`].
    pub(crate) fn claimed(&self, tenant_id: TenantId, endpoint_id: EndpointId, bytes: usize, way: Way) -> Slot {
        let mut places = self.shared.places.lock();
        *places.endpoints.entry(endpoint_id).or_default() += 1;
        places.claimed.take(tenant_id, bytes);
        drop(places);
        self.slot(tenant_id, endpoint_id, bytes, way)
    }

    fn slot(&self, tenant_id: TenantId, endpoint_id: EndpointId, bytes: usize, way: Way) -> Slot {
        Slot { shared: Arc::clone(&self.shared), tenant_id, endpoint_id, bytes, way }
    }

    /// What the claimer may take.
    pub(crate) fn room(&self) -> Room {
        let Limits { per_endpoint, in_all } = self.shared.limits;
        let is_open = self.shared.sender.lock().is_some();
        let quota = (in_all / CLAIMED_SHARE).max(per_endpoint);
        let places = self.shared.places.lock();
        let claimed = &places.claimed;
        Room {
            total: if is_open { quota.saturating_sub(claimed.slots) } else { 0 },
            bytes: CLAIMED_BYTES.saturating_sub(claimed.bytes),
            share: per_endpoint,
            taken: places.endpoints.iter().map(|(id, taken)| (*id, *taken)).collect(),
            quota,
            tenants: claimed.tenants.iter().map(|(id, taken)| (*id, *taken)).collect(),
        }
    }

    /// Which endpoints this process does not send to.
    pub(crate) fn gates(&self) -> &Gates {
        &self.shared.gates
    }

    /// Which endpoints this process found to be off.
    pub(crate) fn switched_off(&self) -> &SwitchedOff {
        &self.shared.switched_off
    }

    /// Passes a job on; gives it back if the hand-off is closed.
    pub(crate) fn send(&self, job: Job) -> Result<(), Box<Job>> {
        match &*self.shared.sender.lock() {
            Some(sender) => sender.send(job).map_err(|rejected| Box::new(rejected.0)),
            None => Err(Box::new(job)),
        }
    }

    /// From now on a freed slot notifies `due` if [`HandOff::wait_for_room`] named its endpoint or its tenant.
    pub(crate) fn wakes(&self, due: Arc<Notify>) {
        *self.shared.due.lock() = Some(due);
    }

    /// Whether a delivery that was just stored for the claim can be claimed at once. If not, waking the claimer would be in
    /// vain, again and again: it is woken by the first slot that becomes free, or looks by itself when a token or a probe is due.
    pub(crate) fn is_claimable(&self, endpoint_id: EndpointId) -> bool {
        let shared = &self.shared;
        if shared.gates.is_shut(endpoint_id) {
            return false;
        }
        let mut places = shared.places.lock();
        let taken = places.endpoints.get(&endpoint_id).copied().unwrap_or(0);
        if taken > shared.limits.per_endpoint / 2 {
            places.awaited.endpoints.insert(endpoint_id);
        }
        taken <= shared.limits.per_endpoint / 2 && !places.throttled.contains(&endpoint_id)
    }

    /// The claimer looks after these endpoints by itself, until it says otherwise.
    pub(crate) fn looks_after(&self, throttled: impl IntoIterator<Item = EndpointId>) {
        self.shared.places.lock().throttled = throttled.into_iter().collect();
    }

    /// The claimer left these behind for want of slots.
    pub(crate) fn wait_for_room(&self, crowded: Crowded) {
        let mut places = self.shared.places.lock();
        // Those that have become free since the claim looked would never wake it.
        let is_missed = crowded.endpoints.iter().any(|id| !places.endpoints.contains_key(id))
            || crowded.tenants.iter().any(|id| !places.claimed.tenants.contains_key(id))
            || (crowded.is_full && places.claimed.slots == 0);
        let awaited = &mut places.awaited;
        if is_missed {
            *awaited = Crowded::default();
        } else {
            awaited.endpoints.extend(crowded.endpoints);
            awaited.tenants.extend(crowded.tenants);
            awaited.is_full |= crowded.is_full;
        }
        drop(places);
        if is_missed {
            self.shared.wake();
        }
    }
}

/// How many jobs a process holds, by the way in which they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobCount {
    pub(crate) handed: usize,
    pub(crate) claimed: usize,
}

/// What the claimer may take.
#[derive(Debug)]
pub(crate) struct Room {
    /// Rows in all.
    pub(crate) total: usize,
    /// Bytes of payload in all.
    pub(crate) bytes: usize,
    /// Rows of one endpoint, those that it has already included.
    pub(crate) share: usize,
    /// What the endpoints have already.
    pub(crate) taken: Vec<(EndpointId, usize)>,
    /// Rows of all tenants together, those that they have already included.
    pub(crate) quota: usize,
    /// What the tenants have already.
    pub(crate) tenants: Vec<(TenantId, usize)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut places = self.shared.places.lock();
        let Places { endpoints, handed, claimed, awaited, .. } = &mut *places;
        let is_claimed = self.way != Way::Handed;
        if is_claimed { claimed } else { handed }.give_back(self.tenant_id, self.bytes);
        let left = endpoints.get_mut(&self.endpoint_id).map_or(0, |taken| {
            *taken = taken.saturating_sub(1);
            *taken
        });
        if left == 0 {
            endpoints.remove(&self.endpoint_id);
        }
        // Half empty, not merely not full: claims stay batches.
        let is_half_empty = left <= self.shared.limits.per_endpoint / 2;
        let is_awaited = (is_half_empty && awaited.endpoints.contains(&self.endpoint_id))
            || (is_claimed && (awaited.is_full || awaited.tenants.contains(&self.tenant_id)));
        if is_awaited {
            *awaited = Crowded::default();
        }
        drop(places);
        if is_awaited {
            self.shared.wake();
        }
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(due) = &*self.due.lock() {
            due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use domain::{
        application::Metadata,
        endpoint::{EndpointUrl, Settings},
        filter::Filter,
    };

    use super::*;

    fn endpoint(tenant: u128, number: u128) -> Endpoint {
        Endpoint {
            id: Uuid::from_u128(number).into(),
            tenant_id: Uuid::from_u128(tenant).into(),
            application_id: Uuid::nil().into(),
            uid: None,
            url: EndpointUrl::stored("http://127.0.0.1/".into()),
            description: String::new(),
            version: 1,
            throttle_rate: None,
            is_disabled: false,
            filter: Filter::default(),
            settings: Settings::default(),
            metadata: Metadata::default(),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    /// As many slots as the tenant gets, over many endpoints.
    fn all_of(hand_off: &HandOff, tenant: u128) -> Vec<Slot> {
        (0..1_000).map_while(|number| hand_off.reserve(&endpoint(tenant, tenant * 1_000 + number), 10)).collect()
    }

    #[test]
    fn a_tenant_that_takes_all_it_gets_leaves_room_for_the_next() {
        let (hand_off, _jobs) = channel(Limits { per_endpoint: 4, in_all: 120 });
        let first = all_of(&hand_off, 1);
        let second = all_of(&hand_off, 2);
        let third = all_of(&hand_off, 3);
        assert_eq!([first.len(), second.len(), third.len()], [60, 40, 20]);
        assert!(all_of(&hand_off, 1).is_empty());
        drop((second, third));
        assert!(all_of(&hand_off, 1).is_empty(), "half is for others");
        assert_eq!(all_of(&hand_off, 4).len(), 40);
        drop(first);
        assert_eq!((hand_off.jobs().handed, hand_off.room().total), (0, 30));
        assert!(hand_off.shared.places.lock().endpoints.is_empty());
    }

    #[test]
    fn an_endpoint_that_is_busy_throttled_or_not_well_gets_no_more_in_memory() {
        let (hand_off, _jobs) = channel(Limits { per_endpoint: 2, in_all: 1_000 });
        let busy = endpoint(1, 1);
        let slots: Vec<_> = std::iter::from_fn(|| hand_off.reserve(&busy, 0)).collect();
        assert_eq!(slots.len(), 6);
        assert!(hand_off.reserve(&Endpoint { throttle_rate: Some(5), ..endpoint(1, 2) }, 0).is_none());
        assert!(hand_off.reserve(&endpoint(1, 2), HANDED_BYTES + 1).is_none());
        let big = hand_off.reserve(&endpoint(1, 2), HANDED_BYTES).expect("a place");
        assert!(hand_off.reserve(&endpoint(1, 2), 1).is_none(), "memory is bounded, whatever the number");
        drop(big);
        assert!(hand_off.reserve(&endpoint(1, 2), 1).is_some());
        hand_off.close();
        assert!(hand_off.reserve(&endpoint(1, 2), 1).is_none());
    }

    #[tokio::test]
    async fn a_place_that_the_claimer_waits_for_wakes_it_and_no_other_does() {
        use futures::FutureExt;

        let (hand_off, _jobs) = channel(Limits { per_endpoint: 4, in_all: 64 });
        let due = Arc::new(Notify::new());
        hand_off.wakes(Arc::clone(&due));
        let claim = |number| hand_off.claimed(Uuid::from_u128(1).into(), Uuid::from_u128(number).into(), 0, Way::Claimed);
        let (awaited, other) = ([claim(1), claim(1), claim(1)], claim(2));
        let crowded = || Crowded { endpoints: [Uuid::from_u128(1).into()].into(), ..Crowded::default() };
        hand_off.wait_for_room(crowded());
        drop(other);
        assert!(due.notified().now_or_never().is_none());
        drop(awaited);
        assert!(due.notified().now_or_never().is_some());
        assert!(due.notified().now_or_never().is_none(), "once");
        hand_off.wait_for_room(crowded());
        assert!(due.notified().now_or_never().is_some(), "what became free before is not missed");

        let busy = [claim(1), claim(1), claim(1)];
        assert!(!hand_off.is_claimable(Uuid::from_u128(1).into()));
        drop(busy);
        assert!(due.notified().now_or_never().is_some(), "what could not be claimed when it was stored can be now");
        assert!(hand_off.is_claimable(Uuid::from_u128(1).into()));
        hand_off.looks_after([Uuid::from_u128(1).into()]);
        assert!(!hand_off.is_claimable(Uuid::from_u128(1).into()));
    }
}
