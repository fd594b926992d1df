//! Filters of a subscription on the wire: what else must hold for events of one type.

use chrono::{DateTime, Utc};
use domain::{
    filter::Filter,
    id::{FilterId, Id, SubscriptionId},
    offer::Offer,
    subscription::{Subscription, TypeFilter, Wanted},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use storage::subscriptions::{self, ChangeFilters, FilterChange, MAX_FILTERS, NewFilter};
use utoipa::ToSchema;

use super::{
    Time, Ulid,
    answer::{All, Null, Told},
    scopes::{Sample, ScopesIn, ScopesOut},
    subscription::{WantedType, id as subscription_id},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{call::Call, dialect::Kind, json::present},
};

/// What a filter is to be. Of one that there is, what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyFilterUpdate)]
pub(crate) struct FilterIn {
    /// Which, of several that are changed at once
    #[schema(value_type = Option<Ulid>)]
    uid: Option<String>,
    /// Of which type; `*` is for those that have none of their own
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    event_type: Option<WantedType>,
    /// From when on it counts; null: it is off. It counts at once if nobody says
    #[serde(default, deserialize_with = "enabled_at")]
    #[schema(value_type = Option<String>, format = DateTime, required = false)]
    enabled_at: Option<Option<DateTime<Utc>>>,
    #[serde(flatten)]
    scopes: ScopesIn,
}

/// A time as clients write it that come from Go: a text, null, or whether it is set and to what.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Optional {
        #[serde(default)]
        set: bool,
        #[serde(default)]
        time: Option<String>,
    },
}

fn enabled_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    let text = match Option::<Written>::deserialize(deserializer).map_err(|_| D::Error::custom("must be a time, or null"))? {
        None => return Ok(Some(None)),
        Some(Written::Optional { set: false, .. }) => return Ok(None),
        Some(Written::Optional { set: true, time }) => time.unwrap_or_default(),
        Some(Written::Text(text)) => text,
    };
    if text.is_empty() || text.starts_with("0001-") {
        return Ok(Some(None));
    }
    let at = DateTime::parse_from_rfc3339(&text).map_err(|_| D::Error::custom("must be a time such as `2026-08-21T12:00:00Z`, or null"))?;
    Ok(Some(Some(at.to_utc())))
}

/// A filter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyFilter)]
pub(crate) struct FilterOut {
    uid: Ulid,
    subscription_id: Ulid,
    #[schema(example = "user.signup")]
    event_type: String,
    #[schema(required)]
    enabled_at: Option<Time>,
    #[serde(flatten)]
    scopes: ScopesOut,
    #[schema(value_type = Object)]
    raw_body: Value,
    #[schema(value_type = Object)]
    raw_headers: Value,
    #[schema(value_type = Object)]
    raw_query: Value,
    #[schema(value_type = Object)]
    raw_path: Value,
}

impl FilterOut {
    fn new(subscription_id: SubscriptionId, filter: &TypeFilter) -> Self {
        let scopes = ScopesOut::from(&filter.filter);
        let ScopesOut { body: raw_body, headers: raw_headers, query: raw_query, path: raw_path } = scopes.clone();
        Self {
            uid: Ulid::of(filter.id),
            subscription_id: Ulid::of(subscription_id),
            event_type: filter.event_type.clone(),
            enabled_at: filter.enabled_at.map(Time),
            scopes,
            raw_body,
            raw_headers,
            raw_query,
            raw_path,
        }
    }
}

/// The filter in the path.
fn id(call: &Call) -> ApiResult<FilterId> {
    call.id(Kind::Filter, "filter")
}

async fn subscription(call: &Call) -> ApiResult<Subscription> {
    Ok(subscriptions::get(call.db(), call.tenant_id(), subscription_id(call)?).await?)
}

fn find(subscription: &Subscription, id: FilterId) -> ApiResult<&TypeFilter> {
    subscription.filters.iter().find(|filter| filter.id == id).ok_or(ApiError::NotFound("filter"))
}

