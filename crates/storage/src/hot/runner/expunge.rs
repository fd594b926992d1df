//! Erases the payloads of an application's messages.

use sqlx::types::Uuid;

use super::{Done, Step};
use crate::{Result, connection::Connection, tasks::Row};

/// How many messages one step erases.
const STEP: i64 = 500;

/// The next messages, of those that there were when it was asked for.
pub(super) async fn step(tx: &mut Connection, task: &Row) -> Result<Step> {
    let first = task.cursor.map_or(Uuid::nil(), |cursor| Uuid::from_u128(cursor.as_u128().saturating_add(1)));
    let ids = sqlx::query_scalar!(
        "select id from message where application_id = $1 and id >= $2 and id < $3 order by id limit $4",
        task.application_id(),
        first,
        task.id,
        STEP,
    )
    .fetch_all(&mut *tx)
    .await?;
    let erased = sqlx::query!(
        "update message set payload = null, payload_expires_at = null, particulars = particulars - '{headers,query}'::text[]
          where id = any ($1) and tenant_id = $2 and payload is not null",
        &ids,
        task.tenant_id,
    )
    .execute(tx)
    .await?;
    let is_last = i64::try_from(ids.len()).unwrap_or(0) < STEP;
    let erased = usize::try_from(erased.rows_affected()).unwrap_or(0);
    Ok(Step::Done(Done { cursor: ids.last().copied(), scanned: ids.len(), erased, is_last, ..Done::default() }))
}
