//! How an endpoint is, for whoever asks: what the circuit breaker knows of it, its last failure, and what is owed to it.

use chrono::{DateTime, Utc};
use domain::{
    health::State,
    id::{AttemptId, EndpointId, Id, MessageId},
};
use sqlx::types::Uuid;

use super::{Address, get};
use crate::{Database, Error, Result, connection::Connection};

/// Bounds the statements of one look, and keeps them to their indexes.
const SETTINGS: &str =
    "set local statement_timeout = '3s'; set local jit = off; set local enable_seqscan = off; set local enable_bitmapscan = off";

/// How an endpoint is.
#[derive(Clone, Debug)]
pub struct EndpointHealth {
    /// Which.
    pub endpoint_id: EndpointId,
    /// In a word.
    pub state: State,
    /// How many sends in a row have failed.
    pub failures: i32,
    /// The first failure since the last success.
    pub failing_since: Option<DateTime<Utc>>,
    /// Since when its deliveries wait.
    pub held_since: Option<DateTime<Utc>>,
    /// When one of them is sent, to find out whether it is back.
    pub next_probe_at: Option<DateTime<Utc>>,
    /// What went wrong the last time; nothing of one that is well.
    pub last_failure: Option<Failure>,
    /// What is owed to it.
    pub owed: Owed,
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub attempt_id: AttemptId,
    /// What was sent.
    pub message_id: MessageId,
    /// The response's status code; 0 if there was none.
    pub status_code: u16,
    /// The response, or our words on why there was none.
    pub response: Vec<u8>,
}

/// What is owed to an endpoint. Each number is exact up to 10,000; one more means "more than that".
#[derive(Clone, Debug)]
pub struct Owed {
    /// Deliveries that are due.
    pub due: i64,
    /// That are being sent, or about to be.
    pub sending: i64,
    /// That wait for their next attempt.
    pub sleeping: i64,
    /// The oldest message among those that were counted.
    pub oldest: Option<MessageId>,
}

/// How an endpoint is.
pub async fn health(db: &Database, address: &Address) -> Result<EndpointHealth> {
    let endpoint = get(db, address).await?;
    let id = Uuid::from(endpoint.id);
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let known = sqlx::query!("select state, failures, failing_since, changed_at, probe_at from endpoint_health where endpoint_id = $1", id)
        .fetch_optional(&mut *tx)
        .await?;
    let (gate, failures) = known.as_ref().map_or((0, 0), |known| (known.state, known.failures));
    let state = State::of(endpoint.is_disabled, gate, failures);
    let last_failure = if state == State::Healthy { None } else { last_failure(&mut tx, id).await? };
    let owed = count_owed(&mut tx, id).await?;
    tx.rollback().await?;
    Ok(EndpointHealth {
        endpoint_id: endpoint.id,
        state,
        failures,
        failing_since: known.as_ref().and_then(|known| known.failing_since),
        held_since: known.as_ref().filter(|_| state == State::Held).map(|known| known.changed_at),
        next_probe_at: known.and_then(|known| known.probe_at),
        last_failure,
        owed,
    })
}

/// What is owed to an endpoint.
pub(crate) async fn owed(db: &Database, endpoint_id: EndpointId) -> Result<Owed> {
    let mut tx = db.lists().begin().await.map_err(Error::of_list)?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let owed = count_owed(&mut tx, endpoint_id.into()).await?;
    tx.rollback().await?;
    Ok(owed)
}

/// The last failure that nothing followed yet, or one of the last attempts of all: what was canceled has hidden those before it.
async fn last_failure(tx: &mut Connection, id: Uuid) -> Result<Option<Failure>> {
    let row = sqlx::query!(
        r#"select id as "id!", message_id as "message_id!", status_code as "status_code!", response as "response!" from (
             (select id, message_id, status_code, response from attempt where endpoint_id = $1 and outcome = 1 and is_latest order by id desc limit 1)
             union all
             (select id, message_id, status_code, response from (
                select * from attempt where endpoint_id = $1 order by id desc limit 200) recent where outcome = 1 limit 1)
           ) failed order by id desc limit 1"#,
        id,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Failure {
        attempt_id: row.id.into(),
        message_id: row.message_id.into(),
        status_code: u16::try_from(row.status_code).unwrap_or(0),
        response: row.response,
    }))
}

/// What sleeps is found by its last attempt, which names the time of the next: those are kept by endpoint, and what sleeps is not.
async fn count_owed(tx: &mut Connection, id: Uuid) -> Result<Owed> {
    let row = sqlx::query!(
        r#"with due as materialized (
             select message_id from queue where endpoint_id = $1 and due_at <= now() order by endpoint_id, due_at limit 10001
           ), sending as materialized (
             select message_id from queue where endpoint_id = $1 and due_at > now() order by endpoint_id, due_at limit 10001
           ), failed as materialized (
             select message_id, next_attempt_at from attempt where endpoint_id = $1 and outcome = 1 and is_latest order by id desc limit 10001
           ), sleeping as materialized (
             select message_id from failed where next_attempt_at > now()
           )
           select (select count(*) from due) as "due!", (select count(*) from sending) as "sending!", (select count(*) from sleeping) as "sleeping!",
             (select message_id from (select message_id from due union all select message_id from sending union all select message_id from sleeping) owed
                order by message_id limit 1) as oldest"#,
        id,
    )
    .fetch_one(tx)
    .await?;
    Ok(Owed { due: row.due, sending: row.sending, sleeping: row.sleeping, oldest: row.oldest.map(MessageId::from) })
}

impl Failure {
    /// When it was recorded.
    pub fn at(&self) -> DateTime<Utc> {
        self.attempt_id.created_at()
    }
}
