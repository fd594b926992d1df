//! Makes the deliveries of a message that is owed to more endpoints than are written with it.

use domain::{
    id::{EndpointId, MessageId},
    offer::Offer,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use super::{Done, Step};
use crate::{Db, Error, Result, connection::Connection, directory, effect::OwedAnew, particulars, reference::Owner, tasks::Row};

/// How many deliveries one step makes: it holds no lock that others wait for, and takes some tens of milliseconds.
const STEP: usize = 1_000;

/// The next endpoints that want the message, of those that its application had when it was accepted. Who wants it is asked of the
/// endpoints as they are by now, as it would be if they were told a little later.
pub(super) async fn step(db: &Db, tx: &mut Connection, task: &Row) -> Result<Step> {
    let version = task.parameters.version.unwrap_or(0);
    let subscribers = match directory::at_least(db, task.application_id().into(), version).await {
        Err(Error::NotFound(_)) => return Ok(Step::NOTHING_LEFT),
        found => found?,
    };
    let looks_inside = subscribers.targets.iter().any(|target| target.endpoint.filter.content_filters().next().is_some());
    let message = sqlx::query!(
        r#"select event_type, channels, case when $3 then payload end as payload, particulars as "particulars: Json<Value>"
             from message where id = $1 and tenant_id = $2"#,
        task.id,
        task.tenant_id,
        looks_inside,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(message) = message else { return Ok(Step::NOTHING_LEFT) };
    let (channels, particulars) = (message.channels.unwrap_or_default(), particulars::read(message.particulars));
    let ids: Vec<Uuid> = {
        let offer = Offer::new(&message.event_type, &channels).of(message.payload.as_deref().unwrap_or_default());
        let offer = offer.with(particulars.as_deref()).asked_at(db.now());
        let rest = subscribers.targets.iter().filter(|target| {
            let is_new = target.since_version > version;
            task.cursor.is_none_or(|cursor| Uuid::from(target.endpoint.id) > cursor) && !is_new
        });
        let wanting = rest.filter(|target| target.endpoint.wants(&offer));
        wanting.take(STEP).map(|target| target.endpoint.id.into()).collect()
    };
    sqlx::query!(
        "insert into queue (message_id, endpoint_id, tenant_id, application_id) select $1, endpoint_id, $3, $4 from unnest($2::uuid[]) endpoint_id",
        task.id,
        &ids,
        task.tenant_id,
        task.application_id(),
    )
    .execute(tx)
    .await?;
    tracing::debug!(message_id = %MessageId::from(task.id), made = ids.len(), "deliveries of a large fan-out are made");
    let cursor = ids.last().copied();
    let (scanned, is_last) = (ids.len(), ids.len() < STEP);
    let owner = Owner { tenant_id: task.tenant_id.into(), application_id: task.application_id().into() };
    let owed = OwedAnew { owner, event_type: message.event_type, endpoints: ids.into_iter().map(EndpointId::from).collect() };
    Ok(Step::Done(Done { cursor, scanned, is_last, owed: vec![owed], ..Done::default() }))
}
