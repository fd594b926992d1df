//! Every write but a message's creation: executed at most once per idempotency key, in one transaction with its record.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{
    id::MessageId,
    idempotency::{MAX_TTL, Policy},
};
use sqlx::{Acquire, PgConnection, Postgres, Transaction, types::Uuid};

use crate::{Db, Error, Result, committer::Published, messages, partitions};

/// The name-space of header keys in [`lock_id`].
pub(crate) const KEY_LOCK: u8 = 1;
/// The name-space of event ids in [`lock_id`].
pub(crate) const EVENT_ID_LOCK: u8 = 2;
/// The name-space of message keys in [`lock_id`].
pub(crate) const MESSAGE_KEY_LOCK: u8 = 3;
/// How often a request that may wait for another one's end looks again.
const WAIT_STEP: Duration = Duration::from_millis(25);
/// The stored status of a message creation whose event id was taken.
pub(crate) const EVENT_ID_TAKEN: i16 = 409;

/// A key that a request carries, ready to be claimed.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// [`domain::idempotency::Operation::scope`] of the key.
    pub scope: Uuid,
    /// [`domain::idempotency::Operation::fingerprint`] of the request.
    pub fingerprint: Uuid,
    /// How the key is treated.
    pub policy: Policy,
}

/// A write. Its fields say what is to happen; [`execute`] makes it happen.
pub trait Effect: Send {
    /// What it brings.
    type Output: Send;

    /// Whether it makes something due.
    const WAKES: bool = false;

