//! Event deliveries on the wire: what of an event is owed to an endpoint, and how far it got.

use std::{borrow::Cow, collections::BTreeMap};

use chrono::{DateTime, Utc};
use domain::{
    id::{EndpointId, Id, MessageId},
    offer::Offer,
    standing::Standing,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use storage::{
    project_deliveries::{self, Found, Key, Part},
    project_messages::Filter,
    project_resends::{If, MOST, ResendAll, ResendFailed},
    project_tasks::{Ended, Through},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, Ulid,
    answer::{Null, Told},
    event::{self, Count, OfEvents},
    page::{Dates, Paged, Paging},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
    },
};

/// The id of a delivery: that of its event, and that of its endpoint, as two ULIDs in one text.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(as = ConvoyDeliveryId, value_type = String, pattern = "^([0-7][0-9A-HJKMNP-TV-Z]{25}){2}$")]
pub(crate) struct DeliveryId(pub(super) Key);

impl DeliveryId {
    /// Reads it back.
    pub(super) fn parse(text: &str) -> Option<Key> {
        let (event, endpoint) = text.split_at_checked(26)?;
        Some((MessageId::parse_ulid(event).ok()?, EndpointId::parse_ulid(endpoint).ok()?))
    }

    /// As a text.
    pub(super) fn text(self) -> String {
        let (event, endpoint) = self.0;
        event.ulid() + &endpoint.ulid()
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ConvoyDeliveryStatus)]
pub(crate) enum Status {
    /// It is owed, and is sent as soon as its endpoint may be sent to: that may be held, paused or throttled.
    Scheduled,
    /// It is being sent.
    Processing,
    /// It ended without a request, since its endpoint was off or gone, or its content was.
    Discarded,
    /// Its attempts are used up.
    Failure,
    /// The receiver took it.
    Success,
    /// It failed and waits for its next attempt.
    Retry,
}

impl From<Standing> for Status {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Delivered => Self::Success,
            Standing::Sending => Self::Processing,
            Standing::Due | Standing::Held { .. } | Standing::Throttled { .. } => Self::Scheduled,
            Standing::Sleeping { .. } => Self::Retry,
            Standing::Failed => Self::Failure,
            Standing::Canceled | Standing::Discarded | Standing::LeftOut(_) => Self::Discarded,
        }
    }
}

/// What is sent, and when next.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyDeliveryMetadata)]
pub(crate) struct MetadataOut {
    /// The bytes of its event as JSON
    #[schema(required, value_type = Value)]
    data: Option<Box<RawValue>>,
    /// The same as a text
    raw: String,
    /// How many attempts its last run had
    num_trials: i64,
    /// When it is sent next, if that is known
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_send_time: Option<Time>,
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyDelivery)]
pub(crate) struct DeliveryOut {
    uid: DeliveryId,
    project_id: Ulid,
    event_id: Ulid,
    endpoint_id: Ulid,
    /// The subscription that lets its event through, if one still does; else empty
    #[schema(example = "")]
    subscription_id: String,
    #[schema(example = "invoice.paid")]
    event_type: String,
    headers: BTreeMap<String, Vec<String>>,
    target_url: String,
    url_query_params: String,
    /// Empty if its event has none
    idempotency_key: String,
    status: Status,
    /// Why it stands so, in words; empty if there is nothing to say
    description: String,
    #[schema(example = "at_least_once")]
    delivery_mode: &'static str,
    metadata: MetadataOut,
    created_at: Time,
    updated_at: Time,
    acknowledged_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

impl MetadataOut {
    /// That of a delivery.
    pub(super) fn of(found: &Found) -> Self {
        let (data, raw) = event::shown(&found.message);
        let facts = &found.delivery.facts;
        let num_trials = facts.owed.map_or(0, |owed| i64::from(owed.attempts)).max(i64::from(facts.attempt.is_some()));
        Self { data, raw, num_trials, next_send_time: next(found.delivery.standing).map(Time) }
    }
}

impl From<&Found> for DeliveryOut {
    fn from(found: &Found) -> Self {
        let Found { message, endpoint, delivery } = found;
        let facts = &delivery.facts;
        let created_at = Time(message.created_at);
        let query = message.particulars.as_ref().and_then(|particulars| particulars.query.clone());
        Self {
            uid: DeliveryId(found.key()),
            project_id: Ulid::of(message.tenant_id),
            event_id: Ulid::of(message.id),
            endpoint_id: Ulid::of(endpoint.id),
            subscription_id: subscription(found),
            event_type: message.event_type.clone(),
            headers: event::headers(message),
            target_url: endpoint.url.as_str().to_owned(),
            url_query_params: query.unwrap_or_default(),
            idempotency_key: message.message_key.clone().unwrap_or_default(),
            status: delivery.standing.into(),
            description: why(found).into_owned(),
            delivery_mode: "at_least_once",
            metadata: MetadataOut::of(found),
            created_at,
            updated_at: facts.attempt.as_ref().map_or(created_at, |attempt| Time(attempt.id.created_at())),
            acknowledged_at: created_at,
            deleted_at: None,
        }
    }
}

fn next(standing: Standing) -> Option<DateTime<Utc>> {
    match standing {
        Standing::Held { until, .. } => until,
        Standing::Throttled { until } | Standing::Sleeping { until } => Some(until),
        _ => None,
    }
}

/// The subscription that lets its event through.
fn subscription(found: &Found) -> String {
    found.endpoint.filter.let_through_by(&Offer::of_message(&found.message)).map(Id::ulid).unwrap_or_default()
}

/// Why a delivery stands as it does.
fn why(found: &Found) -> Cow<'static, str> {
    let attempt = found.delivery.facts.attempt.as_ref();
    match (found.delivery.standing, attempt) {
        (Standing::Held { until: None, .. }, _) => "the endpoint is paused: it is sent when that is activated".into(),
        (Standing::Held { .. }, _) => "the endpoint keeps failing: it is sent when that answers again".into(),
        (Standing::Throttled { .. }, _) => "the endpoint's rate limit is reached".into(),
        (Standing::Failed | Standing::Sleeping { .. }, Some(attempt)) if attempt.status_code > 0 => {
            format!("the receiver answered {}", attempt.status_code).into()
        }
        (Standing::Failed | Standing::Sleeping { .. } | Standing::Canceled | Standing::Discarded, Some(attempt)) => {
            attempt.response.clone().into()
        }
        _ => "".into(),
    }
}

