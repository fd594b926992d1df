//! Subscriptions: what endpoints want.
//!
//! Each write holds the lock of the endpoint's application, renews the copy that the endpoint keeps, and gives the application its next
//! version: so whoever has an endpoint that is current has current subscriptions.

mod filters;

use chrono::{DateTime, Utc};
use domain::{
    content_filter::ContentFilter,
    id::{ApplicationId, EndpointId, SourceId, SubscriptionId, TenantId},
    subscription::Subscription,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use crate::{
    Conflict, Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::Effect,
    page::{Page, PageRequest},
    projects, wanted,
};

pub use filters::{ChangeFilters, FilterChange, MAX_FILTERS, NewFilter};

/// What a look-up that finds nothing says.
const WHAT: &str = "subscription";
/// The most subscriptions of one endpoint.
pub const MAX_OF_ENDPOINT: i64 = 100;
/// How often a write looks for a subscription that others move from endpoint to endpoint meanwhile.
const GOES: usize = 5;

/// Creates a subscription.
#[derive(Clone, Debug)]
pub struct Create {
    /// For whom.
    pub tenant_id: TenantId,
    /// Whose it is to be.
    pub endpoint_id: EndpointId,
    /// Only what comes by this source.
    pub source_id: Option<SourceId>,
    /// For people.
    pub name: String,
    /// Which event types, or all of them.
    pub event_types: Vec<String>,
    /// What must hold whatever the type.
    pub filter: ContentFilter,
    /// A JSON object of the client's.
    pub settings: Value,
    /// It is refused if the endpoint has one already.
    pub is_only: bool,
}

impl Effect for Create {
    type Output = Subscription;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Subscription> {
        let application_id = lock(&mut *tx, self.tenant_id, &[self.endpoint_id]).await?;
        let (tenant_id, endpoint_id) = (Uuid::from(self.tenant_id), Uuid::from(self.endpoint_id));
        check_count(&mut *tx, tenant_id, endpoint_id, None, self.is_only).await?;
        check_source(&mut *tx, self.tenant_id, application_id, self.source_id).await?;
        let row = sqlx::query_as!(
            Row,
            r#"insert into subscription (id, tenant_id, application_id, endpoint_id, source_id, name, event_types, filter, settings)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
               returning id, tenant_id, application_id, endpoint_id, source_id, name, event_types, filter as "filter: Json<Value>",
                         filters as "filters: Json<Value>", settings as "settings: Json<Value>", created_at, updated_at"#,
            db.new_id(),
            tenant_id,
            Uuid::from(application_id),
            endpoint_id,
            self.source_id.map(Uuid::from),
            self.name,
            &self.event_types,
            Json(self.filter.written()) as _,
            Json(self.settings) as _,
        )
        .fetch_one(&mut *tx)
        .await?;
        wanted::renew(&mut *tx, tenant_id, endpoint_id).await?;
        applications::bump(tx, application_id).await?;
        Ok(row.into())
    }
}

/// What is to change of a subscription: absent fields stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Whose it is to be from now on.
    pub endpoint_id: Option<EndpointId>,
    /// Only what comes by this source; by any.
    pub source_id: Option<Option<SourceId>>,
    /// For people.
    pub name: Option<String>,
    /// Which event types, or all of them.
    pub event_types: Option<Vec<String>>,
    /// What must hold whatever the type.
    pub filter: Option<ContentFilter>,
    /// A JSON object of the client's.
    pub settings: Option<Value>,
}

/// Changes a subscription.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: SubscriptionId,
    /// What changes.
    pub change: Change,
    /// It is refused to move it to an endpoint that has one already.
    pub is_only: bool,
}

impl Effect for Update {
    type Output = Subscription;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<Subscription> {
        let Self { tenant_id, id, change, is_only } = self;
        let was = hold(&mut *tx, tenant_id, id, change.endpoint_id).await?;
        let endpoint_id = change.endpoint_id.map_or(was.endpoint_id, Uuid::from);
        let application_id = lock(&mut *tx, tenant_id, &[endpoint_id.into()]).await?;
        if endpoint_id != was.endpoint_id {
            check_count(&mut *tx, tenant_id.into(), endpoint_id, Some(id), is_only).await?;
        }
        let source_id = change.source_id.unwrap_or(was.source_id.map(SourceId::from));
        check_source(&mut *tx, tenant_id, application_id, source_id).await?;
        let row = sqlx::query_as!(
            Row,
            r#"update subscription set endpoint_id = $3, application_id = $4, source_id = $5, name = coalesce($6, name),
                 event_types = coalesce($7, event_types), filter = coalesce($8, filter), settings = coalesce($9, settings), updated_at = now()
               where id = $1 and tenant_id = $2
               returning id, tenant_id, application_id, endpoint_id, source_id, name, event_types, filter as "filter: Json<Value>",
                         filters as "filters: Json<Value>", settings as "settings: Json<Value>", created_at, updated_at"#,
            was.id,
            was.tenant_id,
            endpoint_id,
            Uuid::from(application_id),
            source_id.map(Uuid::from),
            change.name,
            change.event_types.as_deref(),
            change.filter.map(|filter| Json(filter.written().clone())) as _,
            change.settings.map(Json) as _,
        )
        .fetch_one(&mut *tx)
        .await?;
        if endpoint_id != was.endpoint_id {
            wanted::renew(&mut *tx, was.tenant_id, was.endpoint_id).await?;
            applications::bump(&mut *tx, was.application_id.into()).await?;
        }
        wanted::renew(&mut *tx, was.tenant_id, endpoint_id).await?;
        applications::bump(tx, application_id).await?;
        Ok(row.into())
    }
}

