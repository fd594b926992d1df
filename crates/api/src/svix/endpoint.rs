//! Endpoints on the wire.

use std::num::NonZeroU16;

use domain::{
    application::{Metadata, Uid},
    content_filter::ContentFilter,
    endpoint::Endpoint,
    id::{EndpointId, Id},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::{
    applications::Made as Outcome,
    endpoints::{self, Change, Create, Delete, Update},
};
use utoipa::ToSchema;

use super::{
    Timestamp, both,
    content_filter::PayloadFilter,
    fields::{EndpointChannels, EndpointUid, EventTypeNames, Notes, SigningSecret, Text, WebhookUrl, either, nullable, present},
    header_fields::CustomHeaders,
    page::{self, InOrder, Listed, Paging},
    retry::RetryStrategy,
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::Asked,
        reply::{Made, Nothing, Reply},
    },
};

/// What an endpoint's version is when nobody says.
const DEFAULT_VERSION: u16 = 1;

/// What only a new endpoint takes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EndpointBeginnings {
    /// The endpoint's signing secret; a random one if absent
    secret: Option<SigningSecret>,
    /// Custom headers of its webhooks
    headers: Option<CustomHeaders>,
}

both!(
    /// An endpoint to be made. Its two halves are read one after the other, so that a fault in either is told by field.
    EndpointIn, EndpointUpdate, EndpointBeginnings
);

/// What an endpoint is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointUpdate {
    /// Where its webhooks go
    url: WebhookUrl,
    /// Optional unique identifier for the endpoint
    uid: Option<EndpointUid>,
    /// What people read; empty if absent
    description: Option<Text>,
    /// A number of the tenant's choosing
    #[schema(minimum = 0, maximum = 65535, default = 1)]
    version: Option<u16>,
    /// While this is true, nothing is sent to it
    #[schema(default = false)]
    disabled: Option<bool>,
    /// Only these event types (omit for all); `filterTypes` is the same
    event_types: Option<EventTypeNames>,
    #[schema(ignore)]
    filter_types: Option<EventTypeNames>,
    /// Only messages in one of these channels (omit for all)
    channels: Option<EndpointChannels>,
    /// Only messages whose payload fits (omit for all)
    filter: Option<PayloadFilter>,
    /// Whatever the tenant wants to note
    #[serde(default)]
    metadata: Notes,
    /// At most this many webhooks a second, over all nodes (omit for no limit); `rateLimit` is the same
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    throttle_rate: Option<NonZeroU16>,
    #[schema(ignore)]
    rate_limit: Option<NonZeroU16>,
    /// When failed deliveries are tried again (omit for the tenant's policy)
    retry_strategy: Option<RetryStrategy>,
}

/// What is to change of an endpoint: absent fields stay, null ones are unset.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointPatch {
    /// Where its webhooks go
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    url: Option<WebhookUrl>,
    /// Optional unique identifier for the endpoint
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<EndpointUid>, required = false)]
    uid: Option<Option<EndpointUid>>,
    /// What people read
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    description: Option<Text>,
    /// A number of the tenant's choosing
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, minimum = 0, maximum = 65535)]
    version: Option<u16>,
    /// While this is true, nothing is sent to it
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    disabled: Option<bool>,
    /// Only these event types (null for all); `filterTypes` is the same
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<EventTypeNames>, required = false)]
    event_types: Option<Option<EventTypeNames>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(ignore)]
    filter_types: Option<Option<EventTypeNames>>,
    /// Only messages in one of these channels (null for all)
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<EndpointChannels>, required = false)]
    channels: Option<Option<EndpointChannels>>,
    /// Only messages whose payload fits (null for all)
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<PayloadFilter>, required = false)]
    filter: Option<Option<PayloadFilter>>,
    /// Whatever the tenant wants to note
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    metadata: Option<Notes>,
    /// At most this many webhooks a second, over all nodes (null for no limit); `rateLimit` is the same
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u16>, required = false, minimum = 1, maximum = 65535)]
    throttle_rate: Option<Option<NonZeroU16>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(ignore)]
    rate_limit: Option<Option<NonZeroU16>>,
    /// When failed deliveries are tried again (null for the tenant's policy)
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RetryStrategy>, required = false)]
    retry_strategy: Option<Option<RetryStrategy>>,
}

