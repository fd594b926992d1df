//! The writer's loop: take what waits, write it, settle it; and what happens when that fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    delivery::Trigger,
    id::{EndpointId, Id, MessageId},
};
use sqlx::types::Uuid;
use tokio::sync::{mpsc, watch};

use super::{
    Options, Published, Shared,
    antidote::antidote,
    aside::Aside,
    batch::{Batch, Decided, Owed, Verdict},
    line::{CAP, Line},
    link::{Link, Trouble},
    pending::{Finish, Pending, Settled, takes_long},
};
use crate::{
    Db, Error,
    directory::{self, Owner},
    hand_off::{Job, Slot},
    partitions, queue,
};

/// How long a request that met a busy event id or message key is tried again before it is refused.
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// How long such a request, or a result that cannot be written, rests before it is tried again.
const REST: Duration = Duration::from_millis(5);
/// How long the writer rests when the server says "not now".
const NOT_NOW: Duration = Duration::from_millis(200);
/// How long the writer is idle before it looks whether its connection is still there.
const IDLE: Duration = Duration::from_secs(2);
/// For how long a stopping writer tries to write the last results while the database is away.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// The one writer of this process.
pub(super) struct Writer {
    db: Db,
    options: Options,
    shared: Arc<Shared>,
    waiting: mpsc::UnboundedReceiver<Pending>,
    finished: mpsc::UnboundedReceiver<Finish>,
    stopped: watch::Receiver<bool>,
    link: Option<Link>,
    aside: Aside,
    /// Taken from `waiting`, to be written by turns.
    line: Line,
}

impl Writer {
    pub(super) fn new(
        db: &Db,
        options: Options,
        shared: Arc<Shared>,
        waiting: mpsc::UnboundedReceiver<Pending>,
        finished: mpsc::UnboundedReceiver<Finish>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let aside = Aside::start(db, stopped.clone());
        Self { db: db.clone(), options, shared, waiting, finished, stopped, link: None, aside, line: Line::default() }
    }

    pub(super) async fn run(mut self) {
        self.link = Link::try_connect(&self.db, None).await.ok();
        while let Some(batch) = self.next_batch().await {
            self.write(batch).await;
        }
        self.aside.stop().await;
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }

    /// Whatever waits in both channels: there is no timer, so a lone request pays no wait, and what arrives during a commit
    /// is the next batch. `None` once stopped and drained.
    async fn next_batch(&mut self) -> Option<Batch> {
        let mut finished = Vec::new();
        if *self.stopped.borrow() {
            self.waiting.close();
        } else if self.line.is_empty() {
            tokio::select! {
                Some(pending) = self.waiting.recv() => self.line.push(pending),
                _ = self.finished.recv_many(&mut finished, CAP) => {}
                _ = self.stopped.changed() => {}
                () = tokio::time::sleep(IDLE) => self.look_at_link().await,
            }
        }
        while let Ok(pending) = self.waiting.try_recv() {
            self.line.push(pending);
        }
        while finished.len() < CAP
            && let Ok(finish) = self.finished.try_recv()
        {
            finished.push(finish);
        }
        if self.line.is_empty() && finished.is_empty() && *self.stopped.borrow() {
            return None;
        }
        let new = self.line.take();
        Some(Batch::new(new, finished, self.options.hand_off.as_ref(), self.options.lease))
    }

    /// Writes a batch, in parts if something in it is poisonous. A result is never dropped while the process lives.
    async fn write(&mut self, batch: Batch) {
        let mut parts = vec![batch];
        while let Some(mut batch) = parts.pop() {
            batch.forget_withdrawn();
            if batch.is_empty() {
                continue;
            }
            self.db.node.writing.begin();
            match self.commit(&batch).await {
                Ok((decided, late)) => {
                    self.db.node.writing.end();
                    self.settle(batch, &decided, &late);
                }
                Err(trouble) => self.repair(trouble, batch, &mut parts).await,
            }
        }
        self.db.node.writing.end();
    }

    /// What is left to do of a batch that was not written, and of the other parts of the one that it was a part of.
    async fn repair(&mut self, trouble: Trouble, mut batch: Batch, parts: &mut Vec<Batch>) {
        match trouble {
            Trouble::Lost => {
                // A server that takes connections and nothing else is not asked without a rest.
                let rest = if batch.is_rerun { NOT_NOW } else { Duration::ZERO };
                batch.is_rerun = true;
                parts.extend(self.reconnect(batch, rest).await);
            }
            Trouble::MissingPartition if !batch.has_partitions => {
                batch.has_partitions = self.make_partitions(&batch).await;
                parts.push(batch);
            }
            Trouble::BadData | Trouble::MissingPartition | Trouble::TooLarge | Trouble::TooSlow if batch.len() > 1 => {
                let (first, second) = batch.split();
                parts.extend([second, first]);
            }
            Trouble::BadData | Trouble::MissingPartition => {
                if antidote(&self.db, &mut batch) {
                    parts.push(batch);
                }
            }
            // A new message needs rows that nobody has yet: it waits for as long as its publisher does.
            Trouble::Locked => {
                if !batch.finished.is_empty() {
                    self.aside.take(&mut batch);
                }
                batch.give_up_withdrawn();
                tokio::time::sleep(REST).await;
                parts.push(batch);
            }
            Trouble::NotNow | Trouble::TooLarge | Trouble::TooSlow => {
                // The other parts would meet the same, unless this one was merely too much.
                let others = parts.iter_mut().filter(|_| trouble != Trouble::TooSlow).flat_map(|part| part.new.drain(..));
                for (pending, _) in others.chain(batch.new.drain(..)) {
                    pending.settle(Err(Error::Unavailable(None)));
                }
                tokio::time::sleep(NOT_NOW).await;
                parts.push(batch);
            }
        }
    }