/// Deletes a subscription. Its endpoint gets no more by it; what it is owed already it still gets.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: SubscriptionId,
}

impl Effect for Delete {
    type Output = ();

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let row = hold(&mut *tx, self.tenant_id, self.id, None).await?;
        sqlx::query!("update subscription set deleted_at = now() where id = $1 and tenant_id = $2", row.id, row.tenant_id)
            .execute(&mut *tx)
            .await?;
        wanted::renew(&mut *tx, row.tenant_id, row.endpoint_id).await?;
        applications::bump(tx, row.application_id.into()).await
    }
}

/// Deletes those that ask for what comes by a source, which is deleted in the same transaction.
pub(crate) async fn delete_of_source(db: &Database, tx: &mut Connection, tenant_id: TenantId, source_id: SourceId) -> Result<()> {
    // They are all of endpoints of the project itself.
    let application_id = projects::ensure(db, &mut *tx, tenant_id).await?;
    applications::lock(&mut *tx, tenant_id, &Reference::Id(application_id)).await?;
    let mut endpoints = sqlx::query_scalar!(
        "update subscription set deleted_at = now() where tenant_id = $1 and source_id = $2 and deleted_at is null returning endpoint_id",
        Uuid::from(tenant_id),
        Uuid::from(source_id)
    )
    .fetch_all(&mut *tx)
    .await?;
    endpoints.sort_unstable();
    endpoints.dedup();
    for endpoint_id in endpoints {
        wanted::renew(&mut *tx, tenant_id.into(), endpoint_id).await?;
    }
    applications::bump(tx, application_id).await
}

/// One subscription.
pub async fn get(db: &Database, tenant_id: TenantId, id: SubscriptionId) -> Result<Subscription> {
    Ok(find(&mut db.pool().acquire().await?, tenant_id, id).await?.ok_or(Error::NotFound(WHAT))?.into())
}

/// The tenant's subscriptions by id: of these endpoints, with this text in their names, whether its letters are small or not.
pub async fn list(
    db: &Database,
    tenant_id: TenantId,
    endpoints: Option<&[EndpointId]>,
    name: Option<&str>,
    page: &PageRequest<SubscriptionId>,
) -> Result<Page<Subscription>> {
    let endpoints: Option<Vec<Uuid>> = endpoints.map(|endpoints| endpoints.iter().copied().map(Uuid::from).collect());
    let (first, end) = page.bounds(None, None);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                r#"select id, tenant_id, application_id, endpoint_id, source_id, name, event_types, filter as "filter: Json<Value>",
                          filters as "filters: Json<Value>", settings as "settings: Json<Value>", created_at, updated_at
                     from subscription where tenant_id = $1 and deleted_at is null and id >= $2 and id < $3
                      and ($5::uuid[] is null or endpoint_id = any ($5)) and ($6::text is null or strpos(lower(name), lower($6)) > 0)
                    order by id "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                first,
                end,
                page.rows(),
                endpoints.as_deref() as _,
                name,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    Ok(page.page(rows.into_iter().map(Subscription::from).collect()))
}

async fn find(connection: &mut Connection, tenant_id: TenantId, id: SubscriptionId) -> Result<Option<Row>> {
    Ok(sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, endpoint_id, source_id, name, event_types, filter as "filter: Json<Value>",
                  filters as "filters: Json<Value>", settings as "settings: Json<Value>", created_at, updated_at
             from subscription where id = $1 and tenant_id = $2 and deleted_at is null"#,
        Uuid::from(id),
        Uuid::from(tenant_id),
    )
    .fetch_optional(connection)
    .await?)
}

