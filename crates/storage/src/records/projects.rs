//! Tenants as projects: a row for what was set, and an application for endpoints that no customer owns.

use chrono::{DateTime, Utc};
use domain::{
    api_key::{ApiKey, KnownKey, Role},
    id::{ApplicationId, TenantId},
    project::{Project, ProjectKind},
    retry_strategy::RetryStrategy,
};
use serde_json::{Map, Value};
use sqlx::types::{Json, Uuid};

use crate::{
    Conflict, Database, Error, Result, api_keys,
    applications::{self, Change as ApplicationChange},
    connection::Connection,
    effect::Effect,
    project_rules,
};

/// What the application is called that belongs to nobody but the project.
const OF_THE_PROJECT: &str = "Endpoints without an owner";
/// What is said where a project's kind may not change any more.
const HAS_ENDPOINTS: &str = "can only be changed while the project has no endpoints: delete them first, or use another project";

/// What is to change of a project: absent fields stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub logo_url: Option<String>,
    /// Which way its events go.
    pub kind: Option<ProjectKind>,
    /// What is set anew, by name and checked; null unsets. What is not named stays.
    pub config: Map<String, Value>,
}

/// The project that a tenant is; one that was never written has the defaults.
pub async fn find(db: &Database, tenant_id: TenantId) -> Result<Project> {
    of(&mut db.pool().acquire().await?, tenant_id).await
}

/// Makes a tenant the project that somebody wants, unless it was made one before, and a key for it.
#[derive(Clone, Debug)]
pub struct Create {
    /// Whose.
    pub tenant_id: TenantId,
    /// What it is to be.
    pub change: Change,
}

impl Effect for Create {
    type Output = (Project, ApiKey, KnownKey);

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let Self { tenant_id, change } = self;
        ensure(db, &mut *tx, tenant_id).await?;
        // Of several that find it without a name, one goes first, and the others find it named.
        let free = sqlx::query!("update project set is_named = true where tenant_id = $1 and not is_named", Uuid::from(tenant_id));
        if free.execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(Conflict::ProjectExists.into());
        }
        let key_name = change.name.clone().unwrap_or_default();
        let project = Update { tenant_id, change }.apply(db, &mut *tx).await?;
        let (key, known) = api_keys::insert(db, tx, tenant_id, &key_name, Role::Admin, None).await?;
        Ok((project, key, known))
    }
}

/// Makes a project what it was before anybody said what it is to be. Its keys, and what became of its events, stay.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// Whose.
    pub tenant_id: TenantId,
}

impl Effect for Delete {
    type Output = ();

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let tenant_id = Uuid::from(self.tenant_id);
        // Whoever makes an endpoint meanwhile holds one of these.
        applications::bump_all(&mut *tx, self.tenant_id).await?;
        let is_used = sqlx::query_scalar!(
            r#"select exists (select from source where tenant_id = $1 and deleted_at is null)
                   or exists (select from application a join endpoint e on e.application_id = a.id
                               where a.tenant_id = $1 and a.deleted_at is null and not a.is_own and e.deleted_at is null) as "is_used!""#,
            tenant_id,
        )
        .fetch_one(&mut *tx)
        .await?;
        if is_used {
            return Err(Conflict::ProjectInUse.into());
        }
        sqlx::query!(
            "update project p set name = t.subject, logo_url = '', kind = $2, config = '{}', is_named = false, updated_at = now()
               from tenant t where p.tenant_id = $1 and t.id = p.tenant_id",
            tenant_id,
            number(ProjectKind::Outgoing),
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Changes a project. It holds from the very next message on, at every node: the versions of the tenant's applications change with it.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whose.
    pub tenant_id: TenantId,
    /// What changes.
    pub change: Change,
}

impl Effect for Update {
    type Output = Project;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Project> {
        let Self { tenant_id, change } = self;
        ensure(db, &mut *tx, tenant_id).await?;
        // Before the row, as whoever makes an endpoint does.
        applications::bump_all(&mut *tx, tenant_id).await?;
        if let Some(kind) = change.kind {
            check_kind(&mut *tx, tenant_id, kind).await?;
        }
        sqlx::query!(
            "update project set name = coalesce($2, name), logo_url = coalesce($3, logo_url), kind = coalesce($4, kind), is_named = true,
                                config = jsonb_strip_nulls(config || $5), updated_at = now() where tenant_id = $1",
            Uuid::from(tenant_id),
            change.name,
            change.logo_url,
            change.kind.map(number),
            Value::Object(change.config),
        )
        .execute(&mut *tx)
        .await?;
        of(tx, tenant_id).await
    }
}

/// When failed deliveries of a tenant are tried again, if it says so.
pub async fn retry(db: &Database, tenant_id: TenantId) -> Result<Option<RetryStrategy>> {
    Ok(project_rules::of(&mut db.pool().acquire().await?, tenant_id).await?.retry)
}

/// Says when failed deliveries are tried again, or leaves that to the installation. A tenant that uses nothing else of projects gets no application
/// by it.
#[derive(Clone, Copy, Debug)]
pub struct SetRetry {
    /// Whose.
    pub tenant_id: TenantId,
    /// How; nothing: as the installation has it.
    pub retry: Option<RetryStrategy>,
}

impl Effect for SetRetry {
    type Output = Option<RetryStrategy>;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<Self::Output> {
        applications::bump_all(&mut *tx, self.tenant_id).await?;
        sqlx::query!(
            "insert into project (tenant_id, name, config) select id, subject, jsonb_strip_nulls(jsonb_build_object('strategy', $2::jsonb)) from tenant where id = $1
             on conflict (tenant_id) do update set config = jsonb_strip_nulls(project.config || jsonb_build_object('strategy', $2::jsonb)), updated_at = now()",
            Uuid::from(self.tenant_id),
            self.retry.map(project_rules::write_strategy) as _,
        )
        .execute(tx)
        .await?;
        Ok(self.retry)
    }
}

async fn check_kind(tx: &mut Connection, tenant_id: TenantId, kind: ProjectKind) -> Result<()> {
    let is_used = sqlx::query_scalar!(
        r#"select exists (select from application a join endpoint e on e.application_id = a.id
             where a.tenant_id = $1 and a.deleted_at is null and not a.is_own and e.deleted_at is null
               and $2 <> (select kind from project where tenant_id = $1)) as "is_used!""#,
        Uuid::from(tenant_id),
        number(kind),
    )
    .fetch_one(tx)
    .await?;
    if is_used { Err(Error::Invalid { field: "type", why: HAS_ENDPOINTS.to_owned() }) } else { Ok(()) }
}

