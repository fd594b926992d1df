//! Event types on the wire.

use domain::event_type::EventType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::{
    applications::Made as Outcome,
    event_types::{self, Change, Create, Delete, Update},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Timestamp, both,
    fields::{EventTypeName, Label, NotYet, Schemas, Text, nullable, present},
    page::{self, InOrder, Listed, Paging},
};
use crate::{
    error::ApiResult,
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::{Made, Nothing, Reply},
    },
};

/// What only a new event type takes.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EventTypeNaming {
    /// The name by which messages refer to it
    name: EventTypeName,
}

both!(
    /// An event type to be declared. Its two halves are read one after the other, so that a fault in either is told by field.
    EventTypeIn, EventTypeNaming, EventTypeUpdate
);

/// What an event type is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypeUpdate {
    /// What people read
    description: Text,
    /// Not offered to endpoints
    #[schema(default = false)]
    archived: Option<bool>,
    /// Still sent, but discouraged
    #[schema(default = false)]
    deprecated: Option<bool>,
    /// JSON Schemas of its payload, by version
    schemas: Option<Schemas>,
    /// Which flag an application needs to see it
    feature_flag: Option<Label>,
    /// The heading under which it is shown
    group_name: Option<Label>,
    #[serde(default, rename = "featureFlags")]
    #[schema(ignore)]
    _feature_flags: NotYet,
}

/// What is to change of an event type: absent fields stay, null ones are unset.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypePatch {
    /// What people read
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    description: Option<Text>,
    /// Not offered to endpoints
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    archived: Option<bool>,
    /// Still sent, but discouraged
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    deprecated: Option<bool>,
    /// JSON Schemas of its payload, by version
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Schemas>, required = false)]
    schemas: Option<Option<Schemas>>,
    /// Which flag an application needs to see it
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Label>, required = false)]
    feature_flag: Option<Option<Label>>,
    /// The heading under which it is shown
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Label>, required = false)]
    group_name: Option<Option<Label>>,
    #[serde(default, rename = "featureFlags")]
    #[schema(ignore)]
    _feature_flags: NotYet,
}

/// An event type.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypeOut<'a> {
    #[schema(example = "user.signup")]
    name: &'a str,
    #[schema(example = "A user has signed up")]
    description: &'a str,
    archived: bool,
    deprecated: bool,
    /// JSON Schemas of its payload, by version; null in lists without `with_content`
    #[schema(required, value_type = Option<Schemas>)]
    schemas: Option<&'a Value>,
    #[schema(required, example = "cool-new-feature")]
    feature_flag: Option<&'a str>,
    #[schema(required, example = "user")]
    group_name: Option<&'a str>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl EventTypeUpdate {
    fn into_change(self) -> Change {
        Change {
            description: Some(self.description.0),
            schemas: Some(self.schemas.map(|schemas| schemas.0)),
            feature_flag: Some(self.feature_flag.map(|flag| flag.0)),
            group_name: Some(self.group_name.map(|name| name.0)),
            is_archived: Some(self.archived.unwrap_or_default()),
            is_deprecated: Some(self.deprecated.unwrap_or_default()),
        }
    }
}

impl EventTypePatch {
    fn into_change(self) -> Change {
        Change {
            description: self.description.map(|text| text.0),
            schemas: self.schemas.map(|schemas| schemas.map(|schemas| schemas.0)),
            feature_flag: self.feature_flag.map(|flag| flag.map(|flag| flag.0)),
            group_name: self.group_name.map(|name| name.map(|name| name.0)),
            is_archived: self.archived,
            is_deprecated: self.deprecated,
        }
    }
}

impl<'a> EventTypeOut<'a> {
    fn new(event_type: &'a EventType, with_content: bool) -> Self {
        Self {
            name: &event_type.name,
            description: &event_type.description,
            archived: event_type.is_archived,
            deprecated: event_type.is_deprecated,
            schemas: event_type.schemas.as_ref().filter(|_| with_content),
            feature_flag: event_type.feature_flag.as_deref(),
            group_name: event_type.group_name.as_deref(),
            created_at: Timestamp(event_type.created_at),
            updated_at: Timestamp(event_type.updated_at),
        }
    }
}

/// What a list of event types shows.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListOptions {
    /// When `true` archived (deleted but not expunged) items are included in the response
    #[serde(default)]
    #[param(required = false, default = false)]
    include_archived: bool,
    /// When `true` the full item (including the schema) is included in the response
    #[serde(default)]
    #[param(required = false, default = false)]
    with_content: bool,
}