/// An endpoint. Fields with two names have both: newer SDKs read the one, older ones the other.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointOut<'a> {
    #[schema(example = "An example endpoint name")]
    description: &'a str,
    /// The same as `throttleRate`
    #[schema(required)]
    rate_limit: Option<u16>,
    /// At most this many webhooks a second, over all nodes; null for no limit
    #[schema(required)]
    throttle_rate: Option<u16>,
    #[schema(required, example = "unique-ep-identifier")]
    uid: Option<&'a str>,
    #[schema(example = "https://example.com/webhook/")]
    url: &'a str,
    version: i32,
    disabled: bool,
    /// Only these event types; null for all
    #[schema(required, example = json!(["user.signup", "user.deleted"]))]
    event_types: Option<&'a [String]>,
    /// The same as `eventTypes`
    #[schema(required, example = json!(["user.signup", "user.deleted"]))]
    filter_types: Option<&'a [String]>,
    /// Only messages in one of these channels; null for all
    #[schema(required, example = json!(["project_123", "group_2"]))]
    channels: Option<&'a [String]>,
    /// Only messages whose payload fits; null for all
    #[schema(required, value_type = Option<PayloadFilter>)]
    filter: Option<&'a Value>,
    /// When failed deliveries are tried again; null: as the tenant's policy says
    #[schema(required)]
    retry_strategy: Option<RetryStrategy>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[schema(example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: String,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    metadata: &'a Metadata,
}

impl EndpointUpdate {
    fn into_change(self) -> ApiResult<Change> {
        let event_types = either("eventTypes", self.event_types, "filterTypes", self.filter_types)?;
        let throttle_rate = either("throttleRate", self.throttle_rate, "rateLimit", self.rate_limit)?;
        Ok(Change {
            uid: Some(self.uid.map(|uid| uid.0)),
            url: Some(self.url.0),
            description: Some(self.description.map(|text| text.0).unwrap_or_default()),
            version: Some(i32::from(self.version.unwrap_or(DEFAULT_VERSION))),
            throttle_rate: Some(throttle_rate.map(NonZeroU16::get)),
            is_disabled: Some(self.disabled.unwrap_or_default()),
            event_types: Some(event_types.map(|names| names.0)),
            channels: Some(self.channels.map(|names| names.0)),
            filter: Some(self.filter.map(|filter| filter.0)),
            metadata: Some(self.metadata.0),
            retry: Some(self.retry_strategy.and_then(RetryStrategy::read)),
            ..Change::default()
        })
    }
}

impl EndpointPatch {
    fn into_change(self) -> ApiResult<Change> {
        let event_types = either("eventTypes", self.event_types, "filterTypes", self.filter_types)?;
        let throttle_rate = either("throttleRate", self.throttle_rate, "rateLimit", self.rate_limit)?;
        Ok(Change {
            uid: self.uid.map(|uid| uid.map(|uid| uid.0)),
            url: self.url.map(|url| url.0),
            description: self.description.map(|text| text.0),
            version: self.version.map(i32::from),
            throttle_rate: throttle_rate.map(|rate| rate.map(NonZeroU16::get)),
            is_disabled: self.disabled,
            event_types: event_types.map(|names| names.map(|names| names.0)),
            channels: self.channels.map(|names| names.map(|names| names.0)),
            filter: self.filter.map(|filter| filter.map(|filter| filter.0)),
            metadata: self.metadata.map(|notes| notes.0),
            retry: self.retry_strategy.map(|strategy| strategy.and_then(RetryStrategy::read)),
            ..Change::default()
        })
    }
}

impl<'a> From<&'a Endpoint> for EndpointOut<'a> {
    fn from(endpoint: &'a Endpoint) -> Self {
        let event_types = endpoint.filter.event_types.as_deref();
        Self {
            description: &endpoint.description,
            rate_limit: endpoint.throttle_rate,
            throttle_rate: endpoint.throttle_rate,
            uid: endpoint.uid.as_ref().map(Uid::as_str),
            url: endpoint.url.as_str(),
            version: endpoint.version,
            disabled: endpoint.is_disabled,
            event_types,
            filter_types: event_types,
            channels: endpoint.filter.channels.as_deref(),
            filter: endpoint.filter.content.as_ref().map(ContentFilter::written),
            retry_strategy: endpoint.settings.retry.map(RetryStrategy::from),
            created_at: Timestamp(endpoint.created_at),
            updated_at: Timestamp(endpoint.updated_at),
            id: endpoint.id.public(),
            metadata: &endpoint.metadata,
        }
    }
}

fn location(public_url: &str, endpoint: &Endpoint) -> String {
    format!("{public_url}/api/v1/app/{}/endpoint/{}", endpoint.application_id, endpoint.id)
}

