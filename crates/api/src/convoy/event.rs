//! Events on the wire, as they are seen later.

use std::collections::BTreeMap;

use domain::{
    id::{EndpointId, Id, MessageId, SourceId},
    message::Message,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::{
    applications::Reference,
    page::Page,
    project_deliveries,
    project_messages::{self, Filter},
    project_resends::Replay,
    project_tasks::Through,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, Ulid,
    answer::Told,
    page::{Dates, Paged, Paging},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        dialect::Kind,
        query::{Asked, Parameters},
    },
};

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyEvent)]
pub(crate) struct EventOut {
    uid: Ulid,
    project_id: Ulid,
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// The source that it came by; empty if it was made here
    #[schema(example = "")]
    source_id: String,
    /// The endpoints that it is or was owed to
    endpoints: Vec<Ulid>,
    /// What goes on with each copy
    headers: BTreeMap<String, Vec<String>>,
    /// Of the request that it came with
    url_query_params: String,
    /// Of the request that it came with
    url_path: String,
    /// Empty if it has none
    idempotency_key: String,
    is_duplicate_event: bool,
    /// The first event with this key, of a duplicate
    #[schema(required)]
    duplicate_of: Option<Ulid>,
    /// The bytes as JSON; a text of them if they are none, null once they are gone
    #[schema(required, value_type = serde_json::Value)]
    data: Option<Box<RawValue>>,
    /// The bytes as a text
    raw: String,
    status: EventStatus,
    failure_reason: String,
    acknowledged_at: Time,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

/// How far an event got.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ConvoyEventStatus)]
enum EventStatus {
    /// What it owes is stored, if it owes anything.
    Success,
}

/// The bytes of a message as JSON, and as a text.
pub(super) fn shown(message: &Message) -> (Option<Box<RawValue>>, String) {
    let Some(bytes) = &message.payload else { return (None, String::new()) };
    let text = String::from_utf8_lossy(bytes);
    let json = serde_json::from_slice::<Box<RawValue>>(bytes).ok().or_else(|| serde_json::value::to_raw_value(&text).ok());
    (json, text.into_owned())
}

/// The headers of a message by name.
pub(super) fn headers(message: &Message) -> BTreeMap<String, Vec<String>> {
    let mut headers = BTreeMap::<_, Vec<String>>::new();
    for (name, value) in message.particulars.iter().flat_map(|particulars| &particulars.headers) {
        headers.entry(name.clone()).or_default().push(value.clone());
    }
    headers
}

impl EventOut {
    pub(super) fn new(message: &Message, endpoints: &[EndpointId]) -> Self {
        let (data, raw) = shown(message);
        let particulars = message.particulars.as_deref();
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let created_at = Time(message.created_at);
        Self {
            uid: Ulid::of(message.id),
            project_id: Ulid::of(message.tenant_id),
            event_type: message.event_type.clone(),
            source_id: particulars.and_then(|particulars| particulars.source).map(Id::ulid).unwrap_or_default(),
            endpoints: endpoints.iter().copied().map(Ulid::of).collect(),
            headers: headers(message),
            url_query_params: text(particulars.and_then(|particulars| particulars.query.as_ref())),
            url_path: text(particulars.and_then(|particulars| particulars.path.as_ref())),
            idempotency_key: text(message.message_key.as_ref()),
            is_duplicate_event: message.is_duplicate(),
            duplicate_of: message.duplicate_of.map(Ulid::of),
            data,
            raw,
            status: EventStatus::Success,
            failure_reason: String::new(),
            acknowledged_at: created_at,
            created_at,
            updated_at: created_at,
            deleted_at: None,
        }
    }
}

/// Which events or deliveries are wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfEvents {
    /// Only of these endpoints
    #[serde(default, rename = "endpointId")]
    #[param(required = false)]
    endpoint_id: Vec<String>,
    /// Only of these sources
    #[serde(default, rename = "sourceId")]
    #[param(required = false)]
    source_id: Vec<String>,
    /// Only of this owner's endpoints
    #[serde(rename = "ownerId")]
    owner_id: Option<String>,
    /// Only with this idempotency key
    #[serde(rename = "idempotencyKey")]
    idempotency_key: Option<String>,
}

impl Parameters for OfEvents {}

/// The id that a parameter names.
pub(super) fn id<I: Id>(name: &'static str, text: &str) -> ApiResult<I> {
    I::parse_ulid(text).map_err(|_| ApiError::invalid(&["query", name], "is not the id of such a thing"))
}

fn ids<I: Id>(name: &'static str, texts: &[String]) -> ApiResult<Option<Vec<I>>> {
    let ids: Vec<I> = texts.iter().map(|text| id(name, text)).collect::<Result<_, _>>()?;
    Ok(Some(ids).filter(|ids| !ids.is_empty()))
}

