//! Who is next: the new messages that wait for the writer, by tenant, and by application or source, of which each gets its share.
//!
//! A share is counted in what it costs to store: a message for thousands of endpoints is as many rows. Whoever has had the least
//! comes first, and whoever comes anew begins at what the others have had. So a neighbour of one who publishes more than can be
//! written waits for the batch at hand and no longer.

use std::collections::{HashMap, HashSet, VecDeque};

use domain::id::{ApplicationId, SourceId, TenantId};
use sqlx::types::Uuid;

use super::pending::Pending;

/// The most new messages, and the most finished sends, of one batch.
pub(super) const CAP: usize = 256;
/// The most payload bytes of one batch: a statement must fit in memory several times over.
const CAP_BYTES: usize = 8 << 20;
/// The most rows of messages and deliveries of one batch, so that it takes some tens of milliseconds. A message brings its fan-out if
/// that is small, so each of them fits.
const CAP_ROWS: usize = 2_000;
/// So many bytes of payload cost as much as one row.
const BYTES_PER_ROW: usize = 2 << 10;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    tenants: HashMap<TenantId, Tenant>,
    /// What the tenant that came last had had.
    had: u64,
}

#[derive(Debug, Default)]
struct Tenant {
    had: u64,
    lanes: HashMap<Whose, Lane>,
    /// What the one that came last had had.
    lane_had: u64,
}

/// Among those of a tenant, who publishes. All sources send to one application, so each of them stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Application(ApplicationId),
    Source(SourceId),
}

impl Whose {
    fn of(pending: &Pending) -> Self {
        pending.source_id().map_or(Self::Application(pending.subscribers.application.id), Self::Source)
    }
}

#[derive(Debug, Default)]
struct Lane {
    had: u64,
    waiting: VecDeque<Pending>,
}

/// A batch while it is put together.
#[derive(Debug, Default)]
struct Filling {
    new: Vec<Pending>,
    names: HashSet<Uuid>,
    bytes: usize,
    rows: usize,
    /// Whose next message must wait for another batch.
    full: HashSet<Whose>,
    /// What may not share this batch.
    aside: Vec<Pending>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.lane(&pending).waiting.push_back(pending);
    }

    fn lane(&mut self, pending: &Pending) -> &mut Lane {
        let application = &pending.subscribers.application;
        let had = self.had;
        let tenant = self.tenants.entry(application.tenant_id).or_insert_with(|| Tenant { had, ..Tenant::default() });
        let had = tenant.lane_had;
        tenant.lanes.entry(Whose::of(pending)).or_insert_with(|| Lane { had, ..Lane::default() })
    }

    /// The next batch. Left for a later one is what must not share it: a second use of a name (advisory locks are re-entrant, so
    /// the statement could not tell the two apart), and what would make the statement too large.
    pub(super) fn take(&mut self) -> Vec<Pending> {
        let mut filling = Filling::default();
        while filling.new.len() < CAP
            && let Some((tenant_id, whose)) = self.next(&filling.full)
        {
            self.take_from(tenant_id, whose, &mut filling);
        }
        for pending in filling.aside.into_iter().rev() {
            self.lane(&pending).waiting.push_front(pending);
        }
        filling.new
    }

    /// Who has had the least, and of its applications and sources the one that has.
    fn next(&self, full: &HashSet<Whose>) -> Option<(TenantId, Whose)> {
        let open = |tenant: &Tenant| {
            let lanes = tenant.lanes.iter().filter(|(id, _)| !full.contains(id));
            lanes.min_by_key(|(_, lane)| lane.had).map(|(id, _)| *id)
        };
        let mut tenants: Option<(u64, TenantId, Whose)> = None;
        for (tenant_id, tenant) in &self.tenants {
            if tenants.is_none_or(|(least, ..)| tenant.had < least)
                && let Some(whose) = open(tenant)
            {
                tenants = Some((tenant.had, *tenant_id, whose));
            }
        }
        tenants.map(|(_, tenant_id, whose)| (tenant_id, whose))
    }

    fn take_from(&mut self, tenant_id: TenantId, whose: Whose, filling: &mut Filling) {
        let Some(tenant) = self.tenants.get_mut(&tenant_id) else { return };
        let Some(lane) = tenant.lanes.get_mut(&whose) else { return };
        match lane.waiting.pop_front() {
            Some(pending) => match filling.add(pending) {
                Fit::Taken(cost) => {
                    (self.had, tenant.lane_had) = (self.had.max(tenant.had), tenant.lane_had.max(lane.had));
                    tenant.had += cost;
                    lane.had += cost;
                }
                Fit::Gone => {}
                Fit::NoRoom(pending) => {
                    lane.waiting.push_front(*pending);
                    filling.full.insert(whose);
                }
            },
            None => drop(tenant.lanes.remove(&whose)),
        }
        if tenant.lanes.is_empty() {
            self.tenants.remove(&tenant_id);
        }
    }
}

