//! Endpoints on the wire.

use std::time::Duration;

use domain::{application::Uid, caller::Permission, endpoint::SignatureStyle, id::EndpointId, throttle::per_second};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use storage::{
    endpoints::Pausing,
    project_endpoints::{self, Change, Create, Delete, ExpireSecret, Filter, Pause, Shown, ShownSecret, Update},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, Ulid,
    answer::{Null, Told},
    endpoint_auth::{AuthenticationIn, AuthenticationOut},
    fields::{Owner, SecretText, Text, Title, Url},
    page::{Paged, Paging},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        dialect::Kind,
        query::{Asked, Parameters},
    },
};

/// The one media type in which events are sent.
const JSON: &str = "application/json";
/// The longest time that a request may be given, in seconds.
const MAX_TIMEOUT: u64 = 600;
/// The longest time for which a replaced secret may go on, in hours: a week.
const MAX_GRACE: u64 = 7 * 24;

/// What an endpoint is to be. Of one that there is, what is absent or empty stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyEndpointUpdate)]
pub(crate) struct EndpointIn {
    /// Where its webhooks go
    url: Option<Url>,
    name: Option<Title>,
    description: Option<Text>,
    /// Whose it is; the project's own if absent. An endpoint stays with its owner
    owner_id: Option<Owner>,
    /// Signs its webhooks; a random one if absent. Another one replaces it, and the old one goes on for a day
    secret: Option<SecretText>,
    /// Whether the signature has the time of the attempt in it; true if nobody says
    advanced_signatures: Option<bool>,
    /// While this is true, nothing is sent to it, and what it was owed is canceled
    is_disabled: Option<bool>,
    /// How long a request may take, in seconds, if that is less than the installation permits; 0: as it does
    #[schema(maximum = 600)]
    http_timeout: Option<u64>,
    /// At most so many webhooks; 0: no limit
    rate_limit: Option<u32>,
    /// In so many seconds; 1 if nobody says
    #[schema(maximum = 86400)]
    rate_limit_duration: Option<u64>,
    /// Only `application/json`
    #[serde(default, deserialize_with = "content_type")]
    #[schema(value_type = Option<String>, required = false)]
    content_type: Option<ContentType>,
    /// What its requests carry so that it lets them in
    authentication: Option<AuthenticationIn>,
    /// Only noted
    support_email: Option<Text>,
    /// Only noted
    slack_webhook_url: Option<Text>,
    /// Only noted
    teams_webhook_url: Option<Text>,
    #[schema(ignore)]
    mtls_client_cert: Option<serde::de::IgnoredAny>,
}

/// How events are written for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentType {
    /// As JSON.
    Json,
    /// As a form, which we do not do.
    Form,
}

fn content_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ContentType>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some("application/json" | "json") => Ok(Some(ContentType::Json)),
        Some("application/x-www-form-urlencoded" | "x-www-form-urlencoded") => Ok(Some(ContentType::Form)),
        Some(_) => Err(D::Error::custom("must be `application/json`")),
    }
}

