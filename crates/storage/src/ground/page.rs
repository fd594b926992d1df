//! Keyset pages: a place in a list, a direction, and a limit.
//!
//! A list is two statements, one for each direction, which look between two bounds that are always there: so an index alone serves,
//! in its order, whatever is asked for and however the statement is planned.

use chrono::{DateTime, Utc};
use domain::id;
use sqlx::types::Uuid;

/// Where a page begins and which way it runs.
#[derive(Clone, Debug)]
pub struct PageRequest<K> {
    /// The most items on the page.
    pub limit: i64,
    /// Begin after this key (or, going back, before it).
    pub cursor: Option<K>,
    /// Whether `cursor` is the first item of the page after the wanted one.
    pub is_backwards: bool,
    /// Whether the list itself runs from small keys to large ones.
    pub is_ascending: bool,
}

impl<K> PageRequest<K> {
    /// Whether the scan itself runs from small keys to large ones.
    pub(crate) fn scans_up(&self) -> bool {
        self.is_ascending != self.is_backwards
    }

    /// How many rows to ask for: one more than wanted shows whether the list goes on.
    pub(crate) fn rows(&self) -> i64 {
        self.limit + 1
    }

    /// Makes a page of the rows that a scan brought.
    pub(crate) fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(0);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        if self.is_backwards {
            rows.reverse();
        }
        Page { items: rows, has_more }
    }
}

impl<K: Copy + Into<Uuid>> PageRequest<K> {
    /// Between which ids the page lies, the second one excluded, if the list has only what was made in `after..before`.
    pub(crate) fn bounds(&self, after: Option<DateTime<Utc>>, before: Option<DateTime<Utc>>) -> (Uuid, Uuid) {
        let mut first = after.map_or(Uuid::nil(), id::from);
        let mut end = before.map_or(Uuid::from_u128(u128::MAX), id::from);
        match self.cursor.map(Into::into) {
            Some(cursor) if self.scans_up() => first = first.max(Uuid::from_u128(cursor.as_u128().saturating_add(1))),
            Some(cursor) => end = end.min(cursor),
            None => {}
        }
        (first, end)
    }
}

/// Part of a list, in the list's order whichever way it was scanned.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether the list goes on in the direction of the request.
    pub has_more: bool,
}
