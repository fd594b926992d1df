//! What else must hold for messages of one type: the filters of a subscription, one for each type.

use chrono::{DateTime, Utc};
use domain::{
    content_filter::ContentFilter,
    id::{FilterId, SubscriptionId, TenantId},
    subscription::{Subscription, TypeFilter},
};
use serde_json::Value;
use sqlx::types::Json;

use super::{Row, hold};
use crate::{
    Conflict, Database, Error, Result, applications,
    connection::Connection,
    effect::Effect,
    wanted::{self, write_filters},
};

/// The most filters of one subscription.
pub const MAX_FILTERS: usize = 100;

/// A filter that is to be.
#[derive(Clone, Debug)]
pub struct NewFilter {
    /// Of which type, or of all.
    pub event_type: String,
    /// From when on it counts; absent: it is off.
    pub enabled_at: Option<DateTime<Utc>>,
    /// The conditions.
    pub filter: ContentFilter,
}

/// One change to the filters of a subscription.
#[derive(Clone, Debug)]
pub enum FilterChange {
    /// A further one.
    Add(NewFilter),
    /// Another one in its place, under its id.
    Replace(FilterId, NewFilter),
    /// No such one any more.
    Remove(FilterId),
}

/// Changes the filters of a subscription: all that is asked for, or nothing.
#[derive(Clone, Debug)]
pub struct ChangeFilters {
    /// Whose.
    pub tenant_id: TenantId,
    /// Of which subscription.
    pub id: SubscriptionId,
    /// What changes, one after the other.
    pub changes: Vec<FilterChange>,
}

impl Effect for ChangeFilters {
    /// The subscription with its filters, and the ids of those that were added or replaced, in their order.
    type Output = (Subscription, Vec<FilterId>);

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let row = hold(&mut *tx, self.tenant_id, self.id, None).await?;
        let mut filters = wanted::read_filters(row.filters.0);
        let mut written = Vec::new();
        for change in self.changes {
            written.extend(apply(&mut filters, change, || FilterId::from(db.new_id()))?);
        }
        let row = sqlx::query_as!(
            Row,
            r#"update subscription set filters = $3, updated_at = now() where id = $1 and tenant_id = $2
               returning id, tenant_id, application_id, endpoint_id, source_id, name, event_types, filter as "filter: Json<Value>",
                         filters as "filters: Json<Value>", settings as "settings: Json<Value>", created_at, updated_at"#,
            row.id,
            row.tenant_id,
            Json(write_filters(&filters)) as _,
        )
        .fetch_one(&mut *tx)
        .await?;
        wanted::renew(&mut *tx, row.tenant_id, row.endpoint_id).await?;
        applications::bump(tx, row.application_id.into()).await?;
        Ok((row.into(), written))
    }
}

/// Makes one change. Returns the id of what was added or replaced.
fn apply(filters: &mut Vec<TypeFilter>, change: FilterChange, new_id: impl FnOnce() -> FilterId) -> Result<Option<FilterId>> {
    let place = |filters: &[TypeFilter], id: FilterId| filters.iter().position(|filter| filter.id == id).ok_or(Error::NotFound("filter"));
    let (place, id, new) = match change {
        FilterChange::Remove(id) => {
            let place = place(filters, id)?;
            filters.remove(place);
            return Ok(None);
        }
        FilterChange::Replace(id, new) => (Some(place(filters, id)?), id, new),
        FilterChange::Add(new) => (None, new_id(), new),
    };
    if filters.iter().any(|filter| filter.event_type == new.event_type && filter.id != id) {
        return Err(Conflict::FilterOfType.into());
    }
    let filter = TypeFilter { id, event_type: new.event_type, enabled_at: new.enabled_at, filter: new.filter };
    match place {
        Some(place) => filters[place] = filter,
        None if filters.len() >= MAX_FILTERS => {
            return Err(Error::LimitReached("a subscription can have at most 100 filters: remove one"));
        }
        None => filters.push(filter),
    }
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sqlx::types::Uuid;

    use super::*;

    #[test]
    fn a_type_has_one_filter_that_keeps_its_id_and_its_place() {
        let id = |number: u128| FilterId::from(Uuid::from_u128(number));
        let new =
            |event_type: &str| NewFilter { event_type: event_type.into(), enabled_at: None, filter: ContentFilter::stored(json!({})) };
        let mut filters = Vec::new();
        let mut change = |change, number| apply(&mut filters, change, || id(number)).map_err(|error| error.to_string());
        assert_eq!(change(FilterChange::Add(new("*")), 1), Ok(Some(id(1))));
        assert_eq!(change(FilterChange::Add(new("paid")), 2), Ok(Some(id(2))));
        assert!(change(FilterChange::Add(new("paid")), 3).is_err_and(|why| why.contains("already")));
        assert!(change(FilterChange::Replace(id(1), new("paid")), 0).is_err_and(|why| why.contains("already")));
        assert_eq!(change(FilterChange::Replace(id(1), new("sent")), 0), Ok(Some(id(1))));
        assert!(change(FilterChange::Remove(id(3)), 0).is_err_and(|why| why.contains("not found")));
        assert_eq!(change(FilterChange::Remove(id(2)), 0), Ok(None));
        for number in 10..109 {
            assert_eq!(change(FilterChange::Add(new(&number.to_string())), number), Ok(Some(id(number))));
        }
        assert!(change(FilterChange::Add(new("one more")), 200).is_err_and(|why| why.contains("at most 100")));
        assert_eq!((filters.len(), filters[0].event_type.as_str()), (MAX_FILTERS, "sent"));
    }
}
