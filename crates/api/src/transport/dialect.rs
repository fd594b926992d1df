//! What a family of clients decides: how it writes ids, how it is told of errors, and what its contract has that we have not.

use std::fmt;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use storage::idempotency::Answer;
use uuid::Uuid;

use super::json;
use crate::error::ApiError;

/// What a parameter of a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The tenant itself, which must be the caller's own.
    Project,
    /// An application.
    Application,
    /// An endpoint.
    Endpoint,
    /// A message.
    Message,
    /// An attempt.
    Attempt,
    /// What is owed to one endpoint.
    Delivery,
    /// A task.
    Task,
    /// An event type that is called by its id.
    EventType,
    /// A subscription.
    Subscription,
    /// A filter of a subscription.
    Filter,
    /// A source.
    Source,
    /// A portal link.
    PortalLink,
    /// What has no id to be called by, such as an event type that is called by its name.
    Name,
}

/// A dialect: wire types and routes are its own affair, this is what the rest asks it.
pub(crate) trait Dialect: fmt::Debug + Send + Sync {
    /// An error as its clients read it.
    fn refusal(&self, error: &ApiError) -> Answer;

    /// Whether a body with these headers is of a media type that it reads.
    fn reads(&self, headers: &HeaderMap) -> bool {
        json::is_announced(headers)
    }

    /// What is said of a body that it does not read.
    fn unread(&self, _: &HeaderMap) -> ApiError {
        ApiError::UnsupportedMediaType
    }

    /// What a parameter of its paths stands for.
    fn kind(&self, parameter: &str) -> Kind;

    /// The id that a text spells, if it is one that we could have made for a thing of this kind.
    fn id(&self, kind: Kind, text: &str) -> Option<Uuid>;

    /// The operation of its contract that this is a request for, if it is one that we do not have.
    fn missing(&self, method: &Method, path: &str) -> Option<String>;

    /// The header that its clients read again in the answer as they sent it.
    fn echoed(&self) -> Option<HeaderName> {
        None
    }
}

/// Which dialect is spoken where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialects {
    /// Where no other is.
    pub(crate) plain: &'static dyn Dialect,
    /// At these paths and below them.
    pub(crate) others: &'static [(&'static str, &'static dyn Dialect)],
}

impl Dialects {
    /// The one that is spoken at a path.
    pub(crate) fn of(self, path: &str) -> &'static dyn Dialect {
        let is_at = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.others.iter().find(|(place, _)| is_at(place)).map_or(self.plain, |(_, dialect)| *dialect)
    }
}

/// Of these operations, paths with their methods, the one that this is a request for.
pub(crate) fn find_operation(operations: &[(&str, &str)], method: &Method, path: &str) -> Option<String> {
    let is_it = |(template, methods): &&(&str, &str)| methods.split(' ').any(|one| one == method.as_str()) && fits(template, path);
    operations.iter().find(is_it).map(|(template, _)| format!("{method} {template}"))
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(segment), Some(text)) if segment == text || (segment.starts_with('{') && !text.is_empty()) => {}
            _ => return false,
        }
    }
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
    let Answer { status, body, content_type, .. } = dialect.refusal(&error);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
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
    struct Terse(&'static str);

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
            Some(self.0.to_owned())
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_words_of_the_dialect() {
        let mut refused = ApiError::Unavailable.into_response();
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        refused.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let told = told(refused, &Terse("terse"));
        assert_eq!(told.status(), 503);
        let header = |name| told.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header(header::CONTENT_TYPE), Some("text/plain"));
        assert_eq!((header(header::RETRY_AFTER), header(header::ALLOW), header(header::CONTENT_LENGTH)), (Some("1"), Some("GET"), None));
        let body = axum::body::to_bytes(told.into_body(), 1000).await.expect("a body");
        assert_eq!(body, ApiError::Unavailable.to_string());
    }

    #[test]
    fn the_path_tells_the_dialect() {
        let dialects = Dialects { plain: &Terse("plain"), others: &[("/api/v1/projects", &Terse("other"))] };
        let spoken = |path: &str| dialects.of(path).missing(&Method::GET, path).expect("a name");
        for (path, name) in [
            ("/api/v1/projects", "other"),
            ("/api/v1/projects/", "other"),
            ("/api/v1/projects/x/endpoints", "other"),
            ("/api/v1/projectsx", "plain"),
            ("/api/v1/app", "plain"),
            ("/", "plain"),
        ] {
            assert_eq!(spoken(path), name, "{path}");
        }
    }

    #[test]
    fn what_is_no_refusal_is_left_alone() {
        let answer = told("fine".into_response(), &Terse("terse"));
        assert_eq!((answer.status().as_u16(), answer.headers().get(header::RETRY_AFTER)), (200, None));
    }
}
