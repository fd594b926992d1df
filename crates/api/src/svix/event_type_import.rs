//! Event types out of an OpenAPI document, on the wire.

use domain::event_type::EventType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use storage::event_types::{Change, Import};
use utoipa::ToSchema;

use crate::{
    catalogue::{self, Declared},
    error::{ApiError, ApiResult},
    transport::{call::Call, reply::Reply},
};

/// The version under which an imported schema is kept.
const VERSION: &str = "1";

/// A document that declares event types: `spec` or `specRaw`, not both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventTypeImportOpenApiIn)]
pub(crate) struct ImportIn {
    /// Show what would be declared, and change nothing
    #[schema(default = false)]
    dry_run: Option<bool>,
    /// Archive the event types that the document does not have
    #[schema(default = false)]
    replace_all: Option<bool>,
    /// The document
    #[schema(value_type = Option<Object>)]
    spec: Option<Map<String, Value>>,
    /// The text of the document, in JSON or YAML
    spec_raw: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventTypeImportOpenApiOut)]
pub(crate) struct ImportOut {
    data: ImportedOut,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventTypeImportOpenApiOutData)]
struct ImportedOut {
    /// The names of those that were declared or changed
    modified: Vec<String>,
    /// Of a dry run: those that would have been
    #[schema(required)]
    to_modify: Option<Vec<DeclaredOut>>,
}

/// An event type as the document has it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventTypeFromOpenApi)]
struct DeclaredOut {
    name: String,
    description: String,
    deprecated: bool,
    #[schema(required)]
    group_name: Option<String>,
    /// JSON Schemas of its payload, by version
    #[schema(required, value_type = Option<Object>)]
    schemas: Option<Value>,
}

impl From<Declared> for DeclaredOut {
    fn from(declared: Declared) -> Self {
        let Declared { name, description, group_name, is_deprecated, schema } = declared;
        Self { name, description, deprecated: is_deprecated, group_name, schemas: schema.map(|schema| json!({ VERSION: schema })) }
    }
}

/// Event Type Import From OpenAPI
///
/// Declares an event type for each of the document's `webhooks` (or `x-webhooks`), and changes those that there are. Either all of them or,
/// if anything is wrong with the document, none.
#[utoipa::path(post, path = "/api/v1/event-type/import/openapi", tag = "Event Type", operation_id = "v1.event-type.import-openapi",
    request_body = ImportIn)]
pub(crate) async fn import(call: Call) -> ApiResult<Reply<200, ImportOut>> {
    let read = call.json::<ImportIn>().and_then(|body| Ok((body.dry_run == Some(true), body.replace_all == Some(true), declared(&body)?)));
    let effect = match read {
        Ok((true, _, declared)) => {
            let to_modify = Some(declared.into_iter().map(DeclaredOut::from).collect());
            return Ok(Reply::new(&ImportOut { data: ImportedOut { modified: Vec::new(), to_modify } }));
        }
        Ok((false, is_all, declared)) => Ok(effect(&call, is_all, declared)),
        Err(refusal) => Err(refusal),
    };
    call.write(effect, |imported: &Vec<EventType>| {
        let modified = imported.iter().map(|event_type| event_type.name.clone()).collect();
        Reply::new(&ImportOut { data: ImportedOut { modified, to_modify: None } })
    })
    .await
}

fn declared(body: &ImportIn) -> ApiResult<Vec<Declared>> {
    let (field, document) = match (&body.spec, &body.spec_raw) {
        (Some(spec), None) => ("spec", Ok(Value::Object(spec.clone()))),
        (None, Some(text)) => ("specRaw", catalogue::parse(text)),
        (None, None) => return Err(ApiError::invalid(&["body", "spec"], "is missing: send the document here, or its text in `specRaw`")),
        (Some(_), Some(_)) => return Err(ApiError::invalid(&["body", "spec"], "is there beside `specRaw`: send one of the two")),
    };
    document.and_then(|document| catalogue::read(&document)).map_err(|fault| fault.in_field(field))
}

fn effect(call: &Call, is_all: bool, declared: Vec<Declared>) -> Import {
    let change = |declared: Declared| {
        let change = Change {
            description: Some(declared.description),
            schemas: Some(declared.schema.map(|schema| json!({ VERSION: schema }))),
            group_name: Some(declared.group_name),
            is_deprecated: Some(declared.is_deprecated),
            ..Change::default()
        };
        (declared.name, change)
    };
    Import { tenant_id: call.tenant_id(), declared: declared.into_iter().map(change).collect(), is_all }
}
