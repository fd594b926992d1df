//! Signing secrets of an endpoint on the wire.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage::endpoints::{self, RotateSecret};
use utoipa::ToSchema;

use super::fields::SigningSecret;
use crate::{
    error::{ApiError, ApiResult},
    transport::{call::Call, reply::Reply},
};

/// For how long a replaced secret still signs when nobody says, in seconds.
const DEFAULT_GRACE: u32 = 24 * 60 * 60;
/// For how long a replaced secret may still sign, in seconds.
const MAX_GRACE: u32 = 7 * 24 * 60 * 60;

/// A new signing secret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSecretRotateIn {
    /// The new secret; a random one if absent
    key: Option<SigningSecret>,
    /// How long the old secret still signs, in seconds; a day if absent
    #[schema(minimum = 0, maximum = 604_800, default = 86400)]
    grace_period_seconds: Option<u32>,
}

/// What a receiver needs to verify webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointSecretOut {
    /// The secret, or of a key pair the public half (`whpk_…`)
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", pattern = r"^(whsec_|whpk_)[a-zA-Z0-9+/=]{32,100}$")]
    key: String,
}

/// Get Endpoint Secret
#[utoipa::path(get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret", tag = "Endpoint", operation_id = "v1.endpoint.get-secret")]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, EndpointSecretOut>> {
    show(&call).await
}

/// The secret of the endpoint in the path.
pub(super) async fn show(call: &Call) -> ApiResult<Reply<200, EndpointSecretOut>> {
    let secret = endpoints::secret(call.db(), &call.address()).await?;
    Ok(Reply::new(&EndpointSecretOut { key: secret.verifier() }))
}

/// Rotate Endpoint Secret
///
/// The old secret goes on signing beside the new one for the grace period. To rotate to the secret that signs already changes nothing.
#[utoipa::path(post, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret/rotate", tag = "Endpoint",
    operation_id = "v1.endpoint.rotate-secret", request_body = EndpointSecretRotateIn)]
pub(crate) async fn rotate(call: Call) -> ApiResult<Reply<200, EndpointSecretOut>> {
    call.write(read_rotate(&call), |secret| Reply::new(&EndpointSecretOut { key: secret.verifier() })).await
}

/// The rotation that is asked for.
pub(super) fn read_rotate(call: &Call) -> ApiResult<RotateSecret> {
    let body = call.json::<EndpointSecretRotateIn>()?;
    let grace = body.grace_period_seconds.unwrap_or(DEFAULT_GRACE);
    if grace > MAX_GRACE {
        return Err(ApiError::invalid(&["body", "gracePeriodSeconds"], format!("must be at most {MAX_GRACE}")));
    }
    let grace = Duration::from_secs(grace.into());
    Ok(RotateSecret { address: call.address(), secret: body.key.map(|key| key.0), grace })
}
