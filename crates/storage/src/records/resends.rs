//! What is owed because somebody asked: a message sent again, a duplicate released.

use std::slice;

use chrono::{DateTime, Utc};
use domain::{
    filter::Filter,
    id::{ApplicationId, EndpointId, MessageId, TenantId},
    message::Message,
    offer::Offer,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use crate::{
    Conflict, Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::{Effect, OwedAnew},
    endpoints, messages,
    reference::Owner,
    tasks,
};

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
    type Output = OwedAnew;

    const WAKES: bool = true;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<OwedAnew> {
        // The lock also keeps two resends of one message from taking the same run.
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let endpoint = endpoints::find(&mut *tx, application_id, &self.endpoint).await?.ok_or(Error::NotFound("endpoint"))?;
        let message_id = Uuid::from(messages::resolve(&mut *tx, application_id, &self.message).await?);
        let message = sqlx::query!(
            r#"select case when released_at is null then duplicate_of end as original, payload is null or coalesce(payload_expires_at <= now(), false) as "is_expunged!", event_type from message where id = $1 and application_id = $2"#,
            message_id,
            Uuid::from(application_id),
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::NotFound("message"))?;
        if let Some(original) = message.original {
            return Err(Conflict::Duplicate(original.into()).into());
        }
        if message.is_expunged {
            return Err(Conflict::Expunged.into());
        }
        if endpoint.is_disabled {
            return Err(Conflict::Disabled.into());
        }
        // To an endpoint that is held it goes as the probe: at once, and before all that waits.
        let is_held = sqlx::query!("update endpoint_health set probe_at = now() where endpoint_id = $1 and state = 1", endpoint.id)
            .execute(&mut *tx)
            .await?
            .rows_affected()
            > 0;
        insert_runs(tx, self.tenant_id.into(), application_id.into(), &[(message_id, endpoint.id)], is_held).await?;
        let owner = Owner { tenant_id: self.tenant_id, application_id };
        Ok(OwedAnew { owner, event_type: message.event_type, endpoints: vec![endpoint.id.into()] })
    }

    fn owed(owed: &OwedAnew) -> &[OwedAnew] {
        slice::from_ref(owed)
    }
}

/// A further run of one attempt of each of these messages, for one endpoint. The application must be locked, which keeps others from taking
/// the same runs. Returns what that comes to, to be counted once it is committed.
pub(crate) async fn owe_again(
    tx: &mut Connection,
    tenant_id: Uuid,
    application_id: Uuid,
    endpoint_id: Uuid,
    messages: &[Uuid],
) -> Result<Vec<OwedAnew>> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let pairs: Vec<_> = messages.iter().map(|message| (*message, endpoint_id)).collect();
    insert_runs(&mut *tx, tenant_id, application_id, &pairs, false).await?;
    let types = sqlx::query!(
        r#"select event_type, count(*) as "count!" from message where id = any ($1) and tenant_id = $2 group by event_type"#,
        messages,
        tenant_id,
    )
    .fetch_all(tx)
    .await?;
    let owner = Owner { tenant_id: tenant_id.into(), application_id: application_id.into() };
    let owed = types.into_iter().map(|row| {
        let endpoints = vec![endpoint_id.into(); usize::try_from(row.count).unwrap_or(0)];
        OwedAnew { owner, event_type: row.event_type, endpoints }
    });
    Ok(owed.collect())
}

