//! The writer's loop: take what waits, write it, settle it; and what happens when that fails.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{
    delivery::Trigger,
    id::{EndpointId, Id, MessageId},
};
use sqlx::types::Uuid;
use tokio::sync::{mpsc, watch};

use super::{
    Finish, Options, Pending, Published, Settled, Shared,
    batch::{Batch, Decided, Owed, Verdict},
    link::{Link, Trouble},
};
use crate::{
    Db, Error, directory,
    hand_off::{Job, Slot},
    partitions, queue,
};

/// The most new messages, and the most finished sends, of one batch.
const CAP: usize = 256;
/// The most payload bytes of one batch: a statement must fit in memory several times over.
const CAP_BYTES: usize = 8 << 20;
/// How long a request that met a busy event id or message key is tried again before it is refused.
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// How long such a request, or a result that cannot be written, rests before it is tried again.
const REST: Duration = Duration::from_millis(5);
/// How long the writer rests when the server says "not now".
const NOT_NOW: Duration = Duration::from_millis(200);
/// For how long a stopping writer tries to write the last results while the database is away.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// The one writer of this process.
pub(super) struct Writer {
    db: Db,
    options: Options,
    shared: Arc<Shared>,
    waiting: mpsc::Receiver<Pending>,
    finished: mpsc::UnboundedReceiver<Finish>,
    stopped: watch::Receiver<bool>,
    link: Option<Link>,
    /// Taken from `waiting`, but not fit for the batch at hand.
    deferred: Vec<Pending>,
}

impl Writer {
    pub(super) fn new(
        db: &Db,
        options: Options,
        shared: Arc<Shared>,
        waiting: mpsc::Receiver<Pending>,
        finished: mpsc::UnboundedReceiver<Finish>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self { db: db.clone(), options, shared, waiting, finished, stopped, link: None, deferred: Vec::new() }
    }

    pub(super) async fn run(mut self) {
        self.link = Link::try_connect(&self.db, None).await.ok();
        while let Some(batch) = self.next_batch().await {
            self.write(batch).await;
        }
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }

    /// Whatever waits in both channels: there is no timer, so a lone request pays no wait, and what arrives during a commit
    /// is the next batch. `None` once stopped and drained.
    async fn next_batch(&mut self) -> Option<Batch> {
        let (mut new, mut finished) = (std::mem::take(&mut self.deferred), Vec::new());
        if *self.stopped.borrow() {
            self.waiting.close();
        } else if new.is_empty() {
            tokio::select! {
                _ = self.waiting.recv_many(&mut new, CAP) => {}
                _ = self.finished.recv_many(&mut finished, CAP) => {}
                _ = self.stopped.changed() => {}
            }
        }
        while new.len() < CAP
            && let Ok(pending) = self.waiting.try_recv()
        {
            new.push(pending);
        }
        while finished.len() < CAP
            && let Ok(finish) = self.finished.try_recv()
        {
            finished.push(finish);
        }
        if new.is_empty() && finished.is_empty() && *self.stopped.borrow() {
            return None;
        }
        let new = self.defer(new);
        Some(Batch::new(new, finished, self.options.hand_off.as_ref(), self.options.lease))
    }

    /// Keeps back what must not share a batch: a second use of a name (advisory locks are re-entrant, so the statement could
    /// not tell the two apart), and what would make the statement too large.
    fn defer(&mut self, waiting: Vec<Pending>) -> Vec<Pending> {
        let (mut names, mut bytes, mut new) = (HashSet::new(), 0, Vec::with_capacity(waiting.len()));
        for pending in waiting {
            bytes += pending.new.payload.len();
            let own = [pending.claim.map(|claim| claim.scope), pending.event_id_hash, pending.message_key_hash];
            let is_first = own.iter().flatten().all(|name| !names.contains(name));
            if is_first && (bytes <= CAP_BYTES || new.is_empty()) {
                names.extend(own.into_iter().flatten());
                new.push(pending);
            } else {
                self.deferred.push(pending);
            }
        }
        new
    }

