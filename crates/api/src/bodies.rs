//! How much of request bodies is held in memory: so many bytes in all, of which no tenant takes the half that is for others.
//!
//! Room is taken as bytes arrive, so a client that announces much and sends little keeps nobody out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::id::TenantId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::ApiError;

/// How often the log says that there is no room.
const REMINDER: Duration = Duration::from_mins(1);

/// What is taken of the room, and by whom.
#[derive(Debug)]
pub(crate) struct Bodies {
    bound: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    tenants: HashMap<TenantId, usize>,
    /// When the log last said that there is no room.
    reminded: Option<Instant>,
}

/// The room of one request's body; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    bodies: Arc<Bodies>,
    tenant_id: TenantId,
    bytes: usize,
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl From<Full> for ApiError {
    fn from(_: Full) -> Self {
        Self::NoRoom
    }
}

impl Bodies {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, taken: Mutex::default() })
    }

    /// For a body of which nothing has come; refused if there is no room now for as much as it is said to be.
    pub(crate) fn room_for(self: &Arc<Self>, tenant_id: TenantId, announced: usize) -> Result<Room, Full> {
        let room = Room { bodies: Arc::clone(self), tenant_id, bytes: 0 };
        self.taken.lock().has(tenant_id, announced, self.bound).map(|()| room)
    }
}

impl Taken {
    /// Whether a tenant may have so many bytes more: it has no more than it leaves to others.
    fn has(&mut self, tenant_id: TenantId, bytes: usize, bound: usize) -> Result<(), Full> {
        let own = self.tenants.get(&tenant_id).copied().unwrap_or(0);
        let (in_all, own) = (self.in_all.saturating_add(bytes), own.saturating_add(bytes));
        if in_all <= bound && own <= bound - in_all {
            return Ok(());
        }
        if self.reminded.is_none_or(|at| at.elapsed() >= REMINDER) {
            self.reminded = Some(Instant::now());
            tracing::warn!(
                bytes = self.in_all,
                "as much of request bodies is in memory as may be: more is answered 503; see POSTHASTE_MAX_BODY_MEMORY"
            );
        }
        Err(Full)
    }
}

impl Room {
    /// Takes room for what has arrived.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Full> {
        let mut taken = self.bodies.taken.lock();
        taken.has(self.tenant_id, bytes, self.bodies.bound)?;
        taken.in_all += bytes;
        *taken.tenants.entry(self.tenant_id).or_default() += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.bodies.taken.lock();
        taken.in_all = taken.in_all.saturating_sub(self.bytes);
        if let Some(own) = taken.tenants.get_mut(&self.tenant_id) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                taken.tenants.remove(&self.tenant_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    #[test]
    fn one_tenant_takes_half_and_gives_it_back() {
        let bodies = Bodies::new(100);
        let mut first = bodies.room_for(tenant(1), 50).expect("room");
        assert_eq!(first.take(50), Ok(()));
        assert_eq!(first.take(1), Err(Full));
        assert_eq!(bodies.room_for(tenant(1), 1).map(drop), Err(Full));
        let mut second = bodies.room_for(tenant(2), 25).expect("half is for others");
        assert_eq!((second.take(25), second.take(1)), (Ok(()), Err(Full)));
        drop(first);
        assert_eq!(second.take(12), Ok(()));
        drop(second);
        let taken = bodies.taken.lock();
        assert!(taken.in_all == 0 && taken.tenants.is_empty());
    }

    #[test]
    fn what_is_announced_takes_no_room() {
        let bodies = Bodies::new(100);
        let rooms: Vec<_> = (0..10).map(|_| bodies.room_for(tenant(1), 50).expect("room")).collect();
        assert_eq!(bodies.room_for(tenant(1), 51).map(drop), Err(Full), "more than there will ever be");
        assert_eq!(bodies.taken.lock().in_all, 0);
        drop(rooms);
    }
}