/// Whether a message has a place in a batch.
enum Fit {
    /// It has, at so much.
    Taken(u64),
    /// It has been withdrawn, or is to wait beside the line.
    Gone,
    /// Not in this one.
    NoRoom(Box<Pending>),
}

impl Filling {
    fn add(&mut self, pending: Pending) -> Fit {
        if pending.is_withdrawn() {
            return Fit::Gone;
        }
        let (bytes, rows) = (pending.new.bytes(), pending.rows());
        let is_too_much = self.bytes + bytes > CAP_BYTES || self.rows + rows > CAP_ROWS;
        if is_too_much && !self.new.is_empty() {
            return Fit::NoRoom(Box::new(pending));
        }
        let own = [pending.claim.map(|claim| claim.scope), pending.event_id_hash, pending.message_key_hash];
        if own.iter().flatten().any(|name| self.names.contains(name)) {
            self.aside.push(pending);
            return Fit::Gone;
        }
        self.names.extend(own.into_iter().flatten());
        self.bytes += bytes;
        self.rows += rows;
        self.new.push(pending);
        Fit::Taken((rows + bytes / BYTES_PER_ROW) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use chrono::DateTime;
    use domain::{application::Application, idempotency::Policy, message::Particulars};
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        Result,
        applications::Reference,
        committer::{KeyScope, NewMessage, pending::Settled, room::Room},
        directory::Subscribers,
    };

    /// The most that one message may owe at once.
    const MOST: usize = crate::tasks::OWED_AT_ONCE;

    /// A line, and the publishers, who wait.
    #[derive(Default)]
    struct Publishers {
        line: Line,
        waiting: Vec<oneshot::Receiver<Result<Settled>>>,
    }

    impl Publishers {
        fn publish(&mut self, tenant: u128, application: u128, fan_out: usize) {
            self.publish_by(None, tenant, application, fan_out);
        }

        fn publish_by(&mut self, source: Option<u128>, tenant: u128, application: u128, fan_out: usize) {
            let source = source.map(|source| Uuid::from_u128(source).into());
            let application = Application {
                id: Uuid::from_u128(application).into(),
                tenant_id: Uuid::from_u128(tenant).into(),
                uid: None,
                name: String::new(),
                throttle_rate: None,
                metadata: domain::application::Metadata::new(),
                version: 1,
                created_at: DateTime::UNIX_EPOCH,
                updated_at: DateTime::UNIX_EPOCH,
            };
            let place = Arc::new(Room::default()).take(application.tenant_id, source, 2).expect("room");
            let new = NewMessage {
                application: Reference::Id(application.id),
                subscribers: Arc::new(Subscribers {
                    application,
                    targets: Vec::new(),
                    policy: Policy::default(),
                    project: Arc::default(),
                    tenant: "a tenant".into(),
                }),
                event_type: "x".into(),
                event_id: None,
                channels: Vec::new(),
                message_key: None,
                key_scope: KeyScope::Application,
                payload: Bytes::from_static(b"{}"),
                content_type: "application/json".into(),
                particulars: source.map(|source| Arc::new(Particulars { source: Some(source), ..Particulars::default() })),
                broadcast: None,
                payload_retention: None,
                claim: None,
            };
            let (reply, outcome) = oneshot::channel();
            let mut pending = Pending::new(Uuid::from_u128(rand::random()).into(), Arc::new(new), None, reply, None, place);
            pending.wanted_by = fan_out;
            self.line.push(pending);
            self.waiting.push(outcome);
        }

        /// The next batch: each message's tenant and how many deliveries it owes.
        fn take(&mut self) -> Vec<(u128, usize)> {
            let batch = self.line.take();
            batch.iter().map(|pending| (Uuid::from(pending.subscribers.application.tenant_id).as_u128(), pending.wanted_by)).collect()
        }
    }

    #[test]
    fn a_batch_owes_no_more_than_it_may() {
        for seed in 0..50 {
            let (mut chance, mut publishers) = (StdRng::seed_from_u64(seed), Publishers::default());
            let offered = 200;
            for _ in 0..offered {
                let fan_out = if chance.random_bool(0.3) { chance.random_range(0..MOST) } else { chance.random_range(0..20) };
                publishers.publish(chance.random_range(1..4), chance.random_range(1..6), fan_out);
            }
            let mut taken = 0;
            while !publishers.line.is_empty() {
                let batch = publishers.take();
                let rows: usize = batch.iter().map(|(_, fan_out)| 1 + fan_out).sum();
                assert!(rows <= CAP_ROWS, "seed {seed}: {batch:?}");
                assert!(batch.len() <= CAP, "seed {seed}");
                taken += batch.len();
            }
            assert_eq!(taken, offered, "seed {seed}: each is taken, and once");
        }
    }

    #[test]
    fn whoever_has_something_waiting_gets_as_much_as_anybody_else() {
        for seed in 0..12 {
            let (mut chance, mut publishers) = (StdRng::seed_from_u64(seed), Publishers::default());
            let sizes: Vec<usize> = (0..4).map(|_| *[1, 20, 80, MOST].get(chance.random_range(0..4_usize)).expect("one of them")).collect();
            let mut had = vec![0; sizes.len()];
            let mut backlog = vec![0; sizes.len()];
            for round in 0..60 {
                for (tenant, size) in sizes.iter().enumerate() {
                    while backlog[tenant] <= CAP {
                        publishers.publish(tenant as u128, tenant as u128, *size);
                        backlog[tenant] += 1;
                    }
                }
                for (tenant, fan_out) in publishers.take() {
                    let tenant = usize::try_from(tenant).expect("a small number");
                    backlog[tenant] -= 1;
                    had[tenant] += 1 + fan_out;
                }
                let (least, most) = (had.iter().min().expect("some"), had.iter().max().expect("some"));
                assert!(most - least <= 2 * (MOST + 1), "seed {seed}, round {round}: {sizes:?} had {had:?}");
            }
        }
    }

    #[test]
    fn a_source_waits_behind_no_other_of_its_tenant() {
        let mut publishers = Publishers::default();
        for _ in 0..20 * CAP {
            publishers.publish_by(Some(1), 1, 1, 20);
        }
        publishers.take();
        publishers.publish_by(Some(2), 1, 1, 3);
        publishers.publish(1, 1, 4);
        let batch = publishers.take();
        assert!(batch.contains(&(1, 3)), "another source has its turn in the next batch");
        assert!(batch.contains(&(1, 4)), "and so has the application");
    }

    #[test]
    fn who_comes_anew_waits_for_no_more_batches_than_there_are_others() {
        for seed in 0..50 {
            let (mut chance, mut publishers) = (StdRng::seed_from_u64(seed), Publishers::default());
            let others = chance.random_range(1..5_u128);
            for _ in 0..400 {
                publishers.publish(chance.random_range(1..=others), chance.random_range(1..4), chance.random_range(1..MOST));
            }
            for _ in 0..chance.random_range(0..50) {
                publishers.take();
            }
            publishers.publish(0, 0, 1);
            let waits = (0..10_000).find(|_| publishers.take().iter().any(|(tenant, _)| *tenant == 0)).expect("some time");
            assert!(waits <= others, "seed {seed}: {others} others were served {waits} times");
        }
    }
}
