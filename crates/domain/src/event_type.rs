//! The kinds of event that a tenant publishes.

use chrono::{DateTime, Utc};

use crate::id::{EventTypeId, TenantId};

/// A declared kind of event. Messages may name an undeclared one; endpoints may filter only on declared ones.
#[derive(Clone, Debug, PartialEq)]
pub struct EventType {
    /// Its id; the name is what others use.
    pub id: EventTypeId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Unique in the tenant.
    pub name: String,
    /// For people.
    pub description: String,
    /// Version to JSON Schema, if any.
    pub schemas: Option<serde_json::Value>,
    /// Which flag an application needs to see it.
    pub feature_flag: Option<String>,
    /// The heading under which it is shown.
    pub group_name: Option<String>,
    /// Archived: kept for the record, no longer offered to endpoints.
    pub is_archived: bool,
    /// Still sent, but discouraged.
    pub is_deprecated: bool,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
}