/// What may be asked of a deletion.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteOptions {
    /// By default event types are archived when "deleted". Passing this to `true` deletes them entirely.
    #[serde(default)]
    #[param(required = false, default = false)]
    expunge: bool,
}

impl Parameters for ListOptions {}
impl Parameters for DeleteOptions {}

fn location(public_url: &str, event_type: &EventType) -> String {
    format!("{public_url}/api/v1/event-type/{}", event_type.name)
}

/// List Event Types
///
/// The tenant's event types, by name.
#[utoipa::path(get, path = "/api/v1/event-type", tag = "Event Type", operation_id = "v1.event-type.list")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, InOrder, ListOptions)>) -> ApiResult<Listed<EventTypeOut<'static>>> {
    let (paging, order, options) = asked.read()?;
    let page = paging.of_names(order.is_ascending(true))?;
    let page = event_types::list(call.db(), call.tenant_id(), options.include_archived, call.feature_flags.as_deref(), &page).await?;
    Ok(page::list(&page, |event_type| event_type.name.clone(), |event_type| EventTypeOut::new(event_type, options.with_content)))
}

/// Create Event Type
///
/// An archived one of the same name is taken out of the archive.
#[utoipa::path(post, path = "/api/v1/event-type", tag = "Event Type", operation_id = "v1.event-type.create",
    request_body = EventTypeIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Reply<201, EventTypeOut<'static>>> {
    let effect = read_create(&call);
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |event_type| Reply::at(location(&public_url, event_type), &EventTypeOut::new(event_type, true))).await
}

fn read_create(call: &Call) -> ApiResult<Create> {
    let EventTypeNaming { name } = call.json()?;
    let change = call.json::<EventTypeUpdate>()?.into_change();
    Ok(Create { tenant_id: call.tenant_id(), name: name.0, change })
}

/// Get Event Type
#[utoipa::path(get, path = "/api/v1/event-type/{event_type_name}", tag = "Event Type", operation_id = "v1.event-type.get")]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, EventTypeOut<'static>>> {
    let event_type = event_types::get(call.db(), call.tenant_id(), call.name(), call.feature_flags.as_deref()).await?;
    Ok(Reply::new(&EventTypeOut::new(&event_type, true)))
}

/// Update Event Type
///
/// Replaces an event type, or declares it if there is none.
#[utoipa::path(put, path = "/api/v1/event-type/{event_type_name}", tag = "Event Type", operation_id = "v1.event-type.update",
    request_body = EventTypeUpdate)]
pub(crate) async fn update(call: Call) -> ApiResult<Made<EventTypeOut<'static>>> {
    let effect = call.json::<EventTypeUpdate>().map(|body| change(&call, body.into_change(), true));
    let public_url = call.context.config.public_url.clone();
    let render = move |(event_type, outcome): &(EventType, Outcome)| match outcome {
        Outcome::Created => Made::created(location(&public_url, event_type), &EventTypeOut::new(event_type, true)),
        Outcome::Existed => Made::existed(&EventTypeOut::new(event_type, true)),
    };
    call.write(effect, render).await
}

/// Patch Event Type
///
/// Changes the fields that are given.
#[utoipa::path(patch, path = "/api/v1/event-type/{event_type_name}", tag = "Event Type", operation_id = "v1.event-type.patch",
    request_body = EventTypePatch)]
pub(crate) async fn patch(call: Call) -> ApiResult<Reply<200, EventTypeOut<'static>>> {
    let effect = call.json::<EventTypePatch>().map(|body| change(&call, body.into_change(), false));
    call.write(effect, |(event_type, _)| Reply::new(&EventTypeOut::new(event_type, true))).await
}

fn change(call: &Call, change: Change, or_create: bool) -> Update {
    Update { tenant_id: call.tenant_id(), name: call.name().to_owned(), change, or_create }
}

/// Delete Event Type
///
/// Archives it, or removes it for good.
#[utoipa::path(delete, path = "/api/v1/event-type/{event_type_name}", tag = "Event Type", operation_id = "v1.event-type.delete")]
pub(crate) async fn delete(call: Call, asked: Asked<DeleteOptions>) -> ApiResult<Nothing> {
    let effect =
        asked.read().map(|DeleteOptions { expunge }| Delete { tenant_id: call.tenant_id(), name: call.name().to_owned(), expunge });
    call.write(effect, |()| Nothing::new()).await
}
