//! What can go wrong with a request: one enum, one status and one stable code per variant.
//!
//! The body is the Svix dialect's: `{code, detail}`, and of every 422 `{detail: [{loc, msg, type}]}`, because the SDKs read each 422 so.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use domain::idempotency::InvalidKey;
use serde::Serialize;
use storage::{Conflict, idempotency::Answer};
use thiserror::Error;
use utoipa::ToSchema;

use crate::transport::bodies::Full;

/// The result of a handler.
pub(crate) type ApiResult<T = Response> = Result<T, ApiError>;

/// How long a client should wait before it tries again what may work then.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The media type of every body that we render.
pub(crate) const JSON: &str = "application/json";

/// Why a request was not done.
#[derive(Clone, Debug, Error)]
pub(crate) enum ApiError {
    /// No token, or one that we do not accept.
    #[error("{0}: send `Authorization: Bearer <token>` with a token that `posthaste token` printed")]
    Unauthenticated(&'static str),
    /// A token that may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such thing, or it is another tenant's.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// An operation of the dialect that we do not have.
    #[error("not supported yet: {0}")]
    NotYet(String),
    /// No operation has this path.
    #[error("there is no operation at this path")]
    UnknownPath,
    /// The path has an empty segment.
    #[error(
        "there is no operation at this path: it contains `//`. Take the slash off the end of the base URL, and see that no id in the path is empty"
    )]
    EmptySegment,
    /// The path has other methods.
    #[error("this path does not take this method: see the Allow header")]
    MethodNotAllowed,
    /// The body did not arrive.
    #[error("the request body did not arrive in time")]
    Timeout,
    /// The body broke off, or was not HTTP.
    #[error("the request body could not be read")]
    BrokenBody,
    /// The body is over the limit, in bytes.
    #[error("the request body is larger than the limit of {limit} bytes (POSTHASTE_MAX_PAYLOAD)")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body is not JSON.
    #[error("the request body must be JSON: send `Content-Type: application/json` and no Content-Encoding")]
    UnsupportedMediaType,
    /// The request does not say what it must, or says it wrongly.
    #[error("the request is invalid")]
    Invalid(Vec<Problem>),
    /// The `Idempotency-Key` header is malformed.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The key's first request is still running.
    #[error("a request with this idempotency key is still running: repeat this one in a moment")]
    KeyInProgress,
    /// The key was used with another request.
    #[error("this idempotency key was already used with a different request: use a new key")]
    KeyReused,
    /// A rule of uniqueness, or the state of a thing, is in the way.
    #[error(transparent)]
    Conflict(Conflict),
    /// So many are allowed and no more.
    #[error("{0}")]
    LimitReached(&'static str),
    /// As many connections are open as may be.
    #[error("too many connections are open: repeat the request in a moment, over connections that are kept")]
    Crowded,
    /// As much of request bodies is in memory as may be.
    #[error("too many request bodies are being read: repeat the request in a moment")]
    NoRoom,
    /// The database does not answer, or too much is waiting for it.
    #[error("the service is temporarily unavailable: repeat the request in a moment")]
    Unavailable,
    /// A list took too long.
    #[error(
        "this list could not be read in time: ask for less of it (a smaller limit, a shorter time, another filter), or repeat the request in a moment"
    )]
    ListTimedOut,
    /// Our fault. The body says nothing; the log does.
    #[error("something went wrong on our side")]
    Internal,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ValidationErrorItem)]
pub(crate) struct Problem {
    /// Where: `body`, `query` or `path`, then the names that lead to the field.
    #[schema(example = json!(["body", "name"]))]
    pub(crate) loc: Vec<String>,
    /// What is wrong with it.
    #[schema(example = "must not be empty")]
    pub(crate) msg: String,
    /// `value_error`, `value_error.jsondecode` if it is not even of the right type, or `idempotency_key_reused`.
    #[serde(rename = "type")]
    #[schema(example = "value_error")]
    pub(crate) kind: &'static str,
}

/// The body of a 422: what is wrong, and where.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HTTPValidationError)]
pub(crate) struct ValidationBody {
    /// Each thing that is wrong.
    detail: Vec<Problem>,
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

impl Problem {
    fn new(loc: &[&str], msg: impl Into<String>, kind: &'static str) -> Self {
        Self { loc: loc.iter().map(ToString::to_string).collect(), msg: msg.into(), kind }
    }
}

impl ApiError {
    /// A field that holds the wrong value.
    pub(crate) fn invalid(loc: &[&str], msg: impl Into<String>) -> Self {
        Self::problem(loc, msg, "value_error")
    }

    /// Something that is not JSON, or not of the JSON type that it must be.
    pub(crate) fn malformed(loc: &[&str], msg: impl Into<String>) -> Self {
        Self::problem(loc, msg, "value_error.jsondecode")
    }

