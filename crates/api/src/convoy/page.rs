//! Pages of lists on the wire: `perPage` items from a cursor on, which is the first item of the page that it leads to.

use std::borrow::Cow;

use chrono::{DateTime, Days, NaiveDateTime, NaiveTime, Utc};
use domain::id::Id;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use storage::page::{Page, PageRequest};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{ArrayBuilder, Ref, RefOr, Schema},
};
use uuid::Uuid;

use super::answer::{Told, object};
use crate::{
    error::{ApiError, ApiResult},
    transport::{query::Parameters, reply::Schemas},
};

/// The items of a page whose size the client does not name.
const DEFAULT_SIZE: i64 = 20;
/// The most items of one page.
const MAX_SIZE: i64 = 1000;
/// A cursor behind everything, which clients send that have none.
const BEHIND_ALL: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";
/// How times are written in queries: without a zone, so they are UTC.
const FORMAT: &str = "%Y-%m-%dT%H:%M:%S";
/// A list that says nothing of times begins so many days ago.
const DAYS: Days = Days::new(7);

/// In which order a list is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Sort {
    /// From the first made to the last.
    #[serde(alias = "asc")]
    Asc,
    /// From the last made to the first.
    #[default]
    #[serde(alias = "desc")]
    Desc,
}

/// Which way a list is turned over.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Direction {
    /// To the page that begins at `next_page_cursor`.
    #[default]
    Next,
    /// To the page that ends before `prev_page_cursor`.
    Prev,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The number of items to return per page; 0 is as if it were not there
    #[serde(default = "default_size", rename = "perPage", deserialize_with = "size")]
    #[param(required = false, minimum = 0, maximum = 1000, default = 20)]
    per_page: i64,
    /// The order of the items: by when they were made
    #[serde(default)]
    #[param(required = false, inline, default = "DESC")]
    sort: Sort,
    /// Which of the two cursors counts
    #[serde(default)]
    #[param(required = false, inline, default = "next")]
    direction: Direction,
    /// The first item of the page, as the page before it said
    next_page_cursor: Option<String>,
    /// The item that follows the page, as the page after it said
    prev_page_cursor: Option<String>,
}

impl Parameters for Paging {}

fn default_size() -> i64 {
    DEFAULT_SIZE
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size: Option<i64> = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let size = size.filter(|size| *size <= MAX_SIZE);
    let size = size.ok_or_else(|| D::Error::custom(format!("must be a number from 1 to {MAX_SIZE}")))?;
    Ok(if size == 0 { DEFAULT_SIZE } else { size })
}

/// A page that is asked for, as its answer needs it again.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<I> {
    size: i64,
    /// The cursor that counts.
    cursor: Option<I>,
    is_backwards: bool,
    /// What the list is read by: one more than wanted, so that the page knows the cursor of the next one.
    pub(crate) request: PageRequest<I>,
}

impl Paging {
    /// The cursor that counts, if there is one, and what it names.
    fn cursor<K>(&self, read: impl Fn(&str) -> Option<K>) -> ApiResult<Option<(String, K)>> {
        let (name, cursor) = match self.direction {
            Direction::Next => ("next_page_cursor", &self.next_page_cursor),
            Direction::Prev => ("prev_page_cursor", &self.prev_page_cursor),
        };
        let cursor = cursor.clone().filter(|text| !text.is_empty() && !text.eq_ignore_ascii_case(BEHIND_ALL));
        let unknown = || ApiError::invalid(&["query", name], "is not a cursor that a page of this list carried");
        cursor.map(|text| read(&text).map(|named| (text, named)).ok_or_else(unknown)).transpose()
    }

    /// The page of a list of things with ids.
    pub(crate) fn of_ids<I: Id>(self) -> ApiResult<Wanted<I>> {
        let (is_backwards, is_ascending) = (self.direction == Direction::Prev, self.sort == Sort::Asc);
        let cursor = self.cursor(|text| I::parse_ulid(text).ok())?.map(|(_, id)| id);
        // A page begins behind the cursor that storage is given, and the item that ours names is on the page.
        let behind = |id: I| {
            let id: Uuid = id.into();
            let beside = if is_ascending { id.as_u128().saturating_sub(1) } else { id.as_u128().saturating_add(1) };
            I::from(Uuid::from_u128(beside))
        };
        let place = if is_backwards { cursor } else { cursor.map(behind) };
        let limit = if is_backwards { self.per_page } else { self.per_page + 1 };
        let request = PageRequest { limit, cursor: place, is_backwards, is_ascending };
        Ok(Wanted { size: self.per_page, cursor, is_backwards, request })
    }
}

