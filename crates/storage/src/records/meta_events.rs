//! A tenant's own events once they are messages, with what became of each.

use chrono::{DateTime, Utc};
use domain::{
    id::{MessageId, TenantId},
    message::Message,
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::{Effect, OwedAnew},
    messages::{self, Filter},
    page::{Page, PageRequest},
    project_deliveries::{self, Found, Part},
    project_messages::{self, SETTINGS},
    project_resends::{Replay, Replayed, replay},
};

/// What a look-up that finds nothing says.
const WHAT: &str = "meta event";

/// An event, and what of it is or was owed to each endpoint that hears of such.
#[derive(Debug)]
pub struct MetaEvent {
    /// It.
    pub message: Message,
    /// By endpoint.
    pub deliveries: Vec<Found>,
}

/// The tenant's own events by id, of those made between two moments. None, if nobody ever wanted to hear of any.
pub async fn list(
    db: &Database,
    tenant_id: TenantId,
    (after, before): (DateTime<Utc>, DateTime<Utc>),
    page: &PageRequest<MessageId>,
) -> Result<Page<MetaEvent>> {
    let filter = Filter { after: Some(after), before: Some(before), ..Filter::default() };
    let Page { items, has_more } = match messages::list(db, tenant_id, &Reference::own(), &filter, page).await {
        Err(Error::NotFound(_)) => Page { items: Vec::new(), has_more: false },
        found => found?,
    };
    let ids: Vec<_> = items.iter().map(|message| Uuid::from(message.id)).collect();
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let mut deliveries = of_messages(db, &mut tx, tenant_id, &ids).await?;
    tx.rollback().await?;
    let told = |message: Message| {
        let deliveries = deliveries.extract_if(.., |found| found.message.id == message.id).collect();
        MetaEvent { message, deliveries }
    };
    Ok(Page { items: items.into_iter().map(told).collect(), has_more })
}

async fn of_messages(db: &Database, tx: &mut Connection, tenant_id: TenantId, ids: &[Uuid]) -> Result<Vec<Found>> {
    project_deliveries::of_messages(db, tx, tenant_id, ids, &project_messages::Filter::default(), Part::ALL, None).await
}

/// One of the tenant's own events.
pub async fn get(db: &Database, tenant_id: TenantId, id: MessageId) -> Result<MetaEvent> {
    let message = match messages::get(db, tenant_id, &Reference::own(), &Reference::Id(id)).await {
        Err(Error::NotFound(_)) => return Err(Error::NotFound(WHAT)),
        found => found?,
    };
    let deliveries = of_messages(db, &mut db.pool().acquire().await?, tenant_id, &[id.into()]).await?;
    Ok(MetaEvent { message, deliveries })
}

/// Sends one of the tenant's own events once more to every endpoint that would get such an event now.
#[derive(Clone, Copy, Debug)]
pub struct Resend {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: MessageId,
}

impl Effect for Resend {
    type Output = (MetaEvent, Replayed);

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let Self { tenant_id, id } = self;
        let own = applications::find(&mut *tx, tenant_id, &Reference::own()).await?.ok_or(Error::NotFound(WHAT))?;
        let message = messages::find(&mut *tx, id).await?.filter(|message| Uuid::from(message.application_id) == own.id);
        let message = message.ok_or(Error::NotFound(WHAT))?;
        let replayed = replay(db, &mut *tx, message.clone(), &Reference::own()).await?;
        let deliveries = of_messages(db, tx, tenant_id, &[id.into()]).await?;
        Ok((MetaEvent { message, deliveries }, replayed))
    }

    fn owed((_, replayed): &Self::Output) -> &[OwedAnew] {
        Replay::owed(replayed)
    }
}
