//! Where deliveries stand: of one message to its endpoints, and of one endpoint's messages.
//!
//! What is known of a message and an endpoint lies in the queue (by its whole key), in the latest attempts (by endpoint and message), and
//! in the endpoint's gates: `facts` looks up all of it for the pairs of a page, in one statement and one snapshot.

use chrono::{DateTime, Utc};
use domain::{
    delivery::Outcome,
    endpoint::Endpoint,
    health::State,
    id::{ApplicationId, EndpointId, MessageId, TenantId},
    message::Message,
    standing::{Facts, Gate, Last, Owed, Standing},
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    applications::Reference,
    connection::Connection,
    endpoints, messages,
    page::{Page, PageRequest},
};

/// Bounds the statements of one look, and keeps them to their indexes.
const SETTINGS: &str = "set local statement_timeout = '3s'; set local jit = off; set local enable_seqscan = off; set local enable_bitmapscan = off; \
                        set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_sort = off; set local enable_hashagg = off; \
                        set local max_parallel_workers_per_gather = 0";

/// A delivery: what is known of it, and what that comes to.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// In one word.
    pub standing: Standing,
    /// In all.
    pub facts: Facts,
}

/// An endpoint to which a message is or was owed, or would be.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Which.
    pub endpoint: Endpoint,
    /// How far it got.
    pub delivery: Delivery,
}

/// A message that was attempted to be sent to an endpoint.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// Which.
    pub message: Message,
    /// How far it got.
    pub delivery: Delivery,
}

/// How attempted messages can be told apart; the numbers are those of the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Delivered.
    Succeeded = 0,
    /// Ended without success, after all attempts.
    Failed = 2,
    /// Still owed.
    Owed = 3,
    /// Ended without a request.
    Canceled = 4,
}

/// The endpoints that a message is or was owed to, by id; with all others of its application, if `has_left_out`. It reads the latest
/// attempts of the message, and none of its neighbours'.
pub async fn destinations(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
    message: &Reference<MessageId>,
    has_left_out: bool,
    page: &PageRequest<EndpointId>,
) -> Result<Page<Destination>> {
    let message = messages::get(db, tenant_id, application, message).await?;
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let ids = ids_of_destinations(&mut tx, &message, has_left_out, page).await.map_err(Error::of_list)?;
    let pairs: Vec<_> = ids.iter().map(|id| (Uuid::from(message.id), *id)).collect();
    let facts = facts(&mut tx, tenant_id, &pairs).await.map_err(Error::of_list)?;
    let mut endpoints = endpoints::of_ids(&mut tx, message.application_id, &ids).await?;
    tx.rollback().await?;
    let now = db.now();
    let mut found = Vec::with_capacity(ids.len());
    for (id, facts) in ids.into_iter().zip(facts) {
        let Some(place) = endpoints.iter().position(|endpoint| endpoint.id == id.into()) else { continue };
        let endpoint = endpoints.swap_remove(place);
        let standing = Standing::of(&facts, &message, &endpoint, now);
        found.push(Destination { endpoint, delivery: Delivery { standing, facts } });
    }
    Ok(page.page(found))
}

/// The messages that were attempted to be sent to an endpoint, by id, if they are of one of these kinds.
pub async fn attempted(
    db: &Database,
    endpoint: &Endpoint,
    filter: &messages::Filter,
    kinds: Option<&[Kind]>,
    page: &PageRequest<MessageId>,
) -> Result<Page<Attempted>> {
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let ids = ids_of_attempted(&mut tx, endpoint, filter, kinds, page).await.map_err(Error::of_list)?;
    let pairs: Vec<_> = ids.iter().map(|id| (*id, Uuid::from(endpoint.id))).collect();
    let facts = facts(&mut tx, endpoint.tenant_id, &pairs).await.map_err(Error::of_list)?;
    let mut messages = messages::of_ids(&mut tx, endpoint.tenant_id, &ids).await?;
    tx.rollback().await?;
    let now = db.now();
    let mut found = Vec::with_capacity(ids.len());
    for (id, facts) in ids.into_iter().zip(facts) {
        let Some(place) = messages.iter().position(|message| message.id == id.into()) else { continue };
        let message = messages.swap_remove(place);
        let standing = Standing::of(&facts, &message, endpoint, now);
        found.push(Attempted { message, delivery: Delivery { standing, facts } });
    }
    Ok(page.page(found))
}

/// Ids, or what the database says instead.
type Ids = std::result::Result<Vec<Uuid>, sqlx::Error>;