/// A page of a list whose items have longer names than ids, and which is read from the item on that the page begins with.
#[derive(Clone, Debug)]
pub(crate) struct WantedKeys<K> {
    size: i64,
    cursor: Option<String>,
    is_backwards: bool,
    /// The first item that is read,
    pub(crate) from: Option<K>,
    /// whether from small ones to large ones,
    pub(crate) is_up: bool,
    /// and how many.
    pub(crate) most: usize,
}

impl Paging {
    /// The page of a list of things with such names.
    pub(crate) fn of_keys<K>(self, read: impl Fn(&str) -> Option<K>) -> ApiResult<WantedKeys<K>> {
        let (is_backwards, is_ascending) = (self.direction == Direction::Prev, self.sort == Sort::Asc);
        let (cursor, from) = self.cursor(read)?.unzip();
        // One more than wanted shows whether the list goes on; backwards the item of the cursor is read, too.
        let most = usize::try_from(self.per_page).unwrap_or(usize::MAX).saturating_add(1 + usize::from(is_backwards));
        Ok(WantedKeys { size: self.per_page, cursor, is_backwards, from, is_up: is_ascending != is_backwards, most })
    }
}

impl<K> WantedKeys<K> {
    /// Renders what was read: `name` names an item, `goes_on_at` the next one if no more were looked for.
    pub(crate) fn told<'a, T, W: Serialize>(
        &self,
        message: &str,
        found: &'a [T],
        goes_on_at: Option<String>,
        name: impl Fn(&T) -> String,
        render: impl Fn(&'a T) -> W,
    ) -> Told<200, Paged<W>> {
        let is_cursor = |item: &T| self.is_backwards && self.cursor.as_ref() == Some(&name(item));
        let found: Vec<_> = found.iter().filter(|item| !is_cursor(item)).collect();
        let size = usize::try_from(self.size).unwrap_or(usize::MAX).min(found.len());
        let (shown, beyond) = found.split_at(size);
        let mut shown = shown.to_vec();
        let ahead = beyond.first().map(|item| name(item)).or(goes_on_at);
        let (next, has_prev) = if self.is_backwards {
            shown.reverse();
            (self.cursor.clone(), ahead.is_some())
        } else {
            (ahead, self.cursor.is_some())
        };
        let pagination = Pagination {
            per_page: self.size,
            has_next_page: next.is_some(),
            has_prev_page: has_prev,
            prev_page_cursor: shown.first().map(|item| name(item)).unwrap_or_default(),
            next_page_cursor: next.or_else(|| shown.last().filter(|_| shown.len() > 1).map(|item| name(item))).unwrap_or_default(),
        };
        Told::new(message, &Paged { content: shown.into_iter().map(render).collect(), pagination })
    }
}

/// Where a page is in its list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ConvoyPagination)]
pub(crate) struct Pagination {
    /// How many items a page has
    #[schema(example = 20)]
    per_page: i64,
    /// Whether there is a page after this one
    has_next_page: bool,
    /// Whether there is a page before this one
    has_prev_page: bool,
    /// Where this page begins; empty if nothing is on it
    prev_page_cursor: String,
    /// Where the next page begins; of the last page the item at its end, and empty if it has only one
    next_page_cursor: String,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Paged<T> {
    content: Vec<T>,
    pagination: Pagination,
}

impl<T: ToSchema> PartialSchema for Paged<T> {
    fn schema() -> RefOr<Schema> {
        let content = Schema::from(ArrayBuilder::new().items(Ref::from_schema_name(T::name())).build()).into();
        object([("content", content), ("pagination", RefOr::Ref(Ref::from_schema_name(Pagination::name())))])
    }
}

impl<T: ToSchema> ToSchema for Paged<T> {
    fn name() -> Cow<'static, str> {
        format!("Convoy.Page_{}", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        schemas.extend([(T::name().into_owned(), T::schema()), (Pagination::name().into_owned(), Pagination::schema())]);
        T::schemas(schemas);
    }
}

impl<I: Id> Wanted<I> {
    /// Renders the page that was read: `id` names an item.
    pub(crate) fn told<'a, T, W: Serialize>(
        &self,
        message: &str,
        page: &'a Page<T>,
        id: impl Fn(&T) -> I,
        render: impl Fn(&'a T) -> W,
    ) -> Told<200, Paged<W>> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let (shown, beyond) = page.items.split_at(size.min(page.items.len()));
        let ulid = |item: &T| id(item).ulid();
        let next = match (beyond.first(), self.cursor) {
            (Some(item), _) => Some(ulid(item)),
            (None, Some(cursor)) if self.is_backwards => Some(cursor.ulid()),
            (None, _) => None,
        };
        let pagination = Pagination {
            per_page: self.size,
            has_next_page: next.is_some(),
            has_prev_page: if self.is_backwards { page.has_more } else { self.cursor.is_some() },
            prev_page_cursor: shown.first().map(ulid).unwrap_or_default(),
            next_page_cursor: next.or_else(|| shown.last().filter(|_| shown.len() > 1).map(ulid)).unwrap_or_default(),
        };
        Told::new(message, &Paged { content: shown.iter().map(render).collect(), pagination })
    }
}

