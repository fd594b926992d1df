//! The messages of a tenant, whatever their application: what the clients of projects ask for.
//!
//! No index has a tenant's messages in order, since it would cost each message an entry for what few read. A page is merged from one
//! page of each of the tenant's applications, which costs an index look-up for each of them: that of a tenant with a hundred thousand may be
//! told to ask for less.

use chrono::{DateTime, Utc};
use domain::{
    id::{ApplicationId, EndpointId, MessageId, SourceId, TenantId},
    message::Message,
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    connection::Connection,
    messages,
    page::{Page, PageRequest},
};

/// Bounds the statements of one look, and keeps them to their indexes.
pub(crate) const SETTINGS: &str = "set local statement_timeout = '3s'; set local jit = off; set local enable_seqscan = off; \
                                   set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off; \
                                   set local max_parallel_workers_per_gather = 0";

/// Which messages of a tenant a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of these applications.
    pub applications: Option<Vec<ApplicationId>>,
    /// Only those that may go to one of these endpoints: not those that may go to another alone.
    pub endpoints: Option<Vec<EndpointId>>,
    /// Only those that came by one of these sources.
    pub sources: Option<Vec<SourceId>>,
    /// Only those of this type.
    pub event_type: Option<String>,
    /// Only those with this message key.
    pub message_key: Option<String>,
    /// Only those made before this moment.
    pub before: Option<DateTime<Utc>>,
    /// Only those made at this moment or later.
    pub after: Option<DateTime<Utc>>,
}

/// A page of the tenant's messages by id.
pub async fn list(db: &Database, tenant_id: TenantId, filter: &Filter, page: &PageRequest<MessageId>) -> Result<Page<Message>> {
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let bounds = page.bounds(filter.after, filter.before);
    let ids = ids(&mut tx, tenant_id, filter, bounds, page.scans_up(), page.rows()).await.map_err(Error::of_list)?;
    let mut found = messages::of_ids(&mut tx, tenant_id, &ids).await?;
    tx.rollback().await?;
    found.sort_unstable_by_key(|message| message.id);
    if !page.scans_up() {
        found.reverse();
    }
    Ok(page.page(found))
}

/// How many messages are counted with one statement.
const COUNTED_AT_ONCE: i64 = 10_000;

/// How many messages of the tenant there are.
///
/// # Errors
/// [`Error::ListTimedOut`] if there are very many, or it belongs to very many applications.
pub async fn count(db: &Database, tenant_id: TenantId, filter: &Filter) -> Result<u64> {
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let page = PageRequest::<MessageId> { limit: COUNTED_AT_ONCE, cursor: None, is_backwards: false, is_ascending: true };
    let (mut first, end) = page.bounds(filter.after, filter.before);
    let mut counted = 0;
    loop {
        let some = ids(&mut tx, tenant_id, filter, (first, end), true, COUNTED_AT_ONCE).await.map_err(Error::of_list)?;
        counted += u64::try_from(some.len()).unwrap_or(0);
        let Some(last) = some.last().filter(|_| i64::try_from(some.len()) == Ok(COUNTED_AT_ONCE)) else { break };
        first = Uuid::from_u128(last.as_u128().saturating_add(1));
    }
    tx.rollback().await?;
    Ok(counted)
}

/// Ids, or what the database says instead.
type Ids = std::result::Result<Vec<Uuid>, sqlx::Error>;

/// The first `most` of the tenant's messages between two ids, the second one excluded, from this end or that.
pub(crate) async fn ids(
    tx: &mut Connection,
    tenant_id: TenantId,
    filter: &Filter,
    (first, end): (Uuid, Uuid),
    is_up: bool,
    most: i64,
) -> Ids {
    if let Some(key) = &filter.message_key {
        return ids_of_key(tx, tenant_id, key, filter, (first, end), is_up, most).await;
    }
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_scalar!(
                r#"select m.id as "id!" from application a
                     cross join lateral (
                       select m.id from message m
                         where (m.application_id, m.id) >= (a.id, $2) and (m.application_id, m.id) < (a.id, $3) and m.tenant_id = $1
                           and ($6::text is null or m.event_type = $6)
                           and ($7::uuid[] is null or (m.particulars ->> 'source')::uuid = any ($7))
                           and ($8::uuid[] is null or coalesce((m.particulars ->> 'only')::uuid = any ($8), true))
                         order by m.application_id "#
                    + $order
                    + ", m.id "
                    + $order
                    + " limit $4) m
                     where a.tenant_id = $1 and a.deleted_at is null and not a.is_own and ($5::uuid[] is null or a.id = any ($5))
                     order by m.id "
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                first,
                end,
                most,
                uuids(filter.applications.as_deref()) as _,
                filter.event_type,
                uuids(filter.sources.as_deref()) as _,
                uuids(filter.endpoints.as_deref()) as _,
            )
            .fetch_all(tx)
            .await
        };
    }
    if is_up { scan!("asc") } else { scan!("desc") }
}

/// The same of those that carry one key. What costs is not how many other messages there are.
async fn ids_of_key(
    tx: &mut Connection,
    tenant_id: TenantId,
    key: &str,
    filter: &Filter,
    (first, end): (Uuid, Uuid),
    is_up: bool,
    most: i64,
) -> Ids {
    let event_types = filter.event_type.as_ref().map(|name| vec![name.clone()]);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_scalar!(
                r#"select m.id as "id!" from application a
                     cross join lateral messages_of_key_v1(a.id, $2, $3, $5, $6, null, $7, null, $4) m
                     where a.tenant_id = $1 and a.deleted_at is null and not a.is_own and ($8::uuid[] is null or a.id = any ($8))
                       and ($9::uuid[] is null or (m.particulars ->> 'source')::uuid = any ($9))
                       and ($10::uuid[] is null or coalesce((m.particulars ->> 'only')::uuid = any ($10), true))
                     order by m.id "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                key,
                is_up,
                most,
                first,
                end,
                event_types as _,
                uuids(filter.applications.as_deref()) as _,
                uuids(filter.sources.as_deref()) as _,
                uuids(filter.endpoints.as_deref()) as _,
            )
            .fetch_all(tx)
            .await
        };
    }
    if is_up { scan!("asc") } else { scan!("desc") }
}

fn uuids<I: Copy + Into<Uuid>>(ids: Option<&[I]>) -> Option<Vec<Uuid>> {
    ids.map(|ids| ids.iter().map(|id| (*id).into()).collect())
}

/// One message of the tenant, with the application that it belongs to.
pub async fn get(db: &Database, tenant_id: TenantId, id: MessageId) -> Result<Message> {
    let found = messages::of_ids(&mut db.pool().acquire().await?, tenant_id, &[id.into()]).await?;
    found.into_iter().next().ok_or(Error::NotFound("event"))
}

/// The endpoints of the tenant with these ids, deleted ones too: which application each belongs to.
pub async fn applications_of(db: &Database, tenant_id: TenantId, endpoints: &[EndpointId]) -> Result<Vec<ApplicationId>> {
    let ids: Vec<_> = endpoints.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query_scalar!(
        "select distinct application_id from endpoint where id = any ($1) and tenant_id = $2",
        &ids,
        Uuid::from(tenant_id)
    );
    Ok(rows.fetch_all(db.pool()).await?.into_iter().map(ApplicationId::from).collect())
}
