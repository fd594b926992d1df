//! Delivery attempts on the wire: each request to an endpoint, and what came back.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use chrono::TimeDelta;
use domain::{
    delivery::{Attempt, Outcome},
    id::{AttemptId, Id},
};
use serde::Serialize;
use storage::{
    applications::Reference,
    attempts::{self, Filter},
    page::PageRequest,
    project_deliveries,
};
use utoipa::ToSchema;

use super::{
    Time, Ulid,
    answer::{All, Told},
    delivery::{self, DeliveryId},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{call::Call, dialect::Kind},
};

/// The most attempts of one delivery that are shown: the last ones.
const MOST: i64 = 1000;

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyDeliveryAttempt)]
pub(crate) struct AttemptOut {
    uid: Ulid,
    project_id: Ulid,
    /// The delivery
    msg_id: DeliveryId,
    endpoint_id: Ulid,
    url: String,
    #[schema(example = "POST")]
    method: &'static str,
    /// The receiver's status, or empty if it did not answer
    #[schema(example = "200 OK")]
    http_status: String,
    response_data: String,
    /// Why there was no answer
    error: String,
    /// Whether the receiver took it
    status: bool,
    #[schema(example = "2025-11-24")]
    api_version: &'static str,
    /// Empty: not recorded
    ip_address: &'static str,
    /// Empty: not recorded
    request_http_header: BTreeMap<String, String>,
    /// Empty: not recorded
    response_http_header: BTreeMap<String, String>,
    requested_at: Time,
    responded_at: Time,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

impl AttemptOut {
    fn new(attempt: &Attempt, call: &Call) -> Self {
        let at = attempt.id.created_at();
        let begun = at.checked_sub_signed(TimeDelta::from_std(attempt.duration).unwrap_or_default()).unwrap_or(at);
        let response = String::from_utf8_lossy(&attempt.response).into_owned();
        let (response_data, error) = if attempt.status_code == 0 { (String::new(), response) } else { (response, String::new()) };
        Self {
            uid: Ulid::of(attempt.id),
            project_id: Ulid::of(call.tenant_id()),
            msg_id: DeliveryId((attempt.message_id, attempt.endpoint_id)),
            endpoint_id: Ulid::of(attempt.endpoint_id),
            url: attempt.url.clone(),
            method: "POST",
            http_status: StatusCode::from_u16(attempt.status_code).map_or_else(|_| String::new(), |status| status.to_string()),
            response_data,
            error,
            status: attempt.outcome == Outcome::Succeeded,
            api_version: "2025-11-24",
            ip_address: "",
            request_http_header: BTreeMap::new(),
            response_http_header: BTreeMap::new(),
            requested_at: Time(begun),
            responded_at: Time(at),
            created_at: Time(at),
            updated_at: Time(at),
            deleted_at: None,
        }
    }
}

/// The attempts of the delivery in the path, the last one first.
async fn attempts(call: &Call) -> ApiResult<Vec<Attempt>> {
    let (message_id, endpoint_id) = delivery::key(call)?;
    let found = project_deliveries::get(call.db(), call.tenant_id(), (message_id, endpoint_id)).await?;
    let page = PageRequest { limit: MOST, cursor: None, is_backwards: false, is_ascending: false };
    let (application, message) = (Reference::Id(found.message.application_id), Reference::Id(message_id));
    let (endpoint, all) = (Reference::Id(endpoint_id), Filter::default());
    let listed = attempts::list_by_message(call.db(), call.tenant_id(), &application, &message, Some(&endpoint), &all, &page);
    Ok(listed.await?.items)
}

/// List delivery attempts
///
/// All of an event delivery, the last one first.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/eventdeliveries/{eventDeliveryID}/deliveryattempts",
    tag = "Convoy: Delivery Attempts",
    operation_id = "convoy.GetDeliveryAttempts"
)]
pub(crate) async fn list(call: Call) -> ApiResult<Told<200, All<AttemptOut>>> {
    let attempts = attempts(&call).await?;
    let shown = attempts.iter().map(|attempt| AttemptOut::new(attempt, &call)).collect();
    Ok(Told::new("App event delivery attempts fetched successfully", &All(shown)))
}

/// Retrieve a delivery attempt
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/eventdeliveries/{eventDeliveryID}/deliveryattempts/{deliveryAttemptID}",
    tag = "Convoy: Delivery Attempts",
    operation_id = "convoy.GetDeliveryAttempt"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, AttemptOut>> {
    let id: AttemptId = call.id(Kind::Attempt, "delivery attempt")?;
    let attempts = attempts(&call).await?;
    let found = attempts.iter().find(|attempt| attempt.id == id).ok_or(ApiError::NotFound("delivery attempt"))?;
    Ok(Told::new("App event delivery attempt fetched successfully", &AttemptOut::new(found, &call)))
}
