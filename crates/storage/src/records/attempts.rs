//! Recorded attempts, for reading; [`crate::committer`] and [`crate::queue`] write them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    delivery::{Attempt, Outcome, Trigger},
    id::{ApplicationId, AttemptId, EndpointId, Id, MessageId, TenantId},
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    applications::Reference,
    endpoints::{self, Address},
    messages,
    page::{Page, PageRequest},
};

/// Which attempts a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only with one of these outcomes.
    pub outcomes: Option<Vec<Outcome>>,
    /// Only with a status code in this hundred (0, 100, … 500).
    pub status_code_class: Option<u16>,
    /// Only of messages in this channel.
    pub channel: Option<String>,
    /// Only of messages with this tag.
    pub tag: Option<String>,
    /// Only of messages of these event types.
    pub event_types: Option<Vec<String>>,
    /// Only those made before this moment.
    pub before: Option<DateTime<Utc>>,
    /// Only those made at this moment or later.
    pub after: Option<DateTime<Utc>>,
}

/// Attempts to one endpoint, by id.
pub async fn list_by_endpoint(db: &Database, address: &Address, filter: &Filter, page: &PageRequest<AttemptId>) -> Result<Page<Attempt>> {
    let endpoint = endpoints::get(db, address).await?;
    list(db, Of::Endpoint(endpoint.id), filter, page).await
}

/// Attempts to deliver one message, by id; only to `endpoint` if given.
pub async fn list_by_message(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
    message: &Reference<MessageId>,
    endpoint: Option<&Reference<EndpointId>>,
    filter: &Filter,
    page: &PageRequest<AttemptId>,
) -> Result<Page<Attempt>> {
    let message = messages::get(db, tenant_id, application, message).await?;
    let endpoint_id = match endpoint {
        Some(endpoint) => {
            let address = Address { tenant_id, application: application.clone(), endpoint: endpoint.clone() };
            Some(endpoints::get(db, &address).await?.id)
        }
        None => None,
    };
    list(db, Of::Message(message.id, endpoint_id), filter, page).await
}

/// One attempt of one message.
pub async fn get(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
    message: &Reference<MessageId>,
    attempt: AttemptId,
) -> Result<Attempt> {
    let message = messages::get(db, tenant_id, application, message).await?;
    let row = sqlx::query_as!(
        Row,
        "select id, message_id, endpoint_id, run, number, application_id, trigger, outcome, status_code, duration_ms, url, response, next_attempt_at, is_resent
           from attempt where id = $1 and message_id = $2",
        Uuid::from(attempt),
        Uuid::from(message.id),
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(row.ok_or(Error::NotFound("attempt"))?.into())
}

/// Whose attempts are listed.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// All of a message, or those to one endpoint.
    Message(MessageId, Option<EndpointId>),
    Endpoint(EndpointId),
}

async fn list(db: &Database, of: Of, filter: &Filter, page: &PageRequest<AttemptId>) -> Result<Page<Attempt>> {
    let outcomes: Option<Vec<i16>> = filter.outcomes.as_ref().map(|outcomes| outcomes.iter().map(|outcome| outcome.code()).collect());
    let (first, end) = page.bounds(filter.after, filter.before);
    macro_rules! scan {
        ($owner:tt $id:ident, $other:tt $other_id:expr, $order:tt) => {
            sqlx::query_as!(
                Row,
                "select a.id, a.message_id, a.endpoint_id, run, number, a.application_id, trigger, outcome, status_code, duration_ms, url, response,
                        next_attempt_at, is_resent
                   from attempt a where a." + $owner + " = $1 and a.id >= $2 and a.id < $3
                    and ($5::uuid is null or a." + $other + " = $5)
                    and ($6::smallint[] is null or outcome = any ($6))
                    and ($7::smallint is null or status_code / 100 * 100 = $7)
                    and (($8::text is null and $9::text[] is null and $10::text is null) or exists (
                        select from message m where m.id = a.message_id
                           and ($8::text is null or $8 = any (m.channels)) and ($9::text[] is null or m.event_type = any ($9))
                           and ($10::text is null or coalesce(m.particulars -> 'tags' ? $10, false))))
                  order by a.id " + $order + " limit $4",
                Uuid::from($id),
                first,
                end,
                page.rows(),
                $other_id,
                outcomes.as_deref() as _,
                filter.status_code_class.and_then(|class| i16::try_from(class).ok()),
                filter.channel,
                filter.event_types.as_deref() as _,
                filter.tag,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = match (of, page.scans_up()) {
        (Of::Message(id, endpoint_id), true) => scan!("message_id" id, "endpoint_id" endpoint_id.map(Uuid::from), "asc"),
        (Of::Message(id, endpoint_id), false) => scan!("message_id" id, "endpoint_id" endpoint_id.map(Uuid::from), "desc"),
        (Of::Endpoint(id), true) => scan!("endpoint_id" id, "message_id" None::<Uuid>, "asc"),
        (Of::Endpoint(id), false) => scan!("endpoint_id" id, "message_id" None::<Uuid>, "desc"),
    };
    Ok(page.page(rows.into_iter().map(Attempt::from).collect()))
}

/// An attempt as its table holds it.
struct Row {
    id: Uuid,
    message_id: Uuid,
    endpoint_id: Uuid,
    run: i32,
    number: i16,
    application_id: Uuid,
    trigger: i16,
    outcome: i16,
    status_code: i16,
    duration_ms: i32,
    url: String,
    response: Vec<u8>,
    next_attempt_at: Option<DateTime<Utc>>,
    is_resent: bool,
}

impl From<Row> for Attempt {
    fn from(row: Row) -> Self {
        let id = AttemptId::from(row.id);
        Self {
            id,
            message_id: row.message_id.into(),
            application_id: row.application_id.into(),
            endpoint_id: row.endpoint_id.into(),
            url: row.url,
            run: row.run,
            number: row.number,
            trigger: Trigger::from_code(row.trigger),
            outcome: Outcome::from_code(row.outcome),
            status_code: u16::try_from(row.status_code).unwrap_or(0),
            response: row.response.into(),
            duration: Duration::from_millis(u64::try_from(row.duration_ms).unwrap_or(0)),
            next_attempt_at: row.next_attempt_at,
            is_resent: row.is_resent,
            created_at: id.created_at(),
        }
    }
}
