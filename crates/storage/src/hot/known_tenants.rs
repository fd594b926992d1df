//! The tenants that this process has met: never asked for twice, since a tenant never changes.

use std::{collections::HashMap, sync::Arc};

use domain::id::TenantId;
use parking_lot::RwLock;

use crate::{Database, Result, connection::Connection, records::tenants};

/// Subjects and ids, for as long as the process lives.
#[derive(Debug, Default)]
pub(crate) struct KnownTenants {
    ids: RwLock<HashMap<Arc<str>, TenantId>>,
    subjects: RwLock<HashMap<TenantId, Arc<str>>>,
}

impl KnownTenants {
    /// What a tenant is called, if this process has met it.
    pub(crate) fn subject(&self, id: TenantId) -> Option<Arc<str>> {
        self.subjects.read().get(&id).cloned()
    }

    /// What a tenant is called; asked for once.
    pub(crate) async fn find_subject(&self, connection: &mut Connection, id: TenantId) -> Result<Arc<str>> {
        if let Some(known) = self.subject(id) {
            return Ok(known);
        }
        Ok(self.insert(&tenants::subject(connection, id).await?, id))
    }

    /// The tenant of a token's subject; creates it if this is its first use.
    pub(crate) async fn find_or_create(&self, db: &Database, subject: &str) -> Result<TenantId> {
        let known = self.ids.read().get(subject).copied();
        if let Some(id) = known {
            return Ok(id);
        }
        // Boxed, so that every request's future stays small.
        let id = Box::pin(tenants::find_or_create(db, subject)).await?;
        self.insert(subject, id);
        Ok(id)
    }

    fn insert(&self, subject: &str, id: TenantId) -> Arc<str> {
        let subject = Arc::<str>::from(subject);
        self.ids.write().insert(Arc::clone(&subject), id);
        self.subjects.write().insert(id, Arc::clone(&subject));
        subject
    }
}
