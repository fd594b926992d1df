//! Custom headers of an endpoint on the wire.

use std::collections::BTreeMap;

use domain::endpoint::{Headers, is_sensitive_header};
use serde::{Deserialize, Serialize};
use storage::endpoints::{self, SetHeaders};
use utoipa::ToSchema;

use super::header_fields::{CustomHeaders, HeaderChanges};
use crate::{
    error::ApiResult,
    transport::{
        call::Call,
        reply::{Nothing, Reply},
    },
};

/// All custom headers that an endpoint is to have.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EndpointHeadersIn {
    headers: CustomHeaders,
    /// Names of headers that keep the values that they have, as the answer to GET lists them; all others are dropped
    #[schema(example = json!(["Authorization"]))]
    sensitive: Option<Vec<String>>,
}

/// Custom headers that are to change; null removes one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointHeadersPatchIn {
    headers: HeaderChanges,
    /// Headers to remove
    #[schema(example = json!(["X-Foobar"]))]
    delete_headers: Option<Vec<String>>,
}

/// The custom headers of an endpoint. Of sensitive ones only the names are shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointHeadersOut {
    headers: BTreeMap<String, String>,
    #[schema(example = json!(["Authorization"]))]
    sensitive: Vec<String>,
}

/// Get Endpoint Headers
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    tag = "Endpoint",
    operation_id = "v1.endpoint.get-headers"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, EndpointHeadersOut>> {
    show(&call).await
}

/// The headers of the endpoint in the path.
pub(super) async fn show(call: &Call) -> ApiResult<Reply<200, EndpointHeadersOut>> {
    let headers = endpoints::headers(call.db(), &call.address()).await?;
    let (sensitive, shown): (Headers, Headers) = headers.into_iter().partition(|(name, _)| is_sensitive_header(name));
    Ok(Reply::new(&EndpointHeadersOut { headers: shown, sensitive: sensitive.into_keys().collect() }))
}

/// Update Endpoint Headers
///
/// Replaces all of them but those that `sensitive` names.
#[utoipa::path(put, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers", tag = "Endpoint",
    operation_id = "v1.endpoint.update-headers", request_body = EndpointHeadersIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Nothing> {
    replace(&call).await
}

/// Replaces the headers of the endpoint in the path.
pub(super) async fn replace(call: &Call) -> ApiResult<Nothing> {
    let effect = call.json::<EndpointHeadersIn>().map(|body| SetHeaders {
        address: call.address(),
        headers: body.headers.0.into_iter().map(|(name, value)| (name, Some(value))).collect(),
        replace_but: Some(body.sensitive.unwrap_or_default()),
    });
    call.write(effect, |()| Nothing::new()).await
}

/// Patch Endpoint Headers
///
/// Removes those that are null or named in `deleteHeaders`, and sets the others that are given.
#[utoipa::path(patch, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers", tag = "Endpoint",
    operation_id = "v1.endpoint.patch-headers", request_body = EndpointHeadersPatchIn)]
pub(crate) async fn patch(call: Call) -> ApiResult<Nothing> {
    let effect = call.json::<EndpointHeadersPatchIn>().map(|body| {
        let removed = body.delete_headers.into_iter().flatten().map(|name| (name, None));
        SetHeaders { address: call.address(), headers: removed.chain(body.headers.0).collect(), replace_but: None }
    });
    call.write(effect, |()| Nothing::new()).await
}
