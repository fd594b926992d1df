//! Many endpoints at once, each with its subscription: all of them or none.

use domain::{content_filter::ContentFilter, id::TenantId};
use serde_json::{Map, Value};

use super::write::Create;
use crate::{Database, Error, Result, connection::Connection, effect::Effect, subscriptions};

/// An endpoint that is to be, and what it is to get.
#[derive(Clone, Debug)]
pub struct Item {
    /// The endpoint.
    pub endpoint: Create,
    /// Which event types, or all of them.
    pub event_types: Vec<String>,
}

/// Makes endpoints with a subscription each.
#[derive(Clone, Debug)]
pub struct Onboard {
    /// For whom.
    pub tenant_id: TenantId,
    /// Which.
    pub items: Vec<Item>,
}

impl Effect for Onboard {
    type Output = usize;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<usize> {
        let nothing = || Value::Object(Map::new());
        let filter = ContentFilter::parse(nothing()).map_err(|error| Error::Invalid { field: "filter", why: error.to_string() })?;
        let made = self.items.len();
        for Item { endpoint, event_types } in self.items {
            let name = endpoint.change.name.clone().unwrap_or_default();
            let endpoint_id = endpoint.apply(db, &mut *tx).await?.endpoint.id;
            let subscription = subscriptions::Create {
                tenant_id: self.tenant_id,
                endpoint_id,
                source_id: None,
                name,
                event_types,
                filter: filter.clone(),
                settings: nothing(),
                is_only: true,
            };
            subscription.apply(db, &mut *tx).await?;
        }
        Ok(made)
    }
}
