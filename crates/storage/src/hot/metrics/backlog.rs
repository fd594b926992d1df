//! What is owed, asked of the database at a scrape: rarely, cheaply, and never for long.

use std::time::{Duration, Instant};

use prometheus_client::registry::{Registry, Unit};
use tokio::sync::{Mutex, MutexGuard};

use super::{instruments::Reading, owed};
use crate::{Database, Error};

/// For how long an answer is good enough: many may scrape, and each scrape costs the database a few milliseconds.
const FRESH: Duration = Duration::from_secs(2);
/// How long the database may take; the statements give up by themselves a little earlier.
const PATIENCE: Duration = Duration::from_millis(1500);
/// What the last look brought.
#[derive(Debug)]
pub(super) struct Backlog {
    /// When that was.
    looked_at: Mutex<Option<Instant>>,
    database_up: Reading,
    due: Reading,
    held: Reading,
    throttled: Reading,
    leased: Reading,
    sleeping: Reading,
    oldest_due_age: Reading,
    endpoints_held: Reading,
    tasks: Reading,
    oldest_fan_out_age: Reading,
    own_events: Reading,
    workers: Reading,
    last_claim_age: Reading,
}

impl Backlog {
    pub(super) fn register(to: &mut Registry) -> Self {
        let reading = Reading::default;
        let backlog = Self {
            looked_at: Mutex::default(),
            database_up: reading(),
            due: reading(),
            held: reading(),
            throttled: reading(),
            leased: reading(),
            sleeping: reading(),
            oldest_due_age: reading(),
            endpoints_held: reading(),
            tasks: reading(),
            oldest_fan_out_age: reading(),
            own_events: reading(),
            workers: reading(),
            last_claim_age: reading(),
        };
        to.register(
            "database_up",
            "1 if the database answers this server in time and new messages can be written, else 0",
            backlog.database_up.clone(),
        );
        backlog.register_rows(to);
        let held = "Endpoints that the circuit breaker holds, on all nodes; counted up to 10000";
        to.register("endpoints_held", held, backlog.endpoints_held.clone());
        to.register("tasks_running", "Long work that is not over, on all nodes; counted up to 10000", backlog.tasks.clone());
        let age = "How long the oldest message waits for its fan-out to be over, on all nodes";
        to.register_with_unit("oldest_fan_out_age", age, Unit::Seconds, backlog.oldest_fan_out_age.clone());
        let waiting = "Operational events that have not been published, on all nodes; counted up to 10000";
        to.register("own_events_waiting", waiting, backlog.own_events.clone());
        let workers = "Processes that claim deliveries, on all nodes";
        to.register("workers", workers, backlog.workers.clone());
        let age = "How long ago a worker last looked for what is due, on all nodes, to within five seconds; not shown if none ever did";
        to.register_with_unit("last_claim_age", age, Unit::Seconds, backlog.last_claim_age.clone());
        backlog
    }

    fn register_rows(&self, to: &mut Registry) {
        let rows = |what| format!("Deliveries that are {what}, on all nodes; counted up to 10000, beyond that estimated");
        to.register("queue_due_rows", rows("due and wait for a worker"), self.due.clone());
        let held = "due to an endpoint that the circuit breaker holds or lets go on gradually, or that is disabled or deleted";
        to.register("queue_held_rows", rows(held), self.held.clone());
        to.register("queue_throttled_rows", rows("due to an endpoint that uses all of its throttle"), self.throttled.clone());
        to.register("queue_leased_rows", rows("being sent, or about to be"), self.leased.clone());
        to.register("queue_sleeping_rows", rows("asleep until their next attempt"), self.sleeping.clone());
        let age = "How long the oldest delivery that is due has been waiting, on all nodes; what is held or throttled is left out";
        to.register_with_unit("oldest_due_age", age, Unit::Seconds, self.oldest_due_age.clone());
    }

    /// Looks again if the last look is too old. The readings do not change while the guard is held.
    pub(super) async fn read(&self, db: &Database, is_writable: bool) -> MutexGuard<'_, Option<Instant>> {
        let mut looked_at = self.looked_at.lock().await;
        if looked_at.is_none_or(|at| at.elapsed() > FRESH) {
            let owed = tokio::time::timeout(PATIENCE, owed::look(db)).await.unwrap_or(Err(Error::Unavailable(None)));
            // A look that took too long leaves the queue unknown; only silence means that the database is away.
            let is_up = match &owed {
                Ok(_) => true,
                Err(error) => answers(error),
            };
            let owed = owed.ok();
            self.database_up.set(Some(f64::from(u8::from(is_up))));
            let owed = owed.as_ref();
            self.due.set(owed.map(|owed| owed.due));
            self.held.set(owed.map(|owed| owed.held));
            self.throttled.set(owed.map(|owed| owed.throttled));
            self.leased.set(owed.map(|owed| owed.leased));
            self.sleeping.set(owed.map(|owed| owed.sleeping));
            self.oldest_due_age.set(owed.map(|owed| owed.oldest_due_age));
            self.endpoints_held.set(owed.map(|owed| owed.endpoints_held));
            self.tasks.set(owed.map(|owed| owed.tasks.running));
            self.oldest_fan_out_age.set(owed.map(|owed| owed.tasks.oldest_fan_out_age));
            self.own_events.set(owed.map(|owed| owed.tasks.own_events));
            #[expect(clippy::cast_precision_loss, reason = "nobody runs so many")]
            self.workers.set(owed.map(|owed| owed.census.workers as f64));
            self.last_claim_age.set(owed.and_then(|owed| owed.census.last_claim_age));
            *looked_at = Some(Instant::now());
        }
        if !is_writable {
            self.database_up.set(Some(0.0));
        }
        looked_at
    }
}

/// Whether an error is an answer of the server's own, such as SQLSTATE 57014 (`query_canceled`, by its time limit).
fn answers(error: &Error) -> bool {
    let cause = match error {
        Error::Unavailable(cause) => cause.as_ref(),
        Error::Database(cause) => Some(cause),
        _ => None,
    };
    cause.and_then(sqlx::Error::as_database_error).is_some_and(|error| error.code().as_deref() == Some("57014"))
}
