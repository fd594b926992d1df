//! One batch as the arrays of one statement.

use std::time::{Duration, Instant};

use domain::{
    delivery::{MAX_RESPONSE, Next},
    id::EndpointId,
    own_event::Kind,
};
use sqlx::{postgres::types::PgInterval, types::Uuid};

use super::pending::{Finish, Pending};
use crate::{
    connection::Connection,
    hand_off::{HandOff, Slot},
    locks::{EVENT_ID_LOCK, KEY_LOCK, MESSAGE_KEY_LOCK, lock_id},
};

/// What became of a request, as `step_v1` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Executed,
    KeyBusy,
    NameBusy,
    Replay,
    Mismatch,
    EventIdTaken,
    Stale,
    Duplicate,
    ReplayOfEventIdTaken,
    ExecutedBefore,
}

impl Verdict {
    fn from_code(code: i16) -> Self {
        match code {
            1 => Self::KeyBusy,
            2 | 3 => Self::NameBusy,
            4 => Self::Replay,
            5 => Self::Mismatch,
            6 => Self::EventIdTaken,
            7 => Self::Stale,
            8 => Self::Duplicate,
            9 => Self::ReplayOfEventIdTaken,
            10 => Self::ExecutedBefore,
            _ => Self::Executed,
        }
    }
}

/// The outcome that the statement gives a result whose lease was not live any more.
const LATE: i16 = 100;

/// A verdict and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) reference: Option<Uuid>,
    pub(super) is_mismatch: bool,
}

/// One delivery that a new message owes.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) endpoint_id: EndpointId,
    /// Present: born leased, and handed over after the commit.
    pub(super) slot: Option<Slot>,
}

/// New messages and finished sends that are written together, with everything that a second run must repeat exactly.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) new: Vec<(Pending, Vec<Owed>)>,
    pub(super) finished: Vec<Finish>,
    pub(super) lease: Uuid,
    pub(super) lease_ends: Instant,
    lease_length: Duration,
    /// A run of this batch was sent and its end is unknown.
    pub(super) is_rerun: bool,
    /// The partitions of its rows were made, or were there.
    pub(super) has_partitions: bool,
}

impl Batch {
    /// Decides what is handed over: every wanted delivery for which there is a slot.
    pub(super) fn new(new: Vec<Pending>, finished: Vec<Finish>, hand_off: Option<&HandOff>, lease_length: Duration) -> Self {
        let new = new.into_iter().map(|pending| (owed(&pending, hand_off), pending)).map(|(owed, pending)| (pending, owed)).collect();
        let lease = Uuid::from_u128(rand::random());
        Self { new, finished, lease, lease_ends: Instant::now() + lease_length, lease_length, is_rerun: false, has_partitions: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.new.len() + self.finished.len()
    }

    /// The ids of the rows that go into partitions.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        let messages = self.new.iter().map(|(pending, _)| pending.id.into());
        messages.chain(self.finished.iter().map(|finish| finish.attempt_id.into())).collect()
    }

    /// Lets go of the messages whose publishers have been told to come back, if the database has nothing of them for certain.
    pub(super) fn forget_withdrawn(&mut self) {
        if !self.is_rerun {
            self.give_up_withdrawn();
        }
    }

    /// Lets go of them, whatever the database has.
    pub(super) fn give_up_withdrawn(&mut self) {
        self.new.retain(|(pending, _)| !pending.is_withdrawn());
    }

    /// Parts the batch for another try after a poisonous item: results from messages first, then in halves.
    pub(super) fn split(mut self) -> (Self, Self) {
        let rest = if self.new.is_empty() || self.finished.is_empty() {
            let new = self.new.split_off(self.new.len().div_ceil(2));
            let finished = self.finished.split_off(self.finished.len().div_ceil(2));
            (new, finished)
        } else {
            (std::mem::take(&mut self.new), Vec::new())
        };
        let rest = Self { new: rest.0, finished: rest.1, ..self };
        (Self { new: self.new, finished: self.finished, ..rest.like() }, rest)
    }

