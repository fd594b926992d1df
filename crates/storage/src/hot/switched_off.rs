//! Endpoints that are off and to which something is owed: found by the dispatcher, ended in batches by the claimer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
};

use domain::id::EndpointId;
use parking_lot::Mutex;

use crate::reference::Owner;

/// How many endpoints one statement looks at.
const ENDPOINTS: usize = 256;

/// The endpoints that this process found to be disabled or deleted while it held deliveries to them. Nothing of them is claimed
/// meanwhile; an endpoint is forgotten when nothing more is due to it, or when it is found to be on again.
#[derive(Debug, Default)]
pub(crate) struct SwitchedOff(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    all: HashMap<EndpointId, Owner>,
    /// The same, in the order in which it is their turn.
    in_turn: VecDeque<EndpointId>,
}

impl SwitchedOff {
    /// Remembers an endpoint; `false` if it is known.
    pub(crate) fn note(&self, endpoint_id: EndpointId, owner: Owner) -> bool {
        let mut known = self.0.lock();
        let is_new = known.all.insert(endpoint_id, owner).is_none();
        if is_new {
            known.in_turn.push_back(endpoint_id);
        }
        is_new
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<EndpointId> {
        self.0.lock().all.keys().copied().collect()
    }

    pub(crate) fn owner(&self, endpoint_id: EndpointId) -> Option<Owner> {
        self.0.lock().all.get(&endpoint_id).copied()
    }

    /// Those whose turn it is.
    pub(crate) fn next(&self) -> Vec<EndpointId> {
        self.0.lock().in_turn.iter().take(ENDPOINTS).copied().collect()
    }

    /// These had their turn: the others come first now.
    pub(crate) fn go_on(&self, looked_at: &[EndpointId]) {
        let mut known = self.0.lock();
        let looked_at: HashSet<_> = looked_at.iter().collect();
        let (mut waiting, mut served) = (VecDeque::new(), VecDeque::new());
        for endpoint_id in mem::take(&mut known.in_turn) {
            if looked_at.contains(&endpoint_id) { &mut served } else { &mut waiting }.push_back(endpoint_id);
        }
        waiting.append(&mut served);
        known.in_turn = waiting;
    }

    pub(crate) fn forget(&self, endpoint_id: EndpointId) {
        let mut known = self.0.lock();
        known.all.remove(&endpoint_id);
        known.in_turn.retain(|id| *id != endpoint_id);
    }
}

#[cfg(test)]
mod tests {
    use sqlx::types::Uuid;

    use super::*;

    #[test]
    fn each_endpoint_has_its_turn_until_nothing_is_owed_to_it() {
        let id = |number: u128| EndpointId(Uuid::from_u128(number));
        let off = SwitchedOff::default();
        let owner = Owner { tenant_id: Uuid::nil().into(), application_id: Uuid::nil().into() };
        let many = ENDPOINTS as u128 + 2;
        assert!((0..many).all(|number| off.note(id(number), owner)));
        assert!(!off.note(id(0), owner), "it is known");
        let first = off.next();
        assert_eq!((first.len(), first[0]), (ENDPOINTS, id(0)));
        off.go_on(&first[..1]);
        assert_eq!(off.next()[0], id(1), "what was not looked at for want of room is first");
        off.go_on(&off.next());
        assert_eq!(off.next()[..2], [id(many - 1), id(0)]);
        off.forget(id(0));
        assert!(!off.all().contains(&id(0)) && !off.next().contains(&id(0)));
        assert!(off.note(id(0), owner), "it may be off again");
    }
}
