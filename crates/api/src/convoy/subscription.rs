//! Subscriptions on the wire: what endpoints want.

use domain::{
    id::{EndpointId, Id, SourceId, SubscriptionId},
    project::{Project, ProjectKind},
    subscription::{ALL_TYPES, Subscription},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value, json};
use storage::{
    project_rules, projects,
    subscriptions::{self, Change, Create, Delete, Update},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, Ulid,
    answer::{Flag, Null, Told},
    fields::{EventTypeName, Title},
    page::{Paged, Paging},
    scopes::{Sample, ScopesIn, ScopesOut},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        dialect::Kind,
        json::present,
        query::{Asked, Parameters},
    },
};

/// The most event types of one subscription.
const MAX_EVENT_TYPES: usize = 1000;

/// What a subscription is to be. Of one that there is, what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoySubscriptionUpdate)]
pub(crate) struct SubscriptionIn {
    name: Option<Title>,
    /// Whose it is
    #[schema(value_type = Option<Ulid>)]
    endpoint_id: Option<String>,
    /// Only what comes by this source; an incoming project's subscription needs one. Empty for all
    #[schema(value_type = Option<String>)]
    source_id: Option<String>,
    /// Which events are wanted
    filter_config: Option<FilterConfigIn>,
    /// Only noted
    #[schema(value_type = Option<Object>)]
    alert_config: Option<Map<String, Value>>,
    #[serde(default, rename = "delivery_mode", deserialize_with = "at_least_once")]
    #[schema(ignore)]
    _delivery_mode: (),
    #[schema(ignore)]
    function: Option<String>,
    #[schema(ignore)]
    rate_limit_config: Option<RateLimit>,
    #[schema(ignore)]
    retry_config: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct RateLimit {
    #[serde(default)]
    count: i64,
}

/// Which events are wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ConvoyFilterConfigUpdate)]
pub(crate) struct FilterConfigIn {
    /// Only these event types; `*` is all of them, and so is an empty list
    event_types: Option<Vec<WantedType>>,
    /// What must be in them
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    filter: Option<ScopesIn>,
}

/// The name of an event type, or `*`.
#[derive(Clone, Debug, ToSchema)]
#[schema(as = ConvoyWantedType, value_type = String, pattern = r"^(\*|[a-zA-Z0-9\-_.]+)$", min_length = 1, max_length = 256)]
pub(crate) struct WantedType(pub(super) String);

impl<'de> Deserialize<'de> for WantedType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == ALL_TYPES {
            return Ok(Self(text));
        }
        let name = EventTypeName::deserialize(serde::de::value::StringDeserializer::<D::Error>::new(text))?;
        Ok(Self(name.0))
    }
}

fn at_least_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("" | "at_least_once") => Ok(()),
        Some("at_most_once") => Err(D::Error::custom("must be `at_least_once`: `at_most_once` is not supported yet")),
        Some(_) => Err(D::Error::custom("must be `at_least_once`")),
    }
}

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoySubscription)]
pub(crate) struct SubscriptionOut {
    uid: Ulid,
    project_id: Ulid,
    name: String,
    #[serde(rename = "type")]
    #[schema(example = "api")]
    kind: &'static str,
    endpoint_metadata: Named,
    #[schema(required)]
    source_metadata: Option<Named>,
    #[schema(value_type = Option<Object>, required)]
    device_metadata: Option<()>,
    filter_config: FilterConfigOut,
    #[schema(value_type = Option<Object>, required)]
    alert_config: Value,
    #[schema(value_type = Option<Object>, required)]
    rate_limit_config: Option<()>,
    #[schema(value_type = Option<Object>, required)]
    retry_config: Option<()>,
    #[schema(example = "at_least_once")]
    delivery_mode: &'static str,
    #[schema(value_type = Option<String>, required)]
    function: Option<()>,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

/// What something else is called.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyNamed)]
pub(crate) struct Named {
    uid: Ulid,
    project_id: Ulid,
}

/// Which events are wanted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyFilterConfig)]
pub(crate) struct FilterConfigOut {
    #[schema(example = json!(["*"]))]
    event_types: Vec<String>,
    filter: ScopesOut,
}

impl From<&Subscription> for SubscriptionOut {
    fn from(subscription: &Subscription) -> Self {
        let project_id = Ulid::of(subscription.tenant_id);
        Self {
            uid: Ulid::of(subscription.id),
            project_id,
            name: subscription.name.clone(),
            kind: "api",
            endpoint_metadata: Named { uid: Ulid::of(subscription.endpoint_id), project_id },
            source_metadata: subscription.source_id.map(|id| Named { uid: Ulid::of(id), project_id }),
            device_metadata: None,
            filter_config: FilterConfigOut { event_types: subscription.event_types.clone(), filter: ScopesOut::from(&subscription.filter) },
            alert_config: subscription.settings.get("alert_config").cloned().unwrap_or_default(),
            rate_limit_config: None,
            retry_config: None,
            delivery_mode: "at_least_once",
            function: None,
            created_at: Time(subscription.created_at),
            updated_at: Time(subscription.updated_at),
            deleted_at: None,
        }
    }
}

/// Which subscriptions are listed.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFilter {
    /// Only those of these endpoints
    #[serde(default, rename = "endpointId")]
    #[param(required = false)]
    endpoint_id: Vec<String>,
    /// Only those with this in their name
    name: Option<String>,
}

