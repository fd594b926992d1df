//! How much may wait for the writer: so many messages and bytes in all, of which no tenant takes the half that is for others.

use std::{collections::HashMap, sync::Arc};

use domain::id::TenantId;
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
    bytes: usize,
}

impl Room {
    /// A place, if there is one: a tenant may have as many as it leaves to others.
    pub(super) fn take(self: &Arc<Self>, tenant_id: TenantId, bytes: usize) -> Option<Place> {
        let mut taken = self.taken.lock();
        let Taken { in_all, tenants } = &mut *taken;
        let own = tenants.get(&tenant_id).copied().unwrap_or_default();
        let (messages_left, bytes_left) = (WAITING - in_all.messages, WAITING_BYTES.saturating_sub(in_all.bytes));
        if own.messages >= messages_left || bytes > bytes_left || own.bytes > bytes_left {
            return None;
        }
        tenants.insert(tenant_id, Load { messages: own.messages + 1, bytes: own.bytes + bytes });
        *in_all = Load { messages: in_all.messages + 1, bytes: in_all.bytes + bytes };
        drop(taken);
        Some(Place { room: Arc::clone(self), tenant_id, bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        let Taken { in_all, tenants } = &mut *taken;
        in_all.messages = in_all.messages.saturating_sub(1);
        in_all.bytes = in_all.bytes.saturating_sub(self.bytes);
        if let Some(own) = tenants.get_mut(&self.tenant_id) {
            own.messages = own.messages.saturating_sub(1);
            own.bytes = own.bytes.saturating_sub(self.bytes);
            if own.messages == 0 {
                tenants.remove(&self.tenant_id);
            }
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
        let all_of = |tenant: u128, bytes| (0..WAITING).map_while(|_| room.take(Uuid::from_u128(tenant).into(), bytes)).collect::<Vec<_>>();
        let (first, second) = (all_of(1, 0), all_of(2, 0));
        assert_eq!([first.len(), second.len()], [WAITING / 2, WAITING / 4]);
        assert!(all_of(1, 0).is_empty());
        drop((first, second));
        assert!(room.taken.lock().tenants.is_empty());
        assert!(room.take(Uuid::from_u128(1).into(), WAITING_BYTES + 1).is_none());
        let large = all_of(1, WAITING_BYTES / 8);
        assert_eq!(large.len(), 5, "as long as no more is taken than left");
        assert!(room.take(Uuid::from_u128(2).into(), WAITING_BYTES / 8).is_some());
    }
}
