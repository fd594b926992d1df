//! What is known of a key: whether this process is executing its request, what the database has saved, and what a repeat is told.
//!
//! Whoever has a request with a key asks here, so that the answer and what is counted do not depend on which of them asked.

use std::{sync::Arc, time::Instant};

use domain::{
    id::TenantId,
    idempotency::{Policy, Saves},
};
use sqlx::types::Uuid;

use crate::{
    Db, Error, Result,
    answer::Answer,
    claim::{Claim, Keyed},
    flights::{Entry, Flight, Landing},
    outcomes::{self, Found},
    policies,
};

/// How a request with a key stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Nobody here has its key: it is executed, and holds the key meanwhile.
    First(Arc<Flight>),
    /// It is settled: by the request before which it would have come, or in the database.
    Settled(Box<Found>),
}

/// Lines up for a key, behind equal requests of this process; returns when it is the request's turn, or settled without it.
///
/// # Errors
/// [`Error::KeyInProgress`] if it has waited long enough since it `begun`; [`Error::KeyReused`] if another request has the key.
pub(crate) async fn line_up(db: &Db, tenant_id: TenantId, scope: Uuid, fingerprint: Uuid, begun: Instant) -> Result<Standing> {
    loop {
        let repeat = match db.node.flights.enter(scope, fingerprint) {
            Entry::First(flight) => return Ok(Standing::First(flight)),
            Entry::Repeat(repeat) => Some(repeat),
            Entry::Stranger => {
                let mut claim = Claim { tenant_id, scope, fingerprint, policy: Policy::default() };
                match Box::pin(look(db, &mut claim)).await? {
                    Some(found) => return Ok(Standing::Settled(Box::new(found))),
                    None if claim.policy.compares => return Err(Error::KeyReused),
                    // Under the policy that holds by now, it is a repeat.
                    None => db.node.flights.join(scope),
                }
            }
        };
        if let Some(repeat) = repeat
            && let Some(found) = repeat.landed(db, tenant_id, begun).await?
        {
            return Ok(Standing::Settled(Box::new(found)));
        }
    }
}

/// Looks in the database, under the policy that holds by now: it may have changed since the claim was made, and is noted there.
pub(crate) async fn look(db: &Db, claim: &mut Claim) -> Result<Option<Found>> {
    claim.policy = policies::find(db, claim.tenant_id).await?;
    outcomes::open(db, claim).await
}

/// Tells the repeats that wait behind a request how it ended. What is not saved is not shared: of that each finds out for itself.
pub(crate) fn land(flight: &Flight, ended: std::result::Result<Option<Found>, &Error>) {
    match ended {
        Ok(Some(found)) => flight.land(&Landing::Outcome(found)),
        Err(Error::KeyInProgress) => flight.land(&Landing::InProgress),
        Err(Error::KeyReused) => flight.land(&Landing::Reused),
        Ok(None) | Err(_) => {}
    }
}

/// Counts what a request with a key is told.
pub(crate) fn count(db: &Db, scope: Uuid, is_replay: bool, error: Option<&Error>) {
    if is_replay {
        db.node.replays.note(scope);
    }
    db.metrics().keyed(is_replay, error);
}

/// What the database knows of a claim, for a request that is about to be refused. A saved outcome wins over later validation and
/// over a deleted application.
pub async fn find(db: &Db, claim: &Claim) -> Result<Option<Found>> {
    let found = outcomes::open(db, claim).await;
    count(db, claim.scope, matches!(found, Ok(Some(_))), found.as_ref().err());
    found
}

/// The refusal that an earlier request with this key met, if the policy remembers such. What was executed wins over it.
pub async fn known_refusal(db: &Db, keyed: &Keyed, policy: Policy) -> Result<Option<Answer>> {
    let refusal = refusal(db, keyed, policy).await?;
    count(db, keyed.refusal_scope, refusal.is_some(), None);
    Ok(refusal)
}

/// The same, uncounted: for a request that goes on.
pub(crate) async fn refusal(db: &Db, keyed: &Keyed, policy: Policy) -> Result<Option<Answer>> {
    if policy.saves != Saves::All {
        return Ok(None);
    }
    let Some(Found::Answer(refusal)) = Box::pin(outcomes::open(db, &keyed.refusal(policy))).await? else { return Ok(None) };
    // A path that names nothing stands for itself: then there is one scope, and one record.
    if keyed.scope != keyed.refusal_scope && Box::pin(outcomes::open(db, &keyed.claim(policy))).await?.is_some() {
        return Ok(None);
    }
    Ok(Some(refusal))
}