impl Parameters for ListFilter {}

/// The subscription in the path.
pub(super) fn id(call: &Call) -> ApiResult<SubscriptionId> {
    call.id(Kind::Subscription, "subscription")
}

/// List all subscriptions
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/subscriptions",
    tag = "Convoy: Subscriptions",
    operation_id = "convoy.GetSubscriptions"
)]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, ListFilter)>) -> ApiResult<Told<200, Paged<SubscriptionOut>>> {
    let (paging, ListFilter { endpoint_id, name }) = asked.read()?;
    let wanted = paging.of_ids::<SubscriptionId>()?;
    // What is no id is the id of nothing.
    let endpoints: Vec<_> = endpoint_id.iter().filter_map(|text| EndpointId::parse_ulid(text).ok()).collect();
    let endpoints = (!endpoint_id.is_empty()).then_some(endpoints.as_slice());
    let name = name.filter(|name| !name.is_empty() && !name.contains('\0'));
    let page = subscriptions::list(call.db(), call.tenant_id(), endpoints, name.as_deref(), &wanted.request).await?;
    Ok(wanted.told("Subscriptions fetched successfully", &page, |subscription| subscription.id, SubscriptionOut::from))
}

/// Create a subscription
///
/// From here on its endpoint gets what it lets through, besides what other subscriptions of it do.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/subscriptions", tag = "Convoy: Subscriptions",
    operation_id = "convoy.CreateSubscription", request_body = SubscriptionIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, SubscriptionOut>> {
    let effect = read_create(&call).await;
    call.write(effect, |subscription| Told::new("Subscription created successfully", &SubscriptionOut::from(subscription))).await
}

async fn read_create(call: &Call) -> ApiResult<Create> {
    let body = call.json::<SubscriptionIn>()?;
    let project = projects::find(call.db(), call.tenant_id()).await?;
    let change = body.into_change()?;
    let missing = |name: &str| ApiError::invalid(&["body", name], "is missing: a subscription needs it");
    let source_id = change.source_id.flatten();
    if project.kind == ProjectKind::Incoming && source_id.is_none() {
        return Err(missing("source_id"));
    }
    Ok(Create {
        tenant_id: call.tenant_id(),
        endpoint_id: change.endpoint_id.ok_or_else(|| missing("endpoint_id"))?,
        source_id,
        name: change.name.ok_or_else(|| missing("name"))?,
        event_types: change.event_types.unwrap_or_else(all_types),
        filter: change.filter.map_or_else(|| ScopesIn::default().filter(&["body"]), Ok)?,
        settings: change.settings.unwrap_or_else(|| json!({})),
        is_only: is_only(&project),
    })
}

/// Whether an endpoint of the project may have no more than one.
fn is_only(project: &Project) -> bool {
    project.kind == ProjectKind::Outgoing && !project_rules::read(&Value::Object(project.config.clone())).has_many_subscriptions
}

/// Retrieve a subscription
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}",
    tag = "Convoy: Subscriptions",
    operation_id = "convoy.GetSubscription"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, SubscriptionOut>> {
    let subscription = subscriptions::get(call.db(), call.tenant_id(), id(&call)?).await?;
    Ok(Told::new("Subscription fetched successfully", &SubscriptionOut::from(&subscription)))
}

/// Update a subscription
///
/// Changes what is given.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}", tag = "Convoy: Subscriptions",
    operation_id = "convoy.UpdateSubscription", request_body = SubscriptionIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<202, SubscriptionOut>> {
    let effect = read_update(&call).await;
    call.write(effect, |subscription| Told::new("Subscription updated successfully", &SubscriptionOut::from(subscription))).await
}

