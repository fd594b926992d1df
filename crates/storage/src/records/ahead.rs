//! Rows that were written while the server's clock was ahead of what it shows now: their times are brought back.
//!
//! The server's clock counts, whatever it shows. If it is set back, by a month after it was wrong for a day, say, then what was owed
//! "in five seconds" would be due in a month, and a key that was used a minute ago would not be looked for before then.

use std::time::Duration;

use domain::{
    health::LONGEST_COOL_DOWN,
    retry::RetrySchedule,
    retry_strategy::{LONGEST_DOUBLED, LONGEST_INTERVAL},
};
use sqlx::types::Uuid;

use crate::{
    Database, Result,
    locks::{KEY_LOCK, lock_id},
};

/// How many rows one statement moves.
const BATCH: i64 = 1_000;
/// What two looks at the clock may differ by, and another process's settings from ours.
const SLACK: Duration = Duration::from_mins(10);

/// Waits until this process notices that the server's clock was set back.
pub async fn clock_is_set_back(db: &Database) {
    db.clock().set_back().await;
}

/// Brings back the times that can only come from a clock that was ahead: those of deliveries that are leased for longer than `lease`,
/// or sleep for longer than `longest_wait` and than anybody has asked for, of gates and throttles, and of saved outcomes. There are none as long as the clock goes on.
pub async fn bring_back(db: &Database, lease: Duration, longest_wait: Duration) -> Result<()> {
    let (mut moved, longest_wait) = (0, longest_wait.max(longest_asked_for(db).await?));
    loop {
        let step = due(db, lease).await? + asleep(db, longest_wait).await? + gates(db, lease).await? + outcomes(db).await?;
        if step == 0 {
            break;
        }
        moved += step;
    }
    if moved > 0 {
        tracing::warn!(rows = moved, "the database's clock was set back: what was to come later than it can is brought back");
        db.wake();
    }
    Ok(())
}

/// The longest that a delivery may sleep by the retry strategy of an endpoint or a project; nothing, if there is none.
async fn longest_asked_for(db: &Database) -> Result<Duration> {
    let seconds = sqlx::query_scalar!(
        "select max(case when jsonb_typeof(strategy -> 'duration') = 'number' then (strategy ->> 'duration')::float8 else 0 end)
           from (select settings -> 'retry' as strategy from endpoint where settings is not null and deleted_at is null
                 union all select config -> 'strategy' from project) asked
          where jsonb_typeof(strategy) = 'object'"
    )
    .fetch_one(db.pool())
    .await?;
    let interval = seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default().min(LONGEST_INTERVAL));
    Ok(interval.map(|interval| RetrySchedule(vec![interval.max(LONGEST_DOUBLED)]).longest_wait()).unwrap_or_default())
}

/// What is due or leased: at once, or when a lease that begins now has run out. Endpoint by endpoint, since their rows are in order.
async fn due(db: &Database, lease: Duration) -> Result<u64> {
    let moved = sqlx::query!(
        "with recursive owed as (
           (select endpoint_id from queue order by endpoint_id limit 1)
           union all
           select (select q.endpoint_id from queue q where q.endpoint_id > o.endpoint_id order by q.endpoint_id limit 1) from owed o
             where o.endpoint_id is not null
         ), late as (
           select q.message_id, q.endpoint_id, q.run from owed o cross join lateral (
             select q.message_id, q.endpoint_id, q.run from queue q
               where q.endpoint_id = o.endpoint_id and q.due_at > now() + make_interval(secs => $2)
               order by q.endpoint_id, q.due_at limit $3) q
             limit $3
         )
         update queue q set due_at = now() + case when q.lease is null then interval '0' else make_interval(secs => $1) end
           from late l where q.message_id = l.message_id and q.endpoint_id = l.endpoint_id and q.run = l.run
             and q.due_at > now() + make_interval(secs => $2)",
        lease.as_secs_f64(),
        (lease + SLACK).as_secs_f64(),
        BATCH,
    );
    Ok(moved.execute(db.pool()).await?.rows_affected())
}

