//! Endpoints that this process does not send to for a moment, because its own way to them is barred.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::id::EndpointId;
use parking_lot::RwLock;

/// The first pause; doubled each time that the way is still barred.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// What was noted so long ago says nothing any more.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// For each endpoint that could not be reached by our own fault: when that was, and for how long it is left alone.
#[derive(Debug, Default)]
pub(crate) struct PutOff(RwLock<HashMap<EndpointId, Pause>>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    since: Instant,
    length: Duration,
}

impl Pause {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + self.length
    }
}

impl PutOff {
    /// Leaves the endpoint alone for a while: longer than the last time, unless that is not over.
    pub(crate) fn begin(&self, endpoint_id: EndpointId, now: Instant) {
        let mut pauses = self.0.write();
        let length = match pauses.get(&endpoint_id) {
            Some(pause) if !pause.is_over(now) => return,
            Some(pause) => (pause.length * 2).clamp(FIRST, LONGEST),
            None => FIRST,
        };
        pauses.retain(|_, pause| now < pause.since + FORGOTTEN_AFTER);
        pauses.insert(endpoint_id, Pause { since: now, length });
    }

    /// The way was barred once more, and that is put down to the endpoint: it is not left alone on that account.
    pub(crate) fn note(&self, endpoint_id: EndpointId, now: Instant) {
        self.0.write().insert(endpoint_id, Pause { since: now, length: Duration::ZERO });
    }

    /// When the way to the endpoint was last found to be barred, if it has not been open since.
    pub(crate) fn since(&self, endpoint_id: EndpointId) -> Option<Instant> {
        self.0.read().get(&endpoint_id).map(|pause| pause.since)
    }

    /// The way to the endpoint is open.
    pub(crate) fn end(&self, endpoint_id: EndpointId) {
        let is_noted = self.0.read().contains_key(&endpoint_id);
        if is_noted {
            self.0.write().remove(&endpoint_id);
        }
    }

    /// Whether the endpoint is left alone.
    pub(crate) fn has(&self, endpoint_id: EndpointId) -> bool {
        self.0.read().get(&endpoint_id).is_some_and(|pause| !pause.is_over(Instant::now()))
    }

    /// Those that are left alone.
    pub(crate) fn all(&self) -> Vec<EndpointId> {
        let now = Instant::now();
        self.0.read().iter().filter(|(_, pause)| !pause.is_over(now)).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::types::Uuid;

    use super::*;

    #[test]
    fn pauses_grow_until_the_way_is_open() {
        let (put_off, endpoint, begun) = (PutOff::default(), EndpointId(Uuid::from_u128(1)), Instant::now());
        let length = || put_off.0.read()[&endpoint].length.as_secs();
        let mut now = begun;
        let mut lengths = Vec::new();
        for _ in 0..7 {
            put_off.begin(endpoint, now);
            put_off.begin(endpoint, now);
            lengths.push(length());
            now += Duration::from_secs(length());
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 30, 30], "those that fail together count once");
        put_off.end(endpoint);
        assert_eq!(put_off.since(endpoint), None);
        put_off.begin(endpoint, now);
        assert_eq!((length(), put_off.since(endpoint)), (1, Some(now)));
    }

    #[test]
    fn what_is_put_down_to_the_endpoint_is_remembered_and_nothing_waits() {
        let (put_off, endpoint, now) = (PutOff::default(), EndpointId(Uuid::from_u128(1)), Instant::now());
        put_off.begin(endpoint, now);
        assert!(put_off.has(endpoint) && put_off.all() == [endpoint]);
        let later = now + Duration::from_secs(2);
        put_off.note(endpoint, later);
        assert_eq!(put_off.since(endpoint), Some(later));
        let other = EndpointId(Uuid::from_u128(2));
        put_off.begin(other, later + FORGOTTEN_AFTER);
        assert_eq!(put_off.since(endpoint), None, "it was long ago");
    }
}