/// A subscription, with the application of its endpoint locked, and that of the endpoint that it is to move to.
async fn hold(tx: &mut Connection, tenant_id: TenantId, id: SubscriptionId, moves_to: Option<EndpointId>) -> Result<Row> {
    let mut found = find(&mut *tx, tenant_id, id).await?.ok_or(Error::NotFound(WHAT))?;
    for _ in 0..GOES {
        let endpoints: Vec<_> = [found.endpoint_id.into()].into_iter().chain(moves_to).collect();
        lock(&mut *tx, tenant_id, &endpoints).await?;
        let now = find(&mut *tx, tenant_id, id).await?.ok_or(Error::NotFound(WHAT))?;
        if now.endpoint_id == found.endpoint_id {
            return Ok(now);
        }
        found = now;
    }
    Err(Error::Unavailable(None))
}

/// Locks the applications of endpoints, which must all be there, in the order of their ids, as everybody who locks several of them does. Returns
/// that of the first endpoint.
async fn lock(tx: &mut Connection, tenant_id: TenantId, endpoints: &[EndpointId]) -> Result<ApplicationId> {
    let missing = || Error::NotFound("endpoint");
    let mut applications = Vec::new();
    for endpoint_id in endpoints {
        applications.push(application_of(&mut *tx, tenant_id, *endpoint_id).await?.ok_or_else(missing)?);
    }
    let first = *applications.first().ok_or_else(missing)?;
    applications.sort_unstable();
    applications.dedup();
    for application_id in applications {
        match applications::lock(&mut *tx, tenant_id, &Reference::Id(application_id)).await {
            Err(Error::NotFound(_)) => return Err(missing()),
            locked => locked?,
        };
    }
    // Looked at again under the locks: it may have been deleted meanwhile.
    for endpoint_id in endpoints {
        application_of(&mut *tx, tenant_id, *endpoint_id).await?.ok_or_else(missing)?;
    }
    Ok(first)
}

async fn application_of(tx: &mut Connection, tenant_id: TenantId, endpoint_id: EndpointId) -> Result<Option<ApplicationId>> {
    let id = sqlx::query_scalar!(
        "select application_id from endpoint where id = $1 and tenant_id = $2 and deleted_at is null",
        Uuid::from(endpoint_id),
        Uuid::from(tenant_id),
    )
    .fetch_optional(tx)
    .await?;
    Ok(id.map(ApplicationId::from))
}

/// Refuses one subscription too many. `moving` is on its way to the endpoint.
async fn check_count(tx: &mut Connection, tenant_id: Uuid, endpoint_id: Uuid, moving: Option<SubscriptionId>, is_only: bool) -> Result<()> {
    let others = sqlx::query_scalar!(
        r#"select count(*) as "count!" from subscription
            where endpoint_id = $1 and tenant_id = $2 and deleted_at is null and ($3::uuid is null or id <> $3)"#,
        endpoint_id,
        tenant_id,
        moving.map(Uuid::from),
    )
    .fetch_one(tx)
    .await?;
    match others {
        0 => Ok(()),
        _ if is_only => Err(Conflict::Subscribed.into()),
        MAX_OF_ENDPOINT.. => Err(Error::LimitReached("an endpoint can have at most 100 subscriptions: delete one, or widen one")),
        _ => Ok(()),
    }
}

/// Refuses a source that is not there, and one whose events could never reach the endpoint: they are the project's own.
async fn check_source(tx: &mut Connection, tenant_id: TenantId, application_id: ApplicationId, source_id: Option<SourceId>) -> Result<()> {
    let Some(source_id) = source_id else { return Ok(()) };
    let found = sqlx::query!(
        r#"select exists (select from source where id = $2 and tenant_id = $1 and deleted_at is null) as "is_there!",
                  exists (select from project where tenant_id = $1 and application_id = $3) as "is_own!""#,
        Uuid::from(tenant_id),
        Uuid::from(source_id),
        Uuid::from(application_id),
    )
    .fetch_one(tx)
    .await?;
    if !found.is_there {
        return Err(Error::NotFound("source"));
    }
    if found.is_own {
        return Ok(());
    }
    let why = "names an endpoint of an owner, and what comes by a source goes to endpoints of the project itself: make one without \
               an owner_id, or leave source_id out";
    Err(Error::Invalid { field: "endpoint_id", why: why.to_owned() })
}

/// A subscription as its table holds it.
#[derive(Debug)]
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    application_id: Uuid,
    endpoint_id: Uuid,
    source_id: Option<Uuid>,
    name: String,
    event_types: Vec<String>,
    filter: Json<Value>,
    filters: Json<Value>,
    settings: Json<Value>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Subscription {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            tenant_id: row.tenant_id.into(),
            application_id: row.application_id.into(),
            endpoint_id: row.endpoint_id.into(),
            source_id: row.source_id.map(SourceId::from),
            name: row.name,
            event_types: row.event_types,
            filter: ContentFilter::stored(row.filter.0),
            filters: wanted::read_filters(row.filters.0),
            settings: row.settings.0,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
