//! Sends an endpoint again what failed.

use sqlx::types::Uuid;

use super::{Done, Step, replay};
use crate::{Result, connection::Connection, resends, tasks::Row};

/// How many attempts one step looks at.
const STEP: i64 = 500;

/// The next deliveries that ended as failed or canceled, and of which nothing has succeeded or is still owed. They are found by the last
/// attempt of each run, in the order of those attempts; of several runs the last one stands for the delivery.
pub(super) async fn step(tx: &mut Connection, task: &Row) -> Result<Step> {
    let Some(endpoint_id) = task.endpoint_id else { return Ok(Step::Pointless("it names no endpoint")) };
    if let Some(why) = replay::unable(&mut *tx, task, endpoint_id).await? {
        return Ok(Step::Pointless(why));
    }
    let (since, until) = task.messages();
    // An attempt is never older than its message; one that was made after the task was asked for is none of its business.
    let after = task.cursor.unwrap_or(since).max(since);
    let ended = sqlx::query!(
        r#"with ended as materialized (
             (select id, message_id, next_attempt_at from attempt
               where endpoint_id = $1 and outcome = 1 and is_latest and id > $2 and id < $3 order by id limit $4)
             union all
             (select id, message_id, next_attempt_at from attempt
               where endpoint_id = $1 and outcome = 3 and is_latest and id > $2 and id < $3 order by id limit $4)
             order by id limit $4
           )
           select e.id as "id!", e.message_id as "message_id!", (
               e.next_attempt_at is null and e.message_id >= $5 and e.message_id < $6
               and not exists (select from attempt a where a.message_id = e.message_id and a.endpoint_id = $1 and (a.outcome = 0 or a.id > e.id))
               and not exists (select from queue q where q.message_id = e.message_id and q.endpoint_id = $1)
               and not exists (select from queue_later q where q.message_id = e.message_id and q.endpoint_id = $1)
               and exists (select from message m where m.id = e.message_id and m.tenant_id = $7 and m.payload is not null
                    and (m.payload_expires_at is null or m.payload_expires_at > now()))) as "is_wanted!"
             from ended e order by e.id"#,
        endpoint_id,
        after,
        task.id,
        STEP,
        since,
        until,
        task.tenant_id,
    )
    .fetch_all(&mut *tx)
    .await?;
    let wanted: Vec<Uuid> = ended.iter().filter(|row| row.is_wanted).map(|row| row.message_id).collect();
    let owed = resends::owe_again(tx, task.tenant_id, task.application_id(), endpoint_id, &wanted).await?;
    let is_last = ended.len() < usize::try_from(STEP).unwrap_or(0);
    Ok(Step::Done(Done { cursor: ended.last().map(|row| row.id), scanned: ended.len(), is_last, owed, ..Done::default() }))
}