/// What is shown of those that were written.
fn written((subscription, ids): &(Subscription, Vec<FilterId>)) -> Vec<FilterOut> {
    let shown = ids.iter().filter_map(|id| find(subscription, *id).ok());
    shown.map(|filter| FilterOut::new(subscription.id, filter)).collect()
}

/// List all filters
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters",
    tag = "Convoy: Filters",
    operation_id = "convoy.GetFilters"
)]
pub(crate) async fn list(call: Call) -> ApiResult<Told<200, All<FilterOut>>> {
    let subscription = subscription(&call).await?;
    let all = subscription.filters.iter().map(|filter| FilterOut::new(subscription.id, filter)).collect();
    Ok(Told::new("Filters fetched successfully", &All(all)))
}

/// Create a filter
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters", tag = "Convoy: Filters",
    operation_id = "convoy.CreateFilter", request_body = FilterIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, FilterOut>> {
    let effect = call.json::<FilterIn>().and_then(|body| Ok(vec![FilterChange::Add(body.into_new(&call, &["body"])?)]));
    let effect = effect.and_then(|changes| change(&call, changes));
    call.write(effect, |output| one("Filter created successfully", output)).await
}

fn change(call: &Call, changes: Vec<FilterChange>) -> ApiResult<ChangeFilters> {
    Ok(ChangeFilters { tenant_id: call.tenant_id(), id: subscription_id(call)?, changes })
}

fn one<const STATUS: u16>(message: &str, output: &(Subscription, Vec<FilterId>)) -> Told<STATUS, FilterOut> {
    let mut shown = written(output);
    Told::new(message, &shown.pop().expect("the one that was written is there"))
}

/// Create filters
///
/// All of them, or none.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/bulk", tag = "Convoy: Filters",
    operation_id = "convoy.BulkCreateFilters", request_body = Vec<FilterIn>)]
pub(crate) async fn bulk_create(call: Call) -> ApiResult<Told<201, All<FilterOut>>> {
    let effect = read_many(&call).and_then(|bodies| {
        let add = |(place, body): (usize, FilterIn)| Ok(FilterChange::Add(body.into_new(&call, &["body", &place.to_string()])?));
        change(&call, bodies.into_iter().enumerate().map(add).collect::<ApiResult<_>>()?)
    });
    call.write(effect, |output| Told::new("Filters created successfully", &All(written(output)))).await
}

fn read_many(call: &Call) -> ApiResult<Vec<FilterIn>> {
    let bodies = call.json_list::<FilterIn>()?;
    let is_fine = (1..=MAX_FILTERS).contains(&bodies.len());
    if is_fine { Ok(bodies) } else { Err(ApiError::invalid(&["body"], format!("must list 1 to {MAX_FILTERS} filters"))) }
}

/// Retrieve a filter
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/{filterID}",
    tag = "Convoy: Filters",
    operation_id = "convoy.GetFilter"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, FilterOut>> {
    let subscription = subscription(&call).await?;
    Ok(Told::new("Filter fetched successfully", &FilterOut::new(subscription.id, find(&subscription, id(&call)?)?)))
}

/// Update a filter
///
/// Changes what is given.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/{filterID}", tag = "Convoy: Filters",
    operation_id = "convoy.UpdateFilter", request_body = FilterIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<200, FilterOut>> {
    let effect = read_update(&call).await;
    call.write(effect, |output| one("Filter updated successfully", output)).await
}

async fn read_update(call: &Call) -> ApiResult<ChangeFilters> {
    let (body, subscription) = (call.json::<FilterIn>()?, subscription(call).await?);
    let known = find(&subscription, id(call)?)?;
    change(call, vec![FilterChange::Replace(known.id, body.over(known, &["body"])?)])
}

/// Update filters
///
/// All of them, or none.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/bulk_update", tag = "Convoy: Filters",
    operation_id = "convoy.BulkUpdateFilters", request_body = Vec<FilterIn>)]
pub(crate) async fn bulk_update(call: Call) -> ApiResult<Told<200, All<FilterOut>>> {
    let effect = read_bulk_update(&call).await;
    call.write(effect, |output| Told::new("Filters updated successfully", &All(written(output)))).await
}

