//! The sealed parts of an endpoint: its signing secrets and its custom headers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    endpoint::{Headers, check_header_count},
    id::{ApplicationId, EndpointId, TenantId},
    signing::Secret,
};
use rand::Rng;
use sqlx::types::Uuid;

use super::{Address, get, lock};
use crate::{Db, Error, Result, applications, connection::Connection, idempotency::Effect};

/// Bytes of a generated signing secret (Standard Webhooks recommends 24).
const SECRET_BYTES: usize = 24;

/// The most superseded secrets that may still be signing at one time.
pub const MAX_OLD_SECRETS: usize = 10;

/// How many left-over secrets or headers one round erases.
const LEFT_OVER: i64 = 10_000;

/// Replaces an endpoint's secret; the old one goes on signing beside it for the grace period. The present one changes nothing.
#[derive(Clone, Debug)]
pub struct RotateSecret {
    /// Which endpoint.
    pub address: Address,
    /// The new secret; a random one if absent.
    pub secret: Option<Secret>,
    /// For how long the old one still signs.
    pub grace: Duration,
}

impl Effect for RotateSecret {
    type Output = Secret;

    async fn apply(self, db: &Db, tx: &mut Connection) -> Result<Secret> {
        let (application_id, endpoint_id) = lock(&mut *tx, &self.address).await?;
        let id = Uuid::from(endpoint_id);
        sqlx::query!("delete from endpoint_secret where endpoint_id = $1 and expires_at <= now()", id).execute(&mut *tx).await?;
        let wanted = self.secret.unwrap_or_else(random_secret);
        let live =
            sqlx::query!("select id, secret, expires_at from endpoint_secret where endpoint_id = $1", id).fetch_all(&mut *tx).await?;
        let mut copies = Vec::new();
        for row in &live {
            // One that cannot be opened is replaced like any other that is not the new one.
            if open_secret(db, row.id, &row.secret).is_ok_and(|secret| secret == wanted) {
                if row.expires_at.is_none() {
                    return Ok(wanted);
                }
                copies.push(row.id);
            }
        }
        // One that still signs becomes the current one: it must not stay beside itself.
        sqlx::query!("delete from endpoint_secret where id = any ($1)", &copies).execute(&mut *tx).await?;
        let old = live.iter().filter(|row| row.expires_at.is_some()).count() - copies.len();
        if old >= MAX_OLD_SECRETS && !self.grace.is_zero() {
            return Err(Error::LimitReached(
                "this endpoint has too many superseded secrets that still sign: wait for one to expire, or rotate without a grace period",
            ));
        }
        if self.grace.is_zero() {
            sqlx::query!("delete from endpoint_secret where endpoint_id = $1 and expires_at is null", id).execute(&mut *tx).await?;
        } else {
            let seconds = self.grace.as_secs_f64();
            sqlx::query!(
                "update endpoint_secret set expires_at = now() + make_interval(secs => $2) where endpoint_id = $1 and expires_at is null",
                id,
                seconds
            )
            .execute(&mut *tx)
            .await?;
        }
        write_secret(db, &mut *tx, endpoint_id, &wanted).await?;
        applications::bump(tx, application_id).await?;
        Ok(wanted)
    }
}

/// Replaces or edits an endpoint's custom headers.
#[derive(Clone, Debug)]
pub struct SetHeaders {
    /// Which endpoint.
    pub address: Address,
    /// Name to new value; `None` removes the header. Checked.
    pub headers: Vec<(String, Option<String>)>,
    /// Drop all that are not named (PUT), but for these, whose values nobody is shown.
    pub replace_but: Option<Vec<String>>,
}

impl Effect for SetHeaders {
    type Output = ();