impl OfEvents {
    /// What is to be looked for between those dates.
    pub(super) async fn filter(self, call: &Call, dates: &Dates) -> ApiResult<Filter> {
        let (after, before) = dates.span(call.db().now())?;
        let endpoints = ids::<EndpointId>("endpointId", &self.endpoint_id)?;
        let mut applications = match &endpoints {
            Some(endpoints) => Some(project_messages::applications_of(call.db(), call.tenant_id(), endpoints).await?),
            None => None,
        };
        if let Some(owner) = self.owner_id.filter(|owner| !owner.is_empty()) {
            let owned = match storage::applications::get(call.db(), call.tenant_id(), &Reference::Uid(owner)).await {
                Ok(application) => vec![application.id],
                Err(storage::Error::NotFound(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            applications = Some(applications.map_or(owned.clone(), |ids| ids.into_iter().filter(|id| owned.contains(id)).collect()));
        }
        Ok(Filter {
            applications,
            endpoints,
            sources: ids::<SourceId>("sourceId", &self.source_id)?,
            event_type: None,
            message_key: self.idempotency_key.filter(|key| !key.is_empty()),
            after: Some(after),
            before: Some(before),
        })
    }
}

/// List all events
///
/// The newest first. Those of one key are the first event with it and its duplicates.
#[utoipa::path(get, path = "/api/v1/projects/{projectID}/events", tag = "Convoy: Events", operation_id = "convoy.GetEventsPaged")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, Dates, OfEvents)>) -> ApiResult<Told<200, Paged<EventOut>>> {
    let (paging, dates, of) = asked.read()?;
    let wanted = paging.of_ids::<MessageId>()?;
    let filter = of.filter(&call, &dates).await?;
    let page = project_messages::list(call.db(), call.tenant_id(), &filter, &wanted.request).await?;
    let ids: Vec<_> = page.items.iter().map(|message| message.id).collect();
    let owed = project_deliveries::endpoints_of(call.db(), call.tenant_id(), &ids).await?;
    let Page { items, has_more } = page;
    let items = items.into_iter().map(|message| (owed.get(&message.id).cloned().unwrap_or_default(), message)).collect();
    let page: Page<(Vec<EndpointId>, Message)> = Page { items, has_more };
    Ok(wanted.told("App events fetched successfully", &page, |(_, message)| message.id, |(owed, message)| EventOut::new(message, owed)))
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyCount)]
pub(crate) struct Count {
    pub(super) num: u64,
}

/// Count events
///
/// Those that the same query lists.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/events/countbatchreplayevents",
    tag = "Convoy: Events",
    operation_id = "convoy.CountAffectedEvents"
)]
pub(crate) async fn count(call: Call, asked: Asked<(Dates, OfEvents)>) -> ApiResult<Told<200, Count>> {
    let (dates, of) = asked.read()?;
    let filter = of.filter(&call, &dates).await?;
    let num = project_messages::count(call.db(), call.tenant_id(), &filter).await?;
    Ok(Told::new("events count successful", &Count { num }))
}

/// Retrieve an event
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/events/{eventID}",
    tag = "Convoy: Events",
    operation_id = "convoy.GetEndpointEvent"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, EventOut>> {
    let id = event_id(&call)?;
    let message = project_messages::get(call.db(), call.tenant_id(), id).await?;
    let owed = project_deliveries::endpoints_of(call.db(), call.tenant_id(), &[id]).await?;
    Ok(Told::new("Event fetched successfully", &EventOut::new(&message, owed.get(&id).map(Vec::as_slice).unwrap_or_default())))
}

/// The event in the path.
pub(super) fn event_id(call: &Call) -> ApiResult<MessageId> {
    call.id(Kind::Message, "event")
}

/// Replay an event
///
/// Sends it once more to every endpoint that would get such an event now. Of a duplicate nothing is sent.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{projectID}/events/{eventID}/replay",
    tag = "Convoy: Events",
    operation_id = "convoy.ReplayEndpointEvent"
)]
pub(crate) async fn replay(call: Call) -> ApiResult<Told<200, EventOut>> {
    let effect = event_id(&call).map(|message_id| Replay { tenant_id: call.tenant_id(), message_id });
    call.write(effect, |replayed| Told::new("App event replayed successfully", &EventOut::new(&replayed.message, &replayed.endpoints)))
        .await
}

/// Batch replay events
///
/// Sends those that the same query lists once more, each to every endpoint that would get such an event now (or to those of them that the query
/// names); of a duplicate nothing is sent. A task does it: the answer has its id, by which `GET /api/v1/background-task/{task_id}` shows how far it is.
#[utoipa::path(
    post,
    path = "/api/v1/projects/{projectID}/events/batchreplay",
    tag = "Convoy: Events",
    operation_id = "convoy.BatchReplayEvents"
)]
pub(crate) async fn batch_replay(call: Call, asked: Asked<(Dates, OfEvents)>) -> ApiResult<Told<200, String>> {
    let (dates, of) = asked.read()?;
    let messages = of.filter(&call, &dates).await?;
    let effect = Through { tenant_id: call.tenant_id(), messages, only: None, ended: None, subscription: None };
    call.write(Ok(effect), |task| Told::new("Batch replay is being processed", &task.id.public())).await
}
