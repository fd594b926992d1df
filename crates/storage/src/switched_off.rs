//! Endpoints that are off and to which something is owed: found by the dispatcher, ended in batches by the claimer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
};

use domain::id::EndpointId;
use parking_lot::Mutex;
use sqlx::types::Uuid;

use crate::{
    Db, Result,
    connection::Connection,
    directory::{self, Names, Owner},
    hand_off::HandOff,
};

/// How many rows one statement ends.
const ROWS: i32 = 1_000;
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

    fn owner(&self, endpoint_id: EndpointId) -> Option<Owner> {
        self.0.lock().all.get(&endpoint_id).copied()
    }

    /// Those whose turn it is.
    fn next(&self) -> Vec<EndpointId> {
        self.0.lock().in_turn.iter().take(ENDPOINTS).copied().collect()
    }

    /// These had their turn: the others come first now.
    fn go_on(&self, looked_at: &[EndpointId]) {
        let mut known = self.0.lock();
        let looked_at: HashSet<_> = looked_at.iter().collect();
        let (mut waiting, mut served) = (VecDeque::new(), VecDeque::new());
        for endpoint_id in mem::take(&mut known.in_turn) {
            if looked_at.contains(&endpoint_id) { &mut served } else { &mut waiting }.push_back(endpoint_id);
        }
        waiting.append(&mut served);
        known.in_turn = waiting;
    }

    fn forget(&self, endpoint_id: EndpointId) {
        let mut known = self.0.lock();
        known.all.remove(&endpoint_id);
        known.in_turn.retain(|id| *id != endpoint_id);
    }
}

/// Ends some of what is due to endpoints that are off, without a request; returns whether there may be more.
pub(crate) async fn cancel(db: &Db, hand_off: &HandOff, connection: &mut Connection) -> Result<bool> {
    let switched_off = hand_off.switched_off();
    let next = switched_off.next();
    if next.is_empty() {
        return Ok(false);
    }
    let ids: Vec<_> = next.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(r#"select endpoint_id as "endpoint_id!", canceled as "canceled!" from cancel_v1($1, $2)"#, &ids, ROWS)
        .fetch_all(connection)
        .await?;
    let (mut in_all, mut looked_at) = (0, Vec::with_capacity(rows.len()));
    for row in rows {
        let (endpoint_id, canceled) = (EndpointId::from(row.endpoint_id), u64::try_from(row.canceled).unwrap_or(0));
        if canceled == 0 {
            switched_off.forget(endpoint_id);
        } else {
            log(db, endpoint_id, switched_off.owner(endpoint_id), canceled);
            looked_at.push(endpoint_id);
        }
        in_all += canceled;
    }
    switched_off.go_on(&looked_at);
    db.metrics().canceled(in_all);
    Ok(in_all > 0)
}

fn log(db: &Db, endpoint_id: EndpointId, owner: Option<Owner>, canceled: u64) {
    let names = owner.map(|owner| directory::names(db, owner));
    let application_id = owner.map(|owner| tracing::field::display(owner.application_id));
    tracing::info!(
        tenant = names.as_ref().and_then(Names::tenant),
        application_id,
        application_uid = names.as_ref().and_then(Names::application_uid),
        %endpoint_id,
        canceled,
        "canceled what was owed to an endpoint that is disabled or deleted"
    );
}

#[cfg(test)]
mod tests {
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
