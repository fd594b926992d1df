//! How each tenant wants its idempotency keys treated, where that differs from the installation.

use std::time::Duration;

use domain::{
    id::TenantId,
    idempotency::{Override, Policy, Preset, Saves},
};
use sqlx::types::Uuid;

use crate::{Database, Result, applications, connection::Connection, effect::Effect};

/// The names of [`Saves`] in the table.
const SAVES: [(Saves, &str); 3] = [(Saves::Successes, "successes"), (Saves::Executed, "executed"), (Saves::All, "all")];

/// What a tenant has asked for (nothing, if it never has), and the policy that holds for it now.
pub async fn asked_for(db: &Database, tenant_id: TenantId) -> Result<(Override, Policy)> {
    let asked_for = read(&mut db.pool().acquire().await?, tenant_id).await?;
    Ok((asked_for, asked_for.over(db.policy())))
}

/// The policy that holds for a tenant now.
pub async fn find(db: &Database, tenant_id: TenantId) -> Result<Policy> {
    Ok(asked_for(db, tenant_id).await?.1)
}

/// The policy that holds for a tenant in the snapshot of `connection`.
pub(crate) async fn of(db: &Database, connection: &mut Connection, tenant_id: TenantId) -> Result<Policy> {
    Ok(read(connection, tenant_id).await?.over(db.policy()))
}

/// What has to be so before [`Replace`] is executed: no look-up may miss a record that is kept for so long.
pub async fn prepare(db: &Database, wanted: &Override) -> Result<()> {
    db.remember_keys_for(wanted.over(db.policy()).ttl).await
}

/// The policy that a tenant would have who asked for nothing but a preset.
pub fn without_wishes(db: &Database, preset: Option<Preset>) -> Policy {
    Override { preset, ..Override::default() }.over(db.policy())
}

/// Lets a policy hold from the very next request on, at every node: the versions of the tenant's applications change with it, and a
/// message that was about to be accepted under the old policy is looked at again. Records that exist keep their own times.
/// Brings the policy that holds.
#[derive(Clone, Copy, Debug)]
pub struct Replace {
    /// Whose.
    pub tenant_id: TenantId,
    /// What the tenant asks for.
    pub wanted: Override,
}

impl Effect for Replace {
    type Output = Policy;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Policy> {
        write(tx, self.tenant_id, &self.wanted).await?;
        Ok(self.wanted.over(db.policy()))
    }
}

async fn write(tx: &mut Connection, tenant_id: TenantId, wanted: &Override) -> Result<()> {
    sqlx::query!(
        "insert into idempotency_policy (tenant_id, preset, covers_patch, covers_put, saves, ttl_seconds, wait_ms, compares)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (tenant_id) do update set preset = excluded.preset, covers_patch = excluded.covers_patch,
           covers_put = excluded.covers_put, saves = excluded.saves, ttl_seconds = excluded.ttl_seconds, wait_ms = excluded.wait_ms,
           compares = excluded.compares, updated_at = now()",
        Uuid::from(tenant_id),
        wanted.preset.map(Preset::name),
        wanted.covers_patch,
        wanted.covers_put,
        wanted.saves.map(name),
        wanted.ttl.map(|ttl| i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX)),
        wanted.wait.map(|wait| i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)),
        wanted.compares,
    )
    .execute(&mut *tx)
    .await?;
    applications::bump_all(tx, tenant_id).await
}

async fn read(connection: &mut Connection, tenant_id: TenantId) -> Result<Override> {
    let row = sqlx::query!(
        "select preset, covers_patch, covers_put, saves, ttl_seconds, wait_ms, compares from idempotency_policy where tenant_id = $1",
        Uuid::from(tenant_id)
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map_or_else(Override::default, |row| Override {
        preset: row.preset.as_deref().and_then(Preset::named),
        covers_patch: row.covers_patch,
        covers_put: row.covers_put,
        saves: row.saves.as_deref().and_then(named),
        ttl: row.ttl_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        wait: row.wait_ms.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis),
        compares: row.compares,
    }))
}

fn name(saves: Saves) -> &'static str {
    SAVES.into_iter().find(|(known, _)| *known == saves).map_or("", |(_, name)| name)
}

fn named(name: &str) -> Option<Saves> {
    SAVES.into_iter().find(|(_, known)| *known == name).map(|(saves, _)| saves)
}