    /// Takes the results out of it, each as a batch of its own.
    pub(super) fn take_results(&mut self) -> Vec<Self> {
        let results = std::mem::take(&mut self.finished);
        results.into_iter().map(|finish| Self { finished: vec![finish], ..self.like() }).collect()
    }

    /// An empty batch under the same lease.
    fn like(&self) -> Self {
        Self {
            new: Vec::new(),
            finished: Vec::new(),
            lease: self.lease,
            lease_ends: self.lease_ends,
            lease_length: self.lease_length,
            is_rerun: self.is_rerun,
            has_partitions: self.has_partitions,
        }
    }

    /// Runs the statement, which looks back for saved outcomes as far as `key_horizon`. Returns a verdict per new message,
    /// and which results came too late, by their places.
    pub(super) async fn run(&self, connection: &mut Connection, key_horizon: Duration) -> Result<(Vec<Decided>, Vec<usize>), sqlx::Error> {
        Ok(self.read(self.ask(connection, key_horizon).await?))
    }

    async fn ask(&self, connection: &mut Connection, key_horizon: Duration) -> Result<Vec<Line>, sqlx::Error> {
        let (a, f) = (Accept::of(self), Finished::of(self));
        sqlx::query_as!(
            Line,
            r#"select o as "o!", outcome as "outcome!", ref, is_mismatch as "is_mismatch!" from step_v1(
                 p_id => $1, p_tenant => $2, p_application => $3, p_event_type => $4, p_event_id => $5, p_channels => $6, p_message_key => $7, p_payload => $8, p_content_type => $9,
                 p_payload_seconds => $10, p_particulars => $11, p_k => $12, p_fingerprint => $13, p_ttl => $14, p_saves_conflict => $15, p_uid_hash => $16, p_key_hash => $17, p_digest => $18, p_lock => $19, p_uid_lock => $20,
                 p_key_lock => $21, a_id => $22, a_version => $23, d_of => $24, d_endpoint => $25, d_is_leased => $26, t_of => $27, t_version => $28, t_task => $29, p_lease => $30, p_lease_seconds => $31,
                 p_horizon => $32, p_is_rerun => $33, f_message => $34, f_endpoint => $35, f_run => $36, f_lease => $37, f_kind => $38, f_attempt => $39, f_number => $40, f_outcome => $41, f_status => $42,
                 f_duration => $43, f_response => $44, f_url => $45, f_delay => $46, f_is_resent => $47, f_event => $48)"#,
            &a.id,
            &a.tenant,
            &a.application,
            &a.event_type as _,
            &a.event_id as _,
            &a.channels as _,
            &a.message_key as _,
            &a.payload as _,
            &a.content_type as _,
            &a.payload_seconds as _,
            &a.particulars as _,
            &a.key as _,
            &a.fingerprint as _,
            &a.ttl,
            &a.saves_conflict,
            &a.event_id_hash as _,
            &a.message_key_hash as _,
            &a.digest,
            &a.key_lock as _,
            &a.event_id_lock as _,
            &a.message_key_lock as _,
            &a.distinct_application,
            &a.version,
            &a.owed_by,
            &a.owed_to,
            &a.is_leased,
            &a.fanned_out,
            &a.fanned_out_at,
            &a.broadcast as _,
            self.lease,
            self.lease_length.as_secs_f64(),
            interval(key_horizon),
            self.is_rerun,
            &f.message,
            &f.endpoint,
            &f.run,
            &f.lease,
            &f.kind,
            &f.attempt,
            &f.number,
            &f.outcome,
            &f.status,
            &f.duration,
            &f.response as _,
            &f.url as _,
            &f.delay,
            &f.is_resent,
            &f.event as _,
        )
        .fetch_all(connection)
        .await
    }

    /// Sorts what the statement answered by what it is about; a message without a line was simply executed.
    fn read(&self, lines: Vec<Line>) -> (Vec<Decided>, Vec<usize>) {
        let mut decided = vec![Decided { verdict: Verdict::Executed, reference: None, is_mismatch: false }; self.new.len()];
        let mut late = Vec::new();
        for line in lines {
            let index = usize::try_from(line.o - 1);
            if line.outcome == LATE {
                late.extend(index);
            } else if let Some(place) = index.ok().and_then(|index| decided.get_mut(index)) {
                *place = Decided { verdict: Verdict::from_code(line.outcome), reference: line.r#ref, is_mismatch: line.is_mismatch };
            }
        }
        (decided, late)
    }
}

