//! Tenants: the isolation boundary, created on first authenticated use.

use std::{collections::HashMap, sync::Arc};

use domain::id::TenantId;
use parking_lot::RwLock;
use sqlx::types::Uuid;

use crate::{Db, Result, connection::Connection};

/// Subjects and ids, for as long as the process lives: a tenant never changes.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    ids: RwLock<HashMap<Arc<str>, TenantId>>,
    subjects: RwLock<HashMap<TenantId, Arc<str>>>,
}

impl Tenants {
    fn insert(&self, subject: &str, id: TenantId) -> Arc<str> {
        let subject = Arc::<str>::from(subject);
        self.ids.write().insert(Arc::clone(&subject), id);
        self.subjects.write().insert(id, Arc::clone(&subject));
        subject
    }

    /// What a tenant is called, if this process has met it.
    pub(crate) fn subject(&self, id: TenantId) -> Option<Arc<str>> {
        self.subjects.read().get(&id).cloned()
    }
}

/// What a tenant is called; asked for once.
pub(crate) async fn subject(db: &Db, connection: &mut Connection, id: TenantId) -> Result<Arc<str>> {
    if let Some(known) = db.inner.tenants.subject(id) {
        return Ok(known);
    }
    let subject = sqlx::query_scalar!("select subject from tenant where id = $1", Uuid::from(id)).fetch_one(connection).await?;
    Ok(db.inner.tenants.insert(&subject, id))
}

/// The tenant of a token's subject; creates it if this is its first use. Remembered in memory, since tenants never change.
pub async fn find_or_create(db: &Db, subject: &str) -> Result<TenantId> {
    let known = db.inner.tenants.ids.read().get(subject).copied();
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
    db.inner.tenants.insert(subject, id.into());
    Ok(id.into())
}

async fn create(db: &Db, subject: &str) -> Result<Uuid> {
    sqlx::query!("insert into tenant (id, subject) values ($1, $2) on conflict do nothing", db.new_id(), subject)
        .execute(db.pool())
        .await?;
    Ok(sqlx::query_scalar!("select id from tenant where subject = $1", subject).fetch_one(db.pool()).await?)
}
