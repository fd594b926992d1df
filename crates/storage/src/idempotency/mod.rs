//! Every write but a message's creation: executed at most once per idempotency key, in one transaction with its record.
//!
//! Then: `flights` what equal requests in one process share · `saved` outcomes, how they are read and written · [`records`] what is known of a key · [`replays`] how often an outcome
//! was replayed.

pub(crate) mod flights;
pub mod records;
pub mod replays;
mod saved;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{id::TenantId, idempotency::Policy};
use sqlx::types::Uuid;

pub(crate) use self::saved::open;
pub use self::saved::{Found, find, known_refusal, save_refusal};
use self::{
    flights::{Entry, Landing},
    saved::Saved,
};
use crate::{
    Db, Error, Result,
    connection::{Connection, Transaction},
    policies,
};

/// The name-space of header keys in [`lock_id`].
pub(crate) const KEY_LOCK: u8 = 1;
/// The name-space of event ids in [`lock_id`].
pub(crate) const EVENT_ID_LOCK: u8 = 2;
/// The name-space of message keys in [`lock_id`].
pub(crate) const MESSAGE_KEY_LOCK: u8 = 3;
/// How often a request that may wait for another one's end looks again.
pub(crate) const WAIT_STEP: Duration = Duration::from_millis(25);
/// The stored status of a message creation whose event id was taken.
pub(crate) const EVENT_ID_TAKEN: i16 = 409;
/// The operation whose outcomes are saved by reference.
const MESSAGE_CREATION: &str = "POST /api/v1/app/{app_id}/msg";

/// A key that a request carries, ready to be claimed.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Whose request it is.
    pub tenant_id: TenantId,
    /// [`domain::idempotency::Operation::scope`] of the key.
    pub scope: Uuid,
    /// [`domain::idempotency::Operation::fingerprint`] of the request.
    pub fingerprint: Uuid,
    /// How the key is treated.
    pub policy: Policy,
}

/// A request with a key, before its policy is known.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Whose request it is.
    pub tenant_id: TenantId,
    /// As [`Claim::scope`].
    pub scope: Uuid,
    /// As [`Claim::fingerprint`].
    pub fingerprint: Uuid,
    /// The scope under which a refusal would be remembered.
    pub refusal_scope: Uuid,
    /// Method and route, such as `POST /api/v1/app`: what its record says of it.
    pub operation: String,
}

impl Keyed {
    /// The claim on the operation.
    pub fn claim(&self, policy: Policy) -> Claim {
        Claim { tenant_id: self.tenant_id, scope: self.scope, fingerprint: self.fingerprint, policy }
    }

    fn refusal(&self, policy: Policy) -> Claim {
        Claim { scope: self.refusal_scope, ..self.claim(policy) }
    }
}

/// A write. Its fields say what is to happen; [`execute`] makes it happen.
pub trait Effect: Send {
    /// What it brings.
    type Output: Send;

    /// Whether it makes something due.
    const WAKES: bool = false;

    /// Does it, inside a transaction that the caller owns.
    fn apply(self, db: &Db, tx: &mut Connection) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// An answer as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body's bytes; empty for none.
    pub body: Bytes,
    /// The body's media type.
    pub content_type: Option<String>,
    /// Where the thing that was made can be found.
    pub location: Option<String>,
}

/// An answer, and whether it is a saved one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What to say.
    pub answer: Answer,
    /// Whether nothing was executed, because the key's outcome was known.
    pub is_replay: bool,
}

/// Runs `effect` and renders its result, in one transaction; under a key, at most once.
///
/// `render` also renders the errors for which [`Error::is_outcome`] holds (the effect is then rolled back, and the answer
/// saved if the policy says so); all other errors are returned, with nothing changed and nothing saved.
/// The whole runs in a task of its own: a caller that goes away changes nothing.
pub async fn execute<E, R>(db: &Db, keyed: Option<Keyed>, effect: E, render: R) -> Result<Answered>
where
    E: Effect + 'static,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer + Send + 'static,
{
    let db = db.clone();
    let task = tokio::spawn(async move {
        let answered = match &keyed {
            Some(keyed) => execute_once(&db, keyed, effect, render).await,
            None => run(&db, None, effect, render).await,
        };
        let is_replay = answered.as_ref().is_ok_and(|answered| answered.is_replay);
        if let Some(keyed) = keyed.filter(|_| is_replay) {
            db.inner.replays.note(keyed.scope);
        }
        db.metrics().keyed(is_replay, answered.as_ref().err());
        answered
    });
    task.await.unwrap_or_else(|_| Err(Error::Database(sqlx::Error::WorkerCrashed)))
}

