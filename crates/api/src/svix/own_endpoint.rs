//! Operational webhooks on the wire: the endpoints that hear of the tenant's own events. They are endpoints as all others are, of an
//! application that nobody sees.

use std::num::NonZeroU16;

use domain::{
    application::{Metadata, Uid},
    endpoint::Endpoint,
    id::{EndpointId, Id},
};
use serde::{Deserialize, Serialize};
use storage::{
    applications::Made as Outcome,
    endpoints::{self, Change, Create, Delete, Update},
    own_endpoints::{self, Equipped},
};
use utoipa::ToSchema;

use super::{
    Timestamp, both,
    endpoint::allowed,
    endpoint_headers::{self, EndpointHeadersIn, EndpointHeadersOut},
    endpoint_secret::{self, EndpointSecretOut, EndpointSecretRotateIn},
    fields::{EndpointUid, Notes, OwnEventTypes, SigningSecret, Text, WebhookUrl, either},
    header_fields::CustomHeaders,
    page::{self, InOrder, Listed, Paging},
};
use crate::{
    error::ApiResult,
    transport::{
        call::Call,
        query::Asked,
        reply::{Made, Nothing, Reply},
    },
};

/// What only a new operational webhook endpoint takes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct OperationalWebhookEndpointBeginnings {
    /// The endpoint's signing secret; a random one if absent
    secret: Option<SigningSecret>,
    /// Custom headers of its webhooks
    headers: Option<CustomHeaders>,
}

both!(
    /// An operational webhook endpoint to be made.
    OperationalWebhookEndpointIn, OperationalWebhookEndpointUpsertIn, OperationalWebhookEndpointBeginnings
);

/// What an operational webhook endpoint is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationalWebhookEndpointUpsertIn {
    /// Where its webhooks go
    url: WebhookUrl,
    /// Optional unique identifier for the endpoint
    uid: Option<EndpointUid>,
    /// What people read; empty if absent
    description: Option<Text>,
    /// While this is true, nothing is sent to it
    #[schema(default = false)]
    disabled: Option<bool>,
    /// Only these events (omit for all); `filterTypes` is the same
    event_types: Option<OwnEventTypes>,
    #[schema(ignore)]
    filter_types: Option<OwnEventTypes>,
    /// Whatever the tenant wants to note
    #[serde(default)]
    metadata: Notes,
    /// At most this many webhooks a second, over all nodes (omit for no limit); `rateLimit` is the same
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    throttle_rate: Option<NonZeroU16>,
    #[schema(ignore)]
    rate_limit: Option<NonZeroU16>,
}

/// An operational webhook endpoint. Fields with two names have both: newer SDKs read the one, older ones the other.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationalWebhookEndpointOut<'a> {
    #[schema(example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: String,
    #[schema(required, example = "unique-ep-identifier")]
    uid: Option<&'a str>,
    #[schema(example = "https://example.com/webhook/")]
    url: &'a str,
    #[schema(example = "An example endpoint name")]
    description: &'a str,
    disabled: bool,
    /// Only these events; null for all
    #[schema(required, example = json!(["message.attempt.failing"]))]
    event_types: Option<&'a [String]>,
    /// The same as `eventTypes`
    #[schema(required, example = json!(["message.attempt.failing"]))]
    filter_types: Option<&'a [String]>,
    /// At most this many webhooks a second, over all nodes; null for no limit
    #[schema(required)]
    throttle_rate: Option<u16>,
    /// The same as `throttleRate`
    #[schema(required)]
    rate_limit: Option<u16>,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    metadata: &'a Metadata,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl OperationalWebhookEndpointUpsertIn {
    fn into_change(self) -> ApiResult<Change> {
        let event_types = either("eventTypes", self.event_types, "filterTypes", self.filter_types)?;
        let throttle_rate = either("throttleRate", self.throttle_rate, "rateLimit", self.rate_limit)?;
        Ok(Change {
            uid: Some(self.uid.map(|uid| uid.0)),
            url: Some(self.url.0),
            description: Some(self.description.map(|text| text.0).unwrap_or_default()),
            throttle_rate: Some(throttle_rate.map(NonZeroU16::get)),
            is_disabled: Some(self.disabled.unwrap_or_default()),
            event_types: Some(event_types.map(|names| names.0)),
            metadata: Some(self.metadata.0),
            has_checked_event_types: true,
            ..Change::default()
        })
    }
}

impl<'a> From<&'a Endpoint> for OperationalWebhookEndpointOut<'a> {
    fn from(endpoint: &'a Endpoint) -> Self {
        let event_types = endpoint.filter.event_types.as_deref();
        Self {
            id: endpoint.id.public(),
            uid: endpoint.uid.as_ref().map(Uid::as_str),
            url: endpoint.url.as_str(),
            description: &endpoint.description,
            disabled: endpoint.is_disabled,
            event_types,
            filter_types: event_types,
            throttle_rate: endpoint.throttle_rate,
            rate_limit: endpoint.throttle_rate,
            metadata: &endpoint.metadata,
            created_at: Timestamp(endpoint.created_at),
            updated_at: Timestamp(endpoint.updated_at),
        }
    }
}

