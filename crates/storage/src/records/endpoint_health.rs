//! Which endpoints are held because they keep failing: a row of `endpoint_health` each, moved on by `record_health_v1` alone.

use std::collections::HashSet;

use domain::{
    health::{CLOSES_AT, DISABLES_AFTER, FIRST_COOL_DOWN, FIRST_SLOTS, FORGETS_AFTER, LONGEST_COOL_DOWN, OPENS_AFTER},
    id::{EndpointId, TenantId},
};
use sqlx::types::Uuid;

use crate::{Database, Result, connection::Connection, reference::Owner};

/// News are read this far back, in seconds: longer than a round takes to commit what it changed.
const NEWS: f64 = 10.0;

/// What a process saw of an endpoint since it last told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) owner: Owner,
    pub(crate) has_success: bool,
    /// Failures after the last success.
    pub(crate) tail: u32,
    pub(crate) has_failed_probe: bool,
}

impl Sum {
    /// This, and then `later`.
    pub(crate) fn and(self, later: Self) -> Self {
        Self {
            owner: self.owner,
            has_success: self.has_success || later.has_success,
            tail: if later.has_success { later.tail } else { self.tail.saturating_add(later.tail) },
            has_failed_probe: self.has_failed_probe || later.has_failed_probe,
        }
    }
}

/// What became of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its deliveries are held.
    Held,
    /// A send succeeded: it is sent to in growing numbers.
    Recovering,
    /// It is well.
    Well,
    /// It has been failing for days, and was disabled.
    Disabled,
}

/// Tells the database of some sums, which are in the order of their ids.
pub(crate) async fn record(connection: &mut Connection, sums: &[(EndpointId, Sum)]) -> Result<Vec<(Owner, EndpointId, Turn)>> {
    let as_i32 = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let rows = sqlx::query!(
        r#"select endpoint_id as "endpoint_id!", state as "state!", has_changed as "has_changed!", is_given_up as "is_given_up!"
             from record_health_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"#,
        &sums.iter().map(|(id, _)| Uuid::from(*id)).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| Uuid::from(sum.owner.tenant_id)).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| sum.has_success).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| as_i32(sum.tail)).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| sum.has_failed_probe).collect::<Vec<_>>(),
        as_i32(OPENS_AFTER),
        FIRST_COOL_DOWN.as_secs_f64(),
        LONGEST_COOL_DOWN.as_secs_f64(),
        as_i32(FIRST_SLOTS),
        as_i32(CLOSES_AT),
        FORGETS_AFTER.as_secs_f64(),
        DISABLES_AFTER.as_secs_f64(),
    )
    .fetch_all(connection)
    .await?;
    let mut turns = Vec::new();
    for row in rows {
        let turn = match row.state {
            1 => Turn::Held,
            2 => Turn::Recovering,
            _ => Turn::Well,
        };
        let endpoint_id = EndpointId::from(row.endpoint_id);
        let Ok(place) = sums.binary_search_by_key(&endpoint_id, |(id, _)| *id) else { continue };
        let owner = sums[place].1.owner;
        turns.extend(row.has_changed.then_some((owner, endpoint_id, turn)));
        turns.extend(row.is_given_up.then_some((owner, endpoint_id, Turn::Disabled)));
    }
    Ok(turns)
}

/// What changed in the last seconds, or all that is not well: endpoints and their states.
pub(crate) async fn news(connection: &mut Connection, is_all: bool) -> Result<Vec<(EndpointId, i16)>> {
    let rows = sqlx::query!(
        "select endpoint_id, state from endpoint_health where ($1 and state <> 0) or changed_at > now() - make_interval(secs => $2)",
        is_all,
        NEWS,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.endpoint_id.into(), row.state)).collect())
}

/// Begins anew with an endpoint: it has another URL, or was switched on or off, or deleted. What is owed to it is claimed again, unless it
/// is paused.
pub(crate) async fn reset(tx: &mut Connection, endpoint_id: Uuid) -> Result<()> {
    sqlx::query!(
        "update endpoint_health h set failures = 0, failing_since = null, slots = 0, probe_at = null, cool_down_seconds = $2,
             state = case when h.state = 3 and exists (select from endpoint e where e.id = $1 and e.deleted_at is null) then 3 else 0 end,
             changed_at = case when h.state = 0 then h.changed_at else now() end
           where h.endpoint_id = $1",
        endpoint_id,
        FIRST_COOL_DOWN.as_secs_f64(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Pauses an endpoint, or lets it go on: what is owed to it waits meanwhile. It must be locked by its application.
pub(crate) async fn pause(tx: &mut Connection, tenant_id: Uuid, endpoint_id: Uuid, is_paused: bool) -> Result<()> {
    sqlx::query!(
        "insert into endpoint_health as h (endpoint_id, tenant_id, state, cool_down_seconds) values ($1, $2, case when $3 then 3 else 0 end, $4)
         on conflict (endpoint_id) do update set state = excluded.state, slots = 0, probe_at = null, failures = 0, failing_since = null,
           cool_down_seconds = excluded.cool_down_seconds, changed_at = now()
           where $3 or h.state = 3",
        endpoint_id,
        tenant_id,
        is_paused,
        FIRST_COOL_DOWN.as_secs_f64(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Which of these endpoints are paused.
pub async fn paused(db: &Database, tenant_id: TenantId, endpoints: &[EndpointId]) -> Result<HashSet<EndpointId>> {
    let ids: Vec<_> = endpoints.iter().copied().map(Uuid::from).collect();
    paused_of(&mut db.pool().acquire().await?, tenant_id, &ids).await
}

/// The same in the snapshot of `connection`.
pub(crate) async fn paused_of(connection: &mut Connection, tenant_id: TenantId, endpoints: &[Uuid]) -> Result<HashSet<EndpointId>> {
    let rows = sqlx::query_scalar!(
        "select endpoint_id from endpoint_health where endpoint_id = any ($1) and tenant_id = $2 and state = 3",
        endpoints,
        Uuid::from(tenant_id),
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(EndpointId::from).collect())
}

/// Drops the rows of endpoints that have been well for an hour, and of those that are gone; one that has been recovering for an
/// hour, for want of messages, is well.
pub async fn forget_the_well(db: &Database) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    sqlx::query!(
        "update endpoint_health set state = 0, slots = 0, changed_at = now() where endpoint_id in
             (select endpoint_id from endpoint_health where state = 2 and changed_at < now() - interval '1 hour' order by endpoint_id for update skip locked)"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from endpoint_health where endpoint_id in
             (select h.endpoint_id from endpoint_health h left join endpoint e on e.id = h.endpoint_id
               where h.state = 0 and h.changed_at < now() - interval '1 hour' and (h.failures = 0 or e.id is null or e.deleted_at is not null)
               order by h.endpoint_id for update of h skip locked)"
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}
