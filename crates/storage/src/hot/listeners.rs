//! Which tenants want to hear of their own events, as this process knows: the hot path notes nothing for the others.

use std::collections::HashMap;

use domain::id::{ApplicationId, TenantId};
use parking_lot::RwLock;

/// Tenants with the hidden application of each.
#[derive(Debug, Default)]
pub(crate) struct Listeners(RwLock<HashMap<TenantId, ApplicationId>>);

impl Listeners {
    /// Whether this tenant wants to hear what happens in this application; nobody hears of the hidden one.
    pub(crate) fn want(&self, tenant_id: TenantId, application_id: ApplicationId) -> bool {
        self.0.read().get(&tenant_id).is_some_and(|hidden| *hidden != application_id)
    }

    /// These are all, by now.
    pub(crate) fn learn(&self, all: impl IntoIterator<Item = (TenantId, ApplicationId)>) {
        *self.0.write() = all.into_iter().collect();
    }
}
