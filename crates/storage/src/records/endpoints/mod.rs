//! Endpoints with their secrets and headers, which are sealed at rest.

mod news;
mod pause;
mod row;
mod secrets;
mod settings;
mod state;
mod stored;

use std::sync::Arc;

use domain::{
    application::{Metadata, Uid},
    content_filter::ContentFilter,
    endpoint::{Endpoint, EndpointUrl, Headers, Settings},
    id::{ApplicationId, EndpointId, TenantId},
    retry_strategy::RetryStrategy,
    signing::Secret,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use crate::{
    Database, Error, Result,
    applications::{self, Made, Reference},
    connection::Connection,
    effect::Effect,
    endpoint_health,
    page::{Page, PageRequest},
    sealed_parts::{SecretRow, erase, write_headers},
    wanted,
};

pub use crate::endpoint_health::paused;
pub use pause::{Pause, Pausing};
use row::{insert, update};
pub use secrets::{MAX_OLD_SECRETS, RotateSecret, SetHeaders, headers, secret};
pub(crate) use state::owed;
pub use state::{EndpointHealth, Failure, Owed, health};
pub(crate) use stored::{Row, filter};

pub use crate::sealed_parts::erase_left_over;

/// What a look-up that finds nothing says.
const WHAT: &str = "endpoint";

/// What is to change of an endpoint: absent fields stay as they are. For a new one, absent fields take their defaults.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The tenant's name for it.
    pub uid: Option<Option<Uid>>,
    /// Where its webhooks go; required for a new one.
    pub url: Option<EndpointUrl>,
    /// For people.
    pub description: Option<String>,
    /// A number of the tenant's choosing; 1 if absent.
    pub version: Option<i32>,
    /// Messages a second.
    pub throttle_rate: Option<Option<u16>>,
    /// Switched off.
    pub is_disabled: Option<bool>,
    /// Only these event types.
    pub event_types: Option<Option<Vec<String>>>,
    /// Only these channels.
    pub channels: Option<Option<Vec<String>>>,
    /// Only what this takes.
    pub filter: Option<Option<ContentFilter>>,
    /// The tenant's notes.
    pub metadata: Option<Metadata>,
    /// What only some have, all of it.
    pub settings: Option<Settings>,
    /// When failed deliveries are tried again: of the settings, this alone.
    pub retry: Option<Option<RetryStrategy>>,
    /// A new one gets what its subscriptions let through, so nothing as long as it has none, whatever it asks for itself. Of one that exists this is not
    /// changed.
    pub is_subscribed: Option<bool>,
    /// Of event types that are behind a flag, whoever asks may name only those with one of these; absent: all.
    pub feature_flags: Option<Arc<[String]>>,
    /// Whoever asks has checked the event types: they are not the tenant's.
    pub has_checked_event_types: bool,
}

/// Creates an endpoint.
#[derive(Clone, Debug)]
pub struct Create {
    /// For whom.
    pub tenant_id: TenantId,
    /// For which customer.
    pub application: Reference<ApplicationId>,
    /// What it is to be; `url` must be there.
    pub change: Change,
    /// Its signing secret; a random one if absent.
    pub secret: Option<Secret>,
    /// Custom headers, checked.
    pub headers: Headers,
}

impl Effect for Create {
    type Output = Endpoint;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Endpoint> {
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let endpoint = insert(db, &mut *tx, self.tenant_id, application_id, self.change, self.secret).await?;
        if !self.headers.is_empty() {
            write_headers(db, &mut *tx, endpoint.id, &self.headers).await?;
        }
        news::created(db, &mut *tx, &endpoint).await?;
        applications::bump(tx, application_id).await?;
        Ok(endpoint)
    }
}

/// Which endpoint of which application of which tenant.
#[derive(Clone, Debug)]
pub struct Address {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
    /// Which.
    pub endpoint: Reference<EndpointId>,
}

/// Changes an endpoint.
#[derive(Clone, Debug)]
pub struct Update {
    /// Which.
    pub address: Address,
    /// What changes.
    pub change: Change,
    /// Make it if there is none (PUT), under the uid by which it is called.
    pub or_create: bool,
}

