//! One delivery from look-up to result: the heart of the worker.
//!
//! No database connection is held while a webhook is on its way, and every job ends in exactly one of three ways: its result
//! is recorded, it is handed back, or (if this process dies) its lease runs out and another node finds it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    delivery::{self, Exchange, Next, Outcome, Silence, Trigger},
    egress_policy::EgressPolicy,
    id::EndpointId,
    project::Rules,
    retry::RetrySchedule,
};
use storage::{
    Db,
    committer::{Completer, Report},
    directory::{self, Subscribers, Target},
    endpoints,
    hand_off::Job,
    health::Health,
};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    Config,
    egress::Egress,
    lanes::{Lanes, Place},
    request::{Preparations, SignatureHeaders, Webhook},
    stopped,
    terms::Terms,
    way_out::WayOut,
};

/// How long an endpoint is looked up before its job is handed back.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(5);
/// The rest between two look-ups that failed.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(200);
/// How long a gone endpoint may take to be switched off before its result is recorded all the same.
const DISABLE_PATIENCE: Duration = Duration::from_secs(2);
/// What a delivery may take after the exchange: time for its result to be recorded before the lease runs out.
const RESERVE: Duration = Duration::from_secs(5);

/// Makes deliveries.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    db: Db,
    completer: Completer,
    egress: Egress,
    preparations: Preparations,
    lanes: Lanes,
    health: Arc<Health>,
    way_out: WayOut,
    schedule: RetrySchedule,
    signature_headers: SignatureHeaders,
    request_timeout: Duration,
    is_stopping: watch::Receiver<bool>,
    /// Whether look-ups are failing: an outage is logged once, not once per job.
    is_blind: AtomicBool,
}

impl Dispatcher {
    pub(crate) fn new(config: Config, db: Db, completer: Completer, health: Arc<Health>, is_stopping: watch::Receiver<bool>) -> Self {
        Self {
            db,
            completer,
            egress: Egress::new(EgressPolicy::new(config.egress_allow), &config.egress_ca, config.egress_proxy, config.request_timeout),
            preparations: Preparations::default(),
            lanes: Lanes::new(crate::limits().per_endpoint),
            way_out: WayOut::new(Arc::clone(&health)),
            health,
            schedule: config.schedule,
            signature_headers: config.signature_headers,
            request_timeout: config.request_timeout,
            is_stopping,
            is_blind: AtomicBool::new(false),
        }
    }

    /// The longest that a job may be in our hands, waiting included.
    pub(crate) fn patience(&self) -> Duration {
        crate::lease(self.request_timeout).saturating_sub(RESERVE)
    }

    /// Makes one delivery.
    pub(crate) async fn deliver(&self, job: Job) {
        let in_hand = InHand::new(self, job);
        let mut place = self.lanes.enter(in_hand.job().endpoint_id);
        if !self.is_our_turn(&mut place, in_hand.job()).await || self.health.holds(in_hand.job()) {
            return in_hand.hand_back();
        }
        let Some(Found(subscribers)) = self.look_up(in_hand.job()).await else { return in_hand.hand_back() };
        let found = subscribers.as_ref().and_then(|subscribers| Some((subscribers, subscribers.target(in_hand.job().endpoint_id)?)));
        let Some((subscribers, target)) = found else {
            in_hand.job().is_to_nobody();
            return in_hand.end(Outcome::Canceled, "canceled: the endpoint has been deleted");
        };
        let mut in_hand = in_hand.to(target);
        if target.endpoint.is_disabled {
            in_hand.job().is_to_nobody();
            return in_hand.end(Outcome::Canceled, "canceled: the endpoint is disabled");
        }
        let Some(payload) = in_hand.job().payload.clone() else {
            return in_hand.end(Outcome::Discarded, "discarded: the content of the message has been removed");
        };
        if target.is_paused {
            self.hold(in_hand.job().endpoint_id);
            return in_hand.hand_back();
        }
        if target.is_unreadable {
            self.leave_to_others(in_hand.job());
            return in_hand.hand_back();
        }
        if *self.is_stopping.borrow() {
            return in_hand.hand_back();
        }
        let rules = &subscribers.project;
        let terms = Terms::of(&target.endpoint.settings, rules, self.request_timeout, &self.schedule);
        let Some(exchange) = self.send(in_hand.job(), target, rules, &terms, payload).await else {
            self.hold(in_hand.job().endpoint_id);
            return in_hand.hand_back();
        };
        if exchange.is_gone() {
            Box::pin(self.switch_off(&mut in_hand)).await;
        } else if self.health.note(in_hand.job(), exchange.is_success()) {
            self.hold(in_hand.job().endpoint_id);
        }
        in_hand.finish(exchange, &terms.schedule);
    }