    fn problem(loc: &[&str], msg: impl Into<String>, kind: &'static str) -> Self {
        Self::Invalid(vec![Problem::new(loc, msg, kind)])
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::UnknownPath | Self::EmptySegment => StatusCode::NOT_FOUND,
            Self::NotYet(_) => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InvalidKey(_) | Self::BrokenBody | Self::LimitReached(_) | Self::Conflict(Conflict::Expunged) => StatusCode::BAD_REQUEST,
            Self::KeyInProgress | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable | Self::Crowded | Self::NoRoom | Self::ListTimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The name of the error for programs; it does not change between releases.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "authentication_failed",
            Self::Forbidden(_) => "insufficient access",
            Self::NotFound(_) | Self::UnknownPath | Self::EmptySegment => "not_found",
            Self::NotYet(_) => "not_supported_yet",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "request_timeout",
            Self::BrokenBody => "generic_error",
            Self::TooLarge { .. } => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Invalid(_) => "validation_error",
            Self::InvalidKey(invalid) => invalid.code(),
            Self::KeyInProgress => "idempotency_in_progress",
            Self::KeyReused => "idempotency_key_reused",
            Self::Conflict(Conflict::EventTypeName) => "event_type_exists",
            Self::Conflict(Conflict::EventId(_)) => "event_id_conflict",
            Self::Conflict(Conflict::Duplicate(_)) => "duplicate_message",
            Self::Conflict(Conflict::NotADuplicate) => "not_a_duplicate",
            Self::Conflict(Conflict::AlreadyReleased) => "already_released",
            Self::Conflict(Conflict::Expunged) => "missing_payload",
            Self::Conflict(Conflict::Disabled) => "endpoint_disabled",
            Self::Conflict(_) => "conflict",
            Self::LimitReached(_) => "limit_reached",
            Self::Unavailable | Self::Crowded | Self::NoRoom | Self::ListTimedOut => "unavailable",
            Self::Internal => "internal_error",
        }
    }

    /// How long to wait before trying again, if that may help.
    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::KeyInProgress | Self::Unavailable | Self::Crowded | Self::NoRoom | Self::ListTimedOut).then_some(RETRY_AFTER)
    }

    /// The answer as it may be saved under a key.
    pub(crate) fn answer(&self) -> Answer {
        let body = match self {
            Self::Invalid(problems) => serde_json::to_vec(&ValidationBody { detail: problems.clone() }),
            Self::KeyReused => {
                let problem = Problem::new(&["header", "idempotency-key"], self.to_string(), self.code());
                serde_json::to_vec(&ValidationBody { detail: vec![problem] })
            }
            _ => serde_json::to_vec(&ErrorBody { code: self.code(), detail: self.to_string() }),
        };
        Answer {
            status: self.status().as_u16(),
            body: body.map(Bytes::from).unwrap_or_default(),
            content_type: Some(JSON.to_owned()),
            location: None,
        }
    }
}

impl From<Full> for ApiError {
    fn from(_: Full) -> Self {
        Self::NoRoom
    }
}

impl From<&storage::Error> for ApiError {
    fn from(error: &storage::Error) -> Self {
        match error {
            storage::Error::NotFound(what) => Self::NotFound(what),
            storage::Error::Conflict(conflict) => Self::Conflict(*conflict),
            storage::Error::UnknownEventTypes(names) => {
                Self::invalid(&["body", "eventTypes"], format!("The following event types don't exist: {}", names.join(", ")))
            }
            storage::Error::Invalid { field, why } => Self::invalid(&["body", field], why),
            storage::Error::LimitReached(which) => Self::LimitReached(which),
            storage::Error::KeyInProgress => Self::KeyInProgress,
            storage::Error::KeyReused => Self::KeyReused,
            storage::Error::Overloaded | storage::Error::Renamed | storage::Error::Unavailable(_) => Self::Unavailable,
            storage::Error::ListTimedOut(_) => Self::ListTimedOut,
            storage::Error::Sealed | storage::Error::Unusable(_) | storage::Error::Database(_) => Self::Internal,
        }
    }
}

impl From<storage::Error> for ApiError {
    fn from(error: storage::Error) -> Self {
        let translated = Self::from(&error);
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        match translated {
            Self::Internal => tracing::error!(%error, cause, "a request failed"),
            Self::ListTimedOut => tracing::info!(%error, cause, "a request was told to ask for less"),
            Self::Unavailable => tracing::warn!(%error, cause, "a request found the database unavailable"),
            _ => {}
        }
        translated
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.answer().body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        if matches!(self, Self::Unauthenticated(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(error: &ApiError) -> String {
        String::from_utf8(error.answer().body.to_vec()).expect("JSON is UTF-8")
    }

    #[test]
    fn an_error_says_its_code_and_a_sentence() {
        let error = ApiError::NotFound("application");
        assert_eq!(error.answer().status, 404);
        assert_eq!(body(&error), r#"{"code":"not_found","detail":"application not found"}"#);
    }

    #[test]
    fn an_invalid_request_is_told_which_field_is_wrong() {
        let error = ApiError::invalid(&["body", "channels", "1"], "must not be empty");
        assert_eq!(error.answer().status, 422);
        assert_eq!(body(&error), r#"{"detail":[{"loc":["body","channels","1"],"msg":"must not be empty","type":"value_error"}]}"#);
    }

    #[test]
    fn a_reused_key_can_be_told_from_an_invalid_request() {
        assert_eq!(ApiError::KeyReused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let told = body(&ApiError::KeyReused);
        assert!(told.starts_with(r#"{"detail":[{"loc":["header","idempotency-key"],"msg":"#), "{told}");
        assert!(told.ends_with(r#""type":"idempotency_key_reused"}]}"#), "{told}");
    }

    #[test]
    fn what_may_work_later_says_when() {
        for error in [ApiError::KeyInProgress, ApiError::Unavailable, ApiError::Crowded, ApiError::ListTimedOut] {
            assert_eq!(error.into_response().headers()[header::RETRY_AFTER], "1");
        }
        assert!(!ApiError::Internal.into_response().headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn our_own_faults_say_nothing() {
        let error = ApiError::from(storage::Error::Sealed);
        assert_eq!(body(&error), r#"{"code":"internal_error","detail":"something went wrong on our side"}"#);
    }
}
