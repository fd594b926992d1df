//! The Convoy dialect: the wire types and operations of Convoy's REST API, as its unmodified SDKs use them.
//!
//! Quirks that are kept: every answer is an envelope; ids are ULIDs; an update is a 202; a write that takes no body ignores the one that it is sent;
//! cursors of pages name the first item of the page that they lead to. Differences: an id of another project in the path is refused and not
//! overlooked; what we do not act on is refused by name; whoever may only look is shown no secrets.

#![expect(clippy::option_option, reason = "a field of a patch has three cases: keep, unset, set")]
#![expect(unused_qualifications, reason = "the code that utoipa generates qualifies every type")]

pub(crate) mod answer;
pub(crate) mod attempt;
mod broker;
pub(crate) mod delivery;
pub(crate) mod endpoint;
mod endpoint_auth;
mod error;
pub(crate) mod event;
pub(crate) mod event_type;
pub(crate) mod failure_rate;
pub(crate) mod fields;
pub(crate) mod filter;
pub(crate) mod meta_event;
pub(crate) mod not_yet;
pub(crate) mod onboard;
pub(crate) mod page;
pub(crate) mod portal_link;
pub(crate) mod project;
mod project_config;
pub(crate) mod publish;
mod scopes;
pub(crate) mod source;
pub(crate) mod subscription;
mod verifier;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use chrono::{DateTime, SecondsFormat, Utc};
use domain::id::{Id, TenantId};
use serde::{Serialize, Serializer};
use storage::idempotency::Answer;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    error::ApiError,
    transport::dialect::{Dialect, Kind},
};

pub(crate) use error::Refused;

/// Where the dialect is spoken: at this path and below it.
pub(crate) const PLACE: &str = "/api/v1/projects";
/// The header by which its clients say which revision of the API they know. We speak the one of 2025-11-24 to all.
const VERSION: HeaderName = HeaderName::from_static("x-convoy-version");

/// The Convoy dialect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convoy;

impl Dialect for Convoy {
    fn refusal(&self, error: &ApiError) -> Answer {
        error::answer(error)
    }

    fn unread(&self, headers: &HeaderMap) -> ApiError {
        let is_file = |value: &HeaderValue| {
            let value = value.as_bytes().to_ascii_lowercase();
            value.starts_with(b"multipart/form-data") || value.starts_with(b"text/csv")
        };
        if headers.get(header::CONTENT_TYPE).is_some_and(is_file) {
            return ApiError::NotYet("a file of CSV: send what is in it as JSON".to_owned());
        }
        ApiError::UnsupportedMediaType
    }

    fn kind(&self, parameter: &str) -> Kind {
        match parameter {
            "projectID" => Kind::Project,
            "endpointID" => Kind::Endpoint,
            "eventID" | "metaEventID" => Kind::Message,
            "eventDeliveryID" => Kind::Delivery,
            "deliveryAttemptID" => Kind::Attempt,
            "eventTypeId" => Kind::EventType,
            "subscriptionID" => Kind::Subscription,
            "filterID" => Kind::Filter,
            "sourceID" => Kind::Source,
            "portalLinkID" => Kind::PortalLink,
            _ => Kind::Name,
        }
    }

    fn id(&self, kind: Kind, text: &str) -> Option<Uuid> {
        if kind == Kind::Name { None } else { TenantId::parse_ulid(text).map(Uuid::from).ok() }
    }

    fn missing(&self, method: &Method, path: &str) -> Option<String> {
        not_yet::operation(method, path)
    }

    fn echoed(&self) -> Option<HeaderName> {
        Some(VERSION)
    }
}

/// A moment: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(as = ConvoyTime, value_type = String, format = DateTime, example = "2026-08-21T12:00:00.000000Z")]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// An id: a ULID.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(as = Ulid, value_type = String, pattern = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", example = "01J0000000E008000000000001")]
pub(crate) struct Ulid(Uuid);

impl Ulid {
    /// The id of a thing.
    pub(crate) fn of<I: Id>(id: I) -> Self {
        Self(id.into())
    }
}

impl Serialize for Ulid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&TenantId(self.0).ulid())
    }
}