/// Which deliveries are wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfDeliveries {
    /// Only of this event
    #[serde(rename = "eventId")]
    event_id: Option<String>,
    /// Only of this event type
    #[serde(rename = "eventType")]
    event_type: Option<String>,
    /// The same under another name
    #[serde(rename = "event_type")]
    also_event_type: Option<String>,
    /// Only of events that this subscription lets through
    #[serde(rename = "subscriptionId")]
    subscription_id: Option<String>,
    /// Only those that stand so
    #[serde(default)]
    #[param(required = false, inline)]
    status: Vec<Status>,
}

impl Parameters for OfDeliveries {}

impl OfDeliveries {
    /// Whether it is one of those.
    fn wants(&self, found: &Found) -> bool {
        let is_in = self.status.is_empty() || self.status.contains(&found.delivery.standing.into());
        let is_of = |wanted: &String| wanted.is_empty() || subscription(found) == *wanted;
        let is_of_event = |wanted: &String| wanted.is_empty() || found.message.id.ulid() == *wanted;
        is_in && self.event_id.as_ref().is_none_or(is_of_event) && self.subscription_id.as_ref().is_none_or(is_of)
    }

    /// Looks no further than it has to.
    fn narrow(&self, mut filter: Filter) -> Filter {
        filter.event_type = self.event_type.iter().chain(&self.also_event_type).find(|name| !name.is_empty()).cloned();
        // One event is looked for where it is, whenever it was made.
        if let Some(id) = self.event_id.as_ref().and_then(|text| MessageId::parse_ulid(text).ok()) {
            filter.after = Some(id.created_at());
            filter.before = id.created_at().checked_add_signed(chrono::TimeDelta::milliseconds(1));
        }
        filter
    }
}

/// List all event deliveries
///
/// Of the newest events first. A page for which very many events would have to be looked at may have fewer items than it could, and says where to
/// go on.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/eventdeliveries",
    tag = "Convoy: Event Deliveries",
    operation_id = "convoy.GetEventDeliveriesPaged"
)]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, Dates, OfEvents, OfDeliveries)>) -> ApiResult<Told<200, Paged<DeliveryOut>>> {
    let (paging, dates, of_events, of) = asked.read()?;
    let wanted = paging.of_keys(DeliveryId::parse)?;
    let filter = of.narrow(of_events.filter(&call, &dates).await?);
    let part = Part { from: wanted.from, is_up: wanted.is_up, most: wanted.most };
    let listed = project_deliveries::list(call.db(), call.tenant_id(), &filter, part, |found| of.wants(found)).await?;
    let goes_on_at = listed.goes_on_at.map(|key| DeliveryId(key).text());
    let name = |found: &Found| DeliveryId(found.key()).text();
    Ok(wanted.told("Event deliveries fetched successfully", &listed.found, goes_on_at, name, DeliveryOut::from))
}

/// Retrieve an event delivery
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/eventdeliveries/{eventDeliveryID}",
    tag = "Convoy: Event Deliveries",
    operation_id = "convoy.GetEventDelivery"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, DeliveryOut>> {
    let found = project_deliveries::get(call.db(), call.tenant_id(), key(&call)?).await?;
    Ok(Told::new("Event Delivery fetched successfully", &DeliveryOut::from(&found)))
}

/// The delivery in the path.
pub(super) fn key(call: &Call) -> ApiResult<Key> {
    let text = call.path().find(|(name, _)| *name == "eventDeliveryID").map(|(_, text)| text);
    text.and_then(DeliveryId::parse).ok_or(ApiError::NotFound("event delivery"))
}