    async fn apply(self, db: &Db, tx: &mut Connection) -> Result<()> {
        let (application_id, endpoint_id) = lock(&mut *tx, &self.address).await?;
        // Headers that are replaced as a whole are not even opened: perhaps they cannot be.
        let replaces_all = self.replace_but.as_ref().is_some_and(Vec::is_empty);
        let mut headers = if replaces_all { Headers::new() } else { read_headers(db, &mut *tx, endpoint_id).await? };
        let before = headers.len();
        if let Some(kept) = &self.replace_but {
            if let Some(lost) = kept.iter().find(|kept| !headers.keys().any(|name| name.eq_ignore_ascii_case(kept))) {
                let why = format!("names `{lost}`, which this endpoint does not have: give its value in `headers`");
                return Err(Error::Invalid { field: "sensitive", why });
            }
            headers.retain(|name, _| kept.iter().any(|kept| kept.eq_ignore_ascii_case(name)));
        }
        for (name, value) in self.headers {
            headers.retain(|known, _| !known.eq_ignore_ascii_case(&name));
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        // Where an older release let too many add up, they may still be changed and become fewer.
        if headers.len() > before {
            check_header_count(headers.len()).map_err(|error| Error::Invalid { field: "headers", why: error.to_string() })?;
        }
        write_headers(db, &mut *tx, endpoint_id, &headers).await?;
        applications::bump(tx, application_id).await
    }
}

/// The current signing secret.
pub async fn secret(db: &Db, address: &Address) -> Result<Secret> {
    let id = Uuid::from(get(db, address).await?.id);
    let row = sqlx::query!("select id, secret from endpoint_secret where endpoint_id = $1 and expires_at is null", id)
        .fetch_optional(db.pool())
        .await?
        .ok_or(Error::NotFound("secret"))?;
    open_secret(db, row.id, &row.secret)
}

/// The custom headers.
pub async fn headers(db: &Db, address: &Address) -> Result<Headers> {
    let id = get(db, address).await?.id;
    read_headers(db, &mut db.pool().acquire().await?, id).await
}

pub(super) fn random_secret() -> Secret {
    let mut bytes = vec![0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    Secret::symmetric(bytes)
}

pub(super) async fn write_secret(db: &Db, tx: &mut Connection, endpoint_id: EndpointId, secret: &Secret) -> Result<()> {
    let id = db.new_id();
    let sealed = db.inner.sealer.seal(id, secret.expose().as_bytes());
    sqlx::query!(
        "insert into endpoint_secret (id, tenant_id, endpoint_id, secret) select $1, tenant_id, id, $3 from endpoint where id = $2",
        id,
        Uuid::from(endpoint_id),
        sealed
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) fn open_secret(db: &Db, id: Uuid, sealed: &[u8]) -> Result<Secret> {
    let text = String::from_utf8(db.inner.sealer.open(id, sealed)?).map_err(|_| Error::Sealed)?;
    Secret::parse(&text).map_err(|_| Error::Sealed)
}

pub(super) async fn write_headers(db: &Db, tx: &mut Connection, endpoint_id: EndpointId, headers: &Headers) -> Result<()> {
    let id = Uuid::from(endpoint_id);
    let json = serde_json::to_vec(headers).expect("text to text is JSON");
    let sealed = db.inner.sealer.seal(id, &json);
    sqlx::query!("update endpoint set headers = $2, updated_at = now() where id = $1", id, sealed).execute(tx).await?;
    Ok(())
}

async fn read_headers(db: &Db, connection: &mut Connection, endpoint_id: EndpointId) -> Result<Headers> {
    let id = Uuid::from(endpoint_id);
    let sealed = sqlx::query_scalar!("select headers from endpoint where id = $1", id).fetch_one(connection).await?;
    open_headers(db, id, sealed.as_deref())
}

pub(crate) fn open_headers(db: &Db, id: Uuid, sealed: Option<&[u8]>) -> Result<Headers> {
    let Some(sealed) = sealed else { return Ok(Headers::new()) };
    serde_json::from_slice(&db.inner.sealer.open(id, sealed)?).map_err(|_| Error::Sealed)
}

/// Erases the secrets of endpoints that are deleted in this transaction: nothing is sent to them any more.
pub(crate) async fn erase(tx: &mut Connection, endpoints: &[Uuid]) -> Result<()> {
    sqlx::query!("delete from endpoint_secret where endpoint_id = any ($1)", endpoints).execute(tx).await?;
    Ok(())
}

/// Erases what signs no more: superseded secrets whose time is over, and what an earlier release left of endpoints that were
/// deleted, by themselves or with their application. Not more than so many at once.
pub async fn erase_left_over(db: &Db) -> Result<()> {
    sqlx::query!(
        "delete from endpoint_secret where id in (
           select s.id from endpoint_secret s join endpoint e on e.id = s.endpoint_id join application a on a.id = e.application_id
             where s.expires_at <= now() - interval '1 hour' or e.deleted_at is not null or a.deleted_at is not null limit $1)",
        LEFT_OVER
    )
    .execute(db.pool())
    .await?;
    sqlx::query!(
        "update endpoint set headers = null where id in (
           select e.id from endpoint e join application a on a.id = e.application_id
             where e.headers is not null and (e.deleted_at is not null or a.deleted_at is not null) order by e.id limit $1 for update of e skip locked)",
        LEFT_OVER
    )
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Whose an endpoint is, deleted or not.
pub(crate) async fn application_of(db: &Db, endpoint_id: EndpointId) -> Result<Option<(TenantId, ApplicationId)>> {
    let row = sqlx::query!("select tenant_id, application_id from endpoint where id = $1", Uuid::from(endpoint_id))
        .fetch_optional(db.pool())
        .await?;
    Ok(row.map(|row| (row.tenant_id.into(), row.application_id.into())))
}

/// A signing secret as its table holds it.
#[derive(Debug)]
pub(crate) struct SecretRow {
    pub(crate) id: Uuid,
    pub(crate) endpoint_id: Uuid,
    pub(crate) secret: Vec<u8>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
}
