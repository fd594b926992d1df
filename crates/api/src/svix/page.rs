//! Pages of lists on the wire: which one is asked for, and how it says where its neighbours are.

use axum::response::{IntoResponse, Response};
use domain::{application::check_text, id::Id};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use storage::{
    idempotency::{Answer, Answered},
    page::{Page, PageRequest},
};
use utoipa::{IntoParams, PartialSchema, ToSchema, openapi::path::Operation};

use crate::{
    error::{ApiError, ApiResult},
    transport::{
        query::Parameters,
        reply::{Replies, Reply, Schemas, add_named},
    },
};

/// The most items of one page.
const MAX_LIMIT: i64 = 250;
/// The items of a page whose size the client does not name.
const DEFAULT_LIMIT: i64 = 50;

/// In front of an iterator: the page before it.
const BACKWARDS: char = '-';
/// In front of an iterator that begins with a minus sign of its own, as the name of an event type may: the page after it.
const ONWARDS: char = '~';

/// Which way a list runs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Ordering {
    /// From the first made to the last.
    Ascending,
    /// From the last made to the first.
    Descending,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Limit the number of returned items
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(required = false, minimum = 0, maximum = 250, default = 50)]
    limit: i64,
    /// The iterator returned from a prior invocation; with a minus sign in front, the page before it
    #[param(max_length = 257)]
    iterator: Option<String>,
}

/// The order in which a list is wanted.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InOrder {
    /// The sorting order of the returned items
    #[param(inline)]
    order: Option<Ordering>,
}

impl Parameters for Paging {}
impl Parameters for InOrder {}

fn default_limit() -> i64 {
    DEFAULT_LIMIT
}

fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let limit: Option<i64> = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let limit = limit.filter(|limit| *limit <= MAX_LIMIT);
    limit.ok_or_else(|| D::Error::custom(format!("must be a number from 0 to {MAX_LIMIT}")))
}

impl InOrder {
    /// Whether the list is wanted ascending.
    pub(crate) fn is_ascending(self, default: bool) -> bool {
        self.order.map_or(default, |order| order == Ordering::Ascending)
    }
}

impl Paging {
    /// The page of a list of things with ids.
    pub(crate) fn of_ids<I: Id>(self, is_ascending: bool) -> ApiResult<PageRequest<I>> {
        self.of(is_ascending, |text| I::parse(text).map_err(|_| "is not an iterator that a page of this list carried"))
    }

    /// The page of a list of things with names. An older release accepted names that are refused now: pages still end at them.
    pub(crate) fn of_names(self, is_ascending: bool) -> ApiResult<PageRequest<String>> {
        self.of(is_ascending, |text| check_text(text).map(|()| text.to_owned()))
    }

    fn of<K, E: std::fmt::Display>(self, is_ascending: bool, read: impl Fn(&str) -> Result<K, E>) -> ApiResult<PageRequest<K>> {
        let Self { limit, iterator } = self;
        let is_backwards = iterator.as_ref().is_some_and(|text| text.starts_with(BACKWARDS));
        let cursor = iterator.map(|text| read(text.strip_prefix([BACKWARDS, ONWARDS]).unwrap_or(&text))).transpose();
        let cursor = cursor.map_err(|error| ApiError::invalid(&["query", "iterator"], error.to_string()))?;
        Ok(PageRequest { limit, cursor, is_backwards, is_ascending })
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

/// A page as an answer.
#[derive(Debug)]
pub(crate) struct Listed<T>(Reply<200, ListResponse<T>>);

impl<T> From<Answered> for Listed<T> {
    fn from(answered: Answered) -> Self {
        Self(answered.into())
    }
}

impl<T> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl<T: ToSchema> Replies for Listed<T> {
    fn into_answer(self) -> Answer {
        self.0.into_answer()
    }

    /// A page of each kind of item has a name of its own.
    fn document(operation: &mut Operation, schemas: &mut Schemas) {
        let name = format!("ListResponse_{}", T::name());
        schemas.extend([(name.clone(), ListResponse::<T>::schema()), (T::name().into_owned(), T::schema())]);
        T::schemas(schemas);
        add_named(operation, 200, "A page", Some(&name));
    }
}

/// Renders a page: `key` is an item's place in the list.
pub(crate) fn list<'a, T, W: Serialize>(page: &'a Page<T>, key: impl Fn(&T) -> String, render: impl Fn(&'a T) -> W) -> Listed<W> {
    let onwards = |place: String| if place.starts_with(BACKWARDS) { format!("{ONWARDS}{place}") } else { place };
    let iterator = page.items.last().map(|item| onwards(key(item)));
    let prev_iterator = page.items.first().map(|item| format!("{BACKWARDS}{}", key(item)));
    let data = page.items.iter().map(render).collect();
    Listed(Reply::new(&ListResponse { data, iterator, prev_iterator, done: !page.has_more }))
}

#[cfg(test)]
mod tests {
    use domain::id::ApplicationId;
    use uuid::Uuid;

    use super::*;
    use crate::transport::query::{Query, Question};

    fn read(raw: &str) -> ApiResult<Paging> {
        Query::parse(raw).and_then(|query| Paging::read(&query))
    }

    fn page(raw: &str) -> Result<PageRequest<ApplicationId>, String> {
        read(raw).and_then(|paging| paging.of_ids(true)).map_err(|error| match error {
            ApiError::Invalid(problem) => problem.place.join("."),
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
            let page = read(raw).and_then(|paging| paging.of_names(true)).expect("a page");
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
        let body = |reply: Listed<u8>| async {
            let body = reply.into_response().into_body();
            String::from_utf8(axum::body::to_bytes(body, 1000).await.expect("a body").to_vec()).expect("text")
        };
        let full = body(render(vec![1, 2], true)).await;
        assert_eq!(full, r#"{"data":[1,2],"iterator":"2","prevIterator":"-1","done":false}"#);
        assert_eq!(body(render(vec![], false)).await, r#"{"data":[],"iterator":null,"done":true}"#);
    }
}