/// Retry an event delivery
///
/// One that ended without success is tried once more. The answer shows it as it was before.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{projectID}/eventdeliveries/{eventDeliveryID}/resend",
    tag = "Convoy: Event Deliveries",
    operation_id = "convoy.ResendEventDelivery"
)]
pub(crate) async fn resend(call: Call) -> ApiResult<Told<200, DeliveryOut>> {
    let delivery = key(&call)?;
    let found = project_deliveries::get(call.db(), call.tenant_id(), delivery).await?;
    let effect = ResendFailed { tenant_id: call.tenant_id(), delivery };
    call.write(Ok(effect), move |_| Told::new("App event processed for retry successfully", &DeliveryOut::from(&found))).await
}

/// The deliveries of a query that can be retried.
async fn retriable(call: &Call, asked: Asked<(Dates, OfEvents, OfDeliveries)>) -> ApiResult<(Filter, OfDeliveries)> {
    let (dates, of_events, mut of) = asked.read()?;
    let filter = of.narrow(of_events.filter(call, &dates).await?);
    if of.status.is_empty() {
        of.status = vec![Status::Failure, Status::Discarded];
    }
    if let Some(other) = of.status.iter().find(|status| !matches!(status, Status::Failure | Status::Discarded)) {
        let why = match other {
            Status::Success => "must be `Failure` or `Discarded`: what was delivered is sent again by `forceresend`",
            _ => "must be `Failure` or `Discarded`: what is still owed is sent without being asked for",
        };
        return Err(ApiError::invalid(&["query", "status"], why));
    }
    Ok((filter, of))
}

/// Count event deliveries to retry
///
/// Those that a batch retry with the same query would make once more.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/eventdeliveries/countbatchretryevents",
    tag = "Convoy: Event Deliveries",
    operation_id = "convoy.CountBatchRetry"
)]
pub(crate) async fn count(call: Call, asked: Asked<(Dates, OfEvents, OfDeliveries)>) -> ApiResult<Told<200, Count>> {
    let (filter, of) = retriable(&call, asked).await?;
    let num = project_deliveries::count(call.db(), call.tenant_id(), &filter, |found| of.wants(found)).await?;
    Ok(Told::new("event deliveries count successful", &Count { num }))
}

/// Batch retry event deliveries
///
/// Those that the same query lists and that ended without success are made once more, but for what is inactive, paused or erased. A task does it, which
/// `GET /api/v1/background-task` shows and which goes on after a restart.
#[utoipa::path(
    post,
    path = "/api/v1/projects/{projectID}/eventdeliveries/batchretry",
    tag = "Convoy: Event Deliveries",
    operation_id = "convoy.BatchRetryEventDelivery"
)]
pub(crate) async fn batch_retry(call: Call, asked: Asked<(Dates, OfEvents, OfDeliveries)>) -> ApiResult<Told<200, Null>> {
    let (messages, of) = retriable(&call, asked).await?;
    let ended = |status: &Status| if *status == Status::Failure { Ended::Failed } else { Ended::Discarded };
    let effect = Through {
        tenant_id: call.tenant_id(),
        messages,
        only: id("eventId", of.event_id.as_deref())?,
        ended: Some(of.status.iter().map(ended).collect()),
        subscription: id("subscriptionId", of.subscription_id.as_deref())?,
    };
    call.write(Ok(effect), |_| Told::new("Batch retry processing", &Null::NULL)).await
}

/// The one id that a query names, if it names one.
fn id<I: Id>(name: &'static str, text: Option<&str>) -> ApiResult<Option<I>> {
    text.filter(|text| !text.is_empty()).map(|text| event::id(name, text)).transpose()
}

/// What is to be sent again.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyIds)]
pub(crate) struct Ids {
    /// Ids of event deliveries, at most 1000
    ids: Vec<String>,
}

/// Force retry event deliveries
///
/// Those that were delivered are sent once more; the others are passed over and counted as failed.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/eventdeliveries/forceresend", tag = "Convoy: Event Deliveries",
    operation_id = "convoy.ForceResendEventDeliveries", request_body = Ids)]
pub(crate) async fn force_resend(call: Call) -> ApiResult<Told<200, Null>> {
    let effect = call.json::<Ids>().and_then(|Ids { ids }| read_ids(&call, &ids));
    call.write(effect, |resent| {
        let words = format!("{} successful, {} failed", resent.resent, resent.refused.len());
        Told::new(&words, &Null::NULL)
    })
    .await
}

fn read_ids(call: &Call, ids: &[String]) -> ApiResult<ResendAll> {
    if ids.len() > MOST {
        return Err(ApiError::invalid(&["body", "ids"], format!("must be at most {MOST}: send the others in another request")));
    }
    let parse = |(place, text): (usize, &String)| {
        DeliveryId::parse(text).ok_or_else(|| ApiError::invalid(&["body", "ids", &place.to_string()], "is not the id of an event delivery"))
    };
    let mut deliveries = ids.iter().enumerate().map(parse).collect::<ApiResult<Vec<_>>>()?;
    deliveries.sort_unstable();
    deliveries.dedup();
    Ok(ResendAll { tenant_id: call.tenant_id(), deliveries, condition: If::Delivered })
}