fn interval(length: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(length.as_micros()).unwrap_or(i64::MAX) }
}

/// One line of the statement's answer.
struct Line {
    /// The place in the batch, from 1.
    o: i32,
    outcome: i16,
    r#ref: Option<Uuid>,
    is_mismatch: bool,
}

fn owed(pending: &Pending, hand_off: Option<&HandOff>) -> Vec<Owed> {
    if pending.is_fanned_out_later() {
        return Vec::new();
    }
    pending
        .wanting()
        .map(|target| {
            let endpoint_id = target.endpoint.id;
            // Nothing is handed over that has to wait: the claim knows how long.
            let hand_off = hand_off.filter(|_| !target.is_paused);
            let slot = hand_off.and_then(|hand_off| hand_off.reserve(&target.endpoint, pending.new.payload.len()));
            Owed { endpoint_id, slot }
        })
        .collect()
}

/// The columns of the new messages: one array each, in the order of `step_v1`'s parameters.
#[derive(Default)]
struct Accept<'a> {
    id: Vec<Uuid>,
    tenant: Vec<Uuid>,
    application: Vec<Uuid>,
    event_type: Vec<&'a str>,
    event_id: Vec<Option<&'a str>>,
    channels: Vec<Option<String>>,
    message_key: Vec<Option<&'a str>>,
    payload: Vec<&'a [u8]>,
    content_type: Vec<&'a str>,
    payload_seconds: Vec<Option<f64>>,
    /// Empty if none has any.
    particulars: Vec<Option<&'a str>>,
    key: Vec<Option<Uuid>>,
    fingerprint: Vec<Option<Uuid>>,
    ttl: Vec<f64>,
    saves_conflict: Vec<bool>,
    event_id_hash: Vec<Option<Uuid>>,
    message_key_hash: Vec<Option<Uuid>>,
    digest: Vec<Uuid>,
    key_lock: Vec<Option<i64>>,
    event_id_lock: Vec<Option<i64>>,
    message_key_lock: Vec<Option<i64>>,
    distinct_application: Vec<Uuid>,
    version: Vec<i64>,
    owed_by: Vec<i32>,
    owed_to: Vec<Uuid>,
    is_leased: Vec<bool>,
    fanned_out: Vec<i32>,
    fanned_out_at: Vec<i64>,
    /// The task of each; null of a fan-out, which has the id of its message.
    broadcast: Vec<Option<Uuid>>,
}