/// The application of the project itself, made if there is none.
pub async fn own_application(db: &Database, tenant_id: TenantId) -> Result<ApplicationId> {
    let mut tx = db.pool().begin().await?;
    let id = ensure(db, &mut tx, tenant_id).await?;
    tx.commit().await?;
    Ok(id)
}

/// The application of the project itself, which is made with the project's row if there is none: once, however many ask.
pub(crate) async fn ensure(db: &Database, tx: &mut Connection, tenant_id: TenantId) -> Result<ApplicationId> {
    if let Some(id) = application(&mut *tx, tenant_id).await? {
        return Ok(id);
    }
    // Whoever else finds none waits here, and finds it then.
    let subject = sqlx::query_scalar!("select subject from tenant where id = $1 for no key update", Uuid::from(tenant_id))
        .fetch_one(&mut *tx)
        .await?;
    if let Some(id) = application(&mut *tx, tenant_id).await? {
        return Ok(id);
    }
    let made = ApplicationChange { name: Some(OF_THE_PROJECT.to_owned()), ..ApplicationChange::default() };
    let made = applications::insert(db, &mut *tx, tenant_id, &made).await?.ok_or(Error::NotFound("application"))?;
    // Somebody may have deleted the one that there was.
    sqlx::query!(
        "insert into project (tenant_id, application_id, name) values ($1, $2, $3)
         on conflict (tenant_id) do update set application_id = excluded.application_id",
        Uuid::from(tenant_id),
        Uuid::from(made.id),
        subject,
    )
    .execute(tx)
    .await?;
    Ok(made.id)
}

/// The live application of the project itself, if there is one.
async fn application(connection: &mut Connection, tenant_id: TenantId) -> Result<Option<ApplicationId>> {
    let id = sqlx::query_scalar!(
        "select a.id from project p join application a on a.id = p.application_id where p.tenant_id = $1 and a.deleted_at is null",
        Uuid::from(tenant_id)
    )
    .fetch_optional(connection)
    .await?;
    Ok(id.map(ApplicationId::from))
}

pub(crate) async fn of(connection: &mut Connection, tenant_id: TenantId) -> Result<Project> {
    let row = sqlx::query_as!(
        Row,
        r#"select t.id as tenant_id, p.application_id as "application_id?", p.kind as "kind?", coalesce(p.name, t.subject) as "name!",
                  coalesce(p.logo_url, '') as "logo_url!", p.config as "config?: Json<Map<String, Value>>",
                  coalesce(p.created_at, t.created_at) as "created_at!", coalesce(p.updated_at, t.created_at) as "updated_at!"
             from tenant t left join project p on p.tenant_id = t.id where t.id = $1"#,
        Uuid::from(tenant_id)
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}

fn number(kind: ProjectKind) -> i16 {
    match kind {
        ProjectKind::Incoming => 0,
        ProjectKind::Outgoing => 1,
    }
}

struct Row {
    tenant_id: Uuid,
    application_id: Option<Uuid>,
    kind: Option<i16>,
    name: String,
    logo_url: String,
    config: Option<Json<Map<String, Value>>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Project {
    fn from(row: Row) -> Self {
        let kind = row.kind.filter(|kind| *kind == number(ProjectKind::Incoming)).map_or(ProjectKind::Outgoing, |_| ProjectKind::Incoming);
        Self {
            tenant_id: row.tenant_id.into(),
            application_id: row.application_id.map(ApplicationId::from),
            kind,
            name: row.name,
            logo_url: row.logo_url,
            config: row.config.map(|Json(config)| config).unwrap_or_default(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
