//! Every write but a message's creation: executed at most once per idempotency key, in one transaction with its record.
//!
//! Then: [`records`] what is known of a key, for people who ask.

pub mod records;

use std::time::{Duration, Instant};

use crate::{
    Db, Error, Result,
    connection::Transaction,
    flights::WAIT_STEP,
    keys::{self, Standing},
    outcomes::{self, Saved},
};

pub use crate::{
    answer::Answer,
    claim::{Claim, Keyed},
    effect::Effect,
    keys::{find, known_refusal},
    outcomes::{Found, save_refusal},
};

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
        if let Some(keyed) = keyed {
            keys::count(&db, keyed.scope, answered.as_ref().is_ok_and(|answered| answered.is_replay), answered.as_ref().err());
        }
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
    let flight = match keys::line_up(db, keyed.tenant_id, keyed.scope, keyed.fingerprint, Instant::now()).await? {
        Standing::First(flight) => flight,
        Standing::Settled(found) => {
            let Found::Answer(answer) = *found else { return Err(Error::KeyReused) };
            return Ok(Answered { answer, is_replay: true });
        }
    };
    let policy = flight.policy(db, keyed.tenant_id).await?;
    let answered = match keys::refusal(db, keyed, policy).await? {
        Some(answer) => {
            // The scope of the key itself is counted with all other replays.
            if keyed.refusal_scope != keyed.scope {
                db.node.replays.note(keyed.refusal_scope);
            }
            Ok(Answered { answer, is_replay: true })
        }
        None => run(db, Some((keyed.claim(policy), &keyed.operation)), effect, render).await,
    };
    let is_saved = |answered: &&Answered| answered.is_replay || policy.saves_status(answered.answer.status);
    let found = answered.as_ref().map(|answered| Some(answered).filter(is_saved).map(|saved| Found::Answer(saved.answer.clone())));
    keys::land(&flight, found);
    answered
}

async fn run<E, R>(db: &Db, keyed: Option<(Claim, &str)>, effect: E, render: R) -> Result<Answered>
where
    E: Effect,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer,
{
    let (mut tx, saved) = begin(db, keyed.map(|(claim, _)| claim)).await?;
    let (answered, output) = match (saved, keyed) {
        (Some(saved), Some((claim, _))) => (saved.answer(db, &claim).map(|answer| Answered { answer, is_replay: true }), None),
        _ => match within(db, &mut tx, keyed, effect, render).await {
            Ok((answer, output)) => (Ok(Answered { answer, is_replay: false }), output),
            Err(error) => (Err(error), None),
        },
    };
    // The lock must be free before anybody is told that it is: a dropped transaction ends some time later.
    if answered.as_ref().is_ok_and(|answered| !answered.is_replay) {
        tx.commit().await?;
        for owed in output.as_ref().map(E::owed).unwrap_or_default() {
            db.node.rollups.owed(owed, db.now());
        }
        if E::WAKES {
            db.wake();
        }
        if E::ASKS_FOR_A_TASK {
            db.wake_runner();
        }
    } else if let Err(error) = tx.rollback().await {
        tracing::debug!(%error, "a transaction ended with its connection");
    }
    answered
}

/// Returns the answer, and what the effect brought, if it came about.
async fn within<E, R>(
    db: &Db,
    tx: &mut Transaction<'static>,
    keyed: Option<(Claim, &str)>,
    effect: E,
    render: R,
) -> Result<(Answer, Option<E::Output>)>
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
        outcomes::save(db, tx, &claim, operation, &answer).await?;
    }
    Ok((answer, result.ok()))
}

/// Opens the transaction that holds the key's lock until it ends, unless the key has a saved outcome; without a claim, just a
/// transaction. The lock is tried in a statement of its own: the look-up after it then sees whatever the last holder committed.
/// An outcome that is found is final whoever holds the lock: perhaps another one who has come for it.
async fn begin(db: &Db, claim: Option<Claim>) -> Result<(Transaction<'static>, Option<Saved>)> {
    let deadline = Instant::now() + claim.map_or(Duration::ZERO, |claim| claim.policy.wait);
    loop {
        let mut tx = db.pool().begin().await?;
        let Some(claim) = claim else { return Ok((tx, None)) };
        let is_ours = outcomes::try_lock(&mut tx, &claim).await?;
        let saved = outcomes::look_up(&mut tx, &claim).await;
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