/// The endpoints of a page of [`destinations`]. What looks a range of an index up names its first column first, or hides the others,
/// so that no other index can seem to serve.
async fn ids_of_destinations(tx: &mut Connection, message: &Message, has_left_out: bool, page: &PageRequest<EndpointId>) -> Ids {
    let (first, end) = page.bounds(None, None);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_scalar!(
                r#"select endpoint_id as "endpoint_id!" from (
                     select q.endpoint_id from queue q
                       where (q.message_id, q.endpoint_id) >= ($1, $2) and (q.message_id, q.endpoint_id) < ($1, $3) and q.tenant_id = $5
                     union select q.endpoint_id from queue_later q
                       where (q.message_id, q.endpoint_id) >= ($1, $2) and (q.message_id, q.endpoint_id) < ($1, $3) and q.tenant_id = $5
                     union select a.endpoint_id from (select a.endpoint_id from attempt a
                       where (a.message_id, a.id) >= ($1, '00000000-0000-0000-0000-000000000000') and (a.message_id, a.id) <= ($1, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                         and a.is_latest and a.tenant_id = $5 offset 0) a where a.endpoint_id >= $2 and a.endpoint_id < $3
                     union (select e.id from endpoint e
                       where $6 and (e.application_id, e.id) >= ($7, $2) and (e.application_id, e.id) < ($7, $3) and e.deleted_at is null and e.tenant_id = $5
                       order by e.application_id "#
                    + $order
                    + ", e.id "
                    + $order
                    + " limit $4)
                   ) destination order by endpoint_id "
                    + $order
                    + " limit $4",
                Uuid::from(message.id),
                first,
                end,
                page.rows(),
                Uuid::from(message.tenant_id),
                has_left_out,
                Uuid::from(message.application_id),
            )
            .fetch_all(tx)
            .await
        };
    }
    if page.scans_up() { scan!("asc") } else { scan!("desc") }
}

/// The messages of a page of [`attempted`].
async fn ids_of_attempted(
    tx: &mut Connection,
    endpoint: &Endpoint,
    filter: &messages::Filter,
    kinds: Option<&[Kind]>,
    page: &PageRequest<MessageId>,
) -> Ids {
    let kinds: Option<Vec<i16>> = kinds.map(|kinds| kinds.iter().map(|kind| *kind as i16).collect());
    let (first, end) = page.bounds(filter.after, filter.before);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_scalar!(
                r#"select d.message_id as "message_id!" from (
                     select distinct on (uuid_send(a.endpoint_id) || uuid_send(a.message_id)) uuid_send(a.endpoint_id) || uuid_send(a.message_id) as delivery, a.message_id from attempt a
                       where uuid_send(a.endpoint_id) || uuid_send(a.message_id) >= uuid_send($1) || uuid_send($2)
                         and uuid_send(a.endpoint_id) || uuid_send(a.message_id) < uuid_send($1) || uuid_send($3) and a.is_latest and a.tenant_id = $8
                       order by uuid_send(a.endpoint_id) || uuid_send(a.message_id) "#
                    + $order
                    + ") d
                   cross join lateral (select m.event_type, m.channels, m.particulars -> 'tags' as tags from message m where m.id = d.message_id offset 0) m
                   cross join lateral (select bool_or(a.outcome = 0) as is_delivered, (array_agg(a.outcome order by a.run = 0 desc, a.run desc))[1] as outcome
                     from attempt a where uuid_send(a.endpoint_id) || uuid_send(a.message_id) = d.delivery and a.is_latest) a
                   where ($5::text is null or $5 = any (m.channels)) and ($6::text[] is null or m.event_type = any ($6)) and ($9::text is null or coalesce(m.tags ? $9, false))
                     and ($7::smallint[] is null or case when a.is_delivered then 0
                       when exists (select from queue q where (q.message_id, q.endpoint_id) >= (d.message_id, $1) and (q.message_id, q.endpoint_id) <= (d.message_id, $1))
                         or exists (select from queue_later q where (q.message_id, q.endpoint_id) >= (d.message_id, $1) and (q.message_id, q.endpoint_id) <= (d.message_id, $1)) then 3
                       when a.outcome in (3, 4) then 4 else 2 end = any ($7))
                   order by d.delivery "
                    + $order
                    + " limit $4",
                Uuid::from(endpoint.id),
                first,
                end,
                page.rows(),
                filter.channel,
                filter.event_types as _,
                kinds.as_deref() as _,
                Uuid::from(endpoint.tenant_id),
                filter.tag,
            )
            .fetch_all(tx)
            .await
        };
    }
    if page.scans_up() { scan!("asc") } else { scan!("desc") }
}