/// Another secret for an endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyExpireSecret)]
pub(crate) struct ExpireSecretIn {
    /// The new secret; a random one if absent
    secret: Option<SecretText>,
    /// How long the old one still signs, in hours
    #[serde(default)]
    #[schema(required = false, maximum = 168)]
    expiration: u64,
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyEndpoint)]
pub(crate) struct EndpointOut {
    uid: Ulid,
    project_id: Ulid,
    /// Whose it is; empty for the project's own
    owner_id: String,
    name: String,
    description: String,
    #[schema(example = "https://example.com/webhook/")]
    url: String,
    status: Status,
    /// What signs its webhooks, the oldest first
    secrets: Vec<SecretOut>,
    advanced_signatures: bool,
    content_type: &'static str,
    /// In seconds; 0: as the installation has it
    http_timeout: u64,
    /// 0: no limit
    rate_limit: u32,
    rate_limit_duration: u64,
    #[schema(required)]
    authentication: Option<AuthenticationOut>,
    #[schema(value_type = Option<Object>, required)]
    mtls_client_cert: Option<()>,
    support_email: String,
    slack_webhook_url: String,
    teams_webhook_url: String,
    #[schema(value_type = Option<f64>, required)]
    failure_rate: Option<()>,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

/// Whether an endpoint gets anything.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConvoyEndpointStatus)]
enum Status {
    /// It does.
    Active,
    /// It is switched off.
    Inactive,
    /// What it is owed waits.
    Paused,
}

/// A secret that signs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySecret)]
pub(crate) struct SecretOut {
    uid: Ulid,
    /// The secret; empty for those who may only look. One that is no text, of an endpoint of the other dialect, as `whsec_…`
    value: String,
    /// Until when it still signs; null for the current one
    #[schema(required)]
    expires_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

impl SecretOut {
    fn new(shown: &ShownSecret, with_secrets: bool) -> Self {
        use domain::id::Id;

        // Secrets have ids of their time, and no table of when they were made.
        let made = Time(EndpointId::from(shown.id).created_at());
        let value = || shown.secret.text().map_or_else(|| shown.secret.verifier(), str::to_owned);
        Self {
            uid: Ulid::of(EndpointId::from(shown.id)),
            value: if with_secrets { value() } else { String::new() },
            expires_at: shown.expires_at.map(Time),
            created_at: made,
            updated_at: made,
            deleted_at: None,
        }
    }
}

impl EndpointOut {
    fn new(shown: &Shown, with_secrets: bool) -> Self {
        let Shown { endpoint, owner, secrets, headers, is_paused } = shown;
        let settings = &endpoint.settings;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let asked = settings.throttle_count.zip(settings.throttle_per);
        let (rate_limit, rate_limit_duration) = match (endpoint.throttle_rate, asked) {
            (None, _) => (0, 0),
            (Some(rate), Some((count, per))) if per_second(count, per) == Ok(rate) => (count, per.as_secs()),
            // The other dialect has set it since.
            (Some(rate), _) => (rate.into(), 1),
        };
        let name = settings.name.clone().or_else(|| endpoint.uid.as_ref().map(ToString::to_string));
        Self {
            uid: Ulid::of(endpoint.id),
            project_id: Ulid::of(endpoint.tenant_id),
            owner_id: text(owner),
            name: name.unwrap_or_default(),
            description: endpoint.description.clone(),
            url: endpoint.url.to_string(),
            status: match (endpoint.is_disabled, is_paused) {
                (true, _) => Status::Inactive,
                (false, true) => Status::Paused,
                (false, false) => Status::Active,
            },
            secrets: secrets.iter().map(|secret| SecretOut::new(secret, with_secrets)).collect(),
            advanced_signatures: settings.signature != Some(SignatureStyle::Simple),
            content_type: JSON,
            http_timeout: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
            rate_limit,
            rate_limit_duration,
            authentication: AuthenticationOut::of(headers, with_secrets),
            mtls_client_cert: None,
            support_email: text(&settings.support_email),
            slack_webhook_url: text(&settings.slack_webhook_url),
            teams_webhook_url: text(&settings.teams_webhook_url),
            failure_rate: None,
            created_at: Time(endpoint.created_at),
            updated_at: Time(endpoint.updated_at),
            deleted_at: None,
        }
    }
}

/// Which endpoints are listed.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFilter {
    /// Only those with this in their name, URL or description
    q: Option<String>,
    /// Only those of this owner
    #[serde(rename = "ownerId")]
    owner_id: Option<String>,
}

impl Parameters for ListFilter {}

/// Whether the caller is shown secrets.
pub(super) fn sees_secrets(call: &Call) -> bool {
    call.caller.permissions.contain(Permission::ReadEndpointSecret)
}

/// The endpoint in the path.
pub(super) fn id(call: &Call) -> ApiResult<EndpointId> {
    call.id(Kind::Endpoint, "endpoint")
}

fn told<const STATUS: u16>(message: &'static str, with_secrets: bool) -> impl FnOnce(&Shown) -> Told<STATUS, EndpointOut> {
    move |shown| Told::new(message, &EndpointOut::new(shown, with_secrets))
}

/// List all endpoints
///
/// The endpoints of all owners, the newest first.
#[utoipa::path(get, path = "/api/v1/projects/{projectID}/endpoints", tag = "Convoy: Endpoints", operation_id = "convoy.GetEndpoints")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, ListFilter)>) -> ApiResult<Told<200, Paged<EndpointOut>>> {
    let (paging, ListFilter { q, owner_id }) = asked.read()?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty() && !text.contains('\0'));
    let wanted = paging.of_ids::<EndpointId>()?;
    let filter = Filter { owner: given(owner_id), text: given(q) };
    let page = project_endpoints::list(call.db(), call.tenant_id(), &filter, &wanted.request).await?;
    let with_secrets = sees_secrets(&call);
    let render = |shown| EndpointOut::new(shown, with_secrets);
    Ok(wanted.told("Endpoints fetched successfully", &page, |shown| shown.endpoint.id, render))
}