impl Effect for Update {
    type Output = (Endpoint, Made);

    /// What was held for the endpoint may have been let go.
    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let Self { address, mut change, or_create } = self;
        let application_id = applications::lock(&mut *tx, address.tenant_id, &address.application).await?;
        let found = find(&mut *tx, application_id, &address.endpoint).await?;
        let (endpoint, made) = match found {
            Some(row) => {
                // As with applications, a PUT that names no uid keeps the one in its path.
                if or_create && address.endpoint.is_uid() && change.uid == Some(None) {
                    change.uid = None;
                }
                let endpoint = update(&mut *tx, address.tenant_id, &row, change).await?;
                news::updated(db, &mut *tx, &endpoint, row.is_disabled).await?;
                (endpoint, Made::Existed)
            }
            None if or_create => {
                let uid = address.endpoint.uid_to_make(change.uid.iter().flatten().next(), WHAT)?;
                change.uid = Some(Some(uid));
                let endpoint = insert(db, &mut *tx, address.tenant_id, application_id, change, None).await?;
                news::created(db, &mut *tx, &endpoint).await?;
                (endpoint, Made::Created)
            }
            None => return Err(Error::NotFound(WHAT)),
        };
        applications::bump(tx, application_id).await?;
        Ok((endpoint, made))
    }
}

/// Deletes an endpoint; what is still owed to it ends as canceled.
#[derive(Clone, Debug)]
pub struct Delete(pub Address);

impl Effect for Delete {
    type Output = ();

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<()> {
        let (application_id, endpoint_id) = lock(&mut *tx, &self.0).await?;
        let id = Uuid::from(endpoint_id);
        let uid = sqlx::query_scalar!("update endpoint set deleted_at = now(), headers = null where id = $1 returning uid", id)
            .fetch_one(&mut *tx)
            .await?;
        news::deleted(db, &mut *tx, self.0.tenant_id, application_id, endpoint_id, uid).await?;
        erase(&mut *tx, &[id]).await?;
        endpoint_health::reset(&mut *tx, id).await?;
        keep_rate(&mut *tx, id).await?;
        wanted::end(&mut *tx, self.0.tenant_id.into(), &[id]).await?;
        applications::bump(tx, application_id).await
    }
}

/// One endpoint.
pub async fn get(db: &Database, address: &Address) -> Result<Endpoint> {
    let application_id = applications::resolve(db, address.tenant_id, &address.application).await?;
    Ok(find(&mut db.pool().acquire().await?, application_id, &address.endpoint).await?.ok_or(Error::NotFound(WHAT))?.into())
}

/// The application's endpoints by id.
pub async fn list(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
    page: &PageRequest<EndpointId>,
) -> Result<Page<Endpoint>> {
    let application_id = applications::resolve(db, tenant_id, application).await?;
    let (first, end) = page.bounds(None, None);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                r#"select id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                          subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                          metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at
                     from endpoint where application_id = $1 and deleted_at is null and id >= $2 and id < $3
                    order by id "#
                    + $order
                    + " limit $4",
                Uuid::from(application_id),
                first,
                end,
                page.rows(),
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    Ok(page.page(rows.into_iter().map(Endpoint::from).collect()))
}

