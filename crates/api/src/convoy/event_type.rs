//! Event types on the wire: the rows of the other dialect, called by their ids.

use domain::{event_type::EventType, id::EventTypeId};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value, json};
use storage::{
    event_types::{self, Change, Create, Import, Update},
    page::PageRequest,
};
use utoipa::ToSchema;

use super::{
    Time, Ulid,
    answer::{All, Told},
    fields::{EventTypeName, Text},
};
use crate::{
    catalogue::{self, Declared},
    error::ApiResult,
    transport::{
        call::Call,
        dialect::Kind,
        json::{has_nul, nullable, present},
    },
};

/// The version under which the one schema of an event type is kept.
const VERSION: &str = "1";
/// How many event types are read at a time.
const AT_A_TIME: i64 = 1000;

/// An event type to be declared.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyEventTypeCreate)]
pub(crate) struct EventTypeIn {
    name: EventTypeName,
    /// What people read
    description: Option<Text>,
    /// The heading under which it is shown
    category: Option<Text>,
    /// JSON Schema (draft 7) of its payload
    #[serde(default, deserialize_with = "schema")]
    #[schema(value_type = Option<Object>, required = false)]
    json_schema: Option<Value>,
}

/// What is to change of an event type: absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyEventTypeUpdate)]
pub(crate) struct EventTypeUpdate {
    /// What people read
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    description: Option<Text>,
    /// The heading under which it is shown
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Text>, required = false)]
    category: Option<Option<Text>>,
    /// JSON Schema (draft 7) of its payload
    #[serde(default, deserialize_with = "schema")]
    #[schema(value_type = Option<Object>, required = false)]
    json_schema: Option<Value>,
}

/// An event type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyEventType)]
pub(crate) struct EventTypeOut {
    uid: Ulid,
    #[schema(example = "user.signup")]
    name: String,
    description: String,
    category: String,
    /// JSON Schema of its payload; empty if there is none
    #[schema(value_type = Object)]
    json_schema: Value,
    /// Since when it is discouraged: when it was last written since then
    #[schema(required)]
    deprecated_at: Option<Time>,
}

/// Reads a schema as the other dialect would: what is kept must be one. An empty one is none.
fn schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let Some(schema) = Option::<Map<String, Value>>::deserialize(deserializer)? else { return Ok(None) };
    let schema = Value::Object(schema);
    if !jsonschema::draft7::meta::is_valid(&schema) {
        return Err(D::Error::custom("is not a JSON Schema (draft 7)"));
    }
    if has_nul(&schema) { Err(D::Error::custom("must not contain NUL characters")) } else { Ok(Some(schema)) }
}

/// What is kept for a schema.
fn versions(schema: &Value) -> Option<Value> {
    if schema.as_object().is_none_or(Map::is_empty) { None } else { Some(json!({ VERSION: schema })) }
}

impl From<&EventType> for EventTypeOut {
    fn from(event_type: &EventType) -> Self {
        // Of several that the other dialect was given, the newest one by its number.
        let versions = event_type.schemas.as_ref().and_then(Value::as_object);
        let newest = versions.and_then(|versions| versions.iter().max_by_key(|(version, _)| version.parse::<u64>().unwrap_or(0)));
        Self {
            uid: Ulid::of(event_type.id),
            name: event_type.name.clone(),
            description: event_type.description.clone(),
            category: event_type.group_name.clone().unwrap_or_default(),
            json_schema: newest.map_or_else(|| json!({}), |(_, schema)| schema.clone()),
            deprecated_at: event_type.is_deprecated.then_some(Time(event_type.updated_at)),
        }
    }
}

/// Retrieves a project's event types
///
/// All of them, by name; those that were archived in the other dialect are not among them.
#[utoipa::path(get, path = "/api/v1/projects/{projectID}/event-types", tag = "Convoy: Event types", operation_id = "convoy.GetEventTypes")]
pub(crate) async fn list(call: Call) -> ApiResult<Told<200, All<EventTypeOut>>> {
    let mut all = Vec::new();
    let mut request = PageRequest { limit: AT_A_TIME, cursor: None, is_backwards: false, is_ascending: true };
    loop {
        let page = event_types::list(call.db(), call.tenant_id(), false, call.feature_flags.as_deref(), &request).await?;
        request.cursor = page.items.last().map(|event_type| event_type.name.clone());
        all.extend(page.items.iter().map(EventTypeOut::from));
        if !page.has_more {
            return Ok(Told::new("Event types fetched successfully", &All(all)));
        }
    }
}

