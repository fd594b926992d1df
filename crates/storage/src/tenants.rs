//! Tenants: the isolation boundary, created on first authenticated use.

use std::collections::HashMap;

use domain::id::TenantId;
use parking_lot::RwLock;

use crate::{Db, Result};

/// Subject to id, for as long as the process lives: a tenant never changes.
#[derive(Debug, Default)]
pub(crate) struct Tenants(RwLock<HashMap<String, TenantId>>);

/// The tenant of a token's subject; creates it if this is its first use. Remembered in memory, since tenants never change.
pub async fn find_or_create(db: &Db, subject: &str) -> Result<TenantId> {
    let known = db.inner.tenants.0.read().get(subject).copied();
    if let Some(id) = known {
        return Ok(id);
    }
    // Boxed, so that every request's future stays small.
    Box::pin(learn(db, subject)).await
}

async fn learn(db: &Db, subject: &str) -> Result<TenantId> {
    // The look-up comes first: an upsert would write a row version for each node that meets the tenant.
    let found = sqlx::query_scalar!("select id from tenant where subject = $1", subject).fetch_optional(db.pool()).await?;
    let id = match found {
        Some(id) => id,
        None => create(db, subject).await?,
    };
    db.inner.tenants.0.write().insert(subject.to_owned(), id.into());
    Ok(id.into())
}

async fn create(db: &Db, subject: &str) -> Result<sqlx::types::Uuid> {
    sqlx::query!("insert into tenant (id, subject) values ($1, $2) on conflict do nothing", db.new_id(), subject)
        .execute(db.pool())
        .await?;
    Ok(sqlx::query_scalar!("select id from tenant where subject = $1", subject).fetch_one(db.pool()).await?)
}
