//! Saved outcomes: how they are looked up, read and written.

use bytes::Bytes;
use domain::{
    id::MessageId,
    idempotency::{FINGERPRINT_VERSION, Policy},
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    answer::Answer,
    claim::{Claim, Keyed},
    connection::Connection,
    locks::{KEY_LOCK, lock_id},
    messages, partitions,
    published::Published,
};

/// The stored status of a message creation whose event id was taken.
const EVENT_ID_TAKEN: i16 = 409;

/// A saved outcome.
#[derive(Clone, Debug)]
pub enum Found {
    /// Saved as bytes.
    Answer(Answer),
    /// A message creation, saved by reference.
    Published(Published),
}

impl From<Found> for Published {
    fn from(found: Found) -> Self {
        match found {
            Found::Published(published) => published,
            Found::Answer(refusal) => Self::Refused(refusal),
        }
    }
}

/// What is known of a claim, without executing anything. A saved outcome wins over later validation and over a deleted application.
pub(crate) async fn open(db: &Database, claim: &Claim) -> Result<Option<Found>> {
    let Some(saved) = look_up(&mut db.pool().acquire().await?, claim).await? else { return Ok(None) };
    let Some(id) = saved.reference.map(MessageId::from) else {
        return saved.answer(db, claim).map(|answer| Some(Found::Answer(answer)));
    };
    let published = if saved.status == EVENT_ID_TAKEN {
        Published::EventIdTaken { by: id, is_replay: true }
    } else {
        let message = messages::by_id(db, id).await?.ok_or(Error::NotFound("message"))?;
        Published::Accepted { message: Box::new(message), is_replay: true }
    };
    Ok(Some(Found::Published(published)))
}

/// Remembers a refusal, of which it is known that nothing was done: only for a policy that replays those, too. If an outcome has
/// been saved meanwhile, that one stays.
pub async fn save_refusal(db: &Database, keyed: &Keyed, policy: Policy, refusal: &Answer) -> Result<()> {
    let claim = keyed.refusal(policy);
    let mut tx = db.pool().begin().await?;
    if try_lock(&mut tx, &claim).await? && look_up(&mut tx, &claim).await?.is_none() {
        save(db, &mut tx, &claim, &keyed.operation, refusal).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Tries to take the lock of a claim's key, until the transaction ends.
pub(crate) async fn try_lock(tx: &mut Connection, claim: &Claim) -> Result<bool> {
    let is_ours = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "is_ours!""#, lock_id(KEY_LOCK, claim.scope));
    Ok(is_ours.fetch_one(tx).await?)
}

/// An outcome as its table holds it.
pub(crate) struct Saved {
    status: i16,
    reference: Option<Uuid>,
    answer: Option<Vec<u8>>,
}

impl Saved {
    /// Reads an answer that was saved as bytes.
    pub(crate) fn answer(self, db: &Database, claim: &Claim) -> Result<Answer> {
        let plain = db.sealer().open(claim.scope, &self.answer.ok_or(Error::KeyReused)?)?;
        let (head, body) = parts(&plain).ok_or(Error::Sealed)?;
        let status = u16::try_from(self.status).map_err(|_| Error::Sealed)?;
        Ok(Answer {
            status,
            content_type: head.first().cloned().flatten(),
            location: head.get(1).cloned().flatten(),
            body: Bytes::from(plain).slice(body..),
        })
    }
}

/// The first line of a saved answer, a JSON array: content type, location, and the operation. The body follows.
fn parts(plain: &[u8]) -> Option<(Vec<Option<String>>, usize)> {
    let end = plain.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&plain[..end]).ok()?, end + 1))
}

/// The operation that an answer was saved for.
pub(crate) fn operation(db: &Database, k: Uuid, answer: &[u8]) -> Option<String> {
    let plain = db.sealer().open(k, answer).ok()?;
    parts(&plain)?.0.into_iter().nth(2).flatten()
}

/// The outcome saved for a claim, if it is still remembered. The bounds on `created_at` prune partitions; the upper one is
/// generous, because a holder of the lock may have begun after us. A fingerprint of a version that this program does not
/// know was written by a newer one during an upgrade: it is taken for that of the same request.
pub(crate) async fn look_up(connection: &mut Connection, claim: &Claim) -> Result<Option<Saved>> {
    let row = sqlx::query!(
        "select fingerprint, fingerprint_version, status, ref, answer from idempotency
          where k = $1 and created_at > now() - make_interval(secs => $2) and created_at < now() + interval '1 day' and expires_at > now()",
        claim.scope,
        domain::idempotency::MAX_TTL.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let is_compared = claim.policy.compares && row.fingerprint_version == FINGERPRINT_VERSION;
    if is_compared && row.fingerprint != claim.fingerprint {
        return Err(Error::KeyReused);
    }
    Ok(Some(Saved { status: row.status, reference: row.r#ref, answer: row.answer }))
}

/// Writes an outcome into the transaction of what it is the outcome of; makes the day's partition if it is missing.
pub(crate) async fn save(db: &Database, tx: &mut Connection, claim: &Claim, operation: &str, answer: &Answer) -> Result<()> {
    let mut savepoint = tx.begin().await?;
    match insert(db, &mut savepoint, claim, operation, answer).await {
        Ok(()) => Ok(savepoint.commit().await?),
        Err(error) if error.is_missing_partition() => {
            savepoint.rollback().await?;
            partitions::ensure(db).await?;
            insert(db, tx, claim, operation, answer).await
        }
        Err(error) => {
            savepoint.rollback().await.ok();
            Err(error)
        }
    }
}

async fn insert(db: &Database, tx: &mut Connection, claim: &Claim, operation: &str, answer: &Answer) -> Result<()> {
    let head = (&answer.content_type, &answer.location, operation);
    let mut plain = serde_json::to_vec(&head).expect("three texts are JSON");
    plain.push(b'\n');
    plain.extend_from_slice(&answer.body);
    sqlx::query!(
        "insert into idempotency (k, tenant_id, fingerprint, fingerprint_version, status, expires_at, answer)
         values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $7)",
        claim.scope,
        Uuid::from(claim.tenant_id),
        claim.fingerprint,
        FINGERPRINT_VERSION,
        i16::try_from(answer.status).unwrap_or(0),
        claim.policy.ttl.as_secs_f64(),
        db.sealer().seal(claim.scope, &plain),
    )
    .execute(tx)
    .await?;
    Ok(())
}
