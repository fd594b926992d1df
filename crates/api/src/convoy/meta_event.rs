//! Meta events on the wire: what happened to the project's own endpoints and deliveries, as those were told who listen.

use std::collections::BTreeMap;

use domain::id::MessageId;
use serde::Serialize;
use storage::meta_events::{self, MetaEvent, Resend};
use utoipa::ToSchema;

use super::{
    Time, Ulid,
    answer::Told,
    delivery::{MetadataOut, Status},
    event,
    page::{Dates, Paged, Paging},
};
use crate::{
    error::ApiResult,
    transport::{call::Call, query::Asked},
};

/// A meta event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyMetaEvent)]
pub(crate) struct MetaEventOut {
    uid: Ulid,
    project_id: Ulid,
    #[schema(example = "endpoint.created")]
    event_type: String,
    /// Of several endpoints that hear of it, that of the one which is furthest from having got it
    status: Status,
    /// Null if it is or was owed to nobody
    #[schema(required)]
    metadata: Option<MetadataOut>,
    /// The last attempt to that endpoint
    #[schema(required)]
    attempt: Option<MetaAttemptOut>,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

/// An attempt to tell of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyMetaEventAttempt)]
struct MetaAttemptOut {
    response_data: String,
    /// Empty: not recorded
    request_http_header: BTreeMap<String, String>,
    /// Empty: not recorded
    response_http_header: BTreeMap<String, String>,
}

/// How far a delivery is from having arrived.
fn distance(status: Status) -> u8 {
    match status {
        Status::Success => 0,
        Status::Discarded => 1,
        Status::Processing => 2,
        Status::Scheduled => 3,
        Status::Retry => 4,
        Status::Failure => 5,
    }
}

impl From<&MetaEvent> for MetaEventOut {
    fn from(MetaEvent { message, deliveries }: &MetaEvent) -> Self {
        let status = |found: &storage::project_deliveries::Found| Status::from(found.delivery.standing);
        let furthest = deliveries.iter().max_by_key(|found| distance(status(found)));
        let last = furthest.and_then(|found| found.delivery.facts.attempt.as_ref());
        let created_at = Time(message.created_at);
        Self {
            uid: Ulid::of(message.id),
            project_id: Ulid::of(message.tenant_id),
            event_type: message.event_type.clone(),
            status: furthest.map_or(Status::Discarded, status),
            metadata: furthest.map(MetadataOut::of),
            attempt: last.map(|last| MetaAttemptOut {
                response_data: last.response.clone(),
                request_http_header: BTreeMap::new(),
                response_http_header: BTreeMap::new(),
            }),
            created_at,
            updated_at: last.map_or(created_at, |last| Time(domain::id::Id::created_at(last.id))),
            deleted_at: None,
        }
    }
}

/// List all meta events
///
/// The newest first. What happens while no endpoint listens is noted nowhere.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/meta-events",
    tag = "Convoy: Meta Events",
    operation_id = "convoy.GetMetaEventsPaged"
)]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, Dates)>) -> ApiResult<Told<200, Paged<MetaEventOut>>> {
    let (paging, dates) = asked.read()?;
    let wanted = paging.of_ids::<MessageId>()?;
    let span = dates.span(call.db().now())?;
    let page = meta_events::list(call.db(), call.tenant_id(), span, &wanted.request).await?;
    Ok(wanted.told("Meta events fetched successfully", &page, |event| event.message.id, MetaEventOut::from))
}

/// Retrieve a meta event
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/meta-events/{metaEventID}",
    tag = "Convoy: Meta Events",
    operation_id = "convoy.GetMetaEvent"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, MetaEventOut>> {
    let found = meta_events::get(call.db(), call.tenant_id(), event::event_id(&call)?).await?;
    Ok(Told::new("Meta event fetched successfully", &MetaEventOut::from(&found)))
}

/// Retry meta event
///
/// Sends it once more to every endpoint that would get such an event now.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{projectID}/meta-events/{metaEventID}/resend",
    tag = "Convoy: Meta Events",
    operation_id = "convoy.ResendMetaEvent"
)]
pub(crate) async fn resend(call: Call) -> ApiResult<Told<200, MetaEventOut>> {
    let effect = event::event_id(&call).map(|id| Resend { tenant_id: call.tenant_id(), id });
    call.write(effect, |(resent, _)| Told::new("Meta event processed successfully", &MetaEventOut::from(resent))).await
}
