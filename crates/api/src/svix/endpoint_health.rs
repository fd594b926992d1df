//! How an endpoint is, on the wire: an operation of ours, for whoever is asked why nothing arrives.

use domain::{
    health::State,
    id::{Id, MessageId},
};
use serde::Serialize;
use storage::endpoints::{self, EndpointHealth, Failure, Owed};
use utoipa::ToSchema;

use super::Timestamp;
use crate::{
    error::ApiResult,
    transport::{call::Call, reply::Reply},
};

/// How an endpoint is, in a word.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndpointState {
    /// The last send to it succeeded, or nothing has been sent to it.
    Healthy,
    /// The last sends to it failed; it is sent to like any other.
    Failing,
    /// It failed so often that its deliveries wait, but for a probe now and then.
    Held,
    /// A probe succeeded: it is sent to in growing numbers.
    Recovering,
    /// Its owner has paused it: its deliveries wait until it is activated.
    Paused,
    /// It gets nothing.
    Disabled,
}

/// An attempt that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointFailureOut {
    /// What went wrong, in words
    #[schema(example = "the receiver answered 503")]
    why: String,
    /// The receiver's status code; 0 if it did not answer
    #[schema(example = 503)]
    response_status_code: u16,
    timestamp: Timestamp,
    #[schema(example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    msg_id: String,
    #[schema(example = "atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    attempt_id: String,
}

/// What is owed to an endpoint. Each number is exact up to 10,000; 10,001 means more than that.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointOwedOut {
    /// Deliveries that are due; while the endpoint is held, or over its throttle, they wait
    #[schema(minimum = 0, maximum = 10_001)]
    due: i64,
    /// Deliveries that are being sent
    #[schema(minimum = 0, maximum = 10_001)]
    sending: i64,
    /// Deliveries that wait for their next attempt
    #[schema(minimum = 0, maximum = 10_001)]
    sleeping: i64,
    /// The oldest message of those; null if there are none
    #[schema(required, example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    oldest_msg_id: Option<String>,
    /// When it was accepted
    #[schema(required)]
    oldest_timestamp: Option<Timestamp>,
}

/// How an endpoint is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointHealthOut {
    #[schema(example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    endpoint_id: String,
    state: EndpointState,
    /// How many sends in a row have failed
    #[schema(minimum = 0)]
    consecutive_failures: i32,
    /// The first failure since the last success; null if the last send succeeded
    #[schema(required)]
    failing_since: Option<Timestamp>,
    /// Since when its deliveries are held; null if they are not
    #[schema(required)]
    held_since: Option<Timestamp>,
    /// When one of them is sent to find out whether the endpoint is back; null if none is held
    #[schema(required)]
    next_probe_at: Option<Timestamp>,
    /// What went wrong the last time; null if the endpoint is well
    #[schema(required)]
    last_failure: Option<EndpointFailureOut>,
    owed: EndpointOwedOut,
}

impl From<State> for EndpointState {
    fn from(state: State) -> Self {
        match state {
            State::Healthy => Self::Healthy,
            State::Failing => Self::Failing,
            State::Held => Self::Held,
            State::Recovering => Self::Recovering,
            State::Paused => Self::Paused,
            State::Disabled => Self::Disabled,
        }
    }
}

impl From<&Failure> for EndpointFailureOut {
    fn from(failure: &Failure) -> Self {
        let why = match failure.status_code {
            0 => String::from_utf8_lossy(&failure.response).into_owned(),
            code => format!("the receiver answered {code}"),
        };
        Self {
            why,
            response_status_code: failure.status_code,
            timestamp: Timestamp(failure.at()),
            msg_id: failure.message_id.public(),
            attempt_id: failure.attempt_id.public(),
        }
    }
}

impl From<&Owed> for EndpointOwedOut {
    fn from(owed: &Owed) -> Self {
        Self {
            due: owed.due,
            sending: owed.sending,
            sleeping: owed.sleeping,
            oldest_msg_id: owed.oldest.map(MessageId::public),
            oldest_timestamp: owed.oldest.map(|oldest| Timestamp(oldest.created_at())),
        }
    }
}

impl From<&EndpointHealth> for EndpointHealthOut {
    fn from(health: &EndpointHealth) -> Self {
        Self {
            endpoint_id: health.endpoint_id.public(),
            state: health.state.into(),
            consecutive_failures: health.failures,
            failing_since: health.failing_since.map(Timestamp),
            held_since: health.held_since.map(Timestamp),
            next_probe_at: health.next_probe_at.map(Timestamp),
            last_failure: health.last_failure.as_ref().map(EndpointFailureOut::from),
            owed: EndpointOwedOut::from(&health.owed),
        }
    }
}

/// Get Endpoint Health
///
/// Whether the endpoint's deliveries are sent, held or canceled, since when and why, and what is owed to it.
#[utoipa::path(get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/health", tag = "Endpoint", operation_id = "v1.endpoint.get-health")]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, EndpointHealthOut>> {
    let health = endpoints::health(call.db(), &call.address()).await?;
    Ok(Reply::new(&EndpointHealthOut::from(&health)))
}
