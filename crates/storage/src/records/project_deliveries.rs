//! The deliveries of a tenant, whatever their application: what the clients of projects ask for.
//!
//! They lie in the order of their messages, and of endpoints within each. A page is made by going through the tenant's messages and looking up what
//! is owed or was attempted of each; how many messages one page may go through is bounded, so that a filter that nothing passes ends.

use std::collections::HashMap;

use domain::{
    endpoint::Endpoint,
    id::{EndpointId, MessageId, TenantId},
    message::Message,
    standing::Standing,
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    connection::Connection,
    deliveries::{self, Delivery},
    endpoints, messages,
    project_messages::{self, Filter, SETTINGS},
};

/// How many messages are gone through at one time,
const STRIDE: i64 = 100;
/// and how often.
const STRIDES: usize = 100;

/// A delivery by its place in the list.
pub type Key = (MessageId, EndpointId);

/// A delivery, of what and to whom.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of what.
    pub message: Message,
    /// To whom.
    pub endpoint: Endpoint,
    /// How far it got.
    pub delivery: Delivery,
}

impl Found {
    /// Its place in the list.
    pub fn key(&self) -> Key {
        (self.message.id, self.endpoint.id)
    }
}

/// Which part of the list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The first one, if it is there; else the next. Absent: from the beginning.
    pub from: Option<Key>,
    /// From small keys to large ones.
    pub is_up: bool,
    /// At most so many.
    pub most: usize,
}

impl Part {
    /// All of it.
    pub(crate) const ALL: Self = Self { from: None, is_up: true, most: usize::MAX };
}

/// What a look brought.
#[derive(Debug, Default)]
pub struct Listed {
    /// Deliveries, in the order in which they were asked for; one more than wanted, if there is more.
    pub found: Vec<Found>,
    /// It went through as many messages as one look may: the list goes on from here, though no more was found.
    pub goes_on_at: Option<Key>,
}

/// Some of the tenant's deliveries. Those that `wanted` does not want are left out.
pub async fn list(
    db: &Database,
    tenant_id: TenantId,
    filter: &Filter,
    part: Part,
    wanted: impl Fn(&Found) -> bool + Send,
) -> Result<Listed> {
    let mut found = Vec::new();
    let mut from = part.from;
    let (mut low, mut high) = bounds(filter, part);
    for _ in 0..STRIDES {
        let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
        sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
        let ids = project_messages::ids(&mut tx, tenant_id, filter, (low, high), part.is_up, STRIDE).await.map_err(Error::of_list)?;
        let some = of_messages(db, &mut tx, tenant_id, &ids, filter, part, from.take()).await?;
        tx.rollback().await?;
        found.extend(some.into_iter().filter(|delivery| wanted(delivery)));
        found.truncate(part.most);
        let is_full = i64::try_from(ids.len()).is_ok_and(|count| count == STRIDE);
        let Some(last) = ids.last().filter(|_| is_full && found.len() < part.most) else {
            return Ok(Listed { found, goes_on_at: None });
        };
        if part.is_up {
            low = Uuid::from_u128(last.as_u128().saturating_add(1));
        } else {
            high = *last;
        }
    }
    let next = if part.is_up { (low, Uuid::nil()) } else { (Uuid::from_u128(high.as_u128().saturating_sub(1)), Uuid::max()) };
    Ok(Listed { found, goes_on_at: Some((next.0.into(), next.1.into())) })
}

/// How many looks one count takes at most.
const LOOKS: usize = 10;

/// How many of the tenant's deliveries `wanted` wants.
///
/// # Errors
/// [`Error::LimitReached`] if there are very many messages.
pub async fn count(db: &Database, tenant_id: TenantId, filter: &Filter, wanted: impl Fn(&Found) -> bool + Send + Sync) -> Result<u64> {
    const AT_ONCE: usize = 1_000;
    let (mut counted, mut from) = (0, None);
    for _ in 0..LOOKS {
        let part = Part { from, is_up: true, most: AT_ONCE + 1 };
        let Listed { found, goes_on_at } = list(db, tenant_id, filter, part, &wanted).await?;
        // The one too many is the first of the next look.
        from = found.get(AT_ONCE).map(Found::key).or(goes_on_at);
        counted += u64::try_from(found.len().min(AT_ONCE)).unwrap_or(0);
        if from.is_none() {
            return Ok(counted);
        }
    }
    Err(Error::LimitReached("there are too many to count: ask for a shorter time, one owner or one endpoint"))
}

/// Between which messages the part lies, the second one excluded.
fn bounds(filter: &Filter, part: Part) -> (Uuid, Uuid) {
    let mut low = filter.after.map_or(Uuid::nil(), domain::id::from);
    let mut high = filter.before.map_or(Uuid::from_u128(u128::MAX), domain::id::from);
    match part.from {
        Some((message, _)) if part.is_up => low = low.max(message.into()),
        Some((message, _)) => high = high.min(Uuid::from_u128(Uuid::from(message).as_u128().saturating_add(1))),
        None => {}
    }
    (low, high)
}

