//! Applications: one customer of a tenant each.

use chrono::{DateTime, Utc};
use domain::{
    application::{Application, Metadata, Uid},
    id::{ApplicationId, TenantId},
};
use sqlx::types::{Json, Uuid};

use crate::{
    Conflict, Database, Error, Result,
    connection::Connection,
    effect::Effect,
    endpoint_health,
    error::on_constraint,
    page::{Page, PageRequest},
    reference::GOES,
    sealed_parts, wanted,
};

pub use crate::reference::{Made, Reference};

/// What a look-up that finds nothing says.
const WHAT: &str = "application";

/// What is to change of an application: absent fields stay as they are. For a new one, absent fields take their defaults.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The tenant's name for it.
    pub uid: Option<Option<Uid>>,
    /// For people.
    pub name: Option<String>,
    /// Messages a second.
    pub throttle_rate: Option<Option<u16>>,
    /// The tenant's notes.
    pub metadata: Option<Metadata>,
}

/// Creates an application.
#[derive(Clone, Debug)]
pub struct Create {
    /// For whom.
    pub tenant_id: TenantId,
    /// What it is to be.
    pub change: Change,
    /// Return the application that already has this uid, unchanged, instead of a conflict.
    pub get_if_exists: bool,
}

impl Effect for Create {
    type Output = (Application, Made);

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let known = self.change.uid.iter().flatten().next().filter(|_| self.get_if_exists).map(|uid| Reference::Uid(uid.to_string()));
        for _ in 0..GOES {
            if let Some(known) = &known
                && let Some(row) = find(&mut *tx, self.tenant_id, known).await?
            {
                return Ok((row.into(), Made::Existed));
            }
            match insert(db, &mut *tx, self.tenant_id, &self.change).await? {
                Some(application) => return Ok((application, Made::Created)),
                None if known.is_none() => break,
                // Somebody else has just made it.
                None => {}
            }
        }
        Err(Conflict::ApplicationUid.into())
    }
}

/// Makes an application in a transaction of its own.
pub async fn ensure(db: &Database, create: Create) -> Result<Application> {
    let mut tx = db.pool().begin().await?;
    let (application, _) = create.apply(db, &mut tx).await?;
    tx.commit().await?;
    Ok(application)
}

/// Changes an application.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub application: Reference<ApplicationId>,
    /// What changes.
    pub change: Change,
    /// Make it if there is none (PUT), under the uid by which it is called.
    pub or_create: bool,
}

impl Effect for Update {
    type Output = (Application, Made);

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let Self { tenant_id, application, mut change, or_create } = self;
        for _ in 0..GOES {
            match lock(&mut *tx, tenant_id, &application).await {
                Ok(id) => {
                    // A PUT that names no uid keeps the one in its path: a repeat would not find the thing otherwise.
                    if or_create && application.is_uid() && change.uid == Some(None) {
                        change.uid = None;
                    }
                    return Ok((update(tx, id, change).await?, Made::Existed));
                }
                Err(Error::NotFound(_)) if or_create => {}
                Err(error) => return Err(error),
            }
            let uid = application.uid_to_make(change.uid.iter().flatten().next(), WHAT)?;
            let new = Change { uid: Some(Some(uid)), ..change.clone() };
            if let Some(application) = insert(db, &mut *tx, tenant_id, &new).await? {
                return Ok((application, Made::Created));
            }
            // Somebody else has just made it.
        }
        Err(Conflict::ApplicationUid.into())
    }
}

async fn update(tx: &mut Connection, id: ApplicationId, change: Change) -> Result<Application> {
    let Change { uid, name, throttle_rate, metadata } = change;
    let written = sqlx::query_as!(
        Row,
        r#"update application set
                 uid = case when $2 then $3 else uid end,
                 name = coalesce($4, name),
                 throttle_rate = case when $5 then $6 else throttle_rate end,
                 metadata = coalesce($7, metadata),
                 version = version + 1, updated_at = now()
               where id = $1
               returning id, tenant_id, uid, name, throttle_rate, metadata as "metadata: Json<Metadata>", version, created_at, updated_at"#,
        Uuid::from(id),
        uid.is_some(),
        uid.flatten().map(|uid| uid.to_string()),
        name,
        throttle_rate.is_some(),
        throttle_rate.flatten().map(i32::from),
        metadata.map(Json) as _,
    )
    .fetch_one(tx)
    .await;
    Ok(on_constraint(written, "application_uid", Conflict::ApplicationUid)?.into())
}

/// Deletes an application; what it still owes ends as canceled. Its uid may be used again.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub application: Reference<ApplicationId>,
}

impl Effect for Delete {
    type Output = ();

    const WAKES: bool = true;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let id = lock(&mut *tx, self.tenant_id, &self.application).await?;
        let id = Uuid::from(id);
        sqlx::query!("update application set deleted_at = now(), version = version + 1 where id = $1", id).execute(&mut *tx).await?;
        // What its endpoints still owe ends without a request: nothing of it is to be held back.
        let gone = sqlx::query_scalar!("select id from endpoint where application_id = $1 and deleted_at is null order by id", id)
            .fetch_all(&mut *tx)
            .await?;
        for endpoint_id in &gone {
            endpoint_health::reset(&mut *tx, *endpoint_id).await?;
        }
        sqlx::query!("delete from endpoint_rate where endpoint_id = any ($1)", &gone).execute(&mut *tx).await?;
        sqlx::query!("update endpoint set headers = null where id = any ($1)", &gone).execute(&mut *tx).await?;
        wanted::end(&mut *tx, self.tenant_id.into(), &gone).await?;
        sealed_parts::erase(tx, &gone).await
    }
}