fn location(public_url: &str, endpoint: &Endpoint) -> String {
    format!("{public_url}/api/v1/operational-webhook/endpoint/{}", endpoint.id)
}

/// List Operational Webhook Endpoints
///
/// The endpoints that hear of the tenant's own events, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint",
    tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.list"
)]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, InOrder)>) -> ApiResult<Listed<OperationalWebhookEndpointOut<'static>>> {
    let (paging, order) = asked.read()?;
    let page = paging.of_ids::<EndpointId>(order.is_ascending(false))?;
    let page = own_endpoints::list(call.db(), call.tenant_id(), &page).await?;
    Ok(page::list(&page, |endpoint| endpoint.id.public(), OperationalWebhookEndpointOut::from))
}

/// Create Operational Webhook Endpoint
///
/// From here on, it hears what happens to the tenant's endpoints and messages, as far as it asked for that.
#[utoipa::path(post, path = "/api/v1/operational-webhook/endpoint", tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.create", request_body = OperationalWebhookEndpointIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Reply<201, OperationalWebhookEndpointOut<'static>>> {
    let effect = read_create(&call).map(|effect| Equipped { tenant_id: call.tenant_id(), effect });
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |endpoint| Reply::at(location(&public_url, endpoint), &OperationalWebhookEndpointOut::from(endpoint))).await
}

fn read_create(call: &Call) -> ApiResult<Create> {
    let change = allowed(call, call.json::<OperationalWebhookEndpointUpsertIn>()?.into_change()?)?;
    let OperationalWebhookEndpointBeginnings { secret, headers } = call.json()?;
    let headers = headers.unwrap_or_default().0;
    Ok(Create { tenant_id: call.tenant_id(), application: call.application(), change, secret: secret.map(|secret| secret.0), headers })
}

/// Get Operational Webhook Endpoint
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}",
    tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.get"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, OperationalWebhookEndpointOut<'static>>> {
    let endpoint = endpoints::get(call.db(), &call.address()).await?;
    Ok(Reply::new(&OperationalWebhookEndpointOut::from(&endpoint)))
}

/// Update Operational Webhook Endpoint
///
/// Replaces an endpoint, or makes one if there is none of this uid. Its secret and headers stay as they are. Called by its uid, it
/// keeps it unless the body names another.
#[utoipa::path(put, path = "/api/v1/operational-webhook/endpoint/{endpoint_id}", tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.upsert", request_body = OperationalWebhookEndpointUpsertIn)]
pub(crate) async fn upsert(call: Call) -> ApiResult<Made<OperationalWebhookEndpointOut<'static>>> {
    let wanted = call.json::<OperationalWebhookEndpointUpsertIn>().and_then(OperationalWebhookEndpointUpsertIn::into_change);
    let effect = wanted.and_then(|wanted| allowed(&call, wanted)).map(|change| {
        let effect = Update { address: call.address(), change, or_create: true };
        Equipped { tenant_id: call.tenant_id(), effect }
    });
    let public_url = call.context.config.public_url.clone();
    let render = move |(endpoint, outcome): &(Endpoint, Outcome)| match outcome {
        Outcome::Created => Made::created(location(&public_url, endpoint), &OperationalWebhookEndpointOut::from(endpoint)),
        Outcome::Existed => Made::existed(&OperationalWebhookEndpointOut::from(endpoint)),
    };
    call.write(effect, render).await
}

/// Delete Operational Webhook Endpoint
///
/// What is still owed to it is not sent. Its uid may be used again.
#[utoipa::path(
    delete,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}",
    tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.delete"
)]
pub(crate) async fn delete(call: Call) -> ApiResult<Nothing> {
    call.write(Ok(Delete(call.address())), |()| Nothing::new()).await
}

/// Get Operational Webhook Endpoint Headers
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers",
    tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.get-headers"
)]
pub(crate) async fn get_headers(call: Call) -> ApiResult<Reply<200, EndpointHeadersOut>> {
    endpoint_headers::show(&call).await
}

/// Set Operational Webhook Endpoint Headers
///
/// Replaces all of them but those that `sensitive` names.
#[utoipa::path(put, path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers", tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.set-headers", request_body = EndpointHeadersIn)]
pub(crate) async fn update_headers(call: Call) -> ApiResult<Nothing> {
    endpoint_headers::replace(&call).await
}

/// Get Operational Webhook Endpoint Secret
#[utoipa::path(
    get,
    path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret",
    tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.get-secret"
)]
pub(crate) async fn get_secret(call: Call) -> ApiResult<Reply<200, EndpointSecretOut>> {
    endpoint_secret::show(&call).await
}

/// Rotate Operational Webhook Endpoint Secret
///
/// The old secret goes on signing beside the new one for the grace period.
#[utoipa::path(post, path = "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret/rotate", tag = "Operational Webhook Endpoint",
    operation_id = "v1.operational-webhook.endpoint.rotate-secret", request_body = EndpointSecretRotateIn)]
pub(crate) async fn rotate_secret(call: Call) -> ApiResult<Nothing> {
    call.write(endpoint_secret::read_rotate(&call), |_| Nothing::new()).await
}
