//! What this server counts, and how a scrape shows it.
//!
//! One registry per server, no global recorder: a process may run several servers, and globals hide who counts what. The hot
//! path only adds to atomics that were resolved at the start; [`backlog`] asks the database, once every few seconds at most.
//! Labels come from closed sets alone ([`instruments::Kind`]), so that nothing that a user wrote can become one.

mod backlog;
mod instruments;
mod kinds;
mod owed;

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::delivery::{AttemptClass, Next, Outcome, Trigger};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use self::{
    backlog::Backlog,
    instruments::{CounterOf, Distribution, Reading},
    kinds::{Ending, Refusal, StatusClass},
};
use crate::{
    Database, Error,
    hand_off::{HandOff, Job},
    report::Report,
};

/// The media type of [`scrape`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What the names of our metrics begin with.
const PREFIX: &str = "posthaste";
/// Microseconds from 1 ms to 1 h: a lone message takes a few milliseconds, a retried one minutes.
const DELIVERY_BOUNDS: &[u64] = &[
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
];
/// Microseconds: one fsync of a fast disk takes a tenth of a millisecond, of a slow one tens.
const COMMIT_BOUNDS: &[u64] = &[500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];
/// Up to the most that one batch takes.
const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Everything that one server counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages_accepted: Counter,
    messages_duplicate: Counter,
    message_key_mismatches: Counter,
    messages_refused: CounterOf<Refusal>,
    idempotency_replays: Counter,
    idempotency_mismatches: Counter,
    idempotency_in_progress: Counter,
    idempotency_mistaken_keys: Counter,
    sources_unverified: Counter,
    deliveries_finished: CounterOf<Ending>,
    attempts: CounterOf<AttemptClass>,
    results_late: Counter,
    sends_put_off: Counter,
    accept_to_delivered: Distribution,
    batch_messages: Distribution,
    batch_results: Distribution,
    commit_duration: Distribution,
    batches_overdue: Counter,
    statistics_left_out: Counter,
    batch_age: Reading,
    api_requests: CounterOf<StatusClass>,
    sends_in_flight: Gauge,
    jobs_handed_over: Reading,
    jobs_claimed: Reading,
    endpoints_unreadable: Reading,
    endpoints_put_off: Reading,
    partitions_expired: Reading,
    /// Where the jobs of this process are counted; an API without a worker has none.
    hand_off: Mutex<Option<HandOff>>,
    backlog: Backlog,
}

