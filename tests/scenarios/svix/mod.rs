//! The Svix dialect: one file per resource.

mod again;
mod application;
mod attempt;
mod batch;
mod callers;
mod content_filter;
mod deliveries;
mod endpoint;
mod endpoint_health;
mod endpoint_url;
mod event_type;
mod example;
mod expunge;
mod headers;
mod message;
mod names;
mod not_yet;
mod pages;
mod payload_retention;
mod portal_access;
mod rotation;
mod round_trip;
mod upsert;

/// The status of an answer that the SDK reports as an error.
pub(crate) fn status_of<T: std::fmt::Debug>(result: Result<T, svix::error::Error>) -> u16 {
    match result.expect_err("a refusal") {
        svix::error::Error::Http(error) => error.status.as_u16(),
        svix::error::Error::Validation(error) => error.status.as_u16(),
        other => panic!("not an answer: {other}"),
    }
}
