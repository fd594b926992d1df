//! When failed deliveries are tried again, on the wire: an endpoint's strategy, and that of all of the tenant's. svix-server has no such
//! operations; these are written in its style.

use std::time::Duration;

use domain::retry_strategy::{self, Growth};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use storage::projects::{self, SetRetry};
use utoipa::ToSchema;

use crate::{
    error::ApiResult,
    transport::{call::Call, reply::Reply},
};

/// How the waits between attempts follow each other.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RetryGrowth {
    /// All are the same.
    Linear,
    /// Each is twice the one before it, up to two hours.
    Exponential,
}

/// So many attempts, with such waits between them. Each wait varies by 20 %.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct RetryStrategy {
    #[serde(rename = "type")]
    growth: RetryGrowth,
    /// The wait after the first attempt, in seconds
    #[schema(minimum = 1, maximum = 2_592_000, example = 60)]
    interval: u64,
    /// How often a delivery is attempted, the first time included
    #[schema(minimum = 1, maximum = 100, example = 5)]
    attempts: u32,
}

impl<'de> Deserialize<'de> for RetryStrategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Given {
            #[serde(rename = "type")]
            growth: RetryGrowth,
            interval: u64,
            attempts: u32,
        }
        let Given { growth, interval, attempts } = Given::deserialize(deserializer)?;
        let strategy = Self { growth, interval, attempts };
        strategy.checked().map_err(D::Error::custom)?;
        Ok(strategy)
    }
}

impl RetryStrategy {
    fn checked(self) -> Result<retry_strategy::RetryStrategy, retry_strategy::InvalidStrategy> {
        let growth = match self.growth {
            RetryGrowth::Linear => Growth::Linear,
            RetryGrowth::Exponential => Growth::Exponential,
        };
        retry_strategy::RetryStrategy::new(growth, Duration::from_secs(self.interval), self.attempts)
    }

    /// What it says.
    pub(super) fn read(self) -> Option<retry_strategy::RetryStrategy> {
        // It was checked when it was read.
        self.checked().ok()
    }
}

impl From<retry_strategy::RetryStrategy> for RetryStrategy {
    fn from(strategy: retry_strategy::RetryStrategy) -> Self {
        let growth = match strategy.growth() {
            Growth::Linear => RetryGrowth::Linear,
            Growth::Exponential => RetryGrowth::Exponential,
        };
        Self { growth, interval: strategy.interval().as_secs(), attempts: strategy.attempts() }
    }
}

/// When failed deliveries are tried again, unless their endpoint says otherwise.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RetryPolicy {
    /// Null: as this installation has it
    #[schema(required)]
    retry_strategy: Option<RetryStrategy>,
}

impl RetryPolicy {
    fn new(strategy: Option<retry_strategy::RetryStrategy>) -> Self {
        Self { retry_strategy: strategy.map(RetryStrategy::from) }
    }
}

/// Get Retry Policy
///
/// When failed deliveries are tried again, to endpoints that have no `retryStrategy` of their own.
#[utoipa::path(get, path = "/api/v1/retry/policy", tag = "Retry", operation_id = "v1.retry.get-policy")]
pub(crate) async fn get_policy(call: Call) -> ApiResult<Reply<200, RetryPolicy>> {
    Ok(Reply::new(&RetryPolicy::new(projects::retry(call.db(), call.tenant_id()).await?)))
}

/// Update Retry Policy
///
/// It holds for every failure from now on, of what is owed already, too. The Convoy dialect shows it as the project's `strategy`.
#[utoipa::path(put, path = "/api/v1/retry/policy", tag = "Retry", operation_id = "v1.retry.update-policy", request_body = RetryPolicy)]
pub(crate) async fn update_policy(call: Call) -> ApiResult<Reply<200, RetryPolicy>> {
    let effect = call.json::<RetryPolicy>().map(|policy| {
        let retry = policy.retry_strategy.and_then(RetryStrategy::read);
        SetRetry { tenant_id: call.tenant_id(), retry }
    });
    call.write(effect, |strategy| Reply::new(&RetryPolicy::new(*strategy))).await
}
