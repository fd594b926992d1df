//! A project, as Convoy's clients know a tenant: what it is called, and how it wants its webhooks made.

mod rules;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::id::{ApplicationId, TenantId};

pub use rules::{Rules, SIGNATURE_HEADER, signature_header};

/// Which way a project's events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProjectKind {
    /// From others, by sources, to the endpoints of the tenant itself.
    Incoming,
    /// From the tenant to the endpoints of its customers.
    #[default]
    Outgoing,
}

/// A tenant as a project.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Which tenant it is.
    pub tenant_id: TenantId,
    /// Whose endpoints have no owner of their own; nobody's, as long as nothing was made or set here.
    pub application_id: Option<ApplicationId>,
    /// Which way its events go.
    pub kind: ProjectKind,
    /// For people.
    pub name: String,
    /// For people.
    pub logo_url: String,
    /// What of it was set, checked, by Convoy's names: the rest is as the installation has it.
    pub config: Map<String, Value>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
}
