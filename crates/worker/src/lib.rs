//! Sends webhooks: takes the jobs that storage leases to this process, calls the customers, and hands the results back.
//!
//! Dramatis personae, in reading order:
//! [`dispatch`] the heart: one delivery from look-up to result · [`request`] headers, body and signature of one attempt ·
//! [`egress`] the HTTP client that calls nobody whom the policy forbids · [`way_out`] whose fault it is that a proxy did not let us
//! through · [`lanes`] no more than so many sends per endpoint ·
//! [`queue`] the apalis runtime that runs one task per delivery · [`claimer`] fetches what nobody handed over: retries,
//! overflow, the rows of dead nodes · [`health`] tells the other nodes which endpoints fail, and hears it from them ·
//! [`own_events`] publishes what tenants are to hear of their own things ·
//! [`terms`] by what the deliveries to an endpoint go ·
//! [`tasks`] does long work step by step · [`upkeep`] makes and drops partitions by the hour.
//!
//! What a receiver did is a value and never an `Err`; an `Err` in here means that our own infrastructure failed, and then a
//! job is handed back or tried again, never lost.

mod claimer;
mod dispatch;
mod egress;
mod health;
mod lanes;
mod own_events;
mod queue;
mod request;
mod tasks;
mod terms;
mod upkeep;
mod way_out;

use std::{sync::Arc, time::Duration};

use domain::retry::RetrySchedule;
use ipnet::IpNet;
use storage::{
    Db,
    committer::Completer,
    hand_off::{HandOff, Jobs, Limits},
    health::Health,
    outbox::Outbox,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::dispatch::Dispatcher;
pub use crate::{
    egress::{Authorities, InvalidAuthorities, InvalidProxy, Proxy},
    request::SignatureHeaders,
};

/// How long a stop waits for a claim that is under way: one that is cut off would keep its rows leased for nothing.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
/// By how much a stop may outlast the request timeout: the claim, and a little for the results.
const STOP_PATIENCE: Duration = Duration::from_millis(2500);
/// How long a stop waits for the last word on the endpoints' health.
const HEALTH_PATIENCE: Duration = Duration::from_millis(500);

/// How webhooks are sent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Networks that may be called although they are not on the public internet.
    pub egress_allow: Vec<IpNet>,
    /// Certificates of private authorities that receivers may have theirs from.
    pub egress_ca: Authorities,
    /// The proxy through which receivers are called.
    pub egress_proxy: Option<Proxy>,
    /// The waits between attempts.
    pub schedule: RetrySchedule,
    /// The deadline of one attempt, from look-up of the name to the last byte of the response.
    pub request_timeout: Duration,
    /// Under which names the signature is sent.
    pub signature_headers: SignatureHeaders,
    /// How long messages and attempts are kept.
    pub retention: Duration,
}

/// For how long a job is leased: twice the request timeout, and half a minute for the way in and the way back.
///
/// A lease is only ever a way to find the jobs of a dead node: while this process lives, it ends every job in time.
pub fn lease(request_timeout: Duration) -> Duration {
    request_timeout * 2 + Duration::from_secs(30)
}

/// How many jobs may be in this process: per endpoint, so that a dead one cannot fill it, and in all.
pub fn limits() -> Limits {
    Limits { per_endpoint: 64, in_all: 4096 }
}

/// The running worker. Dropped without [`Worker::stop`], it stops claiming but goes on with what it has.
#[derive(Debug)]
pub struct Worker {
    stopping: watch::Sender<bool>,
    hand_off: HandOff,
    request_timeout: Duration,
    claiming: JoinHandle<()>,
    sending: JoinHandle<()>,
    health: Arc<Health>,
    telling: JoinHandle<()>,
    looking: JoinHandle<()>,
    tasks: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    own_events: JoinHandle<()>,
}

/// Starts to claim and to send. Must be called inside a tokio runtime.
pub fn start(config: Config, db: Db, completer: Completer, hand_off: HandOff, jobs: Jobs, outbox: Outbox) -> Worker {
    let (stopping, is_stopping) = watch::channel(false);
    let request_timeout = config.request_timeout;
    let claiming = claimer::run(db.clone(), hand_off.clone(), lease(request_timeout), is_stopping.clone());
    let terms = upkeep::Terms { retention: config.retention, lease: lease(request_timeout), longest_wait: config.schedule.longest_wait() };
    let upkeep = upkeep::run(db.clone(), terms);
    let own_events = own_events::run(outbox, is_stopping.clone());
    let tasks = tasks::run(db.clone(), is_stopping.clone());
    let health = Arc::new(Health::new(&db, &hand_off));
    let dispatcher = Arc::new(Dispatcher::new(config, db, completer.clone(), Arc::clone(&health), is_stopping.clone()));
    Worker {
        stopping,
        hand_off,
        request_timeout,
        claiming: tokio::spawn(claiming),
        telling: tokio::spawn(health::run(Arc::clone(&health), Arc::clone(&dispatcher))),
        looking: tokio::spawn(health::look_after_the_unreadable(Arc::clone(&health))),
        sending: queue::start(jobs, completer, dispatcher, is_stopping),
        health,
        tasks: tokio::spawn(tasks),
        upkeep: tokio::spawn(upkeep),
        own_events: tokio::spawn(own_events),
    }
}

impl Worker {
    /// Stops in two steps: nothing more is claimed or begun, and what has not begun is handed back; then what is being sent
    /// finishes. Takes at most the request timeout and three seconds.
    pub async fn stop(self) {
        let Self {
            stopping,
            hand_off,
            request_timeout,
            mut claiming,
            mut sending,
            health,
            telling,
            looking,
            mut tasks,
            upkeep,
            mut own_events,
        } = self;
        let begun = Instant::now();
        stopping.send_replace(true);
        upkeep.abort();
        looking.abort();
        if timeout_at(begun + CLAIM_PATIENCE, &mut claiming).await.is_err() {
            claiming.abort();
        }
        if timeout_at(begun + CLAIM_PATIENCE, &mut tasks).await.is_err() {
            tasks.abort();
        }
        hand_off.close();
        if timeout_at(begun + CLAIM_PATIENCE, &mut own_events).await.is_err() {
            own_events.abort();
        }
        if timeout_at(begun + request_timeout + STOP_PATIENCE, &mut sending).await.is_err() {
            tracing::error!("deliveries did not finish in time: they will be found by their leases and repeated");
        }
        telling.abort();
        if !matches!(timeout(HEALTH_PATIENCE, health.exchange()).await, Ok(Ok(_))) {
            tracing::debug!("what the last sends said of their endpoints was not shared");
        }
    }
}

/// Returns when the worker is stopping, or its handle is gone.
async fn stopped(mut is_stopping: watch::Receiver<bool>) {
    // An error means that the sender was dropped: there is nobody left to work for.
    let _ = is_stopping.wait_for(|is_stopping| *is_stopping).await;
}