/// A further run of one attempt of each of these messages for its endpoint. Their application must be locked.
pub(crate) async fn insert_runs(
    tx: &mut Connection,
    tenant_id: Uuid,
    application_id: Uuid,
    pairs: &[(Uuid, Uuid)],
    is_first: bool,
) -> Result<()> {
    let (messages, endpoints): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    sqlx::query!(
        "insert into queue (message_id, endpoint_id, run, tenant_id, application_id, trigger, due_at)
         select m.id, m.endpoint_id, 1 + greatest(
             (select max(run) from queue where message_id = m.id and endpoint_id = m.endpoint_id),
             (select max(run) from queue_later where message_id = m.id and endpoint_id = m.endpoint_id),
             (select max(run) from attempt where message_id = m.id and endpoint_id = m.endpoint_id), 0), $3, $4, 1,
           case when $5 then least((select min(due_at) from queue where endpoint_id = m.endpoint_id) - interval '1 ms', now()) else now() end
           from unnest($1::uuid[], $2::uuid[]) m(id, endpoint_id)",
        &messages,
        &endpoints,
        tenant_id,
        application_id,
        is_first,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Releases a duplicate: from now on it is owed to every endpoint that wants it, as if it were the first with its key. Its webhooks
/// carry its own id where those of others carry the message key.
#[derive(Clone, Debug)]
pub struct Release {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
    /// What.
    pub message: Reference<MessageId>,
}

impl Effect for Release {
    type Output = (Message, OwedAnew);

    const WAKES: bool = true;

    const ASKS_FOR_A_TASK: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        // The lock also lets only one of several releases find the message unreleased.
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let id = messages::resolve(&mut *tx, application_id, &self.message).await?;
        let found = messages::find(&mut *tx, id).await?.filter(|found| found.application_id == application_id);
        let mut message = found.ok_or(Error::NotFound("message"))?;
        if !message.is_duplicate() {
            return Err(Conflict::NotADuplicate.into());
        }
        if message.released_at.is_some() {
            return Err(Conflict::AlreadyReleased.into());
        }
        if message.payload.is_none() {
            return Err(Conflict::Expunged.into());
        }
        message.released_at =
            sqlx::query_scalar!("update message set released_at = now() where id = $1 returning released_at", Uuid::from(id))
                .fetch_one(&mut *tx)
                .await?;
        let endpoints = owe(db, tx, &message).await?;
        let owner = Owner { tenant_id: message.tenant_id, application_id };
        let owed = OwedAnew { owner, event_type: message.event_type.clone(), endpoints };
        Ok((message, owed))
    }

    fn owed((_, owed): &Self::Output) -> &[OwedAnew] {
        slice::from_ref(owed)
    }
}

/// The endpoints that want a message that is stored already. Its application must be locked.
pub(crate) async fn wanting(db: &Database, tx: &mut Connection, message: &Message) -> Result<Vec<Uuid>> {
    let asking = asking(tx, message.tenant_id.into(), &[message.application_id.into()], Uuid::max()).await?;
    Ok(asking.iter().filter(|asking| asking.wants(message, db.now())).map(|asking| asking.endpoint_id).collect())
}

/// An endpoint that is on, with what it wants.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) application_id: Uuid,
    pub(crate) endpoint_id: Uuid,
    filter: Filter,
}

impl Asking {
    /// Whether it wants this message, at this moment.
    pub(crate) fn wants(&self, message: &Message, now: DateTime<Utc>) -> bool {
        let offer = Offer::of_message(message).asked_at(now);
        !offer.is_for_another_than(self.endpoint_id.into()) && (offer.is_example() || self.filter.wants(&offer))
    }
}

/// The endpoints of these applications that are on, and had been made before this id was.
pub(crate) async fn asking(tx: &mut Connection, tenant_id: Uuid, applications: &[Uuid], before: Uuid) -> Result<Vec<Asking>> {
    let rows = sqlx::query!(
        r#"select application_id, id, event_types, channels, filter as "filter: Json<Value>", subscriptions as "subscriptions: Json<Value>"
             from endpoint where application_id = any ($1) and tenant_id = $2 and id < $3 and deleted_at is null and not is_disabled"#,
        applications,
        tenant_id,
        before,
    )
    .fetch_all(tx)
    .await?;
    let asking = rows.into_iter().map(|row| Asking {
        application_id: row.application_id,
        endpoint_id: row.id,
        filter: endpoints::filter(row.event_types, row.channels, row.filter, row.subscriptions),
    });
    Ok(asking.collect())
}

/// The fan-out of a message that is stored already: a row, due now, for each endpoint that wants it. Returns those.
async fn owe(db: &Database, tx: &mut Connection, message: &Message) -> Result<Vec<EndpointId>> {
    let wanting = wanting(db, &mut *tx, message).await?;
    if wanting.len() > tasks::OWED_AT_ONCE {
        tasks::put_down_fan_out(tx, message).await?;
        return Ok(Vec::new());
    }
    sqlx::query!(
        "insert into queue (message_id, endpoint_id, tenant_id, application_id) select $1, endpoint_id, $3, $4 from unnest($2::uuid[]) endpoint_id",
        Uuid::from(message.id),
        &wanting,
        Uuid::from(message.tenant_id),
        Uuid::from(message.application_id),
    )
    .execute(tx)
    .await?;
    Ok(wanting.into_iter().map(EndpointId::from).collect())
}
