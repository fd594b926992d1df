//! Errors on the wire: `{code, detail}`, and of every 422 `{detail: [{loc, msg, type}]}`, because the SDKs read each 422 so.

use domain::idempotency::InvalidKey;
use serde::Serialize;
use storage::{Conflict, idempotency::Answer};
use utoipa::ToSchema;

use crate::{error::ApiError, transport::reply};

/// One thing that is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ValidationErrorItem)]
pub(crate) struct Item {
    /// Where: `body`, `query` or `path`, then the names that lead to the field.
    #[schema(example = json!(["body", "name"]))]
    loc: Vec<String>,
    /// What is wrong with it.
    #[schema(example = "must not be empty")]
    msg: String,
    /// `value_error`, `value_error.jsondecode` if it is not even of the right type, or `idempotency_key_reused`.
    #[serde(rename = "type")]
    #[schema(example = "value_error")]
    kind: &'static str,
}

/// The body of a 422: what is wrong, and where.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HTTPValidationError)]
pub(crate) struct ValidationBody {
    /// Each thing that is wrong.
    detail: Vec<Item>,
}

/// The body of every other error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HttpErrorOut)]
pub(crate) struct ErrorBody {
    /// Names the kind of error for programs; it does not change between releases.
    #[schema(example = "not_found")]
    code: &'static str,
    /// Tells people what is wrong.
    #[schema(example = "application not found")]
    detail: String,
}

/// An error as the SDKs read it.
pub(super) fn answer(error: &ApiError) -> Answer {
    let item = match error {
        ApiError::Invalid(problem) => Item {
            loc: problem.place.clone(),
            msg: problem.why.clone(),
            kind: if problem.is_malformed { "value_error.jsondecode" } else { "value_error" },
        },
        ApiError::UnknownEventTypes(names) => Item {
            loc: vec!["body".into(), "eventTypes".into()],
            msg: format!("The following event types don't exist: {}", names.join(", ")),
            kind: "value_error",
        },
        ApiError::KeyReused => Item { loc: vec!["header".into(), "idempotency-key".into()], msg: error.to_string(), kind: code(error) },
        _ => return reply::json(error.status(), &ErrorBody { code: code(error), detail: error.to_string() }),
    };
    reply::json(error.status(), &ValidationBody { detail: vec![item] })
}

/// The name of the error for programs; it does not change between releases.
fn code(error: &ApiError) -> &'static str {
    match error {
        ApiError::Unauthenticated(_) => "authentication_failed",
        ApiError::Forbidden(_) => "insufficient access",
        ApiError::NotFound(_) | ApiError::UnknownPath | ApiError::EmptySegment => "not_found",
        ApiError::NotYet(_) => "not_supported_yet",
        ApiError::MethodNotAllowed => "method_not_allowed",
        ApiError::Timeout => "request_timeout",
        ApiError::BrokenBody | ApiError::Unverified(_) => "generic_error",
        ApiError::TooLarge { .. } => "payload_too_large",
        ApiError::UnsupportedMediaType => "unsupported_media_type",
        ApiError::Invalid(_) | ApiError::UnknownEventTypes(_) => "validation_error",
        ApiError::InvalidKey(InvalidKey::Empty) => "idempotency_key_empty",
        ApiError::InvalidKey(InvalidKey::TooLong) => "idempotency_key_too_long",
        ApiError::InvalidKey(InvalidKey::Invalid) => "idempotency_key_invalid",
        ApiError::InvalidKey(InvalidKey::Duplicate) => "idempotency_key_duplicate",
        ApiError::KeyInProgress => "idempotency_in_progress",
        ApiError::KeyReused => "idempotency_key_reused",
        ApiError::Conflict(Conflict::EventTypeName) => "event_type_exists",
        ApiError::Conflict(Conflict::EventId(_)) => "event_id_conflict",
        ApiError::Conflict(Conflict::Duplicate(_)) => "duplicate_message",
        ApiError::Conflict(Conflict::NotADuplicate) => "not_a_duplicate",
        ApiError::Conflict(Conflict::AlreadyReleased) => "already_released",
        ApiError::Conflict(Conflict::Expunged) => "missing_payload",
        ApiError::Conflict(Conflict::Subscribed) => "endpoint_subscribed",
        ApiError::Conflict(Conflict::FilterOfType) => "filter_exists",
        ApiError::Conflict(Conflict::Disabled) => "endpoint_disabled",
        ApiError::Conflict(_) => "conflict",
        ApiError::LimitReached(_) => "limit_reached",
        ApiError::Unavailable | ApiError::Crowded | ApiError::NoRoom | ApiError::ListTimedOut => "unavailable",
        ApiError::Internal => "internal_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(error: &ApiError) -> String {
        String::from_utf8(answer(error).body.to_vec()).expect("JSON is UTF-8")
    }

    #[test]
    fn an_error_says_its_code_and_a_sentence() {
        let error = ApiError::NotFound("application");
        assert_eq!(answer(&error).status, 404);
        assert_eq!(body(&error), r#"{"code":"not_found","detail":"application not found"}"#);
    }

    #[test]
    fn an_invalid_request_is_told_which_field_is_wrong() {
        let error = ApiError::invalid(&["body", "channels", "1"], "must not be empty");
        assert_eq!(answer(&error).status, 422);
        assert_eq!(body(&error), r#"{"detail":[{"loc":["body","channels","1"],"msg":"must not be empty","type":"value_error"}]}"#);
    }

    #[test]
    fn a_reused_key_can_be_told_from_an_invalid_request() {
        assert_eq!(answer(&ApiError::KeyReused).status, 422);
        let told = body(&ApiError::KeyReused);
        assert!(told.starts_with(r#"{"detail":[{"loc":["header","idempotency-key"],"msg":"#), "{told}");
        assert!(told.ends_with(r#""type":"idempotency_key_reused"}]}"#), "{told}");
    }

    #[test]
    fn our_own_faults_say_nothing() {
        let error = ApiError::from(storage::Error::Sealed);
        assert_eq!(body(&error), r#"{"code":"internal_error","detail":"something went wrong on our side"}"#);
    }
}
