//! What a family of clients decides: how it writes ids, how it is told of errors, and what its contract has that we have not.

use std::fmt;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use storage::idempotency::Answer;
use uuid::Uuid;

use crate::error::ApiError;

/// What a parameter of a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An application.
    Application,
    /// An endpoint.
    Endpoint,
    /// A message.
    Message,
    /// An attempt.
    Attempt,
    /// A task.
    Task,
    /// What has no id to be called by, such as an event type.
    Name,
}

/// A dialect: wire types and routes are its own affair, this is what the rest asks it.
pub(crate) trait Dialect: fmt::Debug + Send + Sync {
    /// An error as its clients read it.
    fn refusal(&self, error: &ApiError) -> Answer;

    /// Whether a body with these headers is of a media type that it reads.
    fn reads(&self, headers: &HeaderMap) -> bool;

    /// What a parameter of its paths stands for.
    fn kind(&self, parameter: &str) -> Kind;

    /// The id that a text spells, if it is one that we could have made for a thing of this kind.
    fn id(&self, kind: Kind, text: &str) -> Option<Uuid>;

    /// The operation of its contract that this is a request for, if it is one that we do not have.
    fn missing(&self, method: &Method, path: &str) -> Option<String>;
}

/// A refusal is an answer without words: [`told`] finds them, where it is known in which dialect the request was made.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The answer with the words of the dialect, if it is a refusal that has none yet.
pub(crate) fn told(mut response: Response, dialect: &dyn Dialect) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let Answer { body, content_type, .. } = dialect.refusal(&error);
    *response.status_mut() = error.status();
    *response.body_mut() = Body::from(body);
    let headers = response.headers_mut();
    // The length of the answer without words.
    headers.remove(header::CONTENT_LENGTH);
    if let Some(content_type) = content_type.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if let Some(wait) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if matches!(error, ApiError::Unauthenticated(_)) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what went wrong and nothing else.
    #[derive(Debug)]
    struct Terse;

    impl Dialect for Terse {
        fn refusal(&self, error: &ApiError) -> Answer {
            let body = error.to_string().into();
            Answer { status: error.status().as_u16(), body, content_type: Some("text/plain".into()), location: None }
        }

        fn reads(&self, _: &HeaderMap) -> bool {
            true
        }

        fn kind(&self, _: &str) -> Kind {
            Kind::Name
        }

        fn id(&self, _: Kind, _: &str) -> Option<Uuid> {
            None
        }

        fn missing(&self, _: &Method, _: &str) -> Option<String> {
            None
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_words_of_the_dialect() {
        let mut refused = ApiError::Unavailable.into_response();
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        refused.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let told = told(refused, &Terse);
        assert_eq!(told.status(), 503);
        let header = |name| told.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header(header::CONTENT_TYPE), Some("text/plain"));
        assert_eq!((header(header::RETRY_AFTER), header(header::ALLOW), header(header::CONTENT_LENGTH)), (Some("1"), Some("GET"), None));
        let body = axum::body::to_bytes(told.into_body(), 1000).await.expect("a body");
        assert_eq!(body, ApiError::Unavailable.to_string());
    }

    #[test]
    fn what_is_no_refusal_is_left_alone() {
        let answer = told("fine".into_response(), &Terse);
        assert_eq!((answer.status().as_u16(), answer.headers().get(header::RETRY_AFTER)), (200, None));
    }
}
