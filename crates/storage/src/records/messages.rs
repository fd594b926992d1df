//! Stored messages, for reading; [`crate::committer`] writes them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    id::{ApplicationId, Id, MessageId, TenantId},
    idempotency::scope_hash,
    message::Message,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    locks::EVENT_ID,
    page::{Page, PageRequest},
    particulars,
};

/// What a look-up that finds nothing says.
const WHAT: &str = "message";

/// Which messages of an application a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those in this channel.
    pub channel: Option<String>,
    /// Only those with this tag.
    pub tag: Option<String>,
    /// Only these event types.
    pub event_types: Option<Vec<String>>,
    /// Only those made before this moment.
    pub before: Option<DateTime<Utc>>,
    /// Only those made at this moment or later.
    pub after: Option<DateTime<Utc>>,
    /// Only those with this message key.
    pub message_key: Option<String>,
}

/// One message, by id or by its publisher's event id.
pub async fn get(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
    message: &Reference<MessageId>,
) -> Result<Message> {
    let application_id = applications::resolve(db, tenant_id, application).await?;
    let id = resolve(&mut db.pool().acquire().await?, application_id, message).await?;
    by_id(db, id).await?.filter(|found| found.application_id == application_id).ok_or(Error::NotFound(WHAT))
}

/// The application's messages by id.
pub async fn list(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
    filter: &Filter,
    page: &PageRequest<MessageId>,
) -> Result<Page<Message>> {
    let application_id = applications::resolve(db, tenant_id, application).await?;
    if let Some(key) = &filter.message_key {
        return list_by_key(db, application_id, key, filter, page).await;
    }
    let (first, end) = page.bounds(filter.after, filter.before);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                r#"select id, tenant_id, application_id, event_type, event_id, channels, message_key, duplicate_of, released_at, payload_mismatch,
                   case when payload_expires_at <= now() then null else payload end as payload, content_type,
                   case when payload_expires_at <= now() then particulars - '{headers,query}'::text[] else particulars end as "particulars: Json<Value>"
                   from message where application_id = $1 and id >= $2 and id < $3
                    and ($5::text is null or $5 = any (channels))
                    and ($6::text[] is null or event_type = any ($6))
                    and ($7::text is null or coalesce(particulars -> 'tags' ? $7, false))
                  order by id "# + $order + " limit $4",
                Uuid::from(application_id),
                first,
                end,
                page.rows(),
                filter.channel,
                filter.event_types as _,
                filter.tag,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    Ok(page.page(rows.into_iter().map(Message::from).collect()))
}

/// The application's messages with one key by id. A statement of its own, whose cost is that of the page: neither the number of the
/// application's messages nor how many of them carry the key matters.
async fn list_by_key(
    db: &Database,
    application_id: ApplicationId,
    key: &str,
    filter: &Filter,
    page: &PageRequest<MessageId>,
) -> Result<Page<Message>> {
    let (first, end) = page.bounds(filter.after, filter.before);
    let rows = sqlx::query_as!(
        Row,
        r#"select id as "id!", tenant_id as "tenant_id!", application_id as "application_id!", event_type as "event_type!", event_id, channels,
                  message_key, duplicate_of, released_at, payload_mismatch as "payload_mismatch!",
                  case when payload_expires_at <= now() then null else payload end as payload, content_type as "content_type!",
                  case when payload_expires_at <= now() then particulars - '{headers,query}'::text[] else particulars end as "particulars: Json<Value>"
             from messages_of_key_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)"#,
        Uuid::from(application_id),
        key,
        page.scans_up(),
        first,
        end,
        filter.channel,
        filter.event_types as _,
        filter.tag,
        page.rows(),
    )
    .fetch_all(db.lists())
    .await
    .map_err(Error::of_list)?;
    Ok(page.page(rows.into_iter().map(Message::from).collect()))
}

