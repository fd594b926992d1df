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
pub(crate) mod endpoint;
pub(crate) mod endpoint_headers;
pub(crate) mod endpoint_health;
pub(crate) mod endpoint_secret;
pub(crate) mod event_type;
pub(crate) mod fields;
pub(crate) mod filter;
pub(crate) mod header_fields;
pub(crate) mod idempotency;
pub(crate) mod message;
pub(crate) mod not_yet;
#[cfg(test)]
mod patterns;
mod payload_retention;

use axum::{http::StatusCode, response::Response};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::{application::check_text, id::Id};
use serde::{Serialize, Serializer};
use storage::{
    idempotency::{Answer, Answered},
    page::{Page, PageRequest},
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    error::{ApiError, ApiResult, JSON},
    transport::{idempotency::respond, query::Query},
};

/// The most items of one page.
const MAX_LIMIT: i64 = 250;
/// The items of a page whose size the client does not name.
const DEFAULT_LIMIT: i64 = 50;

/// In front of an iterator: the page before it.
const BACKWARDS: char = '-';
/// In front of an iterator that begins with a minus sign of its own, as the name of an event type may: the page after it.
const ONWARDS: char = '~';

/// A moment: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-08-21T12:00:00.000000Z")]
pub(crate) struct Timestamp(pub(crate) DateTime<Utc>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// Which way a list runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum Ordering {
    /// From the first made to the last.
    Ascending,
    /// From the last made to the first.
    Descending,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Limit the number of returned items
    #[param(minimum = 0, maximum = 250, default = 50)]
    limit: Option<i64>,
    /// The iterator returned from a prior invocation; with a minus sign in front, the page before it
    #[param(max_length = 257)]
    iterator: Option<String>,
}

/// The order in which a list is wanted.
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InOrder {
    /// The sorting order of the returned items
    #[param(inline)]
    order: Option<Ordering>,
}

impl InOrder {
    /// Whether the list is wanted ascending.
    pub(crate) fn is_ascending(query: &Query, default: bool) -> ApiResult<bool> {
        let order = query.read("order", |text| match text {
            "ascending" => Ok(Ordering::Ascending),
            "descending" => Ok(Ordering::Descending),
            _ => Err("must be `ascending` or `descending`"),
        })?;
        Ok(Self { order }.order.map_or(default, |order| order == Ordering::Ascending))
    }
}

impl Paging {
    fn read(query: &Query) -> ApiResult<Self> {
        let limit = query.read("limit", |text| {
            let limit: Option<i64> = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
            limit.filter(|limit| *limit <= MAX_LIMIT).ok_or_else(|| format!("must be a number from 0 to {MAX_LIMIT}"))
        })?;
        Ok(Self { limit, iterator: query.text("iterator")?.map(str::to_owned) })
    }

    /// The page of a list of things with ids.
    pub(crate) fn of_ids<I: Id>(query: &Query, is_ascending: bool) -> ApiResult<PageRequest<I>> {
        Self::of(query, is_ascending, |text| I::parse(text).map_err(|_| "is not an iterator that a page of this list carried"))
    }

    /// The page of a list of things with names. An older release accepted names that are refused now: pages still end at them.
    pub(crate) fn of_names(query: &Query, is_ascending: bool) -> ApiResult<PageRequest<String>> {
        Self::of(query, is_ascending, |text| check_text(text).map(|()| text.to_owned()))
    }

