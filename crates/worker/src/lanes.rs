//! Bounds how many sends to one endpoint are under way: the rest of its jobs wait in line, in the order in which they came.

use std::{collections::HashMap, sync::Arc};

use domain::id::EndpointId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One lane per endpoint that has jobs; it is gone with the last of them.
#[derive(Debug)]
pub(crate) struct Lanes {
    width: usize,
    lanes: Mutex<HashMap<EndpointId, Arc<Semaphore>>>,
}

/// A place in a lane, or in the line before it; given up when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    lanes: &'a Lanes,
    endpoint_id: EndpointId,
    lane: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    /// Lanes for `width` sends at a time.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, lanes: Mutex::default() }
    }

    /// Sends everybody in line before the endpoint's lane away; those who are in it go on.
    pub(crate) fn clear(&self, endpoint_id: EndpointId) {
        if let Some(lane) = self.lanes.lock().remove(&endpoint_id) {
            lane.close();
        }
    }

    /// Gets in line for the endpoint's lane.
    pub(crate) fn enter(&self, endpoint_id: EndpointId) -> Place<'_> {
        let lane = Arc::clone(self.lanes.lock().entry(endpoint_id).or_insert_with(|| Arc::new(Semaphore::new(self.width))));
        let permit = Arc::clone(&lane).try_acquire_owned().ok();
        Place { lanes: self, endpoint_id, lane, permit }
    }
}

impl Place<'_> {
    /// Returns when it is this place's turn: `true`; or when the line was sent away: `false`.
    pub(crate) async fn turn(&mut self) -> bool {
        if self.permit.is_none() {
            self.permit = Arc::clone(&self.lane).acquire_owned().await.ok();
        }
        self.permit.is_some()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut lanes = self.lanes.lanes.lock();
        // The map has one reference and this place the other: nobody else is in the lane, and nobody can enter meanwhile. A lane
        // that was cleared is not in the map any more.
        let is_last = Arc::strong_count(&self.lane) == 2;
        if is_last && lanes.get(&self.endpoint_id).is_some_and(|lane| Arc::ptr_eq(lane, &self.lane)) {
            lanes.remove(&self.endpoint_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_endpoint_waits_and_another_does_not() {
        let lanes = Lanes::new(2);
        let [busy, quiet] = [1, 2].map(|id| EndpointId(format!("00000000-0000-7000-8000-00000000000{id}").parse().expect("a uuid")));
        let mut first = lanes.enter(busy);
        let mut second = lanes.enter(busy);
        let mut third = lanes.enter(busy);
        let mut other = lanes.enter(quiet);
        assert!(first.turn().now_or_never().is_some());
        assert!(second.turn().now_or_never().is_some());
        assert!(third.turn().now_or_never().is_none());
        assert!(other.turn().now_or_never().is_some());
        drop(first);
        assert!(third.turn().now_or_never().is_some());
        drop((second, third, other));
        assert!(lanes.lanes.lock().is_empty());
    }

    #[test]
    fn a_line_that_is_cleared_goes_away_and_a_new_one_forms() {
        let lanes = Lanes::new(1);
        let endpoint = EndpointId("00000000-0000-7000-8000-000000000001".parse().expect("a uuid"));
        let (mut first, mut second) = (lanes.enter(endpoint), lanes.enter(endpoint));
        assert_eq!(first.turn().now_or_never(), Some(true));
        assert_eq!(second.turn().now_or_never(), None);
        lanes.clear(endpoint);
        assert_eq!(second.turn().now_or_never(), Some(false));
        let mut third = lanes.enter(endpoint);
        assert_eq!(third.turn().now_or_never(), Some(true));
        drop((first, second));
        assert_eq!(lanes.lanes.lock().len(), 1, "the new lane is still there");
        drop(third);
        assert!(lanes.lanes.lock().is_empty());
    }
}