/// A row of what is known.
struct Row {
    due_at: Option<DateTime<Utc>>,
    is_leased: Option<bool>,
    attempts: Option<i16>,
    attempt_id: Option<Uuid>,
    outcome: Option<i16>,
    status_code: Option<i16>,
    response: Option<Vec<u8>>,
    state: Option<i16>,
    failures: Option<i32>,
    changed_at: Option<DateTime<Utc>>,
    probe_at: Option<DateTime<Utc>>,
    token_at: Option<DateTime<Utc>>,
    is_deleted: bool,
    is_to_come: bool,
}

/// What is known of each message and endpoint, in their order. Before the first send a throttle has no time.
///
/// Each is looked up by its whole key, as ranges from itself to itself, so that
/// no other index can seem to serve. Of several runs the one that is furthest counts: one that is being sent, then one that is due.
pub(crate) async fn facts(
    tx: &mut Connection,
    tenant_id: TenantId,
    pairs: &[(Uuid, Uuid)],
) -> std::result::Result<Vec<Facts>, sqlx::Error> {
    let (messages, endpoints): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"select q.due_at as "due_at?", q.is_leased as "is_leased?", q.attempts as "attempts?", a.id as "attempt_id?", a.outcome as "outcome?",
                  a.status_code as "status_code?", a.response as "response?", h.state as "state?", h.failures as "failures?", h.changed_at as "changed_at?",
                  h.probe_at as "probe_at?", r.token_at as "token_at?",
                  exists (select from task t where t.id = p.message_id and t.tenant_id = $3 and t.state = 0
                    and (t.cursor is null or t.cursor < p.endpoint_id)) as "is_to_come!",
                  coalesce((select e.deleted_at is not null from endpoint e where e.id = p.endpoint_id and e.tenant_id = $3), false) as "is_deleted!"
             from (select generate_subscripts($1::uuid[], 1) as n, unnest($1::uuid[]) as message_id, unnest($2::uuid[]) as endpoint_id) p
             left join lateral (
               select * from (
                 select q.due_at, q.lease is not null as is_leased, q.attempts, q.tenant_id from queue q
                   where (q.message_id, q.endpoint_id, q.run) >= (p.message_id, p.endpoint_id, 0) and (q.message_id, q.endpoint_id, q.run) <= (p.message_id, p.endpoint_id, 2147483647)
                 union all select q.due_at, false, q.attempts, q.tenant_id from queue_later q
                   where (q.message_id, q.endpoint_id, q.run) >= (p.message_id, p.endpoint_id, 0) and (q.message_id, q.endpoint_id, q.run) <= (p.message_id, p.endpoint_id, 2147483647)
               ) q where q.tenant_id = $3 order by q.is_leased desc, q.due_at limit 1) q on true
             left join lateral (
               select a.id, a.outcome, a.status_code, substring(a.response from 1 for 1000) as response from attempt a
                 where uuid_send(a.endpoint_id) || uuid_send(a.message_id) = uuid_send(p.endpoint_id) || uuid_send(p.message_id) and a.is_latest and a.tenant_id = $3
                 order by a.outcome = 0 desc, a.run = 0 desc, a.run desc limit 1) a on true
             left join lateral (select h.* from endpoint_health h where h.endpoint_id = p.endpoint_id and h.tenant_id = $3 offset 0) h on true
             left join lateral (select case when isfinite(r.tat) then r.tat end as token_at from endpoint_rate r where r.endpoint_id = p.endpoint_id and r.tenant_id = $3 offset 0) r on true
             order by p.n"#,
        &messages,
        &endpoints,
        Uuid::from(tenant_id),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(Facts::from).collect())
}

impl From<Row> for Facts {
    fn from(row: Row) -> Self {
        let owed = row.due_at.map(|due_at| Owed { due_at, is_leased: row.is_leased == Some(true), attempts: row.attempts.unwrap_or(0) });
        let attempt = row.attempt_id.map(|id| Last {
            id: id.into(),
            outcome: Outcome::from_code(row.outcome.unwrap_or(Outcome::Failed.code())),
            status_code: u16::try_from(row.status_code.unwrap_or(0)).unwrap_or(0),
            response: String::from_utf8_lossy(&row.response.unwrap_or_default()).into_owned(),
        });
        let gate = row.state.zip(row.changed_at).map(|(state, since)| Gate {
            state: State::of(false, state, row.failures.unwrap_or(0)),
            since,
            probe_at: row.probe_at,
        });
        Self { owed, attempt, gate, token_at: row.token_at, is_deleted: row.is_deleted, is_to_come: row.is_to_come }
    }
}