/// The id that a reference stands for; whether there is such a message is for the caller to see.
pub(crate) async fn resolve(
    connection: &mut Connection,
    application_id: ApplicationId,
    message: &Reference<MessageId>,
) -> Result<MessageId> {
    let event_id = match message {
        Reference::Id(id) => return Ok(*id),
        Reference::Uid(event_id) => event_id,
    };
    let hash = scope_hash(EVENT_ID, application_id.into(), event_id);
    let id = sqlx::query_scalar!("select message_id from event_uid where scope_hash = $1", hash).fetch_optional(connection).await?;
    id.map(MessageId::from).ok_or(Error::NotFound(WHAT))
}

/// One message, whoever's it is.
pub(crate) async fn by_id(db: &Database, id: MessageId) -> Result<Option<Message>> {
    find(&mut db.pool().acquire().await?, id).await
}

/// Messages of a tenant by id.
pub(crate) async fn of_ids(connection: &mut Connection, tenant_id: TenantId, ids: &[Uuid]) -> Result<Vec<Message>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, event_type, event_id, channels, message_key, duplicate_of, released_at, payload_mismatch,
           case when payload_expires_at <= now() then null else payload end as payload, content_type,
                   case when payload_expires_at <= now() then particulars - '{headers,query}'::text[] else particulars end as "particulars: Json<Value>"
           from message where id = any ($1) and tenant_id = $2"#,
        ids,
        Uuid::from(tenant_id),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Message::from).collect())
}

/// One message, whoever's it is, as the caller's transaction sees it.
pub(crate) async fn find(connection: &mut Connection, id: MessageId) -> Result<Option<Message>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, event_type, event_id, channels, message_key, duplicate_of, released_at, payload_mismatch,
           case when payload_expires_at <= now() then null else payload end as payload, content_type,
                   case when payload_expires_at <= now() then particulars - '{headers,query}'::text[] else particulars end as "particulars: Json<Value>"
           from message where id = $1"#,
        Uuid::from(id),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Message::from))
}

/// How many payloads one statement removes.
const REMOVED_AT_ONCE: i64 = 1000;

/// Removes the payloads whose time is over, a batch at a time. They have not been shown or sent since then.
pub async fn remove_expired_payloads(db: &Database) -> Result<()> {
    let mut connection = db.connect_apart("posthaste-upkeep").await?;
    loop {
        let removed = sqlx::query!(
            "update message set payload = null, payload_expires_at = null, particulars = particulars - '{headers,query}'::text[] where id = any (array(
               select m.id from message m where m.payload_expires_at <= now() order by m.payload_expires_at limit $1))",
            REMOVED_AT_ONCE
        );
        let removed = removed.execute(&mut connection).await?.rows_affected();
        if removed > 0 {
            tracing::info!(removed, "removed payloads whose retention is over");
        }
        if removed < REMOVED_AT_ONCE.unsigned_abs() {
            return Ok(());
        }
    }
}

/// A message as its table holds it.
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    application_id: Uuid,
    event_type: String,
    event_id: Option<String>,
    channels: Option<Vec<String>>,
    message_key: Option<String>,
    duplicate_of: Option<Uuid>,
    released_at: Option<DateTime<Utc>>,
    payload_mismatch: bool,
    payload: Option<Vec<u8>>,
    content_type: String,
    particulars: Option<Json<Value>>,
}

impl From<Row> for Message {
    fn from(row: Row) -> Self {
        let id = MessageId::from(row.id);
        Self {
            id,
            tenant_id: row.tenant_id.into(),
            application_id: row.application_id.into(),
            event_type: row.event_type,
            event_id: row.event_id,
            channels: row.channels.unwrap_or_default(),
            payload: row.payload.map(Bytes::from),
            content_type: row.content_type,
            message_key: row.message_key,
            duplicate_of: row.duplicate_of.map(MessageId::from),
            released_at: row.released_at,
            payload_mismatch: row.payload_mismatch,
            particulars: particulars::read(row.particulars),
            created_at: id.created_at(),
        }
    }
}
