//! What this process has counted and not added to the database yet, by minute.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
};

use chrono::{DateTime, Utc};
use domain::{
    id::{ApplicationId, AttemptId, EndpointId, Id, MessageId, TenantId},
    statistics::{COUNTS, ENDS, End, NAMED_TYPES, latency_bucket},
};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::parcels::Writer;
use crate::{effect::OwedAnew, reference::Owner, report::Report, statistics::TypeCounts};

/// How many endpoints and minutes are summed at most, some 200 bytes each: a second of the busiest process, or a minute of 50,000
/// endpoints while nothing can be added.
const ENDPOINTS: usize = 50_000;
/// How many applications, minutes and event types.
const TYPES: usize = 50_000;

/// What happened to one endpoint in one minute.
pub(super) type EndpointCounts = [u32; COUNTS];

/// The types of one application in one minute.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) tenant_id: TenantId,
    pub(super) counts: HashMap<Box<str>, TypeCounts>,
}

/// A minute, in minutes since 1970.
pub(super) type Minute = i64;

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) endpoints: HashMap<(EndpointId, Minute), (TenantId, EndpointCounts)>,
    pub(super) applications: HashMap<(ApplicationId, Minute), Types>,
    types: usize,
}

/// The counts of this process.
#[derive(Debug)]
pub(crate) struct Rollups {
    sums: Mutex<Sums>,
    /// What could not be counted for want of room.
    left_out: Counter,
    pub(super) writer: tokio::sync::Mutex<Writer>,
}

impl Rollups {
    /// Nothing is counted; `left_out` will count what there is no room for.
    pub(crate) fn new(left_out: Counter) -> Self {
        Self { sums: Mutex::default(), left_out, writer: tokio::sync::Mutex::new(Writer::new()) }
    }

    /// A message was accepted, and owes deliveries to these endpoints.
    pub(crate) fn accepted(
        &self,
        owner: Owner,
        id: MessageId,
        event_type: &str,
        is_duplicate: bool,
        owed_to: impl ExactSizeIterator<Item = EndpointId>,
    ) {
        let counts = TypeCounts { messages: 1, duplicates: is_duplicate.into(), deliveries: as_u32(owed_to.len()) };
        self.add(owner, minute(id.created_at()), event_type, counts, owed_to);
    }

    /// A message that had been accepted before came to be owed to these endpoints at `now`: it was released, or is sent again.
    pub(crate) fn owed(&self, owed: &OwedAnew, now: DateTime<Utc>) {
        let counts = TypeCounts { deliveries: as_u32(owed.endpoints.len()), ..TypeCounts::default() };
        self.add(owed.owner, minute(now), &owed.event_type, counts, owed.endpoints.iter().copied());
    }

    fn add(&self, owner: Owner, minute: Minute, event_type: &str, counts: TypeCounts, owed_to: impl Iterator<Item = EndpointId>) {
        let mut sums = self.sums.lock();
        let mut is_whole = sums.add_type(owner, minute, event_type, counts);
        for endpoint_id in owed_to {
            is_whole &= sums.add_endpoint(endpoint_id, minute, owner.tenant_id, |counts| counts[0] = counts[0].saturating_add(1));
        }
        drop(sums);
        self.left_out.inc_by((!is_whole).into());
    }

    /// The result of a send was recorded.
    pub(crate) fn recorded(&self, endpoint_id: EndpointId, tenant_id: TenantId, id: AttemptId, report: &Report) {
        let end = End::of(report.outcome, report.class);
        let bucket = (report.status_code > 0).then(|| latency_bucket(report.duration));
        self.ended(endpoint_id, tenant_id, id.created_at(), end, 1, bucket);
    }

    /// Attempts or deliveries of an endpoint ended at about `now`, as the database found out.
    pub(crate) fn found(&self, endpoint_id: EndpointId, tenant_id: TenantId, end: End, count: u64, now: DateTime<Utc>) {
        self.ended(endpoint_id, tenant_id, now, end, u32::try_from(count).unwrap_or(u32::MAX), None);
    }