    /// While nothing is to be written: whoever comes next should not be the one to find out that the connection is lost.
    async fn look_at_link(&mut self) {
        let is_there = match &mut self.link {
            Some(link) => link.is_there().await,
            None => false,
        };
        if !is_there {
            tracing::warn!("the committer has no connection to the database");
            let nothing = Batch::new(Vec::new(), Vec::new(), None, self.options.lease);
            self.reconnect(nothing, Duration::ZERO).await;
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
    async fn reconnect(&mut self, batch: Batch, rest: Duration) -> Option<Batch> {
        self.db.set_down(true);
        let broken = self.link.take();
        let (db, mut stopped) = (self.db.clone(), self.stopped.clone());
        let connecting = async {
            tokio::time::sleep(rest).await;
            Link::connect(&db, broken).await
        };
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
        self.db.set_down(false);
        tracing::info!("the database is back");
        Some(batch)
    }

    /// Makes those of the next weeks, and those of the batch, wherever a clock that jumped has put it; and finds out whether it has.
    /// Returns whether it could.
    async fn make_partitions(&self, batch: &Batch) -> bool {
        let made = async {
            self.db.clock().measure(&mut self.db.pool().acquire().await?).await?;
            partitions::ensure(&self.db).await?;
            partitions::ensure_for(&self.db, &batch.ids()).await
        };
        match made.await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(?error, "a partition is missing and cannot be made");
                tokio::time::sleep(NOT_NOW).await;
                false
            }
        }
    }

    /// Tells every publisher what became of its message, and hands over what is to be sent now.
    fn settle(&mut self, batch: Batch, decided: &[Decided], late: &[usize]) {
        count_results(&self.db, &batch, late);
        let is_handed_back = batch.finished.iter().any(|finish| finish.report.is_none());
        let (lease, lease_ends) = (batch.lease, batch.lease_ends);
        let (mut is_due, mut has_tasks) = (is_handed_back, false);
        for ((pending, owed), decided) in batch.new.into_iter().zip(decided) {
            let reference = decided.reference.map(MessageId::from);
            match (decided.verdict, reference) {
                (Verdict::Executed | Verdict::ExecutedBefore, None) => {
                    has_tasks |= pending.tasks().next().is_some();
                    is_due |= owed.iter().any(|owed| owed.slot.is_none() && self.is_claimable(owed.endpoint_id));
                    self.count(&pending, false, &owed);
                    for Owed { endpoint_id, slot } in owed {
                        if let Some(slot) = slot {
                            self.hand_over(job(&pending, endpoint_id, slot, lease, lease_ends));
                        }
                    }
                    self.accept(pending, None, false);
                }
                (Verdict::Executed | Verdict::ExecutedBefore | Verdict::Duplicate, first) => {
                    self.count(&pending, true, &[]);
                    self.accept(pending, first, decided.is_mismatch);
                }
                (Verdict::Replay, Some(id)) if id == pending.id => {
                    self.count(&pending, false, &owed);
                    self.accept(pending, None, false);
                }
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
        if has_tasks {
            self.db.wake_runner();
        }
    }

    fn count(&self, pending: &Pending, is_duplicate: bool, owed: &[Owed]) {
        let application = &pending.subscribers.application;
        let owner = Owner { tenant_id: application.tenant_id, application_id: application.id };
        let owed_to = owed.iter().map(|owed| owed.endpoint_id);
        self.db.node.rollups.accepted(owner, pending.id, &pending.new.event_type, is_duplicate, owed_to);
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
                if let Err(error) = queue::hand_back(&db, &[*job]).await {
                    tracing::warn!(?error, "a job could not be handed back: it waits until its lease has run out");
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
                    let takes_long = takes_long(&pending.new, &fresh);
                    let renew = move || {
                        pending.renew(fresh);
                        put_back(&shared, pending);
                    };
                    if takes_long { drop(tokio::task::spawn_blocking(renew)) } else { renew() }
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
            put_back(&shared, pending);
        });
    }
}

fn put_back(shared: &Shared, pending: Pending) {
    let rejected = match shared.new.upgrade() {
        Some(new) => new.send(pending).err().map(|rejected| rejected.0),
        None => Some(pending),
    };
    if let Some(pending) = rejected {
        pending.settle(Err(Error::Unavailable(None)));
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
        particulars: new.particulars.clone(),
        delivery_key: new.message_key.clone().unwrap_or_else(|| pending.id.public()),
        owed_since: pending.id.created_at(),
        slot: Some(slot),
    }
}

/// Counts the results that are recorded, and those that came after their leases. What a rerun finds gone was recorded
/// by the run whose end was lost.
pub(super) fn count_results(db: &Db, batch: &Batch, late: &[usize]) {
    if batch.finished.iter().any(|finish| finish.event.is_some()) {
        db.own_events().notify_one();
    }
    let late = if batch.is_rerun { &[] } else { late };
    if !late.is_empty() {
        tracing::info!(late = late.len(), "results came after their lease and were dropped");
        db.metrics().dropped_late(late.len());
    }
    let recorded = batch.finished.iter().enumerate().filter(|(place, _)| !late.contains(place));
    for (_, finish) in recorded {
        if let Some(report) = &finish.report {
            db.metrics().recorded(report);
            db.node.rollups.recorded(finish.job.endpoint_id, finish.job.tenant_id, finish.attempt_id, report);
        }
    }
}