/// One delivery of the tenant.
pub async fn get(db: &Database, tenant_id: TenantId, key: Key) -> Result<Found> {
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let part = Part { from: Some(key), is_up: true, most: 1 };
    let found = of_messages(db, &mut tx, tenant_id, &[key.0.into()], &Filter::default(), part, Some(key)).await?;
    tx.rollback().await?;
    found.into_iter().next().filter(|found| found.key() == key).ok_or(Error::NotFound("event delivery"))
}

/// The endpoints that each of these messages is or was owed to, by id.
pub async fn endpoints_of(db: &Database, tenant_id: TenantId, messages: &[MessageId]) -> Result<HashMap<MessageId, Vec<EndpointId>>> {
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let ids: Vec<_> = messages.iter().copied().map(Uuid::from).collect();
    let mut pairs = pairs(&mut tx, tenant_id, &ids).await.map_err(Error::of_list)?;
    tx.rollback().await?;
    pairs.sort_unstable();
    let mut found = HashMap::<_, Vec<_>>::new();
    for (message, endpoint) in pairs {
        found.entry(message.into()).or_default().push(endpoint.into());
    }
    Ok(found)
}

/// The deliveries of these messages, from one on.
pub(crate) async fn of_messages(
    db: &Database,
    tx: &mut Connection,
    tenant_id: TenantId,
    ids: &[Uuid],
    filter: &Filter,
    part: Part,
    from: Option<Key>,
) -> Result<Vec<Found>> {
    let mut pairs = pairs(&mut *tx, tenant_id, ids).await.map_err(Error::of_list)?;
    if let Some(wanted) = &filter.endpoints {
        pairs.retain(|(_, endpoint)| wanted.contains(&EndpointId::from(*endpoint)));
    }
    pairs.sort_unstable();
    if !part.is_up {
        pairs.reverse();
    }
    if let Some((message, endpoint)) = from {
        let from = (Uuid::from(message), Uuid::from(endpoint));
        pairs.retain(|pair| if part.is_up { *pair >= from } else { *pair <= from });
    }
    let facts = deliveries::facts(&mut *tx, tenant_id, &pairs).await.map_err(Error::of_list)?;
    let known: HashMap<_, _> =
        messages::of_ids(&mut *tx, tenant_id, ids).await?.into_iter().map(|message| (Uuid::from(message.id), message)).collect();
    let mut by_application: HashMap<_, Vec<_>> = HashMap::new();
    for (message, endpoint) in &pairs {
        if let Some(message) = known.get(message) {
            by_application.entry(message.application_id).or_default().push(*endpoint);
        }
    }
    let mut targets = HashMap::new();
    for (application_id, ids) in by_application {
        let some = endpoints::of_ids(&mut *tx, application_id, &ids).await?;
        targets.extend(some.into_iter().map(|endpoint| (Uuid::from(endpoint.id), endpoint)));
    }
    let found = pairs.into_iter().zip(facts).filter_map(|((message, endpoint), facts)| {
        let (message, endpoint) = (known.get(&message)?.clone(), targets.get(&endpoint)?.clone());
        let standing = Standing::of(&facts, &message, &endpoint, db.now());
        Some(Found { message, endpoint, delivery: Delivery { standing, facts } })
    });
    Ok(found.collect())
}

/// The endpoints that each of these messages is or was owed to.
async fn pairs(tx: &mut Connection, tenant_id: TenantId, messages: &[Uuid]) -> std::result::Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select p.message_id as "message_id!", d.endpoint_id as "endpoint_id!" from unnest($1::uuid[]) p(message_id)
             cross join lateral (
               select q.endpoint_id from queue q where (q.message_id, q.endpoint_id) >= (p.message_id, '00000000-0000-0000-0000-000000000000')
                 and (q.message_id, q.endpoint_id) <= (p.message_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') and q.tenant_id = $2
               union select q.endpoint_id from queue_later q where (q.message_id, q.endpoint_id) >= (p.message_id, '00000000-0000-0000-0000-000000000000')
                 and (q.message_id, q.endpoint_id) <= (p.message_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') and q.tenant_id = $2
               union select a.endpoint_id from (select a.endpoint_id from attempt a
                 where (a.message_id, a.id) >= (p.message_id, '00000000-0000-0000-0000-000000000000') and (a.message_id, a.id) <= (p.message_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                   and a.is_latest and a.tenant_id = $2 offset 0) a
             ) d"#,
        messages,
        Uuid::from(tenant_id),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message_id, row.endpoint_id)).collect())
}
