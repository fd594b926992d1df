//! What is still owed, when nobody hands it over: claim, promote, rescue.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use domain::{
    delivery::{AttemptClass, Trigger},
    health::THROTTLE_SLACK,
    id::{EndpointId, Id, MessageId, TenantId},
    statistics::End,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use crate::{
    Db, Error, Result, cancel,
    connection::Connection,
    hand_off::{Crowded, HandOff, Job, Room, Way},
    particulars, partitions,
    session::Session,
    workers::Beat,
};

pub use crate::resends::{Release, Resend};

/// How many sleeping rows one statement moves.
const PROMOTE: i32 = 1_000;
/// How many rows one statement leases, whatever room there is.
const CLAIM: usize = 512;
/// `gate` of `claim_v1`: this row finds out whether its endpoint is back.
const PROBE: i16 = 1;
/// `gate` of `claim_v1`: this row's endpoint may have few sends at a time.
const RECOVERING: i16 = 2;

/// Finds what is due: retries, overflow, scheduled messages, what waits for a throttle or was held, and what a dead worker had
/// leased.
#[derive(Debug)]
pub struct Claimer {
    db: Db,
    hand_off: HandOff,
    lease: Duration,
    session: Option<Session>,
    beat: Beat,
    /// Where the next claim begins, so that no endpoint is always last.
    from: Uuid,
    /// Throttled endpoints of which more is due than they had tokens for.
    throttled: Vec<Uuid>,
}

/// What one look at the queue brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Jobs that are on their way to the dispatcher.
    pub claimed: usize,
    /// Whether another look, at once, may bring more.
    pub is_more_due: bool,
    /// When a throttled endpoint will have a token for what is due: [`Claimer::run_throttled`] then brings more.
    pub tokens_in: Option<Duration>,
}

/// What a claim looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Everywhere,
    Throttled,
}

/// The last row of a claim: what it left behind.
#[derive(Debug, Default)]
struct Leftovers {
    resume_at: Option<Uuid>,
    crowded: Crowded,
    throttled: Vec<Uuid>,
    tokens_in: Option<Duration>,
    /// Deliveries whose leases had run out, and that were leased anew,
    rescued: u64,
    /// or ended.
    given_up: u64,
    /// The endpoints and tenants of both, and how many of each.
    lost: Vec<(EndpointId, TenantId, u64)>,
}

impl Claimer {
    /// A claimer with a connection of its own, opened when it is first needed. `lease` must outlast a send.
    pub fn connect(db: &Db, hand_off: HandOff, lease: Duration) -> Self {
        hand_off.wakes(db.due());
        Self { db: db.clone(), hand_off, lease, session: None, beat: Beat::new(), from: Uuid::nil(), throttled: Vec::new() }
    }

    /// Moves what has fallen due, leases a fair share of it and hands it over; a row whose lease has run out gets an
    /// attempt of outcome "unknown" on the way.
    pub async fn run_once(&mut self) -> Result<Progress> {
        self.run(Look::Everywhere).await
    }

    /// Leases what throttled endpoints have tokens for: a look at those alone that were named by the last one.
    pub async fn run_throttled(&mut self) -> Result<Progress> {
        self.run(Look::Throttled).await
    }