    /// Does it, inside a transaction that the caller owns.
    fn apply(self, db: &Db, tx: &mut PgConnection) -> impl Future<Output = Result<Self::Output>> + Send;
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

/// Runs `effect` and renders its result, in one transaction; under a claim, at most once.
///
/// `render` also renders the errors for which [`Error::is_outcome`] holds (the effect is then rolled back, and the answer
/// saved if the policy says so); all other errors are returned, with nothing changed and nothing saved.
/// The whole runs in a task of its own: a caller that goes away changes nothing.
pub async fn execute<E, R>(db: &Db, claim: Option<Claim>, effect: E, render: R) -> Result<Answered>
where
    E: Effect + 'static,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer + Send + 'static,
{
    let db = db.clone();
    let task = tokio::spawn(async move {
        let answered = run(&db, claim, effect, render).await;
        db.metrics().keyed(answered.as_ref().is_ok_and(|answered| answered.is_replay), answered.as_ref().err());
        answered
    });
    task.await.unwrap_or_else(|_| Err(Error::Database(sqlx::Error::WorkerCrashed)))
}

async fn run<E, R>(db: &Db, claim: Option<Claim>, effect: E, render: R) -> Result<Answered>
where
    E: Effect,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer,
{
    let mut tx = begin(db, claim.as_ref()).await?;
    let answered = within(db, &mut tx, claim, effect, render).await;
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

async fn within<E, R>(db: &Db, tx: &mut Transaction<'static, Postgres>, claim: Option<Claim>, effect: E, render: R) -> Result<Answered>
where
    E: Effect,
    R: FnOnce(std::result::Result<&E::Output, &Error>) -> Answer,
{
    if let Some(claim) = &claim
        && let Some(saved) = look_up(&mut *tx, claim).await?
    {
        return saved.open(db, claim).map(|answer| Answered { answer, is_replay: true });
    }
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
        Err(error) => return Err(error),
    };
    let answer = render(result.as_ref());
    if let Some(claim) = claim.filter(|claim| claim.policy.saves_status(answer.status)) {
        let mut savepoint = tx.begin().await?;
        match save(db, &mut savepoint, &claim, &answer).await {
            Ok(()) => savepoint.commit().await?,
            Err(error) if is_partition_missing(&error) => {
                savepoint.rollback().await?;
                partitions::ensure(db).await?;
                save(db, tx, &claim, &answer).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Answered { answer, is_replay: false })
}

/// SQLSTATE 23514 (`check_violation`) is what an insert meets when the day's partition has not been made.
fn is_partition_missing(error: &Error) -> bool {
    matches!(error, Error::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some("23514"))
}

/// Opens the transaction that holds the key's lock until it ends; without a claim, just a transaction. The lock is tried
/// in a statement of its own: the look-up after it then sees whatever the last holder committed.
async fn begin(db: &Db, claim: Option<&Claim>) -> Result<Transaction<'static, Postgres>> {
    let deadline = Instant::now() + claim.map_or(Duration::ZERO, |claim| claim.policy.wait);
    loop {
        let mut tx = db.pool().begin().await?;
        let Some(claim) = claim else { return Ok(tx) };
        let is_ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "is_ours!""#, lock_id(KEY_LOCK, claim.scope))
            .fetch_one(&mut *tx)
            .await?;
        if is_ours {
            return Ok(tx);
        }
        tx.rollback().await?;
        if Instant::now() >= deadline {
            return Err(Error::KeyInProgress);
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

/// What is known of a claim, without executing anything: for a request that is about to be refused. A saved outcome wins
/// over later validation and over a deleted application.
pub async fn find(db: &Db, claim: &Claim) -> Result<Option<Found>> {
    let found = find_saved(db, claim).await;
    db.metrics().keyed(matches!(found, Ok(Some(_))), found.as_ref().err());
    found
}

async fn find_saved(db: &Db, claim: &Claim) -> Result<Option<Found>> {
    let Some(saved) = look_up(&mut *db.pool().acquire().await?, claim).await? else { return Ok(None) };
    let Some(id) = saved.reference.map(MessageId::from) else {
        return saved.open(db, claim).map(|answer| Some(Found::Answer(answer)));
    };
    let published = if saved.status == EVENT_ID_TAKEN {
        Published::EventIdTaken { by: id, is_replay: true }
    } else {
        let message = messages::by_id(db, id).await?.ok_or(Error::NotFound("message"))?;
        Published::Accepted { message: Box::new(message), is_replay: true }
    };
    Ok(Some(Found::Published(published)))
}

/// A saved outcome.
#[derive(Clone, Debug)]
pub enum Found {
    /// Saved as bytes.
    Answer(Answer),
    /// A message creation, saved by reference.
    Published(Published),
}

struct Saved {
    status: i16,
    reference: Option<Uuid>,
    answer: Option<Vec<u8>>,
}

impl Saved {
    /// Reads an answer that was saved as bytes.
    fn open(self, db: &Db, claim: &Claim) -> Result<Answer> {
        let plain = db.inner.sealer.open(claim.scope, &self.answer.ok_or(Error::KeyReused)?)?;
        let end = plain.iter().position(|byte| *byte == b'\n').ok_or(Error::Sealed)?;
        let head: Head = serde_json::from_slice(&plain[..end]).map_err(|_| Error::Sealed)?;
        let (content_type, location) = head;
        let status = u16::try_from(self.status).map_err(|_| Error::Sealed)?;
        Ok(Answer { status, body: Bytes::from(plain).slice(end + 1..), content_type, location })
    }
}

/// The first line of a saved answer, as JSON: content type and location. The body follows.
type Head = (Option<String>, Option<String>);

/// The outcome saved for a claim, if it is still remembered. The bounds on `created_at` prune partitions; the upper one is
/// generous, because a holder of the lock may have begun after us.
async fn look_up(connection: &mut PgConnection, claim: &Claim) -> Result<Option<Saved>> {
    let row = sqlx::query!(
        "select fingerprint, status, ref, answer from idempotency
          where k = $1 and created_at > now() - make_interval(secs => $2) and created_at < now() + interval '1 day' and expires_at > now()",
        claim.scope,
        MAX_TTL.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await?;
    match row {
        None => Ok(None),
        Some(row) if row.fingerprint != claim.fingerprint => Err(Error::KeyReused),
        Some(row) => Ok(Some(Saved { status: row.status, reference: row.r#ref, answer: row.answer })),
    }
}

async fn save(db: &Db, tx: &mut PgConnection, claim: &Claim, answer: &Answer) -> Result<()> {
    let head: Head = (answer.content_type.clone(), answer.location.clone());
    let mut plain = serde_json::to_vec(&head).expect("two texts are JSON");
    plain.push(b'\n');
    plain.extend_from_slice(&answer.body);
    sqlx::query!(
        "insert into idempotency (k, fingerprint, status, expires_at, answer) values ($1, $2, $3, now() + make_interval(secs => $4), $5)",
        claim.scope,
        claim.fingerprint,
        i16::try_from(answer.status).unwrap_or(0),
        claim.policy.ttl.as_secs_f64(),
        db.inner.sealer.seal(claim.scope, &plain),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The advisory lock of a name: its first 56 bits under a name-space of 8, so that keys, event ids and message keys do not
/// meet. Two names that share 56 bits cost each other a busy answer, never a wrong one.
pub(crate) fn lock_id(name_space: u8, name: Uuid) -> i64 {
    let bytes = name.as_bytes();
    i64::from_be_bytes([name_space, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6]])
}