/// Create an endpoint
///
/// It gets what its subscriptions let through, so nothing before it has one.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/endpoints", tag = "Convoy: Endpoints", operation_id = "convoy.CreateEndpoint",
    request_body = EndpointIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, EndpointOut>> {
    let effect = read_create(&call);
    let with_secrets = sees_secrets(&call);
    call.write(effect, told("Endpoint created successfully", with_secrets)).await
}

fn read_create(call: &Call) -> ApiResult<Create> {
    let body = call.json::<EndpointIn>()?;
    for (name, is_missing) in [("url", body.url.is_none()), ("name", body.name.is_none())] {
        if is_missing {
            return Err(ApiError::invalid(&["body", name], "is missing: an endpoint needs it"));
        }
    }
    let owner = body.owner_id.as_ref().and_then(|owner| owner.0.clone());
    let secret = body.secret.as_ref().and_then(SecretText::secret);
    let headers = body.authentication.as_ref().map(AuthenticationIn::headers).transpose()?.flatten().unwrap_or_default();
    Ok(Create { tenant_id: call.tenant_id(), owner, change: body.into_change(call)?, secret, headers })
}

/// Retrieve an endpoint
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/endpoints/{endpointID}",
    tag = "Convoy: Endpoints",
    operation_id = "convoy.GetEndpoint"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, EndpointOut>> {
    let shown = project_endpoints::get(call.db(), call.tenant_id(), id(&call)?).await?;
    Ok(told("Endpoint fetched successfully", sees_secrets(&call))(&shown))
}

/// Update an endpoint
///
/// Changes what is given.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/endpoints/{endpointID}", tag = "Convoy: Endpoints",
    operation_id = "convoy.UpdateEndpoint", request_body = EndpointIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<202, EndpointOut>> {
    let effect = read_update(&call);
    let with_secrets = sees_secrets(&call);
    call.write(effect, told("Endpoint updated successfully", with_secrets)).await
}

fn read_update(call: &Call) -> ApiResult<Update> {
    let endpoint_id = id(call)?;
    let body = call.json::<EndpointIn>()?;
    let owner = body.owner_id.as_ref().and_then(|owner| owner.0.as_ref().map(Uid::to_string));
    let secret = body.secret.as_ref().and_then(SecretText::secret);
    let headers = body.authentication.as_ref().map(AuthenticationIn::headers).transpose()?.flatten();
    Ok(Update { tenant_id: call.tenant_id(), endpoint_id, owner, change: body.into_change(call)?, secret, headers })
}

/// Delete an endpoint
///
/// What is still owed to it is not sent.
#[utoipa::path(
    delete,
    path = "/api/v1/projects/{projectID}/endpoints/{endpointID}",
    tag = "Convoy: Endpoints",
    operation_id = "convoy.DeleteEndpoint"
)]
pub(crate) async fn delete(call: Call) -> ApiResult<Told<200, Null>> {
    let effect = id(&call).map(|endpoint_id| Delete { tenant_id: call.tenant_id(), endpoint_id });
    call.write(effect, |()| Told::new("Endpoint deleted successfully", &Null::NULL)).await
}

