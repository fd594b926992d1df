//! What is still owed, when nobody hands it over: claim, promote, rescue, resend.

use std::time::{Duration, Instant};

use domain::{
    delivery::Trigger,
    id::{ApplicationId, EndpointId, Id, MessageId, TenantId},
};
use sqlx::{PgConnection, types::Uuid};

use crate::{
    Conflict, Db, Error, Result,
    applications::{self, Reference},
    endpoints,
    hand_off::{HandOff, Job},
    idempotency::Effect,
    messages,
};

/// How many sleeping rows one statement moves.
const PROMOTE: i32 = 1_000;
/// How many rows one statement leases, whatever room there is.
const CLAIM: usize = 512;

/// Finds what is due: retries, overflow, scheduled messages, and what a dead worker had leased.
#[derive(Debug)]
pub struct Claimer {
    db: Db,
    hand_off: HandOff,
    lease: Duration,
    connection: Option<PgConnection>,
    /// Where the next claim begins, so that no endpoint is always last.
    from: Uuid,
}

/// What one look at the queue brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Jobs that are on their way to the dispatcher.
    pub claimed: usize,
    /// Whether another look, at once, may bring more.
    pub is_more_due: bool,
}

impl Claimer {
    /// A claimer with a connection of its own, opened when it is first needed. `lease` must outlast a send.
    pub fn connect(db: &Db, hand_off: HandOff, lease: Duration) -> Self {
        hand_off.wakes(std::sync::Arc::clone(&db.inner.due));
        Self { db: db.clone(), hand_off, lease, connection: None, from: Uuid::nil() }
    }

    /// Moves what has fallen due, leases a fair share of it and hands it over; a row whose lease has run out gets an
    /// attempt of outcome "unknown" on the way.
    pub async fn run_once(&mut self) -> Result<Progress> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.db.connect_apart("posthaste-claimer").await?,
        };
        let progress = self.claim(&mut connection).await?;
        // Only a connection without an error is used again.
        self.connection = Some(connection);
        Ok(progress)
    }

    async fn claim(&mut self, connection: &mut PgConnection) -> Result<Progress> {
        let promoted = sqlx::query_scalar!(r#"select promote_v1($1) as "count!""#, PROMOTE).fetch_one(&mut *connection).await?;
        let room = self.hand_off.room();
        let total = room.total.min(CLAIM);
        if total == 0 {
            self.hand_off.wait_for_room();
            return Ok(Progress { claimed: 0, is_more_due: false });
        }
        let (busy, free): (Vec<Uuid>, Vec<i32>) = room.busy.iter().map(|(id, free)| (Uuid::from(*id), as_i32(*free))).unzip();
        let (lease, lease_ends) = (Uuid::from_u128(rand::random()), Instant::now() + self.lease);
        let rows = sqlx::query!(
            r#"select message_id as "message_id!", endpoint_id as "endpoint_id!", run as "run!", tenant_id as "tenant_id!",
                      application_id as "application_id!", trigger as "trigger!", attempts as "attempts!", version as "version!",
                      payload, content_type, message_key
                 from claim_v1($1, $2, $3, $4, $5, $6, $7)"#,
            lease,
            self.lease.as_secs_f64(),
            as_i32(total),
            as_i32(room.share),
            &busy,
            &free,
            self.from,
        )
        .fetch_all(&mut *connection)
        .await?;
        let claimed = rows.len();
        let is_full = claimed >= total;
        let began_in_the_middle = !self.from.is_nil();
        self.from = if is_full { rows.iter().map(|row| row.endpoint_id).max().unwrap_or_default() } else { Uuid::nil() };
        let mut rejected = Vec::new();
        for row in rows {
            let message_id = MessageId::from(row.message_id);
            let endpoint_id = row.endpoint_id.into();
            let job = Job {
                message_id,
                tenant_id: row.tenant_id.into(),
                application_id: row.application_id.into(),
                version: row.version,
                endpoint_id,
                run: row.run,
                number: row.attempts.saturating_add(1),
                trigger: Trigger::from_code(row.trigger),
                lease,
                lease_ends,
                payload: row.payload.map(Into::into),
                content_type: row.content_type.unwrap_or_default(),
                delivery_key: row.message_key.unwrap_or_else(|| message_id.public()),
                slot: Some(self.hand_off.claimed(endpoint_id)),
            };
            // Closed while we were claiming: nobody should have to wait for the lease to run out.
            rejected.extend(self.hand_off.send(job).err().map(|job| *job));
        }
        give_back(&self.db, &rejected).await?;
        if claimed > 0 {
            self.hand_off.wait_for_room();
        }
        let is_more_due = is_full || began_in_the_middle || promoted >= PROMOTE;
        Ok(Progress { claimed: claimed - rejected.len(), is_more_due: is_more_due && rejected.is_empty() })
    }
}

/// Lets go of jobs that were leased and not sent: they are due at once, for whoever claims them.
pub(crate) async fn give_back(db: &Db, jobs: &[Job]) -> Result<()> {
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

/// Sends a message to one endpoint again: a further run of one attempt, whatever became of the others.
#[derive(Clone, Debug)]
pub struct Resend {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
    /// What.
    pub message: Reference<MessageId>,
    /// To whom.
    pub endpoint: Reference<EndpointId>,
}

impl Effect for Resend {
    type Output = ();

    const WAKES: bool = true;

    async fn apply(self, _: &Db, tx: &mut PgConnection) -> Result<()> {
        // The lock also keeps two resends of one message from taking the same run.
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let endpoint = endpoints::find(&mut *tx, application_id, &self.endpoint).await?.ok_or(Error::NotFound("endpoint"))?;
        let message_id = Uuid::from(messages::resolve(&mut *tx, application_id, &self.message).await?);
        let message = sqlx::query!(
            r#"select duplicate_of, payload is null as "is_expunged!" from message where id = $1 and application_id = $2"#,
            message_id,
            Uuid::from(application_id),
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::NotFound("message"))?;
        if let Some(original) = message.duplicate_of {
            return Err(Conflict::Duplicate(original.into()).into());
        }
        if message.is_expunged {
            return Err(Conflict::Expunged.into());
        }
        if endpoint.is_disabled {
            return Err(Conflict::Disabled.into());
        }
        sqlx::query!(
            "insert into queue (message_id, endpoint_id, run, tenant_id, application_id, trigger)
             select $1, $2, 1 + greatest(
                 (select max(run) from queue where message_id = $1 and endpoint_id = $2),
                 (select max(run) from queue_later where message_id = $1 and endpoint_id = $2),
                 (select max(run) from attempt where message_id = $1 and endpoint_id = $2), 0), $3, $4, 1",
            message_id,
            endpoint.id,
            Uuid::from(self.tenant_id),
            Uuid::from(application_id),
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}