    fn ended(&self, endpoint_id: EndpointId, tenant_id: TenantId, at: DateTime<Utc>, end: End, count: u32, bucket: Option<usize>) {
        let places = [Some(1 + end.place()), bucket.map(|bucket| 1 + ENDS + bucket)];
        let is_counted = self.sums.lock().add_endpoint(endpoint_id, minute(at), tenant_id, |counts| {
            for place in places.into_iter().flatten() {
                counts[place] = counts[place].saturating_add(count);
            }
        });
        self.left_out.inc_by((!is_counted).into());
    }

    /// Takes all that has been counted.
    pub(super) fn take(&self) -> Sums {
        mem::take(&mut *self.sums.lock())
    }
}

impl Sums {
    /// `false`: there was no room.
    fn add_endpoint(
        &mut self,
        endpoint_id: EndpointId,
        minute: Minute,
        tenant_id: TenantId,
        add: impl FnOnce(&mut EndpointCounts),
    ) -> bool {
        let is_full = self.endpoints.len() >= ENDPOINTS;
        match self.endpoints.entry((endpoint_id, minute)) {
            Entry::Occupied(mut known) => add(&mut known.get_mut().1),
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(new) => add(&mut new.insert((tenant_id, [0; COUNTS])).1),
        }
        true
    }

    /// `false`: there was no room.
    fn add_type(&mut self, owner: Owner, minute: Minute, event_type: &str, counts: TypeCounts) -> bool {
        let is_full = self.types >= TYPES;
        let types = match self.applications.entry((owner.application_id, minute)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(new) => new.insert(Types { tenant_id: owner.tenant_id, counts: HashMap::new() }),
        };
        let is_named = types.counts.contains_key(event_type) || (types.counts.len() < NAMED_TYPES && !is_full);
        let name = if is_named { event_type } else { "" };
        if !types.counts.contains_key(name) {
            self.types += 1;
        }
        let sum = match types.counts.get_mut(name) {
            Some(sum) => sum,
            None => types.counts.entry(name.into()).or_default(),
        };
        sum.messages = sum.messages.saturating_add(counts.messages);
        sum.duplicates = sum.duplicates.saturating_add(counts.duplicates);
        sum.deliveries = sum.deliveries.saturating_add(counts.deliveries);
        true
    }
}

fn minute(at: DateTime<Utc>) -> Minute {
    at.timestamp().div_euclid(60)
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use sqlx::types::Uuid;

    use super::*;

    fn owner() -> Owner {
        Owner { tenant_id: Uuid::from_u128(1).into(), application_id: Uuid::from_u128(2).into() }
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_what_is_known_goes_on() {
        let rollups = Rollups::new(Counter::default());
        let id = |number: usize| EndpointId(Uuid::from_u128(number as u128));
        for number in 0..ENDPOINTS + 5 {
            rollups.found(id(number), owner().tenant_id, End::Canceled, 2, DateTime::UNIX_EPOCH);
        }
        rollups.found(id(7), owner().tenant_id, End::Canceled, 1, DateTime::UNIX_EPOCH);
        assert_eq!(rollups.left_out.get(), 5);
        let sums = rollups.take();
        assert_eq!((sums.endpoints.len(), sums.endpoints[&(id(7), 0)].1[10]), (ENDPOINTS, 3));
        assert!(rollups.take().endpoints.is_empty(), "it was taken");
    }

    #[test]
    fn event_types_beyond_a_hundred_are_counted_together() {
        let mut sums = Sums::default();
        for number in 0..NAMED_TYPES + 50 {
            assert!(sums.add_type(owner(), 0, &format!("type-{number}"), TypeCounts { messages: 1, ..TypeCounts::default() }));
        }
        assert!(sums.add_type(owner(), 0, "type-3", TypeCounts { messages: 1, ..TypeCounts::default() }));
        let types = &sums.applications[&(owner().application_id, 0)].counts;
        assert_eq!((types.len(), types[""].messages, types["type-3"].messages), (NAMED_TYPES + 1, 50, 2));
        assert_eq!(types.values().map(|counts| counts.messages).sum::<u32>(), 151);
        assert_eq!(sums.types, NAMED_TYPES + 1);
    }
}
