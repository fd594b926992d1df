//! Event types: the catalogue of what a tenant publishes.

use chrono::{DateTime, Utc};
use domain::{
    event_type::EventType,
    id::{EventTypeId, TenantId},
};
use sqlx::types::Uuid;

use crate::{
    Conflict, Database, Error, Result,
    connection::Connection,
    effect::Effect,
    page::{Page, PageRequest},
    reference::{GOES, Made},
};

/// What a look-up that finds nothing says.
const WHAT: &str = "event type";

/// What is to change of an event type: absent fields stay as they are. For a new one, absent fields take their defaults.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// For people.
    pub description: Option<String>,
    /// Version to JSON Schema.
    pub schemas: Option<Option<serde_json::Value>>,
    /// Which flag an application needs to see it.
    pub feature_flag: Option<Option<String>>,
    /// The heading under which it is shown.
    pub group_name: Option<Option<String>>,
    /// Archived.
    pub is_archived: Option<bool>,
    /// Discouraged.
    pub is_deprecated: Option<bool>,
}

/// Declares an event type; an archived one of the same name is taken out of the archive and overwritten.
#[derive(Clone, Debug)]
pub struct Create {
    /// For whom.
    pub tenant_id: TenantId,
    /// Its name, checked.
    pub name: String,
    /// What it is to be.
    pub change: Change,
}

impl Effect for Create {
    type Output = EventType;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<EventType> {
        let Self { tenant_id, name, change } = self;
        let unarchived = sqlx::query_scalar!(
            r#"update event_type set is_archived = false, description = '', schemas = null, feature_flag = null, group_name = null,
                 is_deprecated = false, updated_at = now()
               where tenant_id = $1 and name = $2 and is_archived returning id"#,
            Uuid::from(tenant_id),
            name,
        )
        .fetch_optional(&mut *tx)
        .await?;
        if unarchived.is_some() {
            return update(tx, tenant_id, &name, change).await?.ok_or(Error::NotFound(WHAT));
        }
        insert(db, tx, tenant_id, &name, change).await?.ok_or(Conflict::EventTypeName.into())
    }
}

/// Changes an event type.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub name: String,
    /// What changes.
    pub change: Change,
    /// Make it if there is none (PUT).
    pub or_create: bool,
}

impl Effect for Update {
    type Output = (EventType, Made);

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let Self { tenant_id, name, change, or_create } = self;
        for _ in 0..GOES {
            match update(&mut *tx, tenant_id, &name, change.clone()).await? {
                Some(event_type) => return Ok((event_type, Made::Existed)),
                None if or_create => {}
                None => return Err(Error::NotFound(WHAT)),
            }
            if let Some(event_type) = insert(db, &mut *tx, tenant_id, &name, change.clone()).await? {
                return Ok((event_type, Made::Created));
            }
            // Somebody else has just declared it.
        }
        Err(Conflict::EventTypeName.into())
    }
}

/// Declares event types, or changes those that there are; archived ones are taken out of the archive.
#[derive(Clone, Debug)]
pub struct Import {
    /// For whom.
    pub tenant_id: TenantId,
    /// What each is to be, by its name, checked.
    pub declared: Vec<(String, Change)>,
    /// Archive all others.
    pub is_all: bool,
}

impl Effect for Import {
    type Output = Vec<EventType>;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Vec<EventType>> {
        let Self { tenant_id, declared, is_all } = self;
        // One import after the other: both would lock many event types, and each in its own order.
        sqlx::query!("select from tenant where id = $1 for no key update", Uuid::from(tenant_id)).execute(&mut *tx).await?;
        let mut imported = Vec::with_capacity(declared.len());
        for (name, change) in declared {
            let change = Change { is_archived: Some(false), ..change };
            imported.push(Update { tenant_id, name, change, or_create: true }.apply(db, &mut *tx).await?.0);
        }
        if is_all {
            let names: Vec<_> = imported.iter().map(|event_type| event_type.name.clone()).collect();
            sqlx::query!(
                "update event_type set is_archived = true, updated_at = now()
                  where tenant_id = $1 and not is_archived and name <> all ($2)",
                Uuid::from(tenant_id),
                &names,
            )
            .execute(tx)
            .await?;
        }
        Ok(imported)
    }
}

/// Archives an event type, or removes it for good.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub name: String,
    /// Remove the row instead of archiving it.
    pub expunge: bool,
}

impl Effect for Delete {
    type Output = ();

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let tenant_id = Uuid::from(self.tenant_id);
        let done = if self.expunge {
            sqlx::query!("delete from event_type where tenant_id = $1 and name = $2", tenant_id, self.name).execute(tx).await?
        } else {
            sqlx::query!(
                "update event_type set is_archived = true, updated_at = now() where tenant_id = $1 and name = $2",
                tenant_id,
                self.name
            )
            .execute(tx)
            .await?
        };
        if done.rows_affected() == 0 { Err(Error::NotFound(WHAT)) } else { Ok(()) }
    }
}

