//! What a sender is answered with.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::{
    id::Id,
    message::Message,
    source::{CustomResponse, Definition, PLAIN},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::transport::json::MEDIA_TYPE;

/// Says that a request was a repeat, whatever the source answers with.
const DUPLICATE: HeaderName = HeaderName::from_static("posthaste-duplicate");
/// Says which event a request became.
const EVENT_ID: HeaderName = HeaderName::from_static("posthaste-event-id");

/// That a request was taken.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestOut)]
pub(crate) struct Received {
    /// Always true.
    status: bool,
    /// What became of it.
    #[schema(example = "Event received")]
    message: &'static str,
    /// How many bytes its body has.
    #[schema(example = 17)]
    data: usize,
}

/// The answer to a challenge.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestChallengeOut)]
pub(crate) struct Challenged {
    /// The challenge, signed.
    #[schema(example = "sha256=x0mYd8hz2goCTfcNAaMqENy2BFgJJfJOb4PdvTffpwg=")]
    pub(super) response_token: String,
}

/// What is said of a request that is stored as this message.
pub(super) fn received(definition: &Definition, message: &Message, length: usize) -> Response {
    let is_duplicate = message.is_duplicate();
    let said = if is_duplicate { "Duplicate event received, but will not be sent" } else { "Event received" };
    let mut response = match &definition.response {
        Some(CustomResponse { body, content_type }) => with_type(content_type, body.clone().into_bytes()),
        None => json(&Received { status: true, message: said, data: length }),
    };
    let headers = response.headers_mut();
    headers.insert(DUPLICATE, HeaderValue::from_static(if is_duplicate { "true" } else { "false" }));
    headers.extend(HeaderValue::try_from(message.id.ulid()).ok().map(|id| (EVENT_ID, id)));
    response
}

/// An answer in JSON.
pub(super) fn json(body: &impl Serialize) -> Response {
    with_type(MEDIA_TYPE, serde_json::to_vec(body).expect("texts and numbers are JSON"))
}

fn with_type(content_type: &str, body: Vec<u8>) -> Response {
    let content_type = HeaderValue::try_from(content_type).unwrap_or(HeaderValue::from_static(PLAIN));
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], body).into_response()
}