    async fn run(&mut self, look: Look) -> Result<Progress> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(&self.db, "posthaste-claimer").await?,
        };
        let connection = session.rested().await?;
        let progress = match look {
            Look::Everywhere => self.promote_and_claim(connection).await,
            Look::Throttled => self.claim(connection, look).await,
        };
        // What a dead worker leaves behind is an attempt, which goes into a partition.
        if progress.as_ref().is_err_and(Error::is_missing_partition) {
            partitions::ensure(&self.db).await?;
        }
        let progress = progress?;
        // Only a session without an error is used again.
        self.session = Some(session);
        Ok(progress)
    }

    async fn promote_and_claim(&mut self, connection: &mut Connection) -> Result<Progress> {
        let promoted = sqlx::query_scalar!(r#"select promote_v1($1) as "count!""#, PROMOTE).fetch_one(&mut *connection).await?;
        let is_more_off = cancel::run(&self.db, &self.hand_off, connection).await?;
        let progress = self.claim(connection, Look::Everywhere).await?;
        self.beat.keep(connection).await?;
        Ok(Progress { is_more_due: progress.is_more_due || is_more_off || promoted >= PROMOTE, ..progress })
    }

    /// Says that this process claims no more.
    pub async fn stop(mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        self.beat.end(session.ready().await?).await
    }

    async fn claim(&mut self, connection: &mut Connection, look: Look) -> Result<Progress> {
        let room = self.hand_off.room();
        if room.total == 0 || room.bytes == 0 {
            self.hand_off.wait_for_room(Crowded { is_full: true, ..Crowded::default() });
            return Ok(Progress { claimed: 0, is_more_due: false, tokens_in: None });
        }
        let (jobs, left) = self.lease(connection, &room, look).await?;
        self.db.metrics().rescued(left.rescued, left.given_up);
        for (endpoint_id, tenant_id, count) in &left.lost {
            self.db.node.rollups.found(*endpoint_id, *tenant_id, End::Attempt(AttemptClass::Unknown), *count, self.db.now());
        }
        let is_full = left.resume_at.is_some();
        let began_in_the_middle = !self.from.is_nil();
        if look == Look::Everywhere {
            self.from = left.resume_at.unwrap_or_default();
            self.hand_off.wait_for_room(left.crowded);
        }
        self.hand_off.looks_after(left.throttled.iter().copied().map(EndpointId::from));
        self.throttled = left.throttled;
        let claimed = jobs.len();
        // Closed while we were claiming: nobody should have to wait for the lease to run out.
        let rejected: Vec<_> = jobs.into_iter().filter_map(|job| self.hand_off.send(job).err()).map(|job| *job).collect();
        hand_back(&self.db, &rejected).await?;
        let is_more_due = look == Look::Everywhere && (is_full || began_in_the_middle) && rejected.is_empty();
        Ok(Progress { claimed: claimed - rejected.len(), is_more_due, tokens_in: left.tokens_in })
    }

    async fn lease(&self, connection: &mut Connection, room: &Room, look: Look) -> Result<(Vec<Job>, Leftovers)> {
        let (busy, taken): (Vec<Uuid>, Vec<i32>) = room.taken.iter().map(|(id, taken)| (Uuid::from(*id), as_i32(*taken))).unzip();
        let (tenants, of_tenants): (Vec<Uuid>, Vec<i32>) = room.tenants.iter().map(|(id, taken)| (Uuid::from(*id), as_i32(*taken))).unzip();
        let held = self.hand_off.gates().suspected().into_iter().chain(self.hand_off.switched_off().all());
        let held: Vec<_> = held.map(Uuid::from).collect();
        let (lease, lease_ends) = (Uuid::from_u128(rand::random()), Instant::now() + self.lease);
        let rows = sqlx::query_as!(
            Claimed,
            r#"select message_id, endpoint_id, run, tenant_id, application_id, trigger, attempts, version, payload, content_type, particulars as "particulars: Json<Value>", message_key, released_at, gate,
                      resume_at, crowded, crowded_tenants, throttled, tokens_in, rescued, given_up, lost_of, lost_tenants, lost
                 from claim_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"#,
            lease,
            self.lease.as_secs_f64(),
            as_i32(room.total.min(CLAIM)),
            i64::try_from(room.bytes).unwrap_or(i64::MAX),
            as_i32(room.share),
            &busy,
            &taken,
            &held,
            as_i32(room.quota),
            &tenants,
            &of_tenants,
            self.from,
            (look == Look::Throttled).then_some(self.throttled.as_slice()) as _,
            THROTTLE_SLACK.as_secs_f64(),
        )
        .fetch_all(&mut *connection)
        .await?;
        let (mut jobs, mut left) = (Vec::with_capacity(rows.len()), Leftovers::default());
        for row in rows {
            if row.message_id.is_none() {
                left = row.leftovers();
            } else if let Some(job) = row.job(&self.hand_off, lease, lease_ends) {
                jobs.push(job);
            }
        }
        Ok((jobs, left))
    }
}