/// Between which moments things of a list were made.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Dates {
    /// Not before this: `2006-01-02T15:04:05` in UTC, or RFC 3339; seven days ago if absent
    #[serde(default, rename = "startDate", deserialize_with = "date")]
    #[param(value_type = Option<String>, required = false)]
    start_date: Option<DateTime<Utc>>,
    /// Not after this; the end of today if absent
    #[serde(default, rename = "endDate", deserialize_with = "date")]
    #[param(value_type = Option<String>, required = false)]
    end_date: Option<DateTime<Utc>>,
}

impl Parameters for Dates {}

/// Clients in Go send the year 1 where they mean nothing.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let without_zone = || NaiveDateTime::parse_from_str(&text, FORMAT).map(|at| at.and_utc());
    let at = without_zone().or_else(|_| DateTime::parse_from_rfc3339(&text).map(|at| at.to_utc()));
    let is_nothing = text.is_empty() || text.starts_with("0001-");
    match at {
        _ if is_nothing => Ok(None),
        Ok(at) => Ok(Some(at)),
        Err(_) => Err(D::Error::custom("must be a time such as `2026-08-21T12:00:00`")),
    }
}

impl Dates {
    /// From when (included) until when (excluded). The end names a second, all of which belongs to it.
    pub(crate) fn span(&self, now: DateTime<Utc>) -> ApiResult<(DateTime<Utc>, DateTime<Utc>)> {
        let midnight = |at: DateTime<Utc>| at.date_naive().and_time(NaiveTime::MIN).and_utc();
        let start = self.start_date.unwrap_or_else(|| midnight(now - DAYS));
        let end = self.end_date.map_or_else(|| midnight(now + Days::new(1)), |end| end + chrono::TimeDelta::seconds(1));
        if start >= end {
            return Err(ApiError::invalid(&["query", "startDate"], "must not be after `endDate`"));
        }
        Ok((start, end))
    }
}

#[cfg(test)]
mod tests {
    use domain::id::EndpointId;
    use serde_json::{Value, json};

    use super::*;
    use crate::transport::{
        query::{Query, Question},
        reply::Replies,
    };

    fn read<Q: Question>(raw: &str) -> ApiResult<Q> {
        Query::parse(raw).and_then(|query| Q::read(&query))
    }

    fn wanted(raw: &str) -> Result<Wanted<EndpointId>, String> {
        read::<Paging>(raw).and_then(Paging::of_ids).map_err(|error| match error {
            ApiError::Invalid(problem) => problem.place.join("."),
            other => other.to_string(),
        })
    }