    fn of<K, E: std::fmt::Display>(query: &Query, is_ascending: bool, read: impl Fn(&str) -> Result<K, E>) -> ApiResult<PageRequest<K>> {
        let Self { limit, iterator } = Self::read(query)?;
        let is_backwards = iterator.as_ref().is_some_and(|text| text.starts_with(BACKWARDS));
        let cursor = iterator.map(|text| read(text.strip_prefix([BACKWARDS, ONWARDS]).unwrap_or(&text))).transpose();
        let cursor = cursor.map_err(|error| ApiError::invalid(&["query", "iterator"], error.to_string()))?;
        Ok(PageRequest { limit: limit.unwrap_or(DEFAULT_LIMIT), cursor, is_backwards, is_ascending })
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListResponse<T> {
    /// The items.
    data: Vec<T>,
    /// Where the next page begins; null on an empty page
    #[schema(required)]
    iterator: Option<String>,
    /// Where the page before this one ends
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    prev_iterator: Option<String>,
    /// Whether there is nothing after this page, in the direction of the request
    done: bool,
}

/// Renders a page: `key` is an item's place in the list.
pub(crate) fn list<'a, T, W: Serialize>(page: &'a Page<T>, key: impl Fn(&T) -> String, render: impl Fn(&'a T) -> W) -> Response {
    let onwards = |place: String| if place.starts_with(BACKWARDS) { format!("{ONWARDS}{place}") } else { place };
    let iterator = page.items.last().map(|item| onwards(key(item)));
    let prev_iterator = page.items.first().map(|item| format!("{BACKWARDS}{}", key(item)));
    let data = page.items.iter().map(render).collect();
    ok(&ListResponse { data, iterator, prev_iterator, done: !page.has_more })
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

/// A 200.
pub(crate) fn ok(body: &impl Serialize) -> Response {
    respond(Answered { answer: answer(StatusCode::OK, body), is_replay: false })
}

/// An answer with a body.
pub(crate) fn answer(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => Answer { status: status.as_u16(), body: Bytes::from(body), content_type: Some(JSON.to_owned()), location: None },
        Err(error) => {
            tracing::error!(%error, "an answer could not be rendered");
            ApiError::Internal.answer()
        }
    }
}

/// A 201 that says where the new thing is.
pub(crate) fn created(body: &impl Serialize, location: String) -> Answer {
    Answer { location: Some(location), ..answer(StatusCode::CREATED, body) }
}

/// A 204.
pub(crate) fn nothing() -> Answer {
    Answer { status: StatusCode::NO_CONTENT.as_u16(), body: Bytes::new(), content_type: None, location: None }
}

#[cfg(test)]
mod tests {
    use domain::id::ApplicationId;
    use uuid::Uuid;

    use super::*;

    fn page(raw: &str) -> Result<PageRequest<ApplicationId>, String> {
        Paging::of_ids(&Query::parse(raw).expect("a query"), true).map_err(|error| match error {
            ApiError::Invalid(problems) => problems[0].loc.join("."),
            other => other.to_string(),
        })
    }

    #[test]
    fn a_page_is_named_by_limit_and_iterator() {
        let id = ApplicationId(Uuid::now_v7());
        let first = page("").expect("a page");
        assert_eq!((first.limit, first.cursor, first.is_backwards, first.is_ascending), (50, None, false, true));
        let next = page(&format!("limit=0&iterator={id}")).expect("a page");
        assert_eq!((next.limit, next.cursor, next.is_backwards), (0, Some(id), false));
        let back = page(&format!("iterator=-{id}")).expect("a page");
        assert_eq!((back.cursor, back.is_backwards), (Some(id), true));
        assert_eq!(page("limit=250").expect("a page").limit, 250);
    }

    #[test]
    fn a_name_that_begins_with_a_minus_sign_leads_both_ways() {
        let names = |raw: &str| {
            let page = Paging::of_names(&Query::parse(raw).expect("a query"), true).expect("a page");
            (page.cursor.expect("a cursor"), page.is_backwards)
        };
        assert_eq!(names("iterator=~-a"), ("-a".into(), false));
        assert_eq!(names("iterator=--a"), ("-a".into(), true));
        assert_eq!(names("iterator=a"), ("a".into(), false));
        assert_eq!(names("iterator=-a"), ("a".into(), true));
    }

    #[test]
    fn hostile_pages_are_refused_by_name() {
        for limit in ["251", "-1", "x", "", "1.5", "+1", "99999999999999999999"] {
            assert_eq!(page(&format!("limit={limit}")).expect_err("no page"), "query.limit", "{limit}");
        }
        for iterator in ["app_bad", "msg_bad", "", "-", "--", "%00"] {
            assert_eq!(page(&format!("iterator={iterator}")).expect_err("no page"), "query.iterator", "{iterator}");
        }
    }

    #[tokio::test]
    async fn a_list_says_where_its_neighbours_are() {
        let render = |items: Vec<u8>, has_more| list(&Page { items, has_more }, ToString::to_string, |item| *item);
        let body = |response: Response| async {
            let body = response.into_body();
            String::from_utf8(axum::body::to_bytes(body, 1000).await.expect("a body").to_vec()).expect("text")
        };
        let full = body(render(vec![1, 2], true)).await;
        assert_eq!(full, r#"{"data":[1,2],"iterator":"2","prevIterator":"-1","done":false}"#);
        assert_eq!(body(render(vec![], false)).await, r#"{"data":[],"iterator":null,"done":true}"#);
    }

    #[test]
    fn moments_have_microseconds() {
        let moment = Timestamp(DateTime::from_timestamp(1_787_313_600, 5_000).expect("a time"));
        assert_eq!(serde_json::to_string(&moment).expect("JSON"), r#""2026-08-21T12:00:00.000005Z""#);
    }
}
