//! Tenants: the isolation boundary, created on first authenticated use.

use domain::id::TenantId;
use sqlx::types::Uuid;

use crate::{Database, Result, connection::Connection};

/// What a tenant is called: the subject of its tokens.
pub(crate) async fn subject(connection: &mut Connection, id: TenantId) -> Result<String> {
    Ok(sqlx::query_scalar!("select subject from tenant where id = $1", Uuid::from(id)).fetch_one(connection).await?)
}

/// The tenant of a token's subject; creates it if this is its first use.
pub(crate) async fn find_or_create(db: &Database, subject: &str) -> Result<TenantId> {
    // The look-up comes first: an upsert would write a row version for each node that meets the tenant.
    let found = sqlx::query_scalar!("select id from tenant where subject = $1", subject).fetch_optional(db.pool()).await?;
    let id = match found {
        Some(id) => id,
        None => create(db, subject).await?,
    };
    Ok(id.into())
}

async fn create(db: &Database, subject: &str) -> Result<Uuid> {
    sqlx::query!("insert into tenant (id, subject) values ($1, $2) on conflict do nothing", db.new_id(), subject)
        .execute(db.pool())
        .await?;
    Ok(sqlx::query_scalar!("select id from tenant where subject = $1", subject).fetch_one(db.pool()).await?)
}
