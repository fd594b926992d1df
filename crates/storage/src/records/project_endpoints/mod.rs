//! The endpoints of a tenant, whatever their application, as Convoy's clients see them: with their owners, secrets and headers.

mod dynamic;
mod onboard;
mod read;
mod write;

use chrono::{DateTime, Utc};
use domain::{
    endpoint::{Endpoint, Headers},
    signing::Secret,
};
use sqlx::types::Uuid;

pub use dynamic::{Dynamic, application_of_key, ensure};
pub use onboard::{Item, Onboard};
pub use read::{Filter, address, get, list};
pub(crate) use write::owned;
pub use write::{Change, Create, Delete, ExpireSecret, Pause, Update, check_url};

/// What a look-up that finds nothing says.
const WHAT: &str = "endpoint";

/// An endpoint, and what is shown beside it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// It.
    pub endpoint: Endpoint,
    /// Whose it is, by the tenant's own name for it: its application's, or what was noted.
    pub owner: Option<String>,
    /// What signs its webhooks, the oldest first.
    pub secrets: Vec<ShownSecret>,
    /// What is added to its requests.
    pub headers: Headers,
    /// Whether what it is owed waits until it is activated.
    pub is_paused: bool,
}

/// A secret that signs.
#[derive(Clone, Debug)]
pub struct ShownSecret {
    /// Its id.
    pub id: Uuid,
    /// It.
    pub secret: Secret,
    /// Until when it signs beside the current one; absent: it is the current one.
    pub expires_at: Option<DateTime<Utc>>,
}
