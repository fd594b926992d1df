//! Seals everything anew that an earlier main secret has sealed: in batches, while servers run, from the start again at any time.
//!
//! Each value says itself whether it is done, so a run that was cut short is simply repeated.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::id::{EndpointId, Id as _, SourceId};
use sqlx::types::Uuid;

use crate::{Database, Error, Result, main_secret, main_secret::SEAL_CHECK, reference::Owner};

/// How many rows are looked at in one batch.
const BATCH: i64 = 500;
/// How often a batch is tried again that others' locks were in the way of.
const TRIES: usize = 5;

/// What became of the values of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Sealed anew.
    pub resealed: u64,
    /// Those that the main secret had sealed already.
    pub current: u64,
    /// Those that cannot be opened, by this main secret nor by the previous one.
    pub unreadable: u64,
}

/// What became of everything that is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Signing secrets of endpoints.
    pub secrets: Count,
    /// Custom headers of endpoints.
    pub headers: Count,
    /// Saved answers under idempotency keys.
    pub answers: Count,
    /// Verifiers of sources.
    pub verifiers: Count,
    /// The endpoints of which something cannot be opened.
    pub unreadable_endpoints: Vec<String>,
    /// The sources whose verifier cannot be opened.
    pub unreadable_sources: Vec<String>,
    /// A server has sealed with another main secret within the last half minute.
    pub is_another_in_use: bool,
}

impl Resealed {
    /// Whether nothing needs the previous main secret any more.
    pub fn is_complete(&self) -> bool {
        !self.is_another_in_use && self.unreadable_endpoints.is_empty() && self.unreadable_sources.is_empty()
    }
}

/// A sealed value, and the row that it belongs to.
struct Value {
    owner: Uuid,
    sealed: Vec<u8>,
}

/// The values of a batch that are to be replaced, if they are still the same.
#[derive(Default)]
struct Batch {
    owners: Vec<Uuid>,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
}

impl Batch {
    /// Adds a value if an earlier secret has sealed it; `false` if it cannot be opened.
    fn add(&mut self, db: &Database, value: Value, count: &mut Count) -> bool {
        let sealer = &db.sealer();
        if sealer.has_sealed(value.owner, &value.sealed) {
            count.current += 1;
            return true;
        }
        let Ok(plain) = sealer.open(value.owner, &value.sealed) else {
            count.unreadable += 1;
            return false;
        };
        count.resealed += 1;
        self.new.push(sealer.seal(value.owner, &plain));
        self.owners.push(value.owner);
        self.old.push(value.sealed);
        true
    }
}

/// Seals anew what the previous main secret has sealed. Every server must have both by now, and seal with the new one.
pub async fn run(db: &Database) -> Result<Resealed> {
    let mut resealed = Resealed::default();
    let mut unreadable = Vec::new();
    secrets(db, &mut resealed.secrets, &mut unreadable).await?;
    headers(db, &mut resealed.headers, &mut unreadable).await?;
    answers(db, &mut resealed.answers).await?;
    resealed.unreadable_sources = verifiers(db, &mut resealed.verifiers).await?;
    seal_check(db).await?;
    unreadable.sort_unstable();
    unreadable.dedup();
    resealed.unreadable_endpoints = unreadable.into_iter().map(|id| EndpointId::from(id).public()).collect();
    resealed.is_another_in_use = !main_secret::forget_others(db).await?;
    Ok(resealed)
}

/// The endpoints, of those that are sent to, of which this process cannot open something.
pub(crate) async fn unreadable(db: &Database) -> Result<Vec<(EndpointId, Owner)>> {
    let mut unreadable = BTreeMap::new();
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            "select s.id, s.endpoint_id, s.secret, e.headers, e.tenant_id, e.application_id from endpoint_secret s join endpoint e on e.id = s.endpoint_id
              where s.id > $1 and e.deleted_at is null and (s.expires_at is null or s.expires_at > now()) order by s.id limit $2",
            after,
            BATCH
        )
        .fetch_all(db.pool())
        .await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        let sealer = &db.sealer();
        let is_closed = |owner, sealed: &[u8]| sealer.open(owner, sealed).is_err();
        unreadable.extend(rows.iter().filter_map(|row| {
            let are_headers_closed = row.headers.as_deref().is_some_and(|headers| is_closed(row.endpoint_id, headers));
            let owner = Owner { tenant_id: row.tenant_id.into(), application_id: row.application_id.into() };
            (is_closed(row.id, &row.secret) || are_headers_closed).then_some((EndpointId::from(row.endpoint_id), owner))
        }));
    }
    Ok(unreadable.into_iter().collect())
}