/// List Endpoints
///
/// The application's endpoints, the newest first.
#[utoipa::path(get, path = "/api/v1/app/{app_id}/endpoint", tag = "Endpoint", operation_id = "v1.endpoint.list")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, InOrder)>) -> ApiResult<Listed<EndpointOut<'static>>> {
    let (paging, order) = asked.read()?;
    let page = paging.of_ids::<EndpointId>(order.is_ascending(false))?;
    let page = endpoints::list(call.db(), call.tenant_id(), &call.application(), &page).await?;
    Ok(page::list(&page, |endpoint| endpoint.id.public(), EndpointOut::from))
}

/// Create Endpoint
///
/// From here on, each message that fits its filters is owed to it.
#[utoipa::path(post, path = "/api/v1/app/{app_id}/endpoint", tag = "Endpoint", operation_id = "v1.endpoint.create",
    request_body = EndpointIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Reply<201, EndpointOut<'static>>> {
    let effect = read_create(&call);
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |endpoint| Reply::at(location(&public_url, endpoint), &EndpointOut::from(endpoint))).await
}

/// What may come of a change that this caller asks for. A URL to which nothing would ever be sent is refused.
pub(super) fn allowed(call: &Call, change: Change) -> ApiResult<Change> {
    let checked = change.url.as_ref().map_or(Ok(()), |url| call.context.config.urls.check(url));
    checked.map_err(|refused| ApiError::invalid(&["body", "url"], refused.to_string()))?;
    Ok(Change { feature_flags: call.feature_flags.clone(), ..change })
}

fn read_create(call: &Call) -> ApiResult<Create> {
    let change = allowed(call, call.json::<EndpointUpdate>()?.into_change()?)?;
    let EndpointBeginnings { secret, headers } = call.json()?;
    let headers = headers.unwrap_or_default().0;
    Ok(Create { tenant_id: call.tenant_id(), application: call.application(), change, secret: secret.map(|secret| secret.0), headers })
}

/// Get Endpoint
#[utoipa::path(get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}", tag = "Endpoint", operation_id = "v1.endpoint.get")]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, EndpointOut<'static>>> {
    let endpoint = endpoints::get(call.db(), &call.address()).await?;
    Ok(Reply::new(&EndpointOut::from(&endpoint)))
}

/// Update Endpoint
///
/// Replaces an endpoint, or makes one if there is none of this uid. Its secret and headers stay as they are. Called by its uid, it
/// keeps it unless the body names another.
#[utoipa::path(put, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}", tag = "Endpoint", operation_id = "v1.endpoint.update",
    request_body = EndpointUpdate)]
pub(crate) async fn update(call: Call) -> ApiResult<Made<EndpointOut<'static>>> {
    let wanted = call.json::<EndpointUpdate>().and_then(EndpointUpdate::into_change);
    let effect = wanted.and_then(|wanted| change(&call, wanted, true));
    let public_url = call.context.config.public_url.clone();
    let render = move |(endpoint, outcome): &(Endpoint, Outcome)| match outcome {
        Outcome::Created => Made::created(location(&public_url, endpoint), &EndpointOut::from(endpoint)),
        Outcome::Existed => Made::existed(&EndpointOut::from(endpoint)),
    };
    call.write(effect, render).await
}

/// Patch Endpoint
///
/// Changes the fields that are given.
#[utoipa::path(patch, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}", tag = "Endpoint", operation_id = "v1.endpoint.patch",
    request_body = EndpointPatch)]
pub(crate) async fn patch(call: Call) -> ApiResult<Reply<200, EndpointOut<'static>>> {
    let wanted = call.json::<EndpointPatch>().and_then(EndpointPatch::into_change);
    let effect = wanted.and_then(|wanted| change(&call, wanted, false));
    call.write(effect, |(endpoint, _)| Reply::new(&EndpointOut::from(endpoint))).await
}

fn change(call: &Call, change: Change, or_create: bool) -> ApiResult<Update> {
    Ok(Update { address: call.address(), change: allowed(call, change)?, or_create })
}

/// Delete Endpoint
///
/// What is still owed to it is not sent. Its uid may be used again.
#[utoipa::path(delete, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}", tag = "Endpoint", operation_id = "v1.endpoint.delete")]
pub(crate) async fn delete(call: Call) -> ApiResult<Nothing> {
    call.write(Ok(Delete(call.address())), |()| Nothing::new()).await
}