/// Update filters
///
/// The same, for clients that know it by the method that Convoy's server takes.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/bulk_update", tag = "Convoy: Filters",
    operation_id = "convoy.BulkUpdateFiltersByPost", request_body = Vec<FilterIn>)]
pub(crate) async fn bulk_update_by_post(call: Call) -> ApiResult<Told<200, All<FilterOut>>> {
    bulk_update(call).await
}

async fn read_bulk_update(call: &Call) -> ApiResult<ChangeFilters> {
    let (bodies, subscription) = (read_many(call)?, subscription(call).await?);
    let mut changes = Vec::new();
    for (place, body) in bodies.into_iter().enumerate() {
        let place = ["body", &place.to_string()];
        let id = body.uid.as_deref().map(FilterId::parse_ulid);
        let id = id.and_then(Result::ok).ok_or_else(|| ApiError::invalid(&[place[0], place[1], "uid"], "must be the id of a filter"))?;
        let known = find(&subscription, id)?;
        changes.push(FilterChange::Replace(id, body.over(known, &place)?));
    }
    change(call, changes)
}

/// Delete a filter
#[utoipa::path(
    delete,
    path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/{filterID}",
    tag = "Convoy: Filters",
    operation_id = "convoy.DeleteFilter"
)]
pub(crate) async fn delete(call: Call) -> ApiResult<Told<200, Null>> {
    let effect = id(&call).and_then(|id| change(&call, vec![FilterChange::Remove(id)]));
    call.write(effect, |_| Told::new("Filter deleted successfully", &Null::NULL)).await
}

/// An event to try the filters of a subscription on.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyEventTest)]
pub(crate) struct EventTest {
    /// Its payload, if that is all
    payload: Option<Value>,
    /// All of it
    request: Option<Sample>,
}

/// Whether a subscription lets an event through.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyEventTestResult)]
pub(crate) struct EventTestOut {
    is_match: bool,
}

/// Test a filter
///
/// Whether the subscription would let an event of this type through, whichever source it came by.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/subscriptions/{subscriptionID}/filters/test/{eventType}",
    tag = "Convoy: Filters", operation_id = "convoy.TestFilter", request_body = EventTest)]
pub(crate) async fn test(call: Call) -> ApiResult<Told<200, EventTestOut>> {
    let EventTest { payload, request } = call.json()?;
    let sample = request.unwrap_or_default();
    let payload = sample.body.as_ref().or(payload.as_ref()).map(Value::to_string).unwrap_or_default();
    let Subscription { id, event_types, filter, filters, .. } = subscription(&call).await?;
    let wanted = Wanted { id, source_id: None, event_types, filter: Some(filter), filters };
    let particulars = sample.particulars();
    let offer = Offer::new(call.name(), &[]).of(payload.as_bytes()).with(Some(&particulars)).asked_at(call.db().now());
    let is_match = Filter { subscriptions: Some(vec![wanted]), ..Filter::default() }.wants(&offer);
    Ok(Told::new("Filter tested successfully", &EventTestOut { is_match }))
}

impl FilterIn {
    fn into_new(self, call: &Call, place: &[&str]) -> ApiResult<NewFilter> {
        let event_type =
            self.event_type.ok_or_else(|| ApiError::invalid(&[place, &["event_type"]].concat(), "is missing: a filter needs it"))?;
        let enabled_at = self.enabled_at.unwrap_or_else(|| Some(call.db().now()));
        Ok(NewFilter { event_type: event_type.0, enabled_at, filter: self.scopes.filter(place)? })
    }

    fn over(self, known: &TypeFilter, place: &[&str]) -> ApiResult<NewFilter> {
        Ok(NewFilter {
            event_type: self.event_type.map_or_else(|| known.event_type.clone(), |name| name.0),
            enabled_at: self.enabled_at.unwrap_or(known.enabled_at),
            filter: self.scopes.or(&known.filter).filter(place)?,
        })
    }
}