async fn secrets(db: &Database, count: &mut Count, unreadable: &mut Vec<Uuid>) -> Result<()> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!("select id, endpoint_id, secret from endpoint_secret where id > $1 order by id limit $2", after, BATCH)
            .fetch_all(db.pool())
            .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        let mut batch = Batch::default();
        for row in rows {
            if !batch.add(db, Value { owner: row.id, sealed: row.secret }, count) {
                unreadable.push(row.endpoint_id);
            }
        }
        again(async || {
            sqlx::query!(
                "update endpoint_secret s set secret = t.new from unnest($1::uuid[], $2::bytea[], $3::bytea[]) t(id, old, new) where s.id = t.id and s.secret = t.old",
                &batch.owners,
                &batch.old,
                &batch.new
            )
            .execute(db.pool())
            .await
        })
        .await?;
        renew(db, &batch.owners).await?;
    }
}

/// Whoever could not open these secrets may be able to now: no cached copy is to hide that.
async fn renew(db: &Database, secrets: &[Uuid]) -> Result<()> {
    if secrets.is_empty() {
        return Ok(());
    }
    again(async || {
        sqlx::query!(
            "update application set version = version + 1 from (
               select a.id from application a where a.id in (
                 select e.application_id from endpoint_secret s join endpoint e on e.id = s.endpoint_id where s.id = any ($1)) order by a.id for update) a
              where application.id = a.id",
            secrets
        )
        .execute(db.pool())
        .await
    })
    .await
}

async fn headers(db: &Database, count: &mut Count, unreadable: &mut Vec<Uuid>) -> Result<()> {
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"select id, headers as "headers!" from endpoint where id > $1 and headers is not null order by id limit $2"#,
            after,
            BATCH
        )
        .fetch_all(db.pool())
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        let mut batch = Batch::default();
        for row in rows {
            if !batch.add(db, Value { owner: row.id, sealed: row.headers }, count) {
                unreadable.push(row.id);
            }
        }
        again(async || {
            sqlx::query!(
                "update endpoint e set headers = t.new from unnest($1::uuid[], $2::bytea[], $3::bytea[]) t(id, old, new) where e.id = t.id and e.headers = t.old",
                &batch.owners,
                &batch.old,
                &batch.new
            )
            .execute(db.pool())
            .await
        })
        .await?;
    }
}

/// Returns the sources whose verifier cannot be opened.
async fn verifiers(db: &Database, count: &mut Count) -> Result<Vec<String>> {
    let (mut after, mut unreadable) = (Uuid::nil(), Vec::new());
    loop {
        let rows = sqlx::query!(
            r#"select id, verifier as "verifier!" from source where id > $1 and verifier is not null order by id limit $2"#,
            after,
            BATCH
        )
        .fetch_all(db.pool())
        .await?;
        let Some(last) = rows.last() else { return Ok(unreadable) };
        after = last.id;
        let mut batch = Batch::default();
        for row in rows {
            if !batch.add(db, Value { owner: row.id, sealed: row.verifier }, count) {
                unreadable.push(SourceId::from(row.id).public());
            }
        }
        again(async || {
            sqlx::query!(
                "update source s set verifier = t.new from unnest($1::uuid[], $2::bytea[], $3::bytea[]) t(id, old, new) where s.id = t.id and s.verifier = t.old",
                &batch.owners,
                &batch.old,
                &batch.new
            )
            .execute(db.pool())
            .await
        })
        .await?;
    }
}

/// Most records refer to a message and have no answer of their own; those are passed over. One that cannot be opened is not worth
/// more than its count: it is forgotten within days.
async fn answers(db: &Database, count: &mut Count) -> Result<()> {
    let mut after = (Uuid::nil(), DateTime::<Utc>::UNIX_EPOCH);
    loop {
        let rows = sqlx::query!(
            "select k, created_at, answer from idempotency where (k, created_at) > ($1, $2) and expires_at > now() order by k, created_at limit $3",
            after.0,
            after.1,
            BATCH
        )
        .fetch_all(db.pool())
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.k, last.created_at);
        let mut batch = Batch::default();
        for row in rows {
            if let Some(sealed) = row.answer {
                batch.add(db, Value { owner: row.k, sealed }, count);
            }
        }
        again(async || {
            sqlx::query!(
                "update idempotency i set answer = t.new from unnest($1::uuid[], $2::bytea[], $3::bytea[]) t(k, old, new) where i.k = t.k and i.answer = t.old",
                &batch.owners,
                &batch.old,
                &batch.new
            )
            .execute(db.pool())
            .await
        })
        .await?;
    }
}

async fn seal_check(db: &Database) -> Result<()> {
    sqlx::query!("update installation set seal_check = $1", db.sealer().seal(Uuid::nil(), SEAL_CHECK)).execute(db.pool()).await?;
    Ok(())
}

/// Runs a statement; again, if it and a server's waited for each other.
async fn again<T>(mut statement: impl AsyncFnMut() -> std::result::Result<T, sqlx::Error>) -> Result<()> {
    for _ in 1..TRIES {
        match statement().await.map_err(Error::from) {
            Err(Error::Unavailable(Some(sqlx::Error::Database(error)))) => {
                tracing::debug!(%error, "a batch is tried again");
            }
            outcome => return outcome.map(drop),
        }
    }
    Ok(statement().await.map(drop)?)
}