    /// An endpoint whose secrets we cannot open is not sent to, least of all unsigned. It is said once.
    fn leave_to_others(&self, job: &Job) {
        if self.health.cannot_open(job.endpoint_id) {
            let names = directory::names(&self.db, job.owner());
            tracing::error!(tenant = names.tenant(), application_id = %job.application_id, application_uid = names.application_uid(),
                endpoint_id = %job.endpoint_id,
                "cannot open the secrets or headers of an endpoint: what it is owed waits for the main secret that sealed them");
        }
        self.hold(job.endpoint_id);
    }

    /// Hands back what waits for an endpoint that is held from now on.
    pub(crate) fn hold(&self, endpoint_id: EndpointId) {
        self.lanes.clear(endpoint_id);
    }

    /// Waits until the endpoint's lane has room; `false` if the worker stops, the endpoint is held, or the lease is nearly over.
    /// A result must be recorded under a live lease, so what might come too late is left to its next holder.
    async fn is_our_turn(&self, place: &mut Place<'_>, job: &Job) -> bool {
        let needed = LOOK_UP_PATIENCE + self.request_timeout + DISABLE_PATIENCE + RESERVE;
        let Some(latest) = job.lease_ends.checked_sub(needed).filter(|latest| *latest > Instant::now()) else { return false };
        tokio::select! {
            biased;
            is_turn = place.turn() => is_turn,
            () = sleep_until(latest.into()) => false,
            () = stopped(self.is_stopping.clone()) => false,
        }
    }

    /// The customer's endpoints, at least as new as the job; `None` if the database does not answer or the worker stops. An
    /// application that is gone has no endpoints.
    async fn look_up(&self, job: &Job) -> Option<Found> {
        let asking = async {
            loop {
                match directory::at_least(&self.db, job.application_id, job.version).await {
                    Ok(subscribers) => return Found(Some(subscribers)),
                    Err(storage::Error::NotFound(_)) => return Found(None),
                    Err(error) => self.note_outage(&error),
                }
                sleep(LOOK_UP_PAUSE).await;
            }
        };
        let found = tokio::select! {
            biased;
            found = timeout(LOOK_UP_PATIENCE, asking) => found.ok()?,
            () = stopped(self.is_stopping.clone()) => return None,
        };
        if self.is_blind.load(Ordering::Relaxed) && self.is_blind.swap(false, Ordering::Relaxed) {
            tracing::info!("endpoints can be looked up again");
        }
        Some(found)
    }

    fn note_outage(&self, error: &storage::Error) {
        if !self.is_blind.swap(true, Ordering::Relaxed) {
            tracing::error!(error = error as &dyn std::error::Error, "cannot look up endpoints; deliveries wait until it works");
        }
    }

    /// What the receiver did; `None`, if it was not called by our own fault.
    async fn send(&self, job: &Job, target: &Arc<Target>, rules: &Rules, terms: &Terms<'_>, payload: Bytes) -> Option<Exchange> {
        let now = self.db.now();
        let webhook = Webhook {
            message_id: job.message_id,
            number: job.number,
            redelivery_until: redelivery_until(job, terms, now),
            payload,
            content_type: &job.content_type,
            headers: job.particulars.as_ref().map_or(&[], |particulars| &particulars.headers),
            delivery_key: &job.delivery_key,
        };
        let prepared = match self.preparations.of(target, rules) {
            Ok(prepared) => prepared,
            Err(uncallable) => return Some(no_response(uncallable.to_string(), Duration::ZERO)),
        };
        let sending = self.db.metrics().sending();
        let sent =
            self.egress.send(terms.timeout, |sending| prepared.request(&webhook, target, now, self.signature_headers, sending)).await;
        drop(sending);
        self.way_out.judge(job, sent, &self.egress)
    }

