//! Keys that programs call with. The text of a key leaves here once, when it is made; what is kept tells it from others.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    api_key::{ApiKey, KnownKey, MASK, Role, SECRET},
    id::{ApiKeyId, TenantId},
};
use rand::{RngExt, distr::Alphanumeric};
use sqlx::types::Uuid;

use crate::{Database, Error, Result, connection::Connection, records::tenants};

/// What a look-up that finds nothing says.
const WHAT: &str = "API key";
/// How many keys of a tenant are shown at most.
const SHOWN: i64 = 1000;

/// A key that somebody calls with, as far as it is ours.
#[derive(Clone, Debug)]
pub struct Found {
    /// What its tenant is called.
    pub tenant: String,
    /// What is known of it.
    pub key: KnownKey,
}

/// Makes a key for a tenant, which is made with it if it is not there yet. It is valid for so long, or until it is revoked.
pub async fn create(db: &Database, tenant: &str, name: &str, role: Role, lifetime: Option<Duration>) -> Result<(ApiKey, KnownKey)> {
    let tenant_id = tenants::find_or_create(db, tenant).await?;
    insert(db, &mut db.pool().acquire().await?, tenant_id, name, role, lifetime).await
}

/// Makes a key for a tenant that there is.
pub(crate) async fn insert(
    db: &Database,
    connection: &mut Connection,
    tenant_id: TenantId,
    name: &str,
    role: Role,
    lifetime: Option<Duration>,
) -> Result<(ApiKey, KnownKey)> {
    let key = ApiKey::new(&random(MASK), &random(SECRET));
    let hash = key.hash();
    let row = sqlx::query_as!(
        Row,
        "insert into api_key (id, tenant_id, name, role, mask, hash, expires_at)
         values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
         returning id, tenant_id, name, role, mask, expires_at, created_at, revoked_at",
        db.new_id(),
        Uuid::from(tenant_id),
        name,
        number(role),
        key.mask(),
        hash.as_slice(),
        lifetime.map(|lifetime| lifetime.as_secs_f64()),
    )
    .fetch_one(connection)
    .await?;
    Ok((key, row.into()))
}

/// The key that this is, valid or not; nothing, if it is none of ours.
pub async fn find(db: &Database, key: &ApiKey) -> Result<Option<Found>> {
    let row = sqlx::query!(
        "select k.id, k.tenant_id, k.name, k.role, k.mask, k.hash, k.expires_at, k.created_at, k.revoked_at, t.subject
           from api_key k join tenant t on t.id = k.tenant_id where k.mask = $1",
        key.mask(),
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(row.filter(|row| key.has_hash(&row.hash)).map(|row| {
        let (id, tenant_id, name, role, mask) = (row.id, row.tenant_id, row.name, row.role, row.mask);
        let (expires_at, created_at, revoked_at) = (row.expires_at, row.created_at, row.revoked_at);
        Found { tenant: row.subject, key: Row { id, tenant_id, name, role, mask, expires_at, created_at, revoked_at }.into() }
    }))
}

/// The keys of a tenant, the newest first; the expired and revoked ones too.
pub async fn list(db: &Database, tenant: &str) -> Result<Vec<KnownKey>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, tenant_id, name, role, mask, expires_at, created_at, revoked_at from api_key
          where tenant_id = (select id from tenant where subject = $1) order by id desc limit $2",
        tenant,
        SHOWN,
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows.into_iter().map(KnownKey::from).collect())
}

/// Takes a key back; one that was taken back before stays so. Each process forgets it within moments, not at once.
pub async fn revoke(db: &Database, tenant: &str, id: ApiKeyId) -> Result<KnownKey> {
    let row = sqlx::query_as!(
        Row,
        "update api_key set revoked_at = coalesce(revoked_at, now())
          where tenant_id = (select id from tenant where subject = $1) and id = $2
          returning id, tenant_id, name, role, mask, expires_at, created_at, revoked_at",
        tenant,
        Uuid::from(id),
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(KnownKey::from).ok_or(Error::NotFound(WHAT))
}

/// So many letters and digits that nobody can guess.
pub(crate) fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

fn number(role: Role) -> i16 {
    match role {
        Role::Admin => 0,
        Role::Viewer => 1,
    }
}

struct Row {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    role: i16,
    mask: String,
    expires_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Row> for KnownKey {
    fn from(row: Row) -> Self {
        let Row { id, tenant_id, name, role, mask, expires_at, created_at, revoked_at } = row;
        let (id, tenant_id): (ApiKeyId, TenantId) = (id.into(), tenant_id.into());
        let role = if role == number(Role::Admin) { Role::Admin } else { Role::Viewer };
        Self { id, tenant_id, name, role, mask, expires_at, created_at, revoked_at }
    }
}
