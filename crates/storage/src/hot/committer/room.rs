//! How much may wait for the writer: so many messages and bytes in all, of which no tenant takes the half that is for others, and no source what is
//! for the rest of its tenant.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::Arc,
};

use domain::id::{SourceId, TenantId};
use parking_lot::Mutex;

/// How many new messages may wait for the writer; more are refused.
const WAITING: usize = 8192;
/// How many bytes of payload may wait for the writer; more are refused.
pub(super) const WAITING_BYTES: usize = 256 << 20;

/// What waits, and whose it is.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: Load,
    tenants: HashMap<TenantId, Load>,
    sources: HashMap<SourceId, Load>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

/// The place of one message; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    tenant_id: TenantId,
    source_id: Option<SourceId>,
    bytes: usize,
}

impl Room {
    /// A place, if there is one: a tenant may have as many as it leaves to others, and a source as many as it leaves to its tenant.
    pub(super) fn take(self: &Arc<Self>, tenant_id: TenantId, source_id: Option<SourceId>, bytes: usize) -> Option<Place> {
        let mut taken = self.taken.lock();
        let Taken { in_all, tenants, sources } = &mut *taken;
        let own = tenants.get(&tenant_id).copied().unwrap_or_default();
        let (messages_left, bytes_left) = (WAITING - in_all.messages, WAITING_BYTES.saturating_sub(in_all.bytes));
        if own.messages >= messages_left || bytes > bytes_left || own.bytes > bytes_left {
            return None;
        }
        if let Some(source_id) = source_id {
            let by_source = sources.get(&source_id).copied().unwrap_or_default();
            if by_source.messages >= messages_left - own.messages || by_source.bytes > bytes_left - own.bytes {
                return None;
            }
            sources.insert(source_id, by_source.and(bytes));
        }
        tenants.insert(tenant_id, own.and(bytes));
        *in_all = in_all.and(bytes);
        drop(taken);
        Some(Place { room: Arc::clone(self), tenant_id, source_id, bytes })
    }
}

impl Load {
    fn and(self, bytes: usize) -> Self {
        Self { messages: self.messages + 1, bytes: self.bytes + bytes }
    }

    fn without(self, bytes: usize) -> Self {
        Self { messages: self.messages.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.in_all = taken.in_all.without(self.bytes);
        give_back(&mut taken.tenants, self.tenant_id, self.bytes);
        if let Some(source_id) = self.source_id {
            give_back(&mut taken.sources, source_id, self.bytes);
        }
    }
}

fn give_back<K: Eq + Hash>(loads: &mut HashMap<K, Load>, whose: K, bytes: usize) {
    if let Entry::Occupied(mut load) = loads.entry(whose) {
        *load.get_mut() = load.get().without(bytes);
        if load.get().messages == 0 {
            load.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn one_tenant_takes_half_and_gives_it_back() {
        let room = Arc::new(Room::default());
        let all_of =
            |tenant: u128, bytes| (0..WAITING).map_while(|_| room.take(Uuid::from_u128(tenant).into(), None, bytes)).collect::<Vec<_>>();
        let (first, second) = (all_of(1, 0), all_of(2, 0));
        assert_eq!([first.len(), second.len()], [WAITING / 2, WAITING / 4]);
        assert!(all_of(1, 0).is_empty());
        drop((first, second));
        assert!(room.taken.lock().tenants.is_empty());
        assert!(room.take(Uuid::from_u128(1).into(), None, WAITING_BYTES + 1).is_none());
        let large = all_of(1, WAITING_BYTES / 8);
        assert_eq!(large.len(), 5, "as long as no more is taken than left");
        assert!(room.take(Uuid::from_u128(2).into(), None, WAITING_BYTES / 8).is_some());
    }

    #[test]
    fn a_source_leaves_room_to_the_rest_of_its_tenant() {
        let room = Arc::new(Room::default());
        let (tenant, source) = (Uuid::from_u128(1).into(), |source: u128| Some(Uuid::from_u128(source).into()));
        let all_of = |by: u128, bytes| (0..WAITING).map_while(|_| room.take(tenant, source(by), bytes)).collect::<Vec<_>>();
        let flood = all_of(1, 0);
        assert_eq!(flood.len(), WAITING.div_ceil(3));
        assert!(room.take(tenant, source(2), 0).is_some() && room.take(tenant, None, 0).is_some());
        drop(flood);
        let large = all_of(1, WAITING_BYTES / 16);
        assert!(large.len() < 8 && room.take(tenant, source(2), WAITING_BYTES / 16).is_some());
        drop(large);
        let taken = room.taken.lock();
        assert!(taken.tenants.is_empty() && taken.sources.is_empty());
    }
}
