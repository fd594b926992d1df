//! The OpenAPI document, made from the list of routes.
//!
//! Handlers document what is theirs: the summary, and by their signatures the query, the body and the successes. The table adds the
//! permission. Everything that operations share is added here, by looking at each operation: names in the path, the idempotency key,
//! and the errors that the admission of a request and the layers around it can answer with.

use domain::caller::{Permission, Permissions};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
        ResponseBuilder, Schema,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        schema::{ComponentsBuilder, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    convoy::{self, Refused},
    svix::{
        error::{ErrorBody, Item, ValidationBody},
        fields::{HEADER_KEY, NAME},
    },
    transport::{json::MEDIA_TYPE, table::BEARER},
};

/// The tags of operations, in reading order.
const TAGS: [&str; 12] = [
    "Application",
    "Endpoint",
    "Event Type",
    "Message",
    "Message Attempt",
    "Idempotency",
    "Health",
    "Convoy: Projects",
    "Convoy: Event types",
    "Convoy: Endpoints",
    "Convoy: Subscriptions",
    "Convoy: Filters",
];

/// What the document says before the first operation.
pub(crate) fn preamble() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Posthaste")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Accepts a message once and delivers it to every subscribed endpoint. Speaks the dialects of Svix and of Convoy.",
        ))
        .license(None);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(format!(
            "HTTP Bearer token passed in the `Authorization` header; `posthaste token` prints one, and so does `posthaste key create`. Each operation \
             names what its caller must be allowed. The token of an organisation is allowed everything, and so is an API key; that of one application, \
             with this application alone: {}. A viewer's API key is allowed: {}.",
            listed(Permissions::APPLICATION),
            listed(Permissions::VIEWER)
        )));
    let mut components = ComponentsBuilder::new().security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    for (name, schema) in [schema::<ErrorBody>(), schema::<ValidationBody>(), schema::<Item>(), schema::<Refused>()] {
        components = components.schema(name, schema);
    }
    let tags = TAGS.map(|name| TagBuilder::new().name(name).build());
    OpenApiBuilder::new().info(info.build()).components(Some(components.build())).tags(Some(tags)).build()
}

/// What permissions let their holder do.
fn listed(permissions: Permissions) -> String {
    let allowed = Permission::ALL.iter().filter(|permission| permissions.contain(**permission));
    allowed.map(|permission| format!("`{}`", permission.name())).collect::<Vec<_>>().join(", ")
}

fn schema<T: ToSchema>() -> (String, RefOr<Schema>) {
    (T::name().into_owned(), T::schema())
}

/// Adds to a document what the admission of requests and the layers around it make true of every operation that asks for a token.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let PathItem { get, put, post, delete, patch, .. } = item;
        for (method, operation) in [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)] {
            if let Some(operation) = operation.as_mut().filter(|operation| operation.security.is_some()) {
                add_parameters(path, method, operation);
                add_errors(path, method, operation);
            }
        }
    }
    document
}

fn takes_key(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

fn add_parameters(path: &str, method: &str, operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    let names: Vec<_> = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect();
    for (place, name) in names.into_iter().enumerate() {
        parameters.insert(place, RefOr::T(path_parameter(name)));
    }
    if takes_key(method) {
        parameters.push(RefOr::T(key_parameter()));
    }
}

fn path_parameter(name: &str) -> Parameter {
    let (description, example) = match name {
        "app_id" => ("The application's id or uid", "unique-app-identifier"),
        "endpoint_id" => ("The endpoint's id or uid", "unique-ep-identifier"),
        "msg_id" => ("The message's id or eventId", "unique-msg-identifier"),
        "attempt_id" => ("The attempt's id", "atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2"),
        "projectID" => ("The project's id: of another than the caller's nothing is told", "01J0000000E008000000000001"),
        "eventType" => ("An event type's name", "user.signup"),
        _ if name.ends_with("ID") || name.ends_with("Id") => ("The thing's id", "01J0000000E008000000000001"),
        _ => ("The event type's name", "user.signup"),
    };
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(256)).pattern(Some(NAME));
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(Schema::from(text.examples([json!(example)]).build())))
        .build()
}

fn key_parameter() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(HEADER_KEY));
    ParameterBuilder::new()
        .name("idempotency-key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Makes the request safe to repeat: a repeat with the same key and body gets the first one's answer. 1 to 255 visible characters; the key may stand in double quotes"))
        .schema(Some(Schema::from(text.examples([json!("0199b9a4-5a2e-7c31-9a3e-2f6f3a1c8d5e")]).build())))
        .build()
}

/// Documents what an operation can answer besides its own successes.
fn add_errors(path: &str, method: &str, operation: &mut Operation) {
    let is_write = method != "GET";
    let has_names = path.contains('{');
    let has_input = has_names || operation.request_body.is_some() || operation.parameters.as_ref().is_some_and(|list| !list.is_empty());
    let takes_key = takes_key(method);
    if takes_key {
        mark_replays(operation);
    }
    let is_convoy = path.starts_with(convoy::PLACE);
    let plain = if is_convoy { Refused::name() } else { ErrorBody::name() };
    let mut add = |status: &str, is_possible: bool, description: &str, body: RefOr<Schema>| {
        if is_possible {
            operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response(description, body)));
        }
    };
    let error = || RefOr::Ref(Ref::from_schema_name(plain.clone()));
    let problems = RefOr::Ref(Ref::from_schema_name(if is_convoy { Refused::name() } else { ValidationBody::name() }));
    if is_convoy {
        add("400", true, "Something in the request is not as it must be, or the state of a thing is in the way", error());
        add("422", takes_key, "The idempotency key was used with another request", error());
        add("501", is_write, "It asks for something that is not there yet", error());
    }
    add("400", is_write, "The request cannot be read, its idempotency key is malformed, or a limit is reached", error());
    add("401", true, "No token, or one that is not accepted", error());
    add("403", true, "The token may not do this", error());
    add("404", has_names, "There is no such thing", error());
    add("408", is_write, "The body did not arrive in time", error());
    add("409", is_write, "A conflict: a name is taken, or the first request with the same key is still running", error());
    add("413", is_write, "The body is too large", error());
    add("415", is_write, "The body is not JSON", error());
    add("422", takes_key && !is_convoy, "A field is invalid, or the idempotency key was used with another request", problems.clone());
    add("422", has_input && !is_convoy, "A field is invalid", problems);
    add("500", true, "An error of the server's own", error());
    add("503", true, "Temporarily unavailable: repeat the request after `Retry-After` seconds", error());
}

fn response(description: &str, body: RefOr<Schema>) -> Response {
    ResponseBuilder::new().description(description).content(MEDIA_TYPE, ContentBuilder::new().schema(Some(body)).build()).build()
}

/// Documents the header by which a repeated answer can be told.
fn mark_replays(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            for name in ["idempotency-replay", "idempotent-replayed"] {
                let header = HeaderBuilder::new()
                    .description(Some("`true` if this is the saved answer of an earlier request with the same key"))
                    .schema(Some(String::schema()));
                response.headers.insert(name.to_owned(), header.build().into());
            }
        }
    }
}
