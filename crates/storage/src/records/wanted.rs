//! What subscriptions want, as endpoints and subscriptions hold it: JSON. The copy that an endpoint keeps is made here.

use chrono::{DateTime, SubsecRound, Utc};
use domain::{
    content_filter::ContentFilter,
    subscription::{TypeFilter, Wanted},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Uuid;

use crate::{Error, Result, connection::Connection};

/// The most that an endpoint keeps of its subscriptions, in bytes of JSON: whoever publishes has all of it in memory.
const MAX_WRITTEN: i32 = 1 << 20;

/// What an endpoint keeps of one of its subscriptions.
#[derive(Debug, Deserialize)]
struct Written {
    id: String,
    source: Option<String>,
    event_types: Vec<String>,
    filter: Value,
    filters: Value,
}

#[derive(Debug, Deserialize, Serialize)]
struct WrittenFilter {
    id: String,
    event_type: String,
    enabled_at: Option<DateTime<Utc>>,
    filter: Value,
}

/// Reads those of an endpoint.
pub(crate) fn read(written: Value) -> Vec<Wanted> {
    let wanted = serde_json::from_value::<Vec<Written>>(written).unwrap_or_default().into_iter();
    let read = |written: Written| {
        let asks = written.filter.as_object().is_some_and(|scopes| !scopes.is_empty());
        let source_id = written.source.as_deref().map(uuid);
        // What names a source that cannot be read is not for all of them.
        Some(Wanted {
            id: uuid(&written.id)?.into(),
            source_id: if let Some(id) = source_id { Some(id?.into()) } else { None },
            event_types: written.event_types,
            filter: asks.then(|| ContentFilter::stored(written.filter)),
            filters: read_filters(written.filters),
        })
    };
    wanted.filter_map(read).collect()
}

/// Reads the filters by type of a subscription.
pub(crate) fn read_filters(written: Value) -> Vec<TypeFilter> {
    let filters = serde_json::from_value::<Vec<WrittenFilter>>(written).unwrap_or_default().into_iter();
    let read = |WrittenFilter { id, event_type, enabled_at, filter }| {
        Some(TypeFilter { id: uuid(&id)?.into(), event_type, enabled_at, filter: ContentFilter::stored(filter) })
    };
    filters.filter_map(read).collect()
}

fn uuid(text: &str) -> Option<Uuid> {
    text.parse().ok()
}

/// Writes what [`read_filters`] reads.
pub(crate) fn write_filters(filters: &[TypeFilter]) -> Value {
    let write = |filter: &TypeFilter| WrittenFilter {
        id: Uuid::from(filter.id).to_string(),
        event_type: filter.event_type.clone(),
        enabled_at: filter.enabled_at.map(|at| at.trunc_subsecs(6)),
        filter: filter.filter.written().clone(),
    };
    serde_json::to_value(filters.iter().map(write).collect::<Vec<_>>()).expect("texts and times are JSON")
}

/// Makes the copy of its subscriptions that an endpoint keeps. Its application must be locked, and gets its next version in the same
/// transaction.
pub(crate) async fn renew(tx: &mut Connection, tenant_id: Uuid, endpoint_id: Uuid) -> Result<()> {
    let written = sqlx::query_scalar!(
        r#"update endpoint set subscriptions = (
             select coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'source', s.source_id, 'event_types', s.event_types, 'filter', s.filter,
                 'filters', s.filters) order by s.id), '[]')
               from subscription s where s.endpoint_id = $1 and s.tenant_id = $2 and s.deleted_at is null)
          where id = $1 and tenant_id = $2
          returning octet_length(subscriptions::text) as "written!""#,
        endpoint_id,
        tenant_id,
    )
    .fetch_optional(tx)
    .await?;
    if written.is_some_and(|written| written > MAX_WRITTEN) {
        return Err(Error::LimitReached("the filters of all subscriptions of an endpoint can have at most 1 MiB together: shorten one"));
    }
    Ok(())
}

/// Ends the subscriptions of endpoints that are deleted in this transaction.
pub(crate) async fn end(tx: &mut Connection, tenant_id: Uuid, endpoints: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "update subscription set deleted_at = now() where endpoint_id = any ($1) and tenant_id = $2 and deleted_at is null",
        endpoints,
        tenant_id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let filter = |enabled_at| TypeFilter {
            id: Uuid::from_u128(1).into(),
            event_type: "paid".into(),
            enabled_at,
            filter: ContentFilter::stored(json!({"body": {"n": 5}})),
        };
        let filters = vec![filter(None), filter(DateTime::from_timestamp_micros(1_700_000_000_123_456))];
        assert_eq!(read_filters(write_filters(&filters)), filters);
        let [id, source] = [3, 4].map(Uuid::from_u128);
        let written = json!([
            {"id": id.to_string(), "source": source.to_string(), "event_types": ["paid"], "filter": {"body": {"n": 5}}, "filters": write_filters(&filters)},
            {"id": id.to_string(), "source": null, "event_types": ["*"], "filter": {}, "filters": []},
        ]);
        let first = Wanted {
            id: id.into(),
            source_id: Some(source.into()),
            event_types: vec!["paid".into()],
            filter: Some(ContentFilter::stored(json!({"body": {"n": 5}}))),
            filters,
        };
        let second = Wanted { id: id.into(), source_id: None, event_types: vec!["*".into()], filter: None, filters: Vec::new() };
        assert_eq!(read(written), [first, second]);
    }
}