    /// The `number`th thing that was made.
    fn id(number: u128) -> EndpointId {
        EndpointId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number))
    }

    /// A list of so many things as storage would read it, answered.
    fn list(count: u128, raw: &str) -> (Vec<u64>, Value) {
        let wanted = wanted(raw).expect("a page");
        let PageRequest { limit, cursor, is_backwards, is_ascending } = wanted.request;
        let mut items: Vec<_> = (1..=count).collect();
        let scans_up = is_ascending != is_backwards;
        items.retain(|item| cursor.is_none_or(|cursor| if scans_up { id(*item) > cursor } else { id(*item) < cursor }));
        if !scans_up {
            items.reverse();
        }
        let limit = usize::try_from(limit).expect("a size");
        let has_more = items.len() > limit;
        items.truncate(limit);
        if is_backwards {
            items.reverse();
        }
        let answer =
            wanted.told("", &Page { items, has_more }, |item| id(*item), |item| u64::try_from(*item).expect("small")).into_answer();
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (serde_json::from_value(body["data"]["content"].clone()).expect("numbers"), body["data"]["pagination"].clone())
    }

    fn cursor(number: u128) -> String {
        id(number).ulid()
    }

    #[test]
    fn a_cursor_names_the_first_item_of_its_page() {
        let (items, at) = list(5, "perPage=2");
        assert_eq!(items, [5, 4]);
        let expected = json!({ "per_page": 2, "has_next_page": true, "has_prev_page": false, "prev_page_cursor": cursor(5), "next_page_cursor": cursor(3) });
        assert_eq!(at, expected);
        let (items, at) = list(5, &format!("perPage=2&next_page_cursor={}", cursor(3)));
        assert_eq!((items, &at["has_next_page"], &at["has_prev_page"]), (vec![3, 2], &json!(true), &json!(true)));
        assert_eq!(at["next_page_cursor"], cursor(1));
        let (items, at) = list(5, &format!("perPage=2&direction=next&next_page_cursor={}", cursor(1)));
        assert_eq!((items, &at["has_next_page"], &at["next_page_cursor"]), (vec![1], &json!(false), &json!("")));
        let (items, at) = list(5, &format!("perPage=2&direction=prev&prev_page_cursor={}", cursor(1)));
        assert_eq!((items, &at["has_prev_page"], &at["has_next_page"]), (vec![3, 2], &json!(true), &json!(true)));
        assert_eq!((&at["prev_page_cursor"], &at["next_page_cursor"]), (&json!(cursor(3)), &json!(cursor(1))));
        let (items, at) = list(5, &format!("perPage=2&direction=prev&prev_page_cursor={}", cursor(3)));
        assert_eq!((items, &at["has_prev_page"]), (vec![5, 4], &json!(false)));
    }

    #[test]
    fn a_list_is_turned_over_the_other_way_too() {
        let (items, at) = list(3, "perPage=2&sort=ASC");
        assert_eq!((items, &at["next_page_cursor"]), (vec![1, 2], &json!(cursor(3))));
        assert_eq!(list(3, &format!("perPage=2&sort=ASC&next_page_cursor={}", cursor(3))).0, [3]);
        assert_eq!(list(3, &format!("perPage=2&sort=ASC&direction=prev&prev_page_cursor={}", cursor(3))).0, [1, 2]);
        let (items, at) = list(0, "next_page_cursor=FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF&perPage=0");
        assert_eq!((items, &at["per_page"], &at["prev_page_cursor"]), (vec![], &json!(20), &json!("")));
    }

    #[test]
    fn hostile_pages_are_refused_by_name() {
        for (raw, field) in [
            ("perPage=1001", "query.perPage"),
            ("perPage=-1", "query.perPage"),
            ("perPage=", "query.perPage"),
            ("sort=up", "query.sort"),
            ("direction=back", "query.direction"),
            ("next_page_cursor=ep_1", "query.next_page_cursor"),
            ("direction=prev&prev_page_cursor=x", "query.prev_page_cursor"),
        ] {
            assert_eq!(wanted(raw).expect_err("no page"), field, "{raw}");
        }
    }

    #[test]
    fn dates_have_no_zone_and_a_week_is_the_default() {
        let now = DateTime::from_timestamp(1_787_313_600, 0).expect("a time");
        let span =
            |raw: &str| read::<Dates>(raw).and_then(|dates| dates.span(now)).map(|(start, end)| (start.to_rfc3339(), end.to_rfc3339()));
        let week = ("2026-08-14T00:00:00+00:00".to_owned(), "2026-08-22T00:00:00+00:00".to_owned());
        assert_eq!(span("").expect("a span"), week);
        assert_eq!(span("startDate=0001-01-01T00:00:00&endDate=").expect("a span"), week);
        let (start, end) = span("startDate=2026-08-01T10:00:00&endDate=2026-08-01T10:00:00Z").expect("a span");
        assert_eq!((start.as_str(), end.as_str()), ("2026-08-01T10:00:00+00:00", "2026-08-01T10:00:01+00:00"));
        for bad in ["startDate=yesterday", "startDate=2026-08-02T00:00:00&endDate=2026-08-01T00:00:00"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
