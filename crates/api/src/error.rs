//! What can go wrong with a request: facts. How they are told is the affair of the dialect that the request was made in.

use std::time::Duration;

use axum::http::StatusCode;
use domain::{idempotency::InvalidKey, source::verifier::Refusal};
use storage::Conflict;
use thiserror::Error;

/// The result of whatever may have to refuse a request.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// How long a client should wait before it tries again what may work then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request was not done.
#[derive(Clone, Debug, Error)]
pub(crate) enum ApiError {
    /// No token, or one that we do not accept.
    #[error(
        "{0}: send `Authorization: Bearer <token>` with a token that `posthaste token` printed, or with a key that `posthaste key create` did"
    )]
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
    /// A request for a source is not from the one who shares its secret.
    #[error("the request could not be verified: {0}")]
    Unverified(Refusal),
    /// The request does not say what it must, or says it wrongly.
    #[error("the request is invalid")]
    Invalid(Problem),
    /// An endpoint is to filter on event types that do not exist.
    #[error("the following event types don't exist: {}", .0.join(", "))]
    UnknownEventTypes(Vec<String>),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where: `body`, `query` or `path`, then the names that lead to the field.
    pub(crate) place: Vec<String>,
    /// What is wrong with it, and what would be right.
    pub(crate) why: String,
    /// Whether it is not even of the right form: no JSON, or of another type.
    pub(crate) is_malformed: bool,
}

impl ApiError {
    /// A field that holds the wrong value.
    pub(crate) fn invalid(place: &[&str], why: impl Into<String>) -> Self {
        Self::problem(place, why, false)
    }

    /// Something that is not JSON, or not of the JSON type that it must be.
    pub(crate) fn malformed(place: &[&str], why: impl Into<String>) -> Self {
        Self::problem(place, why, true)
    }

    fn problem(place: &[&str], why: impl Into<String>, is_malformed: bool) -> Self {
        Self::Invalid(Problem { place: place.iter().map(ToString::to_string).collect(), why: why.into(), is_malformed })
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
            Self::Invalid(_) | Self::UnknownEventTypes(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unverified(_) | Self::InvalidKey(_) | Self::BrokenBody | Self::LimitReached(_) | Self::Conflict(Conflict::Expunged) => {
                StatusCode::BAD_REQUEST
            }
            Self::KeyInProgress | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable | Self::Crowded | Self::NoRoom | Self::ListTimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How long to wait before trying again, if that may help.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::KeyInProgress | Self::Unavailable | Self::Crowded | Self::NoRoom | Self::ListTimedOut).then_some(RETRY_AFTER)
    }
}

impl From<&storage::Error> for ApiError {
    fn from(error: &storage::Error) -> Self {
        match error {
            storage::Error::NotFound(what) => Self::NotFound(what),
            storage::Error::Conflict(conflict) => Self::Conflict(*conflict),
            storage::Error::UnknownEventTypes(names) => Self::UnknownEventTypes(names.clone()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_work_later_says_when() {
        for error in [ApiError::KeyInProgress, ApiError::Unavailable, ApiError::Crowded, ApiError::NoRoom, ApiError::ListTimedOut] {
            assert!(error.retry_after().is_some(), "{error}");
        }
        assert!(ApiError::Internal.retry_after().is_none());
    }
}
