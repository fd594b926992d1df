//! The Svix dialect: the wire types and operations of svix-server, as its unmodified SDKs use them.
//!
//! Known quirks that are kept: bodies are camelCase and queries snake_case; enums are integers; an application without a
//! uid has no `uid` at all, an endpoint's is `null`; a page of `limit=0` is empty and says by `done` whether there is anything.
//! Differences: a list filtered by `after` alone begins with the newest match, as every other, so that following `iterator` visits
//! them all; a PUT under an unknown name makes a thing of that uid, so that a repeat finds it; fields of the contract that we do
//! not act on are refused by name; lists reach as far back as messages are kept, not 90 days; answers to unknown paths have a body.

#![expect(clippy::option_option, reason = "a field of a patch has three cases: keep, unset, set")]
#![expect(unused_qualifications, reason = "the code that utoipa generates qualifies every type")]

pub(crate) mod application;
pub(crate) mod attempt;
pub(crate) mod batch;
mod content_filter;
pub(crate) mod delivery;
pub(crate) mod endpoint;
pub(crate) mod endpoint_headers;
pub(crate) mod endpoint_health;
pub(crate) mod endpoint_secret;
pub(crate) mod endpoint_stats;
pub(crate) mod error;
pub(crate) mod event_type;
pub(crate) mod event_type_import;
pub(crate) mod example;
pub(crate) mod expunge;
pub(crate) mod fields;
mod filter;
mod header_fields;
pub(crate) mod idempotency;
pub(crate) mod message;
pub(crate) mod not_yet;
pub(crate) mod own_endpoint;
pub(crate) mod own_event;
mod page;
#[cfg(test)]
mod patterns;
mod payload_retention;
pub(crate) mod portal_access;
pub(crate) mod retry;
pub(crate) mod task;

use axum::http::Method;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::id::{ApplicationId, AttemptId, EndpointId, Id, MessageId, TaskId};
use serde::{Serialize, Serializer};
use storage::idempotency::Answer;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    error::ApiError,
    transport::dialect::{Dialect, Kind},
};

/// The Svix dialect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Svix;

impl Dialect for Svix {
    fn refusal(&self, error: &ApiError) -> Answer {
        error::answer(error)
    }

    fn kind(&self, parameter: &str) -> Kind {
        match parameter {
            "app_id" => Kind::Application,
            "endpoint_id" => Kind::Endpoint,
            "msg_id" => Kind::Message,
            "attempt_id" => Kind::Attempt,
            "task_id" => Kind::Task,
            _ => Kind::Name,
        }
    }

    fn id(&self, kind: Kind, text: &str) -> Option<Uuid> {
        match kind {
            Kind::Application => ApplicationId::parse(text).map(Uuid::from).ok(),
            Kind::Endpoint => EndpointId::parse(text).map(Uuid::from).ok(),
            Kind::Message => MessageId::parse(text).map(Uuid::from).ok(),
            Kind::Attempt => AttemptId::parse(text).map(Uuid::from).ok(),
            Kind::Task => TaskId::parse(text).map(Uuid::from).ok(),
            Kind::Project
            | Kind::Delivery
            | Kind::EventType
            | Kind::Subscription
            | Kind::Filter
            | Kind::Source
            | Kind::PortalLink
            | Kind::Name => None,
        }
    }

    fn missing(&self, method: &Method, path: &str) -> Option<String> {
        not_yet::operation(method, path)
    }
}

/// A moment: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-08-21T12:00:00.000000Z")]
pub(crate) struct Timestamp(pub(crate) DateTime<Utc>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// Declares the body of a request that is two things at once; it exists for the document alone.
macro_rules! both {
    ($(#[$doc:meta])* $name:ident, $first:ident, $second:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let parts = [<$first as ToSchema>::name(), <$second as ToSchema>::name()];
                let whole = parts.into_iter().map(utoipa::openapi::Ref::from_schema_name);
                let whole = whole.fold(utoipa::openapi::AllOfBuilder::new(), |whole, part| whole.item(part));
                utoipa::openapi::Schema::from(whole.build()).into()
            }
        }

        impl ToSchema for $name {
            fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                use utoipa::PartialSchema;

                schemas.push(($first::name().into_owned(), $first::schema()));
                schemas.push(($second::name().into_owned(), $second::schema()));
                $first::schemas(schemas);
                $second::schemas(schemas);
            }
        }
    };
}
pub(crate) use both;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_microseconds() {
        let moment = Timestamp(DateTime::from_timestamp(1_787_313_600, 5_000).expect("a time"));
        assert_eq!(serde_json::to_string(&moment).expect("JSON"), r#""2026-08-21T12:00:00.000005Z""#);
    }
}
