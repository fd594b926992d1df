//! How much of request bodies is held in memory: so many bytes in all, of which no tenant takes the half that is for others, and no source what is
//! for the rest of its tenant.
//!
//! Room is taken as bytes arrive, so a client that announces much and sends little keeps nobody out.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use domain::id::{SourceId, TenantId};
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
    sources: HashMap<SourceId, usize>,
    /// When the log last said that there is no room.
    reminded: Option<Instant>,
}

/// Whose a body is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    /// Which tenant's.
    pub(crate) tenant_id: TenantId,
    /// By which source of it it comes, if it does by one.
    pub(crate) source_id: Option<SourceId>,
}

impl From<TenantId> for Whose {
    fn from(tenant_id: TenantId) -> Self {
        Self { tenant_id, source_id: None }
    }
}

/// The room of one request's body; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    bodies: Arc<Bodies>,
    whose: Whose,
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
    pub(crate) fn room_for(self: &Arc<Self>, whose: impl Into<Whose>, announced: usize) -> Result<Room, Full> {
        let whose = whose.into();
        let room = Room { bodies: Arc::clone(self), whose, bytes: 0 };
        self.taken.lock().has(whose, announced, self.bound).map(|()| room)
    }
}

impl Taken {
    /// Whether a tenant may have so many bytes more: it has no more than it leaves to others, nor a source than it leaves to its tenant.
    fn has(&mut self, whose: Whose, bytes: usize, bound: usize) -> Result<(), Full> {
        let own = self.tenants.get(&whose.tenant_id).copied().unwrap_or(0);
        let (in_all, own) = (self.in_all.saturating_add(bytes), own.saturating_add(bytes));
        let by_source = whose.source_id.map_or(0, |id| self.sources.get(&id).copied().unwrap_or(0).saturating_add(bytes));
        if in_all <= bound && own <= bound - in_all && by_source <= bound - in_all - own {
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
        taken.has(self.whose, bytes, self.bodies.bound)?;
        taken.in_all += bytes;
        *taken.tenants.entry(self.whose.tenant_id).or_default() += bytes;
        if let Some(id) = self.whose.source_id {
            *taken.sources.entry(id).or_default() += bytes;
        }
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
        give_back(&mut taken.tenants, self.whose.tenant_id, self.bytes);
        if let Some(id) = self.whose.source_id {
            give_back(&mut taken.sources, id, self.bytes);
        }
    }
}

fn give_back<K: Eq + Hash>(taken: &mut HashMap<K, usize>, whose: K, bytes: usize) {
    if let Entry::Occupied(mut entry) = taken.entry(whose) {
        *entry.get_mut() = entry.get().saturating_sub(bytes);
        if *entry.get() == 0 {
            entry.remove();
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
    fn a_source_leaves_room_to_the_rest_of_its_tenant() {
        let bodies = Bodies::new(90);
        let by = |source: u128| Whose { tenant_id: tenant(1), source_id: Some(Uuid::from_u128(source).into()) };
        let mut flood = bodies.room_for(by(1), 30).expect("room");
        assert_eq!((flood.take(30), flood.take(1)), (Ok(()), Err(Full)));
        let mut quiet = bodies.room_for(by(2), 10).expect("some is for others of the tenant");
        assert_eq!(quiet.take(10), Ok(()));
        assert_eq!(bodies.room_for(tenant(1), 5).map(drop), Ok(()), "and for what does not come by a source");
        drop((flood, quiet));
        let taken = bodies.taken.lock();
        assert!(taken.in_all == 0 && taken.tenants.is_empty() && taken.sources.is_empty());
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