/// Lines up behind an equal request of this process, if there is one, and shares its answer.
async fn execute_once<E, R>(db: &Db, keyed: &Keyed, effect: E, render: R) -> Result<Answered>
where
    E: Effect,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer,
{
    let begun = Instant::now();
    loop {
        let repeat = match db.inner.flights.enter(keyed.scope, keyed.fingerprint) {
            Entry::First(flight) => {
                let policy = flight.policy(db, keyed.tenant_id).await?;
                let answered = match saved::refusal_of(db, keyed, policy).await? {
                    Some(answer) => {
                        // The scope of the key itself is counted with all other replays.
                        if keyed.refusal_scope != keyed.scope {
                            db.inner.replays.note(keyed.refusal_scope);
                        }
                        Ok(Answered { answer, is_replay: true })
                    }
                    None => run(db, Some((keyed.claim(policy), &keyed.operation)), effect, render).await,
                };
                match &answered {
                    Ok(answered) if answered.is_replay || policy.saves_status(answered.answer.status) => {
                        flight.land(&Landing::Outcome(answered.answer.clone()));
                    }
                    Err(Error::KeyInProgress) => flight.land(&Landing::InProgress),
                    Err(Error::KeyReused) => flight.land(&Landing::Reused),
                    // Nothing is saved: each repeat finds out for itself.
                    Ok(_) | Err(_) => {}
                }
                return answered;
            }
            Entry::Repeat(repeat) => Some(repeat),
            Entry::Stranger => {
                let claim = keyed.claim(policies::find(db, keyed.tenant_id).await?);
                match open(db, &claim).await? {
                    Some(Found::Answer(answer)) => return Ok(Answered { answer, is_replay: true }),
                    _ if claim.policy.compares => return Err(Error::KeyReused),
                    _ => db.inner.flights.join(keyed.scope),
                }
            }
        };
        if let Some(repeat) = repeat
            && let Some(answer) = repeat.landed(db, keyed.tenant_id, begun).await?
        {
            return Ok(Answered { answer, is_replay: true });
        }
    }
}

async fn run<E, R>(db: &Db, keyed: Option<(Claim, &str)>, effect: E, render: R) -> Result<Answered>
where
    E: Effect,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer,
{
    let (mut tx, saved) = begin(db, keyed.map(|(claim, _)| claim)).await?;
    let answered = match (saved, keyed) {
        (Some(saved), Some((claim, _))) => saved.answer(db, &claim).map(|answer| Answered { answer, is_replay: true }),
        _ => within(db, &mut tx, keyed, effect, render).await,
    };
    // The lock must be free before anybody is told that it is: a dropped transaction ends some time later.
    if answered.as_ref().is_ok_and(|answered| !answered.is_replay) {
        tx.commit().await?;
        if E::WAKES {
            db.wake();
        }
    } else if let Err(error) = tx.rollback().await {
        tracing::debug!(%error, "a transaction ended with its connection");
    }
    answered
}

async fn within<E, R>(db: &Db, tx: &mut Transaction<'static>, keyed: Option<(Claim, &str)>, effect: E, render: R) -> Result<Answered>
where
    E: Effect,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer,
{
    let mut savepoint = tx.begin().await?;
    let result = match effect.apply(db, &mut savepoint).await {
        Ok(output) => {
            savepoint.commit().await?;
            Ok(output)
        }
        Err(error) if error.is_outcome() => {
            savepoint.rollback().await?;
            Err(error)
        }
        // Ended in order, and not only dropped, it lets the caller end the whole, and with it the lock, before anybody hears of this.
        Err(error) => {
            savepoint.rollback().await.ok();
            return Err(error);
        }
    };
    let answer = render(result.as_ref());
    if let Some((claim, operation)) = keyed.filter(|(claim, _)| claim.policy.saves_status(answer.status)) {
        saved::save(db, tx, &claim, operation, &answer).await?;
    }
    Ok(Answered { answer, is_replay: false })
}

/// SQLSTATE 23514 (`check_violation`) without the name of a constraint is what an insert meets when the day's partition has not been
/// made.
pub(crate) fn is_partition_missing(error: &Error) -> bool {
    matches!(error, Error::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some("23514") && error.constraint().is_none())
}

/// Opens the transaction that holds the key's lock until it ends, unless the key has a saved outcome; without a claim, just a
/// transaction. The lock is tried in a statement of its own: the look-up after it then sees whatever the last holder committed.
/// An outcome that is found is final whoever holds the lock: perhaps another one who has come for it.
async fn begin(db: &Db, claim: Option<Claim>) -> Result<(Transaction<'static>, Option<Saved>)> {
    let deadline = Instant::now() + claim.map_or(Duration::ZERO, |claim| claim.policy.wait);
    loop {
        let mut tx = db.pool().begin().await?;
        let Some(claim) = claim else { return Ok((tx, None)) };
        let is_ours = try_lock(&mut tx, &claim).await?;
        let saved = saved::look_up(&mut tx, &claim).await;
        if is_ours || saved.as_ref().is_ok_and(Option::is_some) {
            return Ok((tx, saved?));
        }
        tx.rollback().await?;
        saved?;
        if Instant::now() >= deadline {
            return Err(Error::KeyInProgress);
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

async fn try_lock(tx: &mut Connection, claim: &Claim) -> Result<bool> {
    let is_ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "is_ours!""#, lock_id(KEY_LOCK, claim.scope));
    Ok(is_ours.fetch_one(tx).await?)
}

/// The advisory lock of a name: its last 56 bits under a name-space of 8, so that keys, event ids and message keys do not
/// meet. (The first bits of a key's scope are the same in all operations.) Two names that share 56 bits cost each other a busy
/// answer, never a wrong one.
pub(crate) fn lock_id(name_space: u8, name: Uuid) -> i64 {
    let bytes = name.as_bytes();
    i64::from_be_bytes([name_space, bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]])
}
