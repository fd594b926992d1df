//! Whose a token is.

use domain::id::TenantId;

use crate::{Db, Result};

/// The tenant of a token's subject, from memory if this process has met it; creates it if this is its first use.
pub async fn find_or_create(db: &Db, subject: &str) -> Result<TenantId> {
    db.node.tenants.find_or_create(db, subject).await
}
