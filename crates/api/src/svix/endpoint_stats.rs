//! What was counted of an endpoint, on the wire.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    delivery::AttemptClass,
    statistics::{End, LATENCY_BOUNDS_MS},
};
use serde::{Deserialize, Serialize};
use storage::statistics::{self, Counted};
use utoipa::{IntoParams, ToSchema};

use super::filter::Moment;
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::Reply,
    },
};

/// How far back is counted if nobody says.
const DEFAULT_DAYS: i64 = 28;

/// Between which moments is counted.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// Count what happened at this moment or later; by default, in the last 28 days
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Moment>,
    /// Count what happened before this moment; by default, until now
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Moment>,
}

impl Parameters for Range {}

impl Range {
    fn bounds(self, now: DateTime<Utc>) -> ApiResult<(DateTime<Utc>, DateTime<Utc>)> {
        let until = self.until.map_or_else(|| now + TimeDelta::minutes(1), |moment| moment.0);
        let since = self.since.map_or_else(|| until.min(now) - TimeDelta::days(DEFAULT_DAYS), |moment| moment.0);
        if since > until {
            return Err(ApiError::invalid(&["query", "until"], "is before `since`: nothing can be counted between them"));
        }
        Ok((since, until))
    }
}

/// Attempts by what came back.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptsByClass {
    /// Answered 200 to 299
    #[serde(rename = "2xx")]
    success: i64,
    /// Answered 300 to 399
    #[serde(rename = "3xx")]
    redirect: i64,
    /// Answered 400 to 499
    #[serde(rename = "4xx")]
    client_error: i64,
    /// Answered 500 to 599
    #[serde(rename = "5xx")]
    server_error: i64,
    /// Not answered in time
    timeout: i64,
    /// The connection was refused
    refused: i64,
    /// Not sent, since the address is not allowed
    blocked: i64,
    /// Not answered for another reason, or with a status code that HTTP does not know
    other: i64,
    /// The worker died while it was sending
    unknown: i64,
}

/// Attempts that were answered within a time.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LatencyBucket {
    /// The bound in milliseconds, which is not in the bucket; null for what took longer than all of them
    #[schema(required, example = 64)]
    under_ms: Option<u64>,
    /// Those that were answered within it, and not within the bound before
    count: i64,
}

/// What was counted of an endpoint. Attempts are counted, not messages. Counts are of whole minutes, of what is older than three hours
/// of whole hours, and of what is older than eight days of whole days (UTC): one counts if it begins in the range. They are about a
/// second old; a server that is killed takes what it counted in its last second with it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointStats {
    /// Attempts that succeeded
    success: i64,
    /// Deliveries that wait: due, or for their next attempt. As of now, whatever the range; each of the two kinds is exact up to
    /// 10,000, and 10,001 if there are more
    pending: i64,
    /// Deliveries that are being sent, as of now, whatever the range: exact up to 10,000, and 10,001 if there are more
    sending: i64,
    /// Attempts that failed, or whose worker died
    fail: i64,
    /// Deliveries that ended without a request
    canceled: i64,
    /// Deliveries that came to be owed; a resend is one
    deliveries: i64,
    attempts: AttemptsByClass,
    /// How long it took until attempts were answered
    latency: Vec<LatencyBucket>,
}

impl From<&Counted> for EndpointStats {
    fn from(counted: &Counted) -> Self {
        let of = |class| counted.ended(End::Attempt(class));
        let attempts = AttemptsByClass {
            success: of(AttemptClass::Success),
            redirect: of(AttemptClass::Redirect),
            client_error: of(AttemptClass::ClientError),
            server_error: of(AttemptClass::ServerError),
            timeout: of(AttemptClass::Timeout),
            refused: of(AttemptClass::Refused),
            blocked: of(AttemptClass::Blocked),
            other: of(AttemptClass::Other),
            unknown: of(AttemptClass::Unknown),
        };
        let AttemptsByClass { redirect, client_error, server_error, timeout, refused, blocked, other, unknown, .. } = attempts;
        let bounds = LATENCY_BOUNDS_MS.into_iter().map(Some).chain([None]);
        Self {
            success: attempts.success,
            pending: counted.owed.due + counted.owed.sleeping,
            sending: counted.owed.sending,
            fail: redirect + client_error + server_error + timeout + refused + blocked + other + unknown,
            canceled: counted.ended(End::Canceled) + counted.ended(End::Discarded),
            deliveries: counted.deliveries,
            attempts,
            latency: bounds.zip(counted.latency).map(|(under_ms, count)| LatencyBucket { under_ms, count }).collect(),
        }
    }
}

/// Endpoint Stats
///
/// How many attempts succeeded and failed, and what is owed.
#[utoipa::path(get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/stats", tag = "Endpoint", operation_id = "v1.endpoint.get-stats")]
pub(crate) async fn get(call: Call, asked: Asked<Range>) -> ApiResult<Reply<200, EndpointStats>> {
    let (since, until) = asked.read()?.bounds(call.db().now())?;
    let counted = statistics::of_endpoint(call.db(), &call.address(), since, until).await?;
    Ok(Reply::new(&EndpointStats::from(&counted)))
}