/// One event type, archived or not; one behind a flag only if that is among `feature_flags`, if these are given.
pub async fn get(db: &Database, tenant_id: TenantId, name: &str, feature_flags: Option<&[String]>) -> Result<EventType> {
    let row = sqlx::query_as!(Row, "select * from event_type where tenant_id = $1 and name = $2", Uuid::from(tenant_id), name)
        .fetch_optional(db.pool())
        .await?;
    let event_type = row.map(EventType::from).filter(|event_type| is_shown(event_type, feature_flags));
    event_type.ok_or(Error::NotFound(WHAT))
}

/// What an event type is called, archived or not.
pub async fn name(db: &Database, tenant_id: TenantId, id: EventTypeId) -> Result<String> {
    let name = sqlx::query_scalar!("select name from event_type where tenant_id = $1 and id = $2", Uuid::from(tenant_id), Uuid::from(id))
        .fetch_optional(db.pool())
        .await?;
    name.ok_or(Error::NotFound(WHAT))
}

fn is_shown(event_type: &EventType, feature_flags: Option<&[String]>) -> bool {
    let Some((flag, flags)) = event_type.feature_flag.as_ref().zip(feature_flags) else { return true };
    flags.contains(flag)
}

/// After all names: they are made of letters, digits, `-`, `_` and `.`.
const LAST_NAME: &str = "~";

/// The tenant's event types by name; of those behind a flag, only those behind one of `feature_flags`, if these are given.
pub async fn list(
    db: &Database,
    tenant_id: TenantId,
    include_archived: bool,
    feature_flags: Option<&[String]>,
    page: &PageRequest<String>,
) -> Result<Page<EventType>> {
    let (mut after, mut end) = ("", LAST_NAME);
    match &page.cursor {
        Some(cursor) if page.scans_up() => after = cursor,
        Some(cursor) => end = cursor,
        None => {}
    }
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                r#"select * from event_type where tenant_id = $1 and name > $2 and name < $3 and ($5 or not is_archived)
                    and ($6::text[] is null or feature_flag is null or feature_flag = any($6))
                    order by name "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                after,
                end,
                page.rows(),
                include_archived,
                feature_flags as _,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    Ok(page.page(rows.into_iter().map(EventType::from).collect()))
}

/// Those of `names` that the tenant has not declared, or has archived, or shows only behind other flags than `feature_flags`.
pub(crate) async fn missing(
    tx: &mut Connection,
    tenant_id: TenantId,
    names: &[String],
    feature_flags: Option<&[String]>,
) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"select wanted.name as "name!" from unnest($2::text[]) wanted(name)
            where not exists (select from event_type e where e.tenant_id = $1 and e.name = wanted.name and not e.is_archived
              and ($3::text[] is null or e.feature_flag is null or e.feature_flag = any($3)))"#,
        Uuid::from(tenant_id),
        names,
        feature_flags as _,
    )
    .fetch_all(tx)
    .await?)
}

/// Declares an event type, or nothing if there is one: then whoever declared it has committed, and the next look-up sees it.
async fn insert(db: &Database, tx: &mut Connection, tenant_id: TenantId, name: &str, change: Change) -> Result<Option<EventType>> {
    let row = sqlx::query_as!(
        Row,
        "insert into event_type (id, tenant_id, name, description, schemas, feature_flag, group_name, is_archived, is_deprecated)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict on constraint event_type_name do nothing returning *",
        db.new_id(),
        Uuid::from(tenant_id),
        name,
        change.description.unwrap_or_default(),
        change.schemas.flatten(),
        change.feature_flag.flatten(),
        change.group_name.flatten(),
        change.is_archived.unwrap_or_default(),
        change.is_deprecated.unwrap_or_default(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(EventType::from))
}

async fn update(tx: &mut Connection, tenant_id: TenantId, name: &str, change: Change) -> Result<Option<EventType>> {
    let row = sqlx::query_as!(
        Row,
        "update event_type set
           description = coalesce($3, description),
           schemas = case when $4 then $5::json else schemas end,
           feature_flag = case when $6 then $7 else feature_flag end,
           group_name = case when $8 then $9 else group_name end,
           is_archived = coalesce($10, is_archived),
           is_deprecated = coalesce($11, is_deprecated),
           updated_at = now()
         where tenant_id = $1 and name = $2 returning *",
        Uuid::from(tenant_id),
        name,
        change.description,
        change.schemas.is_some(),
        change.schemas.flatten(),
        change.feature_flag.is_some(),
        change.feature_flag.flatten(),
        change.group_name.is_some(),
        change.group_name.flatten(),
        change.is_archived,
        change.is_deprecated,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(EventType::from))
}

#[derive(Debug)]
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    description: String,
    schemas: Option<serde_json::Value>,
    feature_flag: Option<String>,
    group_name: Option<String>,
    is_archived: bool,
    is_deprecated: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for EventType {
    fn from(row: Row) -> Self {
        let Row { id, tenant_id, name, description, schemas, feature_flag, group_name, is_archived, is_deprecated, created_at, updated_at } =
            row;
        let (id, tenant_id) = (id.into(), tenant_id.into());
        Self { id, tenant_id, name, description, schemas, feature_flag, group_name, is_archived, is_deprecated, created_at, updated_at }
    }
}