/// One application.
pub async fn get(db: &Database, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<Application> {
    Ok(find(&mut db.pool().acquire().await?, tenant_id, application).await?.ok_or(Error::NotFound(WHAT))?.into())
}

/// The id of an application whether it is deleted or not, so that a saved outcome under it can still be replayed.
pub async fn id_even_if_deleted(
    db: &Database,
    tenant_id: TenantId,
    application: &Reference<ApplicationId>,
) -> Result<Option<ApplicationId>> {
    let id = sqlx::query_scalar!(
        "select id from application where tenant_id = $1 and (id = $2 and not is_own or uid = $3) order by deleted_at is not null, id desc limit 1",
        Uuid::from(tenant_id),
        application.id(),
        application.uid(),
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(id.map(ApplicationId::from))
}

/// The tenant's applications by id.
pub async fn list(db: &Database, tenant_id: TenantId, page: &PageRequest<ApplicationId>) -> Result<Page<Application>> {
    let (first, end) = page.bounds(None, None);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                r#"select id, tenant_id, uid, name, throttle_rate, metadata as "metadata: Json<Metadata>", version, created_at, updated_at
                     from application where tenant_id = $1 and deleted_at is null and not is_own and id >= $2 and id < $3
                    order by id "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
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
    Ok(page.page(rows.into_iter().map(Application::from).collect()))
}

/// The id of a live application of this tenant, shared-locked by nobody: for reads that only need to know whose it is.
pub(crate) async fn resolve(db: &Database, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<ApplicationId> {
    let id = sqlx::query_scalar!(
        "select id from application where tenant_id = $1 and (id = $2 and not is_own or uid = $3) and deleted_at is null",
        Uuid::from(tenant_id),
        application.id(),
        application.uid(),
    )
    .fetch_optional(db.pool())
    .await?;
    id.map(ApplicationId::from).ok_or(Error::NotFound(WHAT))
}

/// Locks a live application for a write to it or to its endpoints, so that versions grow in commit order.
pub(crate) async fn lock(tx: &mut Connection, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<ApplicationId> {
    let id = sqlx::query_scalar!(
        "select id from application where tenant_id = $1 and (id = $2 and not is_own or uid = $3) and deleted_at is null for update",
        Uuid::from(tenant_id),
        application.id(),
        application.uid(),
    )
    .fetch_optional(tx)
    .await?;
    id.map(ApplicationId::from).ok_or(Error::NotFound(WHAT))
}

/// Makes every cached copy of the application's endpoints stale. The application must be locked.
pub(crate) async fn bump(tx: &mut Connection, id: ApplicationId) -> Result<()> {
    sqlx::query!("update application set version = version + 1 where id = $1", Uuid::from(id)).execute(tx).await?;
    Ok(())
}

/// Makes every cached copy of what holds for all applications of a tenant stale, at every node.
pub(crate) async fn bump_all(tx: &mut Connection, tenant_id: TenantId) -> Result<()> {
    // In the order of their ids, as everybody who locks several of them does.
    sqlx::query!(
        "update application set version = version + 1 from
           (select id from application where tenant_id = $1 and deleted_at is null order by id for update) a where application.id = a.id",
        Uuid::from(tenant_id)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes an application, or nothing if its uid is taken: then whoever took it has committed, and the next look-up sees it.
pub(crate) async fn insert(db: &Database, tx: &mut Connection, tenant_id: TenantId, change: &Change) -> Result<Option<Application>> {
    let row = sqlx::query_as!(
        Row,
        r#"insert into application (id, tenant_id, uid, name, throttle_rate, metadata) values ($1, $2, $3, $4, $5, $6)
           on conflict (tenant_id, uid) where deleted_at is null do nothing
           returning id, tenant_id, uid, name, throttle_rate, metadata as "metadata: Json<Metadata>", version, created_at, updated_at"#,
        db.new_id(),
        Uuid::from(tenant_id),
        change.uid.as_ref().and_then(Option::as_ref).map(Uid::as_str),
        change.name.as_deref().unwrap_or_default(),
        change.throttle_rate.flatten().map(i32::from),
        Json(change.metadata.clone().unwrap_or_default()) as _,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Application::from))
}

pub(crate) async fn find(connection: &mut Connection, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<Option<Row>> {
    Ok(sqlx::query_as!(
        Row,
        r#"select id, tenant_id, uid, name, throttle_rate, metadata as "metadata: Json<Metadata>", version, created_at, updated_at
             from application where tenant_id = $1 and (id = $2 and not is_own or uid = $3) and deleted_at is null"#,
        Uuid::from(tenant_id),
        application.id(),
        application.uid(),
    )
    .fetch_optional(connection)
    .await?)
}

/// An application as its table holds it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: Uuid,
    pub(crate) uid: Option<String>,
    pub(crate) name: String,
    pub(crate) throttle_rate: Option<i32>,
    pub(crate) metadata: Json<Metadata>,
    pub(crate) version: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl From<Row> for Application {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            tenant_id: row.tenant_id.into(),
            uid: row.uid.map(Uid::stored),
            name: row.name,
            throttle_rate: row.throttle_rate.and_then(|rate| u16::try_from(rate).ok()),
            metadata: row.metadata.0,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