/// What sleeps: it waits as long as it was to wait when it was written, which its last attempt's id says.
async fn asleep(db: &Database, longest_wait: Duration) -> Result<u64> {
    let moved = sqlx::query!(
        "with late as (
           select l.message_id, l.endpoint_id, l.run,
               l.due_at - to_timestamp(('x' || left(replace(coalesce(l.last_attempt_id, l.message_id)::text, '-', ''), 12))::bit(48)::bigint / 1000.0) as wait
             from queue_later l where l.due_at > now() + make_interval(secs => $2) order by l.due_at desc limit $3 for update skip locked
         )
         update queue_later l set due_at = now() + least(greatest(late.wait, interval '0'), make_interval(secs => $1))
           from late where l.message_id = late.message_id and l.endpoint_id = late.endpoint_id and l.run = late.run",
        longest_wait.as_secs_f64(),
        longest_wait.saturating_add(SLACK).as_secs_f64(),
        BATCH,
    );
    Ok(moved.execute(db.pool()).await?.rows_affected())
}

/// Gates whose probe or whose next step is too far away, throttles that would have no token until then, and workers that have claimed in
/// the future.
async fn gates(db: &Database, lease: Duration) -> Result<u64> {
    let held = sqlx::query!(
        "update endpoint_health set changed_at = least(changed_at, now()), failed_at = case when failed_at > now() then now() else failed_at end,
             failing_since = case when failing_since > now() then now() else failing_since end,
             probe_at = case when probe_at > now() + make_interval(secs => $1) then now() + make_interval(secs => cool_down_seconds) else probe_at end
           where endpoint_id in (select endpoint_id from endpoint_health
             where probe_at > now() + make_interval(secs => $1) or greatest(changed_at, failed_at) > now() + make_interval(secs => $2)
             order by endpoint_id for update skip locked)",
        (lease.max(LONGEST_COOL_DOWN) + SLACK).as_secs_f64(),
        SLACK.as_secs_f64(),
    );
    let held = held.execute(db.pool()).await?.rows_affected();
    let throttled = sqlx::query!(
        "update endpoint_rate set tat = now() where endpoint_id in
           (select endpoint_id from endpoint_rate where tat > now() + make_interval(secs => $1) order by endpoint_id for update skip locked)",
        SLACK.as_secs_f64(),
    );
    let throttled = throttled.execute(db.pool()).await?.rows_affected();
    // Those that live say so again in a few seconds.
    let workers = sqlx::query!("delete from worker where claimed_at > now() + make_interval(secs => $1)", SLACK.as_secs_f64());
    Ok(held + throttled + workers.execute(db.pool()).await?.rows_affected())
}

/// Saved outcomes, which are not looked for in the future: each is remembered from now on for as long as it was to be, under its
/// key's lock. If the key has been used again since the clock was set back, that outcome stays.
async fn outcomes(db: &Database) -> Result<u64> {
    let mut tx = db.pool().begin().await?;
    let keys =
        sqlx::query_scalar!("select k from idempotency where created_at > now() + interval '1 hour' order by created_at limit $1", BATCH)
            .fetch_all(&mut *tx)
            .await?;
    if keys.is_empty() {
        tx.rollback().await?;
        return Ok(0);
    }
    let locks: Vec<_> = keys.iter().map(|k| lock_id(KEY_LOCK, *k)).collect();
    let is_ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(l) as "is_ours!" from unnest($1::bigint[]) l"#, &locks);
    let is_ours = is_ours.fetch_all(&mut *tx).await?;
    let keys: Vec<Uuid> = keys.into_iter().zip(is_ours).filter_map(|(k, is_ours)| is_ours.then_some(k)).collect();
    sqlx::query!(
        "with late as (
           delete from idempotency i where i.k = any ($1) and i.created_at > now() + interval '1 hour' returning i.*
         )
         insert into idempotency (k, tenant_id, created_at, expires_at, fingerprint, fingerprint_version, status, ref, answer, replays)
           select distinct on (l.k) l.k, l.tenant_id, now(), now() + (l.expires_at - l.created_at), l.fingerprint, l.fingerprint_version, l.status, l.ref, l.answer, l.replays
             from late l where not exists (select from idempotency i
               where i.k = l.k and i.created_at > now() - make_interval(secs => $2) and i.created_at <= now() + interval '1 hour' and i.expires_at > now())
             order by l.k, l.created_at desc",
        &keys,
        db.key_horizon().as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(u64::try_from(keys.len()).unwrap_or(0))
}
