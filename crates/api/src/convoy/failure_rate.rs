//! How often deliveries to endpoints failed in some time, on the wire.

use std::collections::HashMap;

use domain::id::{EndpointId, Id};
use serde::{Deserialize, Serialize};
use storage::statistics::{self, Attempted};
use utoipa::{IntoParams, ToSchema};

use super::{
    Ulid,
    answer::{All, Told},
    page::Dates,
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
    },
};

/// The most endpoints that one question is about: as many as a page has.
const MAX_ENDPOINTS: usize = 1000;

/// How often attempts at an endpoint failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyFailureRate)]
pub(crate) struct FailureRateOut {
    /// The endpoint
    uid: Ulid,
    /// Attempts that delivered
    success_count: i64,
    /// Attempts that did not
    failure_count: i64,
    /// Attempts beyond one for each delivery
    retry_count: i64,
    /// How many of a hundred attempts failed; 0 if there were none
    period_failure_rate: f64,
}

/// About which endpoints.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfEndpoints {
    /// These; one at least
    #[serde(default, rename = "endpointId")]
    #[param(required = false)]
    endpoint_id: Vec<String>,
}

impl Parameters for OfEndpoints {}

/// Retrieve endpoint period failure rates
///
/// From what was counted by minutes, hours and days; what the last second brought may be missing. Of an endpoint that is not there nothing was counted.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/endpoints/period-failure-rates",
    tag = "Convoy: Endpoints",
    operation_id = "convoy.GetEndpointPeriodFailureRates"
)]
pub(crate) async fn list(call: Call, asked: Asked<(Dates, OfEndpoints)>) -> ApiResult<Told<200, All<FailureRateOut>>> {
    let (dates, OfEndpoints { endpoint_id }) = asked.read()?;
    let refuse = |why: String| ApiError::invalid(&["query", "endpointId"], why);
    if !(1..=MAX_ENDPOINTS).contains(&endpoint_id.len()) {
        return Err(refuse(format!("must name endpoints: at least one, and at most {MAX_ENDPOINTS}")));
    }
    let id = |text: &String| EndpointId::parse_ulid(text).map_err(|_| refuse("is not the id of an endpoint".to_owned()));
    let ids: Vec<_> = endpoint_id.iter().map(id).collect::<Result<_, _>>()?;
    let (since, until) = dates.span(call.db().now())?;
    let found = statistics::attempts_of(call.db(), call.tenant_id(), &ids, since, until).await?;
    let mut found: HashMap<_, _> = found.into_iter().map(|attempted| (attempted.endpoint_id, attempted)).collect();
    let rate = |id: EndpointId| {
        let nothing = Attempted { endpoint_id: id, succeeded: 0, failed: 0, retries: 0 };
        FailureRateOut::from(found.remove(&id).unwrap_or(nothing))
    };
    Ok(Told::new("Endpoint failure rates fetched successfully", &All(ids.into_iter().map(rate).collect())))
}

impl From<Attempted> for FailureRateOut {
    fn from(attempted: Attempted) -> Self {
        let Attempted { endpoint_id, succeeded, failed, retries } = attempted;
        let float = |count: i64| f64::from(i32::try_from(count).unwrap_or(i32::MAX));
        let period_failure_rate = if failed == 0 { 0.0 } else { 100.0 * float(failed) / (float(failed) + float(succeeded)) };
        let uid = Ulid::of(endpoint_id);
        Self { uid, success_count: succeeded, failure_count: failed, retry_count: retries, period_failure_rate }
    }
}
