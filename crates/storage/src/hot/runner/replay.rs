//! Sends an endpoint what it was never sent: messages from before it was there, or while it was off or did not want them.

use domain::{filter::Filter, id::SourceId, message::Particulars, offer::Offer};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use super::{Done, Step};
use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    endpoints, particulars, resends,
    tasks::Row,
};

/// How many messages one step looks at.
const STEP: i64 = 500;

/// The next messages that the endpoint wants by now, and of which it was never sent anything and is owed nothing. A duplicate that was not
/// released is no message of its own.
pub(super) async fn step(db: &Database, tx: &mut Connection, task: &Row) -> Result<Step> {
    let Some(endpoint_id) = task.endpoint_id else { return Ok(Step::Pointless("it names no endpoint")) };
    if let Some(why) = unable(&mut *tx, task, endpoint_id).await? {
        return Ok(Step::Pointless(why));
    }
    let (since, until) = task.messages();
    let first = task.cursor.map_or(since, |cursor| Uuid::from_u128(cursor.as_u128().saturating_add(1)));
    let endpoint = sqlx::query!(
        r#"select event_types, channels, filter as "filter: Json<Value>", subscriptions as "subscriptions: Json<Value>" from endpoint where id = $1 and tenant_id = $2"#,
        endpoint_id,
        task.tenant_id,
    )
    .fetch_one(&mut *tx)
    .await?;
    let filter = endpoints::filter(endpoint.event_types, endpoint.channels, endpoint.filter, endpoint.subscriptions);
    let messages = sqlx::query!(
        r#"with next as materialized (
             select id, event_type, channels, (particulars ->> 'source')::uuid as source, (particulars ->> 'only')::uuid as only_to, duplicate_of, released_at, payload is null or coalesce(payload_expires_at <= now(), false) as is_expunged
               from message where application_id = $1 and id >= $2 and id < $3 order by id limit $4
           )
           select n.id as "id!", n.event_type as "event_type!", n.channels, n.source, n.only_to, (
               not n.is_expunged and (n.duplicate_of is null or n.released_at is not null)
               and not exists (select from attempt a where a.message_id = n.id and a.endpoint_id = $5)
               and not exists (select from queue q where q.message_id = n.id and q.endpoint_id = $5)
               and not exists (select from queue_later q where q.message_id = n.id and q.endpoint_id = $5)
               and not exists (select from task t where t.id = n.id and t.state = 0)) as "is_missing!"
             from next n order by n.id"#,
        task.application_id(),
        first,
        until,
        STEP,
        endpoint_id,
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut wanted: Vec<Uuid> = Vec::new();
    for row in &messages {
        let came = Particulars { source: row.source.map(SourceId::from), only: row.only_to.map(Into::into), ..Particulars::default() };
        let channels = row.channels.as_deref().unwrap_or_default();
        let offer = Offer::new(&row.event_type, channels).with(Some(&came)).asked_at(db.now());
        let may_be_wanted = row.is_missing && !offer.is_for_another_than(endpoint_id.into()) && filter.wants_kind(&offer);
        // One payload at a time: together they could be large.
        let looks_inside = filter.content_filters().next().is_some();
        if may_be_wanted
            && (!looks_inside || fits(&mut *tx, task, row.id, &filter, Offer::new(&row.event_type, channels).asked_at(db.now())).await?)
        {
            wanted.push(row.id);
        }
    }
    let owed = resends::owe_again(tx, task.tenant_id, task.application_id(), endpoint_id, &wanted).await?;
    let is_last = messages.len() < usize::try_from(STEP).unwrap_or(0);
    Ok(Step::Done(Done { cursor: messages.last().map(|row| row.id), scanned: messages.len(), is_last, owed, ..Done::default() }))
}

/// Whether what is in a message is wanted.
async fn fits(tx: &mut Connection, task: &Row, message_id: Uuid, filter: &Filter, offer: Offer<'_>) -> Result<bool> {
    let message = sqlx::query!(
        r#"select payload, particulars as "particulars: Json<Value>" from message where id = $1 and tenant_id = $2"#,
        message_id,
        task.tenant_id
    )
    .fetch_optional(tx)
    .await?;
    let (payload, particulars) = message.map(|message| (message.payload, particulars::read(message.particulars))).unwrap_or_default();
    Ok(filter.wants_content(&offer.of(payload.as_deref().unwrap_or_default()).with(particulars.as_deref())))
}

/// Locks the application, so that nobody else takes the runs that this step is about to take; says why nothing can be sent to the
/// endpoint, if so.
pub(super) async fn unable(tx: &mut Connection, task: &Row, endpoint_id: Uuid) -> Result<Option<&'static str>> {
    match applications::lock(&mut *tx, task.tenant_id.into(), &Reference::Id(task.application_id().into())).await {
        Err(Error::NotFound(_)) => return Ok(Some("the application was deleted")),
        locked => locked?,
    };
    let is_disabled = sqlx::query_scalar!(
        "select is_disabled from endpoint where id = $1 and tenant_id = $2 and deleted_at is null",
        endpoint_id,
        task.tenant_id
    )
    .fetch_optional(tx)
    .await?;
    Ok(match is_disabled {
        None => Some("the endpoint was deleted"),
        Some(true) => Some("the endpoint was disabled"),
        Some(false) => None,
    })
}
