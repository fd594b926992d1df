//! What is known of a key: for people who ask what became of a request.

use chrono::{DateTime, Utc};
use domain::{
    id::{MessageId, TenantId},
    idempotency::Key,
};

use crate::{Db, Error, Result, outcomes, replays};

/// The operation whose outcomes are saved by reference.
const MESSAGE_CREATION: &str = "POST /api/v1/app/{app_id}/msg";
/// The most records that a key's look-up shows: a key has one for each operation that it was used in.
const MOST: i64 = 250;

/// The saved outcome of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The status that it was answered with.
    pub status: u16,
    /// Method and route, if they are known.
    pub operation: Option<String>,
    /// When the first request with the key was executed.
    pub first_seen_at: DateTime<Utc>,
    /// Until when it is replayed.
    pub expires_at: DateTime<Utc>,
    /// How often it was: what other processes have counted shows up within about a second.
    pub replays: u64,
    /// The message that it made; for a conflict of event ids, the one that had the id.
    pub message_id: Option<MessageId>,
}

/// All live records of a tenant's key, the newest first.
pub async fn find(db: &Db, tenant_id: TenantId, key: &Key) -> Result<Vec<Record>> {
    replays::add_up(db, &db.node.replays).await?;
    let (first, last) = key.scopes(tenant_id.into());
    let rows = sqlx::query!(
        "select k, status, ref, answer, created_at, expires_at, replays from idempotency
          where k between $1 and $2 and created_at > now() - make_interval(secs => $3) and expires_at > now()
          order by created_at desc limit $4",
        first,
        last,
        db.key_horizon().as_secs_f64(),
        MOST,
    )
    .fetch_all(db.lists())
    .await
    .map_err(Error::of_list)?;
    let records = rows.into_iter().map(|row| Record {
        status: u16::try_from(row.status).unwrap_or(0),
        operation: match &row.answer {
            Some(answer) => outcomes::operation(db, row.k, answer),
            None => Some(MESSAGE_CREATION.to_owned()),
        },
        first_seen_at: row.created_at,
        expires_at: row.expires_at,
        replays: u64::try_from(row.replays).unwrap_or(0),
        message_id: row.r#ref.map(MessageId::from),
    });
    Ok(records.collect())
}