/// A row of `claim_v1`: a delivery, or at the end, without a message, what was left behind.
struct Claimed {
    message_id: Option<Uuid>,
    endpoint_id: Option<Uuid>,
    run: Option<i32>,
    tenant_id: Option<Uuid>,
    application_id: Option<Uuid>,
    trigger: Option<i16>,
    attempts: Option<i16>,
    version: Option<i64>,
    payload: Option<Vec<u8>>,
    content_type: Option<String>,
    particulars: Option<Json<Value>>,
    message_key: Option<String>,
    released_at: Option<DateTime<Utc>>,
    gate: Option<i16>,
    resume_at: Option<Uuid>,
    crowded: Option<Vec<Uuid>>,
    crowded_tenants: Option<Vec<Uuid>>,
    throttled: Option<Vec<Uuid>>,
    tokens_in: Option<f64>,
    rescued: Option<i32>,
    given_up: Option<i32>,
    lost_of: Option<Vec<Uuid>>,
    lost_tenants: Option<Vec<Uuid>>,
    lost: Option<Vec<i32>>,
}

impl Claimed {
    fn leftovers(self) -> Leftovers {
        let endpoints = self.crowded.unwrap_or_default().into_iter().map(EndpointId::from).collect();
        let tenants = self.crowded_tenants.unwrap_or_default().into_iter().map(TenantId::from).collect();
        let count = |count: Option<i32>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        let lost =
            self.lost_of.unwrap_or_default().into_iter().zip(self.lost_tenants.unwrap_or_default()).zip(self.lost.unwrap_or_default());
        let lost = lost.map(|((endpoint_id, tenant_id), lost)| (endpoint_id.into(), tenant_id.into(), count(Some(lost))));
        Leftovers {
            rescued: count(self.rescued),
            given_up: count(self.given_up),
            lost: lost.collect(),
            resume_at: self.resume_at,
            crowded: Crowded { endpoints, tenants, is_full: false },
            throttled: self.throttled.unwrap_or_default(),
            tokens_in: self.tokens_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }

    /// The job, and its place; the columns that a delivery always has are there.
    fn job(self, hand_off: &HandOff, lease: Uuid, lease_ends: Instant) -> Option<Job> {
        let message_id = MessageId::from(self.message_id?);
        let (tenant_id, endpoint_id) = (TenantId::from(self.tenant_id?), EndpointId::from(self.endpoint_id?));
        let way = if self.gate == Some(PROBE) { Way::Probe } else { Way::Claimed };
        if way == Way::Claimed {
            hand_off.gates().claim_passed(endpoint_id, self.gate == Some(RECOVERING));
        }
        let bytes = self.payload.as_ref().map_or(0, Vec::len);
        Some(Job {
            message_id,
            tenant_id,
            application_id: self.application_id?.into(),
            version: self.version?,
            endpoint_id,
            run: self.run?,
            number: self.attempts?.saturating_add(1),
            trigger: Trigger::from_code(self.trigger?),
            lease,
            lease_ends,
            payload: self.payload.map(Into::into),
            content_type: self.content_type.unwrap_or_default(),
            particulars: particulars::read(self.particulars),
            delivery_key: self.message_key.unwrap_or_else(|| message_id.public()),
            owed_since: self.released_at.unwrap_or_else(|| message_id.created_at()),
            slot: Some(hand_off.claimed(tenant_id, endpoint_id, bytes, way)),
        })
    }
}

/// Lets go of jobs that were leased and not sent: they are due at once, for whoever claims them.
pub(crate) async fn hand_back(db: &Db, jobs: &[Job]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Job) -> Uuid| jobs.iter().map(of).collect::<Vec<_>>();
    sqlx::query!(
        "update queue q set lease = null, due_at = now() from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[]) j(message_id, endpoint_id, run, lease)
          where q.message_id = j.message_id and q.endpoint_id = j.endpoint_id and q.run = j.run and q.lease = j.lease",
        &column(|job| job.message_id.into()),
        &column(|job| job.endpoint_id.into()),
        &jobs.iter().map(|job| job.run).collect::<Vec<_>>(),
        &column(|job| job.lease),
    )
    .execute(db.pool())
    .await?;
    db.wake();
    Ok(())
}

fn as_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
