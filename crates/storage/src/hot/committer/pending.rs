//! What is on its way to the writer: new messages and finished sends.

use std::{fmt, sync::Arc, time::Instant};

use domain::{
    content_filter::ContentFilter,
    id::{AttemptId, Id, MessageId, SourceId, TaskId},
    idempotency::{payload_digest, scope_hash},
    message::Message,
    offer::Offer,
    own_event::Kind,
};
use sqlx::types::Uuid;
use tokio::sync::oneshot;

use super::{KeyScope, NewMessage, Published, Report, room::Place};
use crate::{
    Result,
    claim::Claim,
    directory::{Subscribers, Target},
    flights::Flight,
    hand_off::Job,
    locks::{EVENT_ID, MESSAGE_KEY, MESSAGE_KEY_OF_TENANT},
    particulars, tasks,
};

/// A new message on its way to the writer.
pub(super) struct Pending {
    pub(super) id: MessageId,
    pub(super) new: Arc<NewMessage>,
    /// Who may be owed it: looked up again if the transaction finds that they changed.
    pub(super) subscribers: Arc<Subscribers>,
    /// Those of them who want it, or so many that its fan-out is a task. Told once, by whoever publishes: to look into a payload is not the
    /// writer's work.
    wanting: Vec<Arc<Target>>,
    /// How many they are.
    pub(super) wanted_by: usize,
    /// Its idempotency key, under the policy of those subscribers.
    pub(super) claim: Option<Claim>,
    /// The names that it must have to itself in a batch, and under locks in the database.
    pub(super) event_id_hash: Option<Uuid>,
    pub(super) message_key_hash: Option<Uuid>,
    pub(super) digest: Uuid,
    /// What is special about it, as it is stored.
    pub(super) particulars: Option<String>,
    reply: oneshot::Sender<Result<Settled>>,
    pub(super) since: Instant,
    _flight: Option<Arc<Flight>>,
    _place: Place,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({})", self.id)
    }
}

impl Pending {
    pub(super) fn new(
        id: MessageId,
        new: Arc<NewMessage>,
        claim: Option<Claim>,
        reply: oneshot::Sender<Result<Settled>>,
        flight: Option<Arc<Flight>>,
        place: Place,
    ) -> Self {
        let subscribers = Arc::clone(&new.subscribers);
        let application = &subscribers.application;
        let event_id_hash = new.event_id.as_ref().map(|text| scope_hash(EVENT_ID, application.id.into(), text));
        let message_key_hash = new.message_key.as_ref().map(|text| match new.key_scope {
            KeyScope::Application => scope_hash(MESSAGE_KEY, application.id.into(), text),
            KeyScope::Tenant => scope_hash(MESSAGE_KEY_OF_TENANT, application.tenant_id.into(), text),
        });
        let wanting = wanting(id, &new, &subscribers);
        let particulars = new.particulars.as_deref().map(particulars::write);
        let wanted_by = wanting.len();
        let digest = if message_key_hash.is_some() { payload_digest(&new.payload) } else { Uuid::nil() };
        Self {
            id,
            new,
            subscribers,
            wanting,
            wanted_by,
            claim,
            event_id_hash,
            message_key_hash,
            digest,
            particulars,
            reply,
            since: Instant::now(),
            _flight: flight,
            _place: place,
        }
    }

    /// The message as it is stored.
    pub(super) fn message(&self, duplicate_of: Option<MessageId>, payload_mismatch: bool) -> Message {
        let application = &self.subscribers.application;
        Message {
            id: self.id,
            tenant_id: application.tenant_id,
            application_id: application.id,
            event_type: self.new.event_type.clone(),
            event_id: self.new.event_id.clone(),
            channels: self.new.channels.clone(),
            payload: Some(self.new.payload.clone()),
            content_type: self.new.content_type.clone(),
            message_key: self.new.message_key.clone(),
            duplicate_of,
            released_at: None,
            payload_mismatch,
            particulars: self.new.particulars.clone(),
            created_at: self.id.created_at(),
        }
    }

    /// The source that it came by, if it did by one.
    pub(super) fn source_id(&self) -> Option<SourceId> {
        self.new.source_id()
    }

    /// Those who are owed it.
    pub(super) fn wanting(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.wanting.iter()
    }

    /// Whether it owes too much to be written at once: its fan-out is a task, committed with it.
    pub(super) fn is_fanned_out_later(&self) -> bool {
        self.wanted_by > tasks::OWED_AT_ONCE
    }

    /// The tasks that are committed with it: a fan-out, which has its id, and a broadcast.
    pub(super) fn tasks(&self) -> impl Iterator<Item = Option<TaskId>> {
        self.is_fanned_out_later().then_some(None).into_iter().chain(self.new.broadcast.map(Some))
    }

    /// How many rows are written with it.
    pub(super) fn rows(&self) -> usize {
        1 + self.tasks().count() + if self.is_fanned_out_later() { 0 } else { self.wanted_by }
    }

    /// Takes over who may be owed it by now.
    pub(super) fn renew(&mut self, fresh: Arc<Subscribers>) {
        if let Some(claim) = &mut self.claim {
            claim.policy = fresh.policy;
        }
        self.wanting = wanting(self.id, &self.new, &fresh);
        self.wanted_by = self.wanting.len();
        self.subscribers = fresh;
    }

    /// Whether its publisher has been told to come back later. What the database has not been sent by then is not stored any
    /// more, so that a refusal means what it says. (A client that hangs up is another matter: its handler waits on, and the
    /// message is stored.)
    pub(super) fn is_withdrawn(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn settle(self, outcome: Result<Settled>) {
        // A publisher that has gone away changes nothing.
        self.reply.send(outcome).ok();
    }
}

/// What the writer tells a publisher.
#[derive(Debug)]
pub(super) enum Settled {
    Published(Published),
    /// The outcome of an earlier request with the same key: this message, or a refusal.
    ReplayOf(Option<MessageId>),
}

/// A finished send on its way to the writer; without a report, a job handed back unsent.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) attempt_id: AttemptId,
    pub(super) job: Box<Job>,
    pub(super) report: Option<Report>,
    /// What is to be told of it to its tenant, who wants to hear it.
    pub(super) event: Option<Kind>,
}

/// How many bytes of payload may be looked at, once for each clause of a filter, on a thread that serves others too: some milliseconds.
const QUICK: usize = 1 << 20;

/// Whether it takes long to tell who wants a message: many clauses look into a large payload, or a filter has still to be made ready.
/// Whoever asks does so on a thread of its own, so that nobody else waits.
pub(super) fn takes_long(new: &NewMessage, subscribers: &Subscribers) -> bool {
    let filters = subscribers.targets.iter().flat_map(|target| target.endpoint.filter.content_filters());
    let clauses: Option<usize> = filters.map(ContentFilter::clauses).sum();
    clauses.is_none_or(|clauses| clauses.saturating_mul(new.bytes()) > QUICK)
}

/// Who wants it; no more of them than it takes to know that they are too many to be written with it.
fn wanting(id: MessageId, new: &NewMessage, subscribers: &Subscribers) -> Vec<Arc<Target>> {
    let offer = Offer::new(&new.event_type, &new.channels).of(&new.payload);
    let offer = offer.with(new.particulars.as_deref()).asked_at(id.created_at());
    subscribers.targets.iter().filter(|target| target.endpoint.wants(&offer)).take(tasks::OWED_AT_ONCE + 1).cloned().collect()
}