async fn read_update(call: &Call) -> ApiResult<Update> {
    let id = id(call)?;
    let change = call.json::<SubscriptionIn>()?.into_change()?;
    let project = projects::find(call.db(), call.tenant_id()).await?;
    if project.kind == ProjectKind::Incoming && change.source_id == Some(None) {
        return Err(ApiError::invalid(&["body", "source_id"], "must name a source: the project is an incoming one"));
    }
    Ok(Update { tenant_id: call.tenant_id(), id, change, is_only: is_only(&project) })
}

/// Delete subscription
///
/// What its endpoint is owed already it still gets.
#[utoipa::path(
    delete,
    path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}",
    tag = "Convoy: Subscriptions",
    operation_id = "convoy.DeleteSubscription"
)]
pub(crate) async fn delete(call: Call) -> ApiResult<Told<200, Null>> {
    let effect = id(&call).map(|id| Delete { tenant_id: call.tenant_id(), id });
    call.write(effect, |()| Told::new("Subscription deleted successfully", &Null::NULL)).await
}

/// Toggle subscription status
///
/// Changes nothing: endpoints are paused, subscriptions are not.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/toggle_status",
    tag = "Convoy: Subscriptions",
    operation_id = "convoy.ToggleSubscriptionStatus"
)]
pub(crate) async fn toggle_status(call: Call) -> ApiResult<Told<202, Null>> {
    subscriptions::get(call.db(), call.tenant_id(), id(&call)?).await?;
    Ok(Told::new("Subscription status was left as it is: pause its endpoint instead", &Null::NULL))
}

/// A filter, and what to try it on.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyFilterTest)]
pub(crate) struct FilterTest {
    request: Sample,
    schema: ScopesIn,
}

/// Test a filter
///
/// Whether a filter that is kept nowhere would take an event.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/subscriptions/test_filter", tag = "Convoy: Subscriptions",
    operation_id = "convoy.TestSubscriptionFilter", request_body = FilterTest)]
pub(crate) async fn test_filter(call: Call) -> ApiResult<Told<200, Flag>> {
    let FilterTest { request, schema } = call.json()?;
    let is_match = request.satisfies(&schema.filter(&["body", "schema"])?);
    Ok(Told::new("Filter validated successfully", &Flag(is_match)))
}

fn all_types() -> Vec<String> {
    vec![ALL_TYPES.to_owned()]
}

impl SubscriptionIn {
    fn into_change(self) -> ApiResult<Change> {
        self.check()?;
        let config = self.filter_config.unwrap_or_default();
        let filter = config.filter.map(|scopes| scopes.filter(&["body", "filter_config", "filter"])).transpose()?;
        let event_types = config.event_types.map(event_types).transpose()?;
        let endpoint = |text: String| {
            EndpointId::parse_ulid(&text).map_err(|_| ApiError::invalid(&["body", "endpoint_id"], "is not the id of an endpoint"))
        };
        let source = |text: String| match text.as_str() {
            "" => Ok(None),
            text => {
                SourceId::parse_ulid(text).map(Some).map_err(|_| ApiError::invalid(&["body", "source_id"], "is not the id of a source"))
            }
        };
        Ok(Change {
            endpoint_id: self.endpoint_id.map(endpoint).transpose()?,
            source_id: self.source_id.map(source).transpose()?,
            name: self.name.map(|name| name.0),
            event_types,
            filter,
            settings: self.alert_config.map(|config| json!({ "alert_config": config })),
        })
    }

    /// Refuses what would not happen.
    fn check(&self) -> ApiResult<()> {
        if self.function.as_ref().is_some_and(|function| !function.is_empty()) {
            return Err(ApiError::NotYet("`function` of a subscription".to_owned()));
        }
        if self.rate_limit_config.as_ref().is_some_and(|limit| limit.count != 0) {
            let why = "must be null: limit the endpoint by its `rate_limit` and `rate_limit_duration`";
            return Err(ApiError::invalid(&["body", "rate_limit_config"], why));
        }
        if self.retry_config.as_ref().is_some_and(|config| !config.is_empty()) {
            let why = "must be null: set `config.strategy` of the project, which holds for all its endpoints";
            return Err(ApiError::invalid(&["body", "retry_config"], why));
        }
        Ok(())
    }
}

/// Each once, and all of them if none is named.
fn event_types(given: Vec<WantedType>) -> ApiResult<Vec<String>> {
    if given.len() > MAX_EVENT_TYPES {
        return Err(ApiError::invalid(&["body", "filter_config", "event_types"], format!("must be at most {MAX_EVENT_TYPES}")));
    }
    let mut names = Vec::new();
    for WantedType(name) in given {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(if names.is_empty() { all_types() } else { names })
}