impl<'a> Accept<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut columns = Self::default();
        for (ordinal, (pending, owed)) in (1..).zip(&batch.new) {
            columns.push(pending);
            for task in pending.tasks() {
                columns.fanned_out.push(ordinal);
                columns.fanned_out_at.push(pending.subscribers.application.version);
                columns.broadcast.push(task.map(Uuid::from));
            }
            for delivery in owed {
                columns.owed_by.push(ordinal);
                columns.owed_to.push(delivery.endpoint_id.into());
                columns.is_leased.push(delivery.slot.is_some());
            }
        }
        if batch.new.iter().any(|(pending, _)| pending.particulars.is_some()) {
            columns.particulars = batch.new.iter().map(|(pending, _)| pending.particulars.as_deref()).collect();
        }
        columns
    }

    fn push(&mut self, pending: &'a Pending) {
        let (new, application) = (&pending.new, &pending.subscribers.application);
        self.id.push(pending.id.into());
        self.tenant.push(application.tenant_id.into());
        self.application.push(application.id.into());
        self.event_type.push(&new.event_type);
        self.event_id.push(new.event_id.as_deref());
        self.channels.push(array_literal(&new.channels));
        self.message_key.push(new.message_key.as_deref());
        self.payload.push(&new.payload);
        self.content_type.push(&new.content_type);
        self.payload_seconds.push(new.payload_retention.map(|retention| retention.as_secs_f64()));
        self.key.push(pending.claim.map(|claim| claim.scope));
        self.fingerprint.push(pending.claim.map(|claim| claim.fingerprint));
        self.ttl.push(pending.claim.map_or(0.0, |claim| claim.policy.ttl.as_secs_f64()));
        self.saves_conflict.push(pending.claim.is_some_and(|claim| claim.policy.saves_status(409)));
        self.event_id_hash.push(pending.event_id_hash);
        self.message_key_hash.push(pending.message_key_hash);
        self.digest.push(pending.digest);
        self.key_lock.push(pending.claim.map(|claim| lock_id(KEY_LOCK, claim.scope)));
        self.event_id_lock.push(pending.event_id_hash.map(|hash| lock_id(EVENT_ID_LOCK, hash)));
        self.message_key_lock.push(pending.message_key_hash.map(|hash| lock_id(MESSAGE_KEY_LOCK, hash)));
        let (id, version) = (Uuid::from(application.id), application.version);
        let is_known = self.distinct_application.iter().zip(&self.version).any(|known| known == (&id, &version));
        if !is_known {
            self.distinct_application.push(id);
            self.version.push(version);
        }
    }
}

/// A `text[]` literal: arrays of arrays have no ragged form in Postgres. Channels hold only `[A-Za-z0-9-_.]`.
fn array_literal(names: &[String]) -> Option<String> {
    if names.is_empty() { None } else { Some(format!("{{\"{}\"}}", names.join("\",\""))) }
}

/// The columns of the finished sends: one array each, in the order of `step_v1`'s parameters.
#[derive(Default)]
struct Finished<'a> {
    message: Vec<Uuid>,
    endpoint: Vec<Uuid>,
    run: Vec<i32>,
    lease: Vec<Uuid>,
    kind: Vec<i16>,
    attempt: Vec<Uuid>,
    number: Vec<i16>,
    outcome: Vec<i16>,
    status: Vec<i16>,
    duration: Vec<i32>,
    response: Vec<&'a [u8]>,
    url: Vec<&'a str>,
    delay: Vec<f64>,
    is_resent: Vec<bool>,
    /// Empty if there is nothing to tell of any.
    event: Vec<Option<i16>>,
}

impl<'a> Finished<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut columns = Self::default();
        for finish in &batch.finished {
            columns.push(finish);
        }
        if batch.finished.iter().any(|finish| finish.event.is_some()) {
            columns.event = batch.finished.iter().map(|finish| finish.event.map(Kind::code)).collect();
        }
        columns
    }

    fn push(&mut self, finish: &'a Finish) {
        let (job, report) = (&finish.job, finish.report.as_ref());
        let (kind, delay) = match report.map(|report| report.next) {
            Some(Next::Finished) => (0, 0.0),
            Some(Next::Retry(wait)) => (1, wait.as_secs_f64()),
            None => (2, 0.0),
        };
        self.message.push(job.message_id.into());
        self.endpoint.push(job.endpoint_id.into());
        self.run.push(job.run);
        self.lease.push(job.lease);
        self.kind.push(kind);
        self.attempt.push(finish.attempt_id.into());
        self.number.push(job.number);
        self.outcome.push(report.map_or(0, |report| report.outcome.code()));
        self.status.push(report.map_or(0, |report| i16::try_from(report.status_code).unwrap_or(0)));
        self.duration.push(report.map_or(0, |report| i32::try_from(report.duration.as_millis()).unwrap_or(i32::MAX)));
        self.response.push(report.map_or(&[], |report| &report.response[..report.response.len().min(MAX_RESPONSE)]));
        self.url.push(report.map_or("", |report| &report.url));
        self.delay.push(delay);
        self.is_resent.push(report.is_some_and(|report| report.is_resent));
    }
}