/// Switches an endpoint off because its receiver said so (410) or has failed for days; a repeat changes nothing.
pub async fn disable(db: &Database, endpoint_id: EndpointId) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    let id = Uuid::from(endpoint_id);
    let application_id = sqlx::query_scalar!(
        "select a.id from application a join endpoint e on e.application_id = a.id where e.id = $1 and not e.is_disabled for update of a",
        id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(application_id) = application_id else { return Ok(()) };
    // Looked at again under the lock: of two that were at it, one has done it.
    let switched = sqlx::query!(
        "update endpoint set is_disabled = true, updated_at = now() where id = $1 and not is_disabled
           returning tenant_id, uid, coalesce((select failing_since from endpoint_health where endpoint_id = $1), now()) as failing_since",
        id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(switched) = switched else { return Ok(tx.rollback().await?) };
    let application_id = ApplicationId::from(application_id);
    news::given_up(db, &mut tx, switched.tenant_id.into(), application_id, endpoint_id, switched.uid, switched.failing_since).await?;
    endpoint_health::reset(&mut tx, id).await?;
    keep_rate(&mut tx, id).await?;
    applications::bump(&mut tx, application_id).await?;
    tx.commit().await?;
    db.wake();
    Ok(())
}

/// Keeps `endpoint_rate` true: an endpoint has a row there if it has a throttle and may be sent to. What is owed to one that is
/// off ends without a request, and need not wait for its turn.
async fn keep_rate(tx: &mut Connection, id: Uuid) -> Result<()> {
    sqlx::query!(
        "insert into endpoint_rate (endpoint_id, tenant_id, rate)
         select id, tenant_id, throttle_rate from endpoint where id = $1 and throttle_rate is not null and not is_disabled and deleted_at is null
         on conflict (endpoint_id) do update set rate = excluded.rate",
        id,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from endpoint_rate r using endpoint e
          where r.endpoint_id = $1 and e.id = $1 and (e.throttle_rate is null or e.is_disabled or e.deleted_at is not null)",
        id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// All live endpoints of an application, and their secrets, for the directory.
pub(crate) async fn all(connection: &mut Connection, application_id: ApplicationId) -> Result<(Vec<Row>, Vec<SecretRow>)> {
    let id = Uuid::from(application_id);
    let rows = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                  subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                  metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at
             from endpoint where application_id = $1 and deleted_at is null order by id"#,
        id,
    )
    .fetch_all(&mut *connection)
    .await?;
    let secrets = sqlx::query_as!(
        SecretRow,
        "select s.id, s.endpoint_id, s.secret, s.expires_at from endpoint_secret s join endpoint e on e.id = s.endpoint_id
          where e.application_id = $1 and e.deleted_at is null and (s.expires_at is null or s.expires_at > now())
          order by s.expires_at desc nulls first",
        id,
    )
    .fetch_all(connection)
    .await?;
    Ok((rows, secrets))
}

/// Whose an endpoint is, deleted or not.
pub(crate) async fn application_of(db: &Database, endpoint_id: EndpointId) -> Result<Option<(TenantId, ApplicationId)>> {
    let row = sqlx::query!("select tenant_id, application_id from endpoint where id = $1", Uuid::from(endpoint_id))
        .fetch_optional(db.pool())
        .await?;
    Ok(row.map(|row| (row.tenant_id.into(), row.application_id.into())))
}

/// Endpoints of an application by id, deleted ones too.
pub(crate) async fn of_ids(connection: &mut Connection, application_id: ApplicationId, ids: &[Uuid]) -> Result<Vec<Endpoint>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                  subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                  metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at
             from endpoint where id = any ($1) and application_id = $2"#,
        ids,
        Uuid::from(application_id),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Endpoint::from).collect())
}

/// Live endpoints of a tenant by id, whatever their application.
pub(crate) async fn of_tenant(connection: &mut Connection, tenant_id: TenantId, ids: &[Uuid]) -> Result<Vec<Endpoint>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                  subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                  metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at
             from endpoint where id = any ($1) and tenant_id = $2 and deleted_at is null"#,
        ids,
        Uuid::from(tenant_id),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Endpoint::from).collect())
}

/// Locks the application of a live endpoint, for a write to the endpoint.
async fn lock(tx: &mut Connection, address: &Address) -> Result<(ApplicationId, EndpointId)> {
    let application_id = applications::lock(&mut *tx, address.tenant_id, &address.application).await?;
    let row = find(tx, application_id, &address.endpoint).await?.ok_or(Error::NotFound(WHAT))?;
    Ok((application_id, row.id.into()))
}

pub(crate) async fn find(
    connection: &mut Connection,
    application_id: ApplicationId,
    endpoint: &Reference<EndpointId>,
) -> Result<Option<Row>> {
    Ok(sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                  subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                  metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at
             from endpoint where application_id = $1 and (id = $2 or uid = $3) and deleted_at is null"#,
        Uuid::from(application_id),
        endpoint.id(),
        endpoint.uid(),
    )
    .fetch_optional(connection)
    .await?)
}
