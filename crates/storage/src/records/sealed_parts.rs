//! The sealed parts of an endpoint, its signing secrets and its custom headers: how they are written, opened and erased.

use chrono::{DateTime, Utc};
use domain::{endpoint::Headers, id::EndpointId, signing::Secret};
use rand::Rng;
use sqlx::types::Uuid;

use crate::{Database, Error, Result, connection::Connection};

/// Bytes of a generated signing secret (Standard Webhooks recommends 24).
const SECRET_BYTES: usize = 24;
/// How many left-over secrets or headers one round erases.
const LEFT_OVER: i64 = 10_000;

pub(crate) fn random_secret() -> Secret {
    let mut bytes = vec![0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    Secret::symmetric(bytes)
}

pub(crate) async fn write_secret(db: &Database, tx: &mut Connection, endpoint_id: EndpointId, secret: &Secret) -> Result<()> {
    let id = db.new_id();
    let sealed = db.sealer().seal(id, secret.expose().as_bytes());
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

pub(crate) fn open_secret(db: &Database, id: Uuid, sealed: &[u8]) -> Result<Secret> {
    let text = String::from_utf8(db.sealer().open(id, sealed)?).map_err(|_| Error::Sealed)?;
    Secret::stored(&text).map_err(|_| Error::Sealed)
}

pub(crate) async fn write_headers(db: &Database, tx: &mut Connection, endpoint_id: EndpointId, headers: &Headers) -> Result<()> {
    let id = Uuid::from(endpoint_id);
    let json = serde_json::to_vec(headers).expect("text to text is JSON");
    let sealed = db.sealer().seal(id, &json);
    sqlx::query!("update endpoint set headers = $2, updated_at = now() where id = $1", id, sealed).execute(tx).await?;
    Ok(())
}

pub(crate) async fn read_headers(db: &Database, connection: &mut Connection, endpoint_id: EndpointId) -> Result<Headers> {
    let id = Uuid::from(endpoint_id);
    let sealed = sqlx::query_scalar!("select headers from endpoint where id = $1", id).fetch_one(connection).await?;
    open_headers(db, id, sealed.as_deref())
}

pub(crate) fn open_headers(db: &Database, id: Uuid, sealed: Option<&[u8]>) -> Result<Headers> {
    let Some(sealed) = sealed else { return Ok(Headers::new()) };
    serde_json::from_slice(&db.sealer().open(id, sealed)?).map_err(|_| Error::Sealed)
}

/// Erases the secrets of endpoints that are deleted in this transaction: nothing is sent to them any more.
pub(crate) async fn erase(tx: &mut Connection, endpoints: &[Uuid]) -> Result<()> {
    sqlx::query!("delete from endpoint_secret where endpoint_id = any ($1)", endpoints).execute(tx).await?;
    Ok(())
}

/// Erases what signs no more: superseded secrets whose time is over, and what an earlier release left of endpoints that were
/// deleted, by themselves or with their application. Not more than so many at once.
pub async fn erase_left_over(db: &Database) -> Result<()> {
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

/// A signing secret as its table holds it.
#[derive(Debug)]
pub(crate) struct SecretRow {
    pub(crate) id: Uuid,
    pub(crate) endpoint_id: Uuid,
    pub(crate) secret: Vec<u8>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
}