    /// Writes a batch, in parts if something in it is poisonous. A result is never dropped while the process lives.
    async fn write(&mut self, batch: Batch) {
        let mut parts = vec![batch];
        while let Some(mut batch) = parts.pop() {
            if batch.is_empty() {
                continue;
            }
            let trouble = match self.commit(&batch).await {
                Ok((decided, late)) => {
                    self.settle(batch, &decided, &late);
                    continue;
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Lost => {
                    batch.is_rerun = true;
                    if let Some(batch) = self.reconnect(batch).await {
                        parts.push(batch);
                    }
                }
                Trouble::MissingPartition => {
                    self.make_partitions().await;
                    parts.push(batch);
                }
                Trouble::BadData | Trouble::TooLarge if batch.new.len() + batch.finished.len() > 1 => {
                    let (first, second) = batch.split();
                    parts.extend([second, first]);
                }
                Trouble::NotNow | Trouble::TooLarge => {
                    // The other parts would meet the same.
                    let others = parts.iter_mut().flat_map(|part| part.new.drain(..));
                    for (pending, _) in others.chain(batch.new.drain(..)) {
                        pending.settle(Err(Error::Unavailable(None)));
                    }
                    tokio::time::sleep(NOT_NOW).await;
                    parts.push(batch);
                }
                Trouble::BadData => parts.extend(antidote(batch)),
            }
        }
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(Vec<Decided>, Vec<usize>), Trouble> {
        let Some(link) = &mut self.link else { return Err(Trouble::Lost) };
        let begun = Instant::now();
        let written = async { batch.run(link.connection().await?, self.db.key_horizon()).await };
        let written = written.await.map_err(|error| {
            let trouble = Trouble::of(&error);
            tracing::warn!(%error, ?trouble, "a batch could not be written");
            trouble
        })?;
        self.db.metrics().committed(batch.new.len(), batch.finished.len(), begun.elapsed());
        Ok(written)
    }

    /// Waits for the database to come back. Meanwhile new messages are refused: nothing of them is stored. The batch at hand
    /// is kept, since it may have been committed; only when the process is to stop is it given up.
    async fn reconnect(&mut self, batch: Batch) -> Option<Batch> {
        self.db.inner.is_down.store(true, Ordering::Relaxed);
        let broken = self.link.take();
        let (db, mut stopped) = (self.db.clone(), self.stopped.clone());
        let connecting = Link::connect(&db, broken);
        let giving_up = async {
            let is_stopped = stopped.wait_for(|is_stopped| *is_stopped).await.is_ok();
            tokio::time::sleep(LAST_PATIENCE).await;
            is_stopped
        };
        tokio::pin!(connecting, giving_up);
        let link = loop {
            tokio::select! {
                link = &mut connecting => break Some(link),
                Some(pending) = self.waiting.recv() => pending.settle(Err(Error::Unavailable(None))),
                _ = &mut giving_up => break None,
            }
        };
        self.link = link;
        if self.link.is_none() {
            tracing::error!(
                results = batch.finished.len(),
                "stopped while the database was away: the last results are lost, and show as unknown"
            );
            return None;
        }
        self.db.inner.is_down.store(false, Ordering::Relaxed);
        tracing::info!("the database is back");
        Some(batch)
    }

    async fn make_partitions(&self) {
        if let Err(error) = partitions::ensure(&self.db).await {
            tracing::error!(?error, "a partition is missing and cannot be made");
            tokio::time::sleep(NOT_NOW).await;
        }
    }

    /// Tells every publisher what became of its message, and hands over what is to be sent now.
    fn settle(&mut self, batch: Batch, decided: &[Decided], late: &[usize]) {
        self.count_results(&batch, late);
        let is_release = batch.finished.iter().any(|finish| finish.report.is_none());
        let (lease, lease_ends) = (batch.lease, batch.lease_ends);
        let mut is_due = is_release;
        for ((pending, owed), decided) in batch.new.into_iter().zip(decided) {
            let reference = decided.reference.map(MessageId::from);
            match (decided.verdict, reference) {
                (Verdict::Executed | Verdict::ExecutedBefore, None) => {
                    is_due |= owed.iter().any(|owed| owed.slot.is_none() && self.is_claimable(owed.endpoint_id));
                    for Owed { endpoint_id, slot } in owed {
                        if let Some(slot) = slot {
                            self.hand_over(job(&pending, endpoint_id, slot, lease, lease_ends));
                        }
                    }
                    self.accept(pending, None, false);
                }
                (Verdict::Executed | Verdict::ExecutedBefore | Verdict::Duplicate, first) => {
                    self.accept(pending, first, decided.is_mismatch);
                }
                (Verdict::Replay, Some(id)) if id == pending.id => self.accept(pending, None, false),
                (Verdict::Replay, first) => pending.settle(Ok(Settled::ReplayOf(first))),
                (Verdict::EventIdTaken, Some(by)) => {
                    pending.settle(Ok(Settled::Published(Published::EventIdTaken { by, is_replay: false })));
                }
                (Verdict::ReplayOfEventIdTaken, Some(by)) => {
                    pending.settle(Ok(Settled::Published(Published::EventIdTaken { by, is_replay: true })));
                }
                (Verdict::Mismatch, _) => pending.settle(Err(Error::KeyReused)),
                (Verdict::KeyBusy, _) => pending.settle(Err(Error::KeyInProgress)),
                (Verdict::Stale, _) => self.refresh(pending),
                (Verdict::NameBusy, _) => self.try_again(pending),
                (Verdict::EventIdTaken | Verdict::ReplayOfEventIdTaken, None) => {
                    pending.settle(Err(Error::Unavailable(None)));
                }
            }
        }
        if is_due {
            self.db.wake();
        }
    }

    /// Counts the results that are recorded, and those that came after their leases. What a rerun finds gone was recorded
    /// by the run whose end was lost.
    fn count_results(&self, batch: &Batch, late: &[usize]) {
        let late = if batch.is_rerun { &[] } else { late };
        if !late.is_empty() {
            tracing::info!(late = late.len(), "results came after their lease and were dropped");
            self.db.metrics().dropped_late(late.len());
        }
        let recorded = batch.finished.iter().enumerate().filter(|(place, _)| !late.contains(place));
        for report in recorded.filter_map(|(_, finish)| finish.report.as_ref()) {
            self.db.metrics().recorded(report);
        }
    }

    fn accept(&self, pending: Pending, duplicate_of: Option<MessageId>, payload_mismatch: bool) {
        self.db.metrics().accepted(duplicate_of.is_some(), payload_mismatch);
        let message = pending.message(duplicate_of, payload_mismatch);
        pending.settle(Ok(Settled::Published(Published::Accepted { message: Box::new(message), is_replay: false })));
    }

    fn is_claimable(&self, endpoint_id: EndpointId) -> bool {
        self.options.hand_off.as_ref().is_none_or(|hand_off| hand_off.is_claimable(endpoint_id))
    }

    fn hand_over(&self, job: Job) {
        let Some(hand_off) = &self.options.hand_off else { return };
        if let Err(job) = hand_off.send(job) {
            // Closed since the slot was taken.
            let db = self.db.clone();
            tokio::spawn(async move {
                if let Err(error) = queue::give_back(&db, &[*job]).await {
                    tracing::warn!(?error, "a job could not be given back: it waits until its lease has run out");
                }
            });
        }
    }

    /// The endpoints were not those of the transaction: looks them up again and puts the message back.
    fn refresh(&self, mut pending: Pending) {
        let (db, shared) = (self.db.clone(), Arc::clone(&self.shared));
        tokio::spawn(async move {
            let application = &pending.subscribers.application;
            match directory::reload(&db, application.tenant_id, &pending.new.application).await {
                Ok(fresh) if fresh.application.id == application.id => {
                    if let Some(claim) = &mut pending.claim {
                        claim.policy = fresh.policy;
                    }
                    pending.subscribers = fresh;
                    put_back(&shared, pending).await;
                }
                // The key's scope was that of the old application, so the caller has to claim anew.
                Ok(_) => pending.settle(Err(Error::Renamed)),
                Err(error) => pending.settle(Err(error)),
            }
        });
    }

    /// Another process is using the same event id or message key: not this request's fault, so it waits a little.
    fn try_again(&self, pending: Pending) {
        if pending.since.elapsed() > NAME_PATIENCE {
            return pending.settle(Err(Error::Unavailable(None)));
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            put_back(&shared, pending).await;
        });
    }
}

async fn put_back(shared: &Shared, pending: Pending) {
    match shared.new.upgrade() {
        Some(new) => match new.send(pending).await {
            Ok(()) => {}
            Err(rejected) => rejected.0.settle(Err(Error::Unavailable(None))),
        },
        None => pending.settle(Err(Error::Unavailable(None))),
    }
}

fn job(pending: &Pending, endpoint_id: EndpointId, slot: Slot, lease: Uuid, lease_ends: Instant) -> Job {
    let (new, application) = (&pending.new, &pending.subscribers.application);
    Job {
        message_id: pending.id,
        tenant_id: application.tenant_id,
        application_id: application.id,
        version: application.version,
        endpoint_id,
        run: 0,
        number: 1,
        trigger: Trigger::Scheduled,
        lease,
        lease_ends,
        payload: Some(new.payload.clone()),
        content_type: new.content_type.clone(),
        delivery_key: new.message_key.clone().unwrap_or_else(|| pending.id.public()),
        owed_since: pending.id.created_at(),
        slot: Some(slot),
    }
}

/// What is left to do with a single item that cannot be stored: a message is refused; a result is recorded without what
/// the receiver sent, and if even that cannot be stored, its lease runs out and shows it as unknown.
fn antidote(mut batch: Batch) -> Option<Batch> {
    for (pending, _) in batch.new.drain(..) {
        tracing::error!(message_id = %pending.id, "a message cannot be stored");
        pending.settle(Err(Error::Database(sqlx::Error::WorkerCrashed)));
    }
    let finish = batch.finished.first_mut()?;
    let job = &finish.job;
    let report = finish.report.as_mut()?;
    if report.url.is_empty() {
        tracing::error!(message_id = %job.message_id, endpoint_id = %job.endpoint_id, "a result cannot be stored");
        return None;
    }
    report.url.clear();
    report.response = Bytes::from_static(b"the response could not be stored");
    Some(batch)
}
