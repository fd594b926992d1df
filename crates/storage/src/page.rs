//! Keyset pages: a place in a list, a direction, and a limit.

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

/// Part of a list, in the list's order whichever way it was scanned.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether the list goes on in the direction of the request.
    pub has_more: bool,
}