impl Metrics {
    /// Every instrument at zero, registered under its name.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("build", "Which release this is", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let microseconds = |bounds| Distribution::new(bounds, 1e6);
        let metrics = Self {
            messages_accepted: Counter::default(),
            messages_duplicate: Counter::default(),
            message_key_mismatches: Counter::default(),
            messages_refused: CounterOf::default(),
            idempotency_replays: Counter::default(),
            idempotency_mismatches: Counter::default(),
            idempotency_in_progress: Counter::default(),
            idempotency_mistaken_keys: Counter::default(),
            sources_unverified: Counter::default(),
            deliveries_finished: CounterOf::default(),
            attempts: CounterOf::default(),
            results_late: Counter::default(),
            sends_put_off: Counter::default(),
            accept_to_delivered: microseconds(DELIVERY_BOUNDS),
            batch_messages: Distribution::new(BATCH_BOUNDS, 1.0),
            batch_results: Distribution::new(BATCH_BOUNDS, 1.0),
            commit_duration: microseconds(COMMIT_BOUNDS),
            batches_overdue: Counter::default(),
            statistics_left_out: Counter::default(),
            batch_age: Reading::default(),
            api_requests: CounterOf::default(),
            sends_in_flight: Gauge::default(),
            jobs_handed_over: Reading::default(),
            jobs_claimed: Reading::default(),
            endpoints_unreadable: Reading::default(),
            endpoints_put_off: Reading::default(),
            partitions_expired: Reading::default(),
            hand_off: Mutex::default(),
            backlog: Backlog::register(&mut registry),
            registry: Registry::default(),
        };
        metrics.register_messages(&mut registry);
        metrics.register_deliveries(&mut registry);
        metrics.register_machinery(&mut registry);
        Self { registry, ..metrics }
    }

    fn register_messages(&self, to: &mut Registry) {
        to.register("messages_accepted", "Messages stored, duplicates included", self.messages_accepted.clone());
        to.register("messages_duplicate", "Messages stored as duplicates and not delivered", self.messages_duplicate.clone());
        let mismatches = "Duplicates whose payload is not that of the first message with their key";
        to.register("message_key_mismatches", mismatches, self.message_key_mismatches.clone());
        to.register("messages_refused", "Messages refused though nothing was wrong with them, by reason", self.messages_refused.clone());
        to.register("idempotency_replays", "Requests answered with a saved outcome", self.idempotency_replays.clone());
        let mismatches = "Requests refused (422) since their key was used with another request";
        to.register("idempotency_mismatches", mismatches, self.idempotency_mismatches.clone());
        let in_progress = "Requests told to wait (409) since the first one with their key was running";
        to.register("idempotency_in_progress", in_progress, self.idempotency_in_progress.clone());
        let mistaken = "Requests whose key is what a client's mistake looks like, such as `undefined`";
        to.register("idempotency_mistaken_keys", mistaken, self.idempotency_mistaken_keys.clone());
        to.register("sources_unverified", "Requests to sources that did not prove who sent them", self.sources_unverified.clone());
    }

    fn register_deliveries(&self, to: &mut Registry) {
        let finished = "Deliveries that ended, by result; a resend is a delivery of its own";
        to.register("deliveries_finished", finished, self.deliveries_finished.clone());
        to.register("attempts", "Attempts to deliver, by what came back", self.attempts.clone());
        to.register("results_late", "Results of sends that came after their lease and were dropped", self.results_late.clone());
        let put_off = "Sends that came to nothing by our own fault (the operator's proxy): no attempts, and tried again";
        to.register("sends_put_off", put_off, self.sends_put_off.clone());
        let waited =
            "From the acceptance of a message, or the release of a duplicate, to the 2xx of its receiver, retries included, resends not";
        to.register_with_unit("accept_to_delivered", waited, Unit::Seconds, self.accept_to_delivered.clone());
    }

    fn register_machinery(&self, to: &mut Registry) {
        to.register("batch_messages", "New messages per batch of the committer that held any", self.batch_messages.clone());
        to.register("batch_results", "Finished sends per batch of the committer that held any", self.batch_results.clone());
        let commit = "How long the statement of a batch took, its commit included";
        to.register_with_unit("commit_duration", commit, Unit::Seconds, self.commit_duration.clone());
        let overdue = "Batches that were not written within five seconds, as long as publishers wait";
        to.register("batches_overdue", overdue, self.batches_overdue.clone());
        let left_out = "Events that the statistics lack, since too much was waiting to be added to them";
        to.register("statistics_left_out", left_out, self.statistics_left_out.clone());
        let age = "How long the batch at hand has been waiting to be written; 0 if there is none";
        to.register_with_unit("batch_age", age, Unit::Seconds, self.batch_age.clone());
        to.register("api_requests", "Requests answered, by class of the status code; scrapes included", self.api_requests.clone());
        to.register("sends_in_flight", "Requests to receivers that are under way", self.sends_in_flight.clone());
        let handed = "Deliveries in memory, fresh from their message's commit: being sent, or waiting for their endpoint's turn";
        to.register("jobs_handed_over", handed, self.jobs_handed_over.clone());
        let claimed = "Deliveries in memory that were claimed from the queue: being sent, or waiting for their endpoint's turn";
        to.register("jobs_claimed", claimed, self.jobs_claimed.clone());
        let unreadable = "Endpoints whose secrets or headers this process cannot open: what they are owed waits, for another process or the right secret";
        to.register("endpoints_unreadable", unreadable, self.endpoints_unreadable.clone());
        let put_off = "Endpoints that this process leaves alone for the moment, since it could not call them by its own fault";
        to.register("endpoints_put_off", put_off, self.endpoints_put_off.clone());
        let expired = "Partitions past their time that are still there, on all nodes, when upkeep last looked";
        to.register("partitions_expired", expired, self.partitions_expired.clone());
    }

    /// An HTTP request to the API was answered with this status.
    pub fn answered(&self, status: u16) {
        self.api_requests.add(StatusClass(status), 1);
    }

    /// Counts a request to a receiver as under way until the value is dropped.
    pub fn sending(&self) -> Sending<'_> {
        self.sends_in_flight.inc();
        Sending(self)
    }

    /// A send has ended, at `now`. Outcomes without a request are no attempts.
    pub fn attempted(&self, job: &Job, outcome: Outcome, class: AttemptClass, now: DateTime<Utc>) {
        if matches!(outcome, Outcome::Succeeded | Outcome::Failed) {
            self.attempts.add(class, 1);
        }
        if outcome == Outcome::Succeeded && job.trigger == Trigger::Scheduled {
            let waited = (now - job.owed_since).num_microseconds().unwrap_or(0);
            self.accept_to_delivered.observe(u64::try_from(waited).unwrap_or(0));
        }
    }

    /// A send came to nothing by our own fault.
    pub(crate) fn put_off(&self) {
        self.sends_put_off.inc();
    }

    /// The claimer found deliveries whose workers had died while sending: some are leased anew, the others given up.
    pub(crate) fn rescued(&self, leased_anew: u64, given_up: u64) {
        self.attempts.add(AttemptClass::Unknown, leased_anew + given_up);
        self.deliveries_finished.add(Ending::Failed, given_up);
    }

    /// Deliveries of endpoints that are off were ended.
    pub(crate) fn canceled(&self, count: u64) {
        self.deliveries_finished.add(Ending::Canceled, count);
    }

    /// Where the jobs of this process are counted.
    pub(crate) fn watch(&self, hand_off: HandOff) {
        *self.hand_off.lock() = Some(hand_off);
    }

    /// Counts the batches that take too long.
    pub(crate) fn batches_overdue(&self) -> Counter {
        self.batches_overdue.clone()
    }

    /// Counts what the statistics lack.
    pub(crate) fn statistics_left_out(&self) -> Counter {
        self.statistics_left_out.clone()
    }

    /// A batch was committed.
    pub(crate) fn committed(&self, messages: usize, results: usize, took: Duration) {
        for (distribution, count) in [(&self.batch_messages, messages), (&self.batch_results, results)] {
            if count > 0 {
                distribution.observe(count as u64);
            }
        }
        self.commit_duration.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A message was stored.
    pub(crate) fn accepted(&self, is_duplicate: bool, is_mismatch: bool) {
        self.messages_accepted.inc();
        self.messages_duplicate.inc_by(is_duplicate.into());
        self.message_key_mismatches.inc_by(is_mismatch.into());
    }

    /// A request to a source did not prove who sent it.
    pub fn unverified(&self) {
        self.sources_unverified.inc();
    }

    /// A request carried an idempotency key that looks like a client's mistake.
    pub fn mistaken_key(&self) {
        self.idempotency_mistaken_keys.inc();
    }

    /// The result of a send was recorded.
    pub(crate) fn recorded(&self, report: &Report) {
        if report.next == Next::Finished
            && let Some(ending) = Ending::of(report.outcome)
        {
            self.deliveries_finished.add(ending, 1);
        }
    }

    /// Results came after their leases.
    pub(crate) fn dropped_late(&self, count: usize) {
        self.results_late.inc_by(count as u64);
    }

    /// A publisher learns what became of its message.
    pub(crate) fn settled(&self, error: Option<&Error>) {
        let refusal = match error {
            Some(Error::Overloaded) => Refusal::Overloaded,
            Some(Error::Unavailable(_)) => Refusal::Unavailable,
            Some(Error::Sealed | Error::Unusable(_) | Error::Database(_)) => Refusal::Failed,
            _ => return,
        };
        self.messages_refused.add(refusal, 1);
    }

    /// Everything that this server counts, in the OpenMetrics text format. It never fails: what the database does not tell in
    /// time is left out.
    pub(crate) async fn scrape(&self, db: &Database, is_writable: bool, batch_age: Duration) -> String {
        let _backlog = self.backlog.read(db, is_writable).await;
        let hand_off = self.hand_off.lock().clone();
        let (jobs, gates) = hand_off.as_ref().map(|hand_off| (hand_off.jobs(), hand_off.gates())).unzip();
        #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
        let shown = |count: usize| count as f64;
        self.jobs_handed_over.set(jobs.map(|jobs| shown(jobs.handed)));
        self.endpoints_unreadable.set(gates.map(|gates| shown(gates.unreadable().len())));
        self.partitions_expired.set(db.expired_partitions().map(shown));
        self.endpoints_put_off.set(gates.map(|gates| shown(gates.put_off.all().len())));
        self.batch_age.set(Some(batch_age.as_secs_f64()));
        self.jobs_claimed.set(jobs.map(|jobs| shown(jobs.claimed)));
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }

    /// A request under an idempotency key is answered.
    pub(crate) fn keyed(&self, is_replay: bool, error: Option<&Error>) {
        self.idempotency_replays.inc_by(is_replay.into());
        match error {
            Some(Error::KeyReused) => _ = self.idempotency_mismatches.inc(),
            Some(Error::KeyInProgress) => _ = self.idempotency_in_progress.inc(),
            _ => {}
        }
    }
}

/// A request to a receiver that is under way.
#[derive(Debug)]
pub struct Sending<'a>(&'a Metrics);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sends_in_flight.dec();
    }
}
