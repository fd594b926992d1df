//! Errors on the wire: `{"status": false, "message": …}`, with the statuses that Convoy's clients know.

use axum::http::StatusCode;
use serde::Serialize;
use storage::idempotency::Answer;
use utoipa::ToSchema;

use crate::{
    error::{ApiError, Problem},
    transport::reply,
};

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyError)]
pub(crate) struct Refused {
    /// Always false.
    #[schema(example = false)]
    status: bool,
    /// What is wrong, where, and what would be right.
    #[schema(example = "body.url: must be an http or https URL")]
    message: String,
}

/// An error as the SDKs read it.
pub(super) fn answer(error: &ApiError) -> Answer {
    reply::json(status(error), &Refused { status: false, message: message(error) })
}

/// Whatever the client could have known is a 400 there.
fn status(error: &ApiError) -> StatusCode {
    match error {
        ApiError::Invalid(_) | ApiError::UnknownEventTypes(_) | ApiError::Conflict(_) => StatusCode::BAD_REQUEST,
        other => other.status(),
    }
}

fn message(error: &ApiError) -> String {
    match error {
        ApiError::Invalid(Problem { place, why, .. }) => format!("{}: {why}", place.join(".")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use storage::Conflict;

    use super::*;

    fn told(error: &ApiError) -> (u16, String) {
        let Answer { status, body, .. } = answer(error);
        (status, String::from_utf8(body.to_vec()).expect("JSON is UTF-8"))
    }

    #[test]
    fn an_error_is_an_envelope_without_data() {
        assert_eq!(told(&ApiError::NotFound("endpoint")), (404, r#"{"status":false,"message":"endpoint not found"}"#.into()));
    }

    #[test]
    fn an_invalid_request_is_a_400_that_names_the_field() {
        let error = ApiError::invalid(&["body", "filter_config", "event_types", "1"], "must not be empty");
        let expected = r#"{"status":false,"message":"body.filter_config.event_types.1: must not be empty"}"#;
        assert_eq!(told(&error), (400, expected.into()));
        assert_eq!(told(&ApiError::Conflict(Conflict::EventTypeName)).0, 400);
        assert_eq!(told(&ApiError::KeyInProgress).0, 409);
    }
}