/// Roll endpoint secret
///
/// The old secret goes on signing beside the new one for so many hours.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/endpoints/{endpointID}/expire_secret", tag = "Convoy: Endpoints",
    operation_id = "convoy.ExpireSecret", request_body = ExpireSecretIn)]
pub(crate) async fn expire_secret(call: Call) -> ApiResult<Told<200, EndpointOut>> {
    let effect = read_expire(&call);
    let with_secrets = sees_secrets(&call);
    call.write(effect, told("Endpoint secret expired successfully", with_secrets)).await
}

fn read_expire(call: &Call) -> ApiResult<ExpireSecret> {
    let endpoint_id = id(call)?;
    let ExpireSecretIn { secret, expiration } = call.json()?;
    if expiration > MAX_GRACE {
        return Err(ApiError::invalid(&["body", "expiration"], format!("must be at most {MAX_GRACE}: it counts hours")));
    }
    let (secret, grace) = (secret.as_ref().and_then(SecretText::secret), Duration::from_hours(expiration));
    Ok(ExpireSecret { tenant_id: call.tenant_id(), endpoint_id, secret, grace })
}

/// Pause endpoint
///
/// What it is owed from now on waits until it is activated, or paused once more: this is a switch.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{projectID}/endpoints/{endpointID}/pause",
    tag = "Convoy: Endpoints",
    operation_id = "convoy.PauseEndpoint"
)]
pub(crate) async fn pause(call: Call) -> ApiResult<Told<202, EndpointOut>> {
    set_paused(&call, Pausing::Toggle).await
}

/// Activate endpoint
///
/// It gets what has waited for it. One that was switched off is switched on.
#[utoipa::path(
    post,
    path = "/api/v1/projects/{projectID}/endpoints/{endpointID}/activate",
    tag = "Convoy: Endpoints",
    operation_id = "convoy.ActivateEndpoint"
)]
pub(crate) async fn activate(call: Call) -> ApiResult<Told<202, EndpointOut>> {
    set_paused(&call, Pausing::Activate).await
}

async fn set_paused(call: &Call, pausing: Pausing) -> ApiResult<Told<202, EndpointOut>> {
    let effect = id(call).map(|endpoint_id| Pause { tenant_id: call.tenant_id(), endpoint_id, pausing });
    call.write(effect, told("Endpoint status updated successfully", sees_secrets(call))).await
}

impl EndpointIn {
    fn into_change(self, call: &Call) -> ApiResult<Change> {
        if self.mtls_client_cert.is_some() {
            return Err(ApiError::NotYet("`mtls_client_cert` of an endpoint".to_owned()));
        }
        if self.content_type == Some(ContentType::Form) {
            return Err(ApiError::NotYet("`content_type` application/x-www-form-urlencoded of an endpoint".to_owned()));
        }
        let checked = self.url.as_ref().map_or(Ok(()), |url| call.context.config.urls.check(&url.0));
        checked.map_err(|refused| ApiError::invalid(&["body", "url"], refused.to_string()))?;
        if self.http_timeout.is_some_and(|seconds| seconds > MAX_TIMEOUT) {
            return Err(ApiError::invalid(&["body", "http_timeout"], format!("must be at most {MAX_TIMEOUT} seconds")));
        }
        let style = |is_advanced| if is_advanced { SignatureStyle::Advanced } else { SignatureStyle::Simple };
        Ok(Change {
            url: self.url.map(|url| url.0),
            name: self.name.map(|name| name.0),
            description: self.description.map(|text| text.0),
            is_disabled: self.is_disabled,
            signature: self.advanced_signatures.map(style),
            timeout: self.http_timeout.map(|seconds| Some(Duration::from_secs(seconds)).filter(|timeout| !timeout.is_zero())),
            throttle_count: self.rate_limit,
            throttle_per: self.rate_limit_duration.map(Duration::from_secs),
            content_type: self.content_type.map(|_| JSON.to_owned()),
            support_email: self.support_email.map(|text| text.0),
            slack_webhook_url: self.slack_webhook_url.map(|text| text.0),
            teams_webhook_url: self.teams_webhook_url.map(|text| text.0),
        })
    }
}