/// Create an event type
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/event-types", tag = "Convoy: Event types", operation_id = "convoy.CreateEventType",
    request_body = EventTypeIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, EventTypeOut>> {
    let effect = call.json::<EventTypeIn>().map(|body| {
        let change = Change {
            description: body.description.map(|text| text.0),
            group_name: Some(body.category.map(|text| text.0)),
            schemas: Some(body.json_schema.as_ref().and_then(versions)),
            ..Change::default()
        };
        Create { tenant_id: call.tenant_id(), name: body.name.0, change }
    });
    call.write(effect, |event_type| Told::new("Event type created successfully", &EventTypeOut::from(event_type))).await
}

/// Updates an event type
///
/// Changes what is given.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/event-types/{eventTypeId}", tag = "Convoy: Event types",
    operation_id = "convoy.UpdateEventType", request_body = EventTypeUpdate)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<202, EventTypeOut>> {
    let effect = match call.json::<EventTypeUpdate>() {
        Ok(body) => {
            let change = Change {
                description: body.description.map(|text| text.0),
                group_name: body.category.map(|category| category.map(|text| text.0)),
                schemas: body.json_schema.as_ref().map(versions),
                ..Change::default()
            };
            of_id(&call, change).await
        }
        Err(refusal) => Err(refusal),
    };
    call.write(effect, |(event_type, _)| Told::new("Event type updated successfully", &EventTypeOut::from(event_type))).await
}

/// Deprecates an event type
///
/// It may still be published and subscribed to.
#[utoipa::path(
    post,
    path = "/api/v1/projects/{projectID}/event-types/{eventTypeId}/deprecate",
    tag = "Convoy: Event types",
    operation_id = "convoy.DeprecateEventType"
)]
pub(crate) async fn deprecate(call: Call) -> ApiResult<Told<200, EventTypeOut>> {
    let effect = of_id(&call, Change { is_deprecated: Some(true), ..Change::default() }).await;
    call.write(effect, |(event_type, _)| Told::new("Event type deprecated successfully", &EventTypeOut::from(event_type))).await
}

/// A document that declares event types.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyImportOpenApi)]
pub(crate) struct ImportIn {
    /// The text of an OpenAPI document, in JSON or YAML
    spec: String,
}

/// Import event types from OpenAPI spec
///
/// Declares an event type for each of its `webhooks` (or `x-webhooks`), and changes those that there are: description, category and schema. Either
/// all of them or, if anything is wrong with the document, none.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/event-types/import", tag = "Convoy: Event types",
    operation_id = "convoy.ImportOpenApiSpec", request_body = ImportIn)]
pub(crate) async fn import(call: Call) -> ApiResult<Told<200, All<EventTypeOut>>> {
    let effect = read_import(&call);
    let told =
        |imported: &Vec<EventType>| Told::new("Event types imported successfully", &All(imported.iter().map(EventTypeOut::from).collect()));
    call.write(effect, told).await
}

fn read_import(call: &Call) -> ApiResult<Import> {
    let ImportIn { spec } = call.json()?;
    let declared = catalogue::parse(&spec).and_then(|document| catalogue::read(&document)).map_err(|fault| fault.in_field("spec"))?;
    let change = |declared: Declared| {
        let change = Change {
            description: Some(declared.description),
            group_name: Some(declared.group_name),
            schemas: Some(declared.schema.as_ref().and_then(versions)),
            is_deprecated: Some(declared.is_deprecated),
            ..Change::default()
        };
        (declared.name, change)
    };
    Ok(Import { tenant_id: call.tenant_id(), declared: declared.into_iter().map(change).collect(), is_all: false })
}

/// A change of the event type in the path: names never change, so it is looked up before.
async fn of_id(call: &Call, change: Change) -> ApiResult<Update> {
    let id = call.id::<EventTypeId>(Kind::EventType, "event type")?;
    let name = event_types::name(call.db(), call.tenant_id(), id).await?;
    Ok(Update { tenant_id: call.tenant_id(), name, change, or_create: false })
}