    /// Switches an endpoint off whose receiver answered 410. The attempt is recorded after that, so that whoever sees it finds
    /// the endpoint disabled; if it cannot be done, the next 410 tries again.
    async fn switch_off(&self, in_hand: &mut InHand<'_>) {
        let job = in_hand.job();
        let names = directory::names(&self.db, job.owner());
        let error = match timeout(DISABLE_PATIENCE, endpoints::disable(&self.db, job.endpoint_id)).await {
            Ok(Ok(())) => {
                return tracing::info!(tenant = names.tenant(), application_id = %job.application_id,
                    application_uid = names.application_uid(), endpoint_id = %job.endpoint_id, "disabled an endpoint that is gone");
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let error = error.as_ref().map(|error| error as &dyn std::error::Error);
        tracing::error!(error, tenant = names.tenant(), application_id = %job.application_id, application_uid = names.application_uid(),
            endpoint_id = %job.endpoint_id, "cannot disable an endpoint that is gone");
    }
}

/// What a look-up brought; nothing, if the application is gone.
struct Found(Option<Arc<Subscribers>>);

/// When the last automatic attempt ends at the latest, if this one begins now and all fail; nothing is repeated of a resend.
fn redelivery_until(job: &Job, terms: &Terms<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let number = u32::try_from(job.number).unwrap_or(0);
    let left = (job.trigger == Trigger::Scheduled).then(|| terms.schedule.longest_from(number, terms.timeout))?;
    now.checked_add_signed(TimeDelta::from_std(left).ok()?)
}

fn no_response(why: impl Into<Bytes>, duration: Duration) -> Exchange {
    Exchange {
        status_code: 0,
        response: why.into(),
        duration,
        retry_after: None,
        silence: Some(Silence::Other),
        remark: None,
        is_resent: false,
    }
}

/// A job in our hands. If it is dropped before it is finished or handed back (a panic, a time-out of the whole delivery), nothing is
/// recorded: that is no failure of the receiver's. When its lease runs out, the claim treats it as it treats the job of a worker that
/// died: an attempt of outcome "unknown", another try, and the end after three in a row. So it is neither lost nor tried over and over.
struct InHand<'a> {
    dispatcher: &'a Dispatcher,
    job: Option<Job>,
    url: String,
}

impl<'a> InHand<'a> {
    fn new(dispatcher: &'a Dispatcher, job: Job) -> Self {
        Self { dispatcher, job: Some(job), url: String::new() }
    }

    fn to(mut self, target: &Target) -> Self {
        target.endpoint.url.as_str().clone_into(&mut self.url);
        self
    }

    fn job(&self) -> &Job {
        self.job.as_ref().expect("only the methods that consume the holder take the job out")
    }

    /// Hands the job back unsent.
    fn hand_back(mut self) {
        if let Some(job) = self.job.take() {
            tracing::debug!(application_id = %job.application_id, message_id = %job.message_id, endpoint_id = %job.endpoint_id, number = job.number, "handed back");
            self.dispatcher.completer.hand_back(job);
        }
    }

    /// Ends the delivery without a request. If it was a probe, the next delivery is to be one.
    fn end(mut self, outcome: Outcome, why: &'static str) {
        if self.job().is_probe() {
            self.dispatcher.health.note(self.job(), true);
        }
        self.record(no_response(Bytes::from_static(why.as_bytes()), Duration::ZERO), outcome, Next::Finished);
    }

    /// Records what a receiver did, and decides what follows.
    fn finish(mut self, exchange: Exchange, schedule: &RetrySchedule) {
        self.decide(exchange, schedule);
    }

    fn decide(&mut self, exchange: Exchange, schedule: &RetrySchedule) {
        let Some(job) = &self.job else { return };
        let (outcome, next) = delivery::after(&exchange, job.trigger, job.number, schedule, rand::random());
        self.record(exchange, outcome, next);
    }

    fn record(&mut self, exchange: Exchange, outcome: Outcome, next: Next) {
        let Some(job) = self.job.take() else { return };
        log(&self.dispatcher.db, &job, &exchange, outcome);
        let class = exchange.class();
        self.dispatcher.db.metrics().attempted(&job, outcome, class, self.dispatcher.db.now());
        let Exchange { status_code, response, duration, is_resent, .. } = exchange;
        let url = std::mem::take(&mut self.url);
        self.dispatcher.completer.complete(job, Report { outcome, class, status_code, response, duration, url, is_resent, next });
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let Some(job) = &self.job else { return };
        let why = if std::thread::panicking() { "a panic" } else { "it took too long" };
        let names = directory::names(&self.dispatcher.db, job.owner());
        tracing::error!(
            tenant = names.tenant(), application_id = %job.application_id, application_uid = names.application_uid(),
            message_id = %job.message_id, endpoint_id = %job.endpoint_id, number = job.number, why,
            "a delivery broke off by our own fault: it is tried again when its lease has run out"
        );
    }
}

/// Successes at `debug`, all else at `info`; of a response only its status, since its text is the customer's.
fn log(db: &Db, job: &Job, exchange: &Exchange, outcome: Outcome) {
    let is_success = outcome == Outcome::Succeeded;
    if is_success && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let names = directory::names(db, job.owner());
    let (tenant, application_id, application_uid) = (names.tenant(), job.application_id, names.application_uid());
    let (message_id, endpoint_id, number) = (job.message_id, job.endpoint_id, job.number);
    let (status, duration) = (exchange.status_code, exchange.duration);
    let remark = exchange.remark.as_deref();
    if is_success {
        tracing::debug!(tenant, %application_id, application_uid, %message_id, %endpoint_id, number, status, ?duration, why = remark, "delivered");
    } else {
        let our_words = (status == 0 && remark.is_none()).then(|| String::from_utf8_lossy(&exchange.response));
        let why = remark.or(our_words.as_deref());
        tracing::info!(
            tenant, %application_id, application_uid, %message_id, %endpoint_id, number, status, ?duration, ?outcome, why, "not delivered"
        );
    }
}
