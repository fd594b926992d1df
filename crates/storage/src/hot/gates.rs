//! What this process knows of endpoints that are not well: fresh deliveries of a gated endpoint are not handed over in memory.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::atomic::{AtomicBool, Ordering},
};

use domain::id::EndpointId;
use parking_lot::RwLock;

use crate::put_off::PutOff;

/// What this process knows of an endpoint that is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// This process has seen enough to hold it, and has not told anybody yet.
    Suspected,
    /// Held, or paused.
    Open,
    /// Sent to in small numbers, by the claim alone.
    Recovering,
}

impl Gate {
    fn is_shut(self) -> bool {
        self != Self::Recovering
    }
}

/// The endpoints that this process does not send to without asking the database.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    known: RwLock<HashMap<EndpointId, Gate>>,
    /// Endpoints whose secrets or headers this process cannot open: others may be able to.
    unreadable: RwLock<HashSet<EndpointId>>,
    /// Endpoints to which our own way is barred for the moment.
    pub(crate) put_off: PutOff,
    /// A worker has begun, and has not heard yet how endpoints are: any may be held.
    is_unheard: AtomicBool,
}

impl Gates {
    /// Until the first [`Gates::learn`] any endpoint may be held.
    pub(crate) fn hear_nothing_yet(&self) {
        self.is_unheard.store(true, Ordering::Relaxed);
    }

    /// This process cannot open the endpoint's secrets or headers; `false` if that was known.
    pub(crate) fn cannot_open(&self, endpoint_id: EndpointId) -> bool {
        self.unreadable.write().insert(endpoint_id)
    }

    /// It can, by now.
    pub(crate) fn can_open(&self, endpoint_id: EndpointId) {
        self.unreadable.write().remove(&endpoint_id);
    }

    /// Whether the endpoint is not known to be well.
    pub(crate) fn has(&self, endpoint_id: EndpointId) -> bool {
        self.is_unheard.load(Ordering::Relaxed) || self.known.read().contains_key(&endpoint_id) || self.is_out_of_reach(endpoint_id)
    }

    /// Whether this process cannot send to the endpoint, however that is.
    fn is_out_of_reach(&self, endpoint_id: EndpointId) -> bool {
        self.unreadable.read().contains(&endpoint_id) || self.put_off.has(endpoint_id)
    }

    /// The endpoints that the database does not know to be held.
    pub(crate) fn suspected(&self) -> Vec<EndpointId> {
        let gates = self.known.read();
        let suspected = gates.iter().filter(|(_, gate)| **gate == Gate::Suspected).map(|(id, _)| *id);
        suspected.chain(self.unreadable()).chain(self.put_off.all()).collect()
    }

    /// The endpoints that this process cannot open.
    pub(crate) fn unreadable(&self) -> Vec<EndpointId> {
        self.unreadable.read().iter().copied().collect()
    }

    /// A claim found the endpoint well, or recovering: the database knows better than we, but for what it was not told yet.
    pub(crate) fn claim_passed(&self, endpoint_id: EndpointId, is_recovering: bool) {
        let known = self.known.read().get(&endpoint_id).copied();
        match (known, is_recovering) {
            (Some(Gate::Open), true) => drop(self.known.write().insert(endpoint_id, Gate::Recovering)),
            (Some(Gate::Open | Gate::Recovering), false) => drop(self.known.write().remove(&endpoint_id)),
            _ => {}
        }
    }

    /// Whether the endpoint is held.
    pub(crate) fn is_shut(&self, endpoint_id: EndpointId) -> bool {
        self.known.read().get(&endpoint_id).is_some_and(|gate| gate.is_shut()) || self.is_out_of_reach(endpoint_id)
    }

    /// Shuts the gate; `false` if it was shut.
    pub(crate) fn suspect(&self, endpoint_id: EndpointId) -> bool {
        let mut gates = self.known.write();
        let was_shut = gates.get(&endpoint_id).is_some_and(|gate| gate.is_shut());
        if !was_shut {
            gates.insert(endpoint_id, Gate::Suspected);
        }
        !was_shut
    }

    /// Takes over what the database says; returns the endpoints that are held from now on. Suspicions that were `told` are
    /// settled by it.
    pub(crate) fn learn(&self, rows: &[(EndpointId, i16)], is_all: bool, told: &HashSet<EndpointId>) -> Vec<EndpointId> {
        let mut gates = self.known.write();
        let before = mem::take(&mut *gates);
        let is_kept = |id: &EndpointId, gate: Gate| if gate == Gate::Suspected { !told.contains(id) } else { !is_all };
        gates.extend(before.iter().filter(|(id, gate)| is_kept(id, **gate)).map(|(id, gate)| (*id, *gate)));
        for (id, state) in rows {
            match state {
                1 | 3 => drop(gates.insert(*id, Gate::Open)),
                2 => drop(gates.insert(*id, Gate::Recovering)),
                _ => drop(gates.remove(id)),
            }
        }
        self.is_unheard.store(false, Ordering::Relaxed);
        let was_shut = |id: &EndpointId| before.get(id).is_some_and(|gate| gate.is_shut());
        gates.iter().filter(|(id, gate)| gate.is_shut() && !was_shut(id)).map(|(id, _)| *id).collect()
    }
}
