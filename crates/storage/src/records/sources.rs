//! Sources: where other services send to a tenant.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    id::{ApplicationId, SourceId, TenantId},
    source::{
        CustomResponse, Definition, Mask, Provider, Source,
        forward::ForwardedHeaders,
        location::{Location, Locations},
        verifier::Verifier,
    },
};
use rand::distr::{Alphanumeric, SampleString};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    connection::Connection,
    effect::Effect,
    page::{Page, PageRequest},
    projects, subscriptions, verifiers,
};

/// What a look-up that finds nothing says.
const WHAT: &str = "source";

/// Creates a source, and what its messages belong to: the tenant's project, if nobody has made one.
#[derive(Clone, Debug)]
pub struct Create {
    /// For whom.
    pub tenant_id: TenantId,
    /// What it is to be.
    pub definition: Definition,
}

impl Effect for Create {
    type Output = Source;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Source> {
        projects::ensure(db, &mut *tx, self.tenant_id).await?;
        let mask = Alphanumeric.sample_string(&mut rand::rng(), Mask::LENGTH);
        let id = db.new_id();
        let row = Written::new(db, id, &self.definition);
        let row = sqlx::query_as!(
            Row,
            "insert into source (id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                                 event_type_location, response_body, response_content_type, is_disabled)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             returning id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                       event_type_location, response_body, response_content_type, is_disabled, version, created_at, updated_at",
            id,
            Uuid::from(self.tenant_id),
            mask,
            row.name,
            row.provider,
            row.verifier,
            &row.idempotency_keys,
            row.rejects_missing_key,
            &row.forward_headers,
            row.event_type_location,
            row.response_body,
            row.response_content_type,
            row.is_disabled,
        )
        .fetch_one(tx)
        .await?;
        row.open(db)
    }
}

/// Changes a source.
#[derive(Clone, Debug)]
pub struct Update<F> {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: SourceId,
    /// What it is to be, by what it is: told while nobody else can change it.
    pub revise: F,
}

impl<F: FnOnce(Definition) -> Result<Definition> + Send> Effect for Update<F> {
    type Output = Source;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Source> {
        let Self { tenant_id, id, revise } = self;
        let id = Uuid::from(id);
        let was = sqlx::query_as!(
            Row,
            "select id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                    event_type_location, response_body, response_content_type, is_disabled, version, created_at, updated_at
               from source where tenant_id = $1 and id = $2 and deleted_at is null for update",
            Uuid::from(tenant_id),
            id
        )
        .fetch_optional(&mut *tx)
        .await?;
        let definition = revise(was.ok_or(Error::NotFound(WHAT))?.open(db)?.definition)?;
        let row = Written::new(db, id, &definition);
        let row = sqlx::query_as!(
            Row,
            "update source set name = $3, provider = $4, verifier = case when $13 then verifier else $5 end, idempotency_keys = $6, rejects_missing_key = $7, forward_headers = $8,
                               event_type_location = $9, response_body = $10, response_content_type = $11, is_disabled = $12,
                               version = version + 1, updated_at = now()
              where tenant_id = $1 and id = $2
             returning id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                       event_type_location, response_body, response_content_type, is_disabled, version, created_at, updated_at",
            Uuid::from(tenant_id),
            id,
            row.name,
            row.provider,
            row.verifier,
            &row.idempotency_keys,
            row.rejects_missing_key,
            &row.forward_headers,
            row.event_type_location,
            row.response_body,
            row.response_content_type,
            row.is_disabled,
            definition.verifier == Verifier::Unreadable,
        )
        .fetch_one(tx)
        .await?;
        row.open(db)
    }
}

/// Deletes a source: it takes nothing any more, its secret is erased, and so are the subscriptions to it. What came by it stays.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: SourceId,
}

impl Effect for Delete {
    type Output = ();

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<()> {
        let deleted = sqlx::query!(
            "update source set deleted_at = now(), verifier = null, version = version + 1
              where tenant_id = $1 and id = $2 and deleted_at is null",
            Uuid::from(self.tenant_id),
            Uuid::from(self.id)
        )
        .execute(&mut *tx)
        .await?;
        if deleted.rows_affected() == 0 {
            return Err(Error::NotFound(WHAT));
        }
        subscriptions::delete_of_source(db, tx, self.tenant_id, self.id).await
    }
}

/// One source.
pub async fn get(db: &Database, tenant_id: TenantId, id: SourceId) -> Result<Source> {
    let row = sqlx::query_as!(
        Row,
        "select id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                event_type_location, response_body, response_content_type, is_disabled, version, created_at, updated_at
           from source where tenant_id = $1 and id = $2 and deleted_at is null",
        Uuid::from(tenant_id),
        Uuid::from(id)
    )
    .fetch_optional(db.pool())
    .await?;
    row.ok_or(Error::NotFound(WHAT))?.open(db)
}

/// Which sources are listed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those with this in their name, whatever the size of its letters.
    pub name: Option<String>,
    /// Those of this provider.
    pub provider: Option<Provider>,
}

/// The tenant's sources by id.
pub async fn list(db: &Database, tenant_id: TenantId, filter: &Filter, page: &PageRequest<SourceId>) -> Result<Page<Source>> {
    let (first, end) = page.bounds(None, None);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                "select id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                        event_type_location, response_body, response_content_type, is_disabled, version, created_at, updated_at
                   from source where tenant_id = $1 and deleted_at is null and id >= $2 and id < $3
                                 and ($5::text is null or strpos(lower(name), lower($5)) > 0) and ($6::text is null or provider = $6)
                  order by id "
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                first,
                end,
                page.rows(),
                filter.name,
                filter.provider.map(Provider::name),
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    Ok(page.page(rows.into_iter().map(|row| row.open(db)).collect::<Result<_>>()?))
}

/// The sources with these masks, each with the application that its messages belong to. Whose they are is what is asked.
pub(crate) async fn behind(db: &Database, masks: &[String]) -> Result<Vec<(Source, ApplicationId)>> {
    let mut connection = db.pool().acquire().await?;
    let rows = sqlx::query_as!(
        Row,
        "select id, tenant_id, mask, name, provider, verifier, idempotency_keys, rejects_missing_key, forward_headers,
                event_type_location, response_body, response_content_type, is_disabled, version, created_at, updated_at
           from source where mask = any ($1) and deleted_at is null",
        masks
    )
    .fetch_all(&mut connection)
    .await?;
    let tenants: Vec<_> = rows.iter().map(|row| row.tenant_id).collect();
    let projects = sqlx::query!("select tenant_id, application_id from project where tenant_id = any ($1)", &tenants)
        .fetch_all(&mut connection)
        .await?;
    let applications: HashMap<_, _> = projects.into_iter().map(|project| (project.tenant_id, project.application_id)).collect();
    let found = rows.into_iter().filter_map(|row| {
        let application = (*applications.get(&row.tenant_id)?)?;
        Some(row.open(db).map(|source| (source, application.into())))
    });
    found.collect()
}

/// A definition as its columns hold it.
struct Written<'a> {
    name: &'a str,
    provider: &'static str,
    verifier: Option<Vec<u8>>,
    idempotency_keys: Vec<String>,
    rejects_missing_key: bool,
    forward_headers: Vec<String>,
    event_type_location: Option<String>,
    response_body: Option<&'a str>,
    response_content_type: Option<&'a str>,
    is_disabled: bool,
}

impl<'a> Written<'a> {
    fn new(db: &Database, id: Uuid, definition: &'a Definition) -> Self {
        Self {
            name: &definition.name,
            provider: definition.provider.map(Provider::name).unwrap_or_default(),
            verifier: verifiers::seal(db, id, &definition.verifier),
            idempotency_keys: definition.locations.iter().map(Location::text).collect(),
            rejects_missing_key: definition.rejects_missing_key,
            forward_headers: definition.forwarded.names().map(str::to_owned).collect(),
            event_type_location: definition.event_type_at.as_ref().map(Location::text),
            response_body: definition.response.as_ref().map(|response| response.body.as_str()),
            response_content_type: definition.response.as_ref().map(|response| response.content_type.as_str()),
            is_disabled: definition.is_disabled,
        }
    }
}

/// A source as its table holds it.
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    mask: String,
    name: String,
    provider: String,
    verifier: Option<Vec<u8>>,
    idempotency_keys: Vec<String>,
    rejects_missing_key: bool,
    forward_headers: Vec<String>,
    event_type_location: Option<String>,
    response_body: Option<String>,
    response_content_type: Option<String>,
    is_disabled: bool,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    /// What was checked when it was written is read again.
    fn open(self, db: &Database) -> Result<Source> {
        let broken = || Error::Unusable(format!("the row of source {} holds what cannot be there", SourceId::from(self.id)));
        let definition = Definition {
            verifier: verifiers::open(db, self.id, self.verifier.as_deref()),
            name: self.name,
            provider: Provider::named(&self.provider),
            locations: Locations::parse(&self.idempotency_keys).map_err(|_| broken())?,
            rejects_missing_key: self.rejects_missing_key,
            forwarded: ForwardedHeaders::stored(self.forward_headers),
            event_type_at: self.event_type_location.as_deref().map(Location::parse).transpose().map_err(|_| broken())?,
            response: self.response_body.map(|body| CustomResponse { body, content_type: self.response_content_type.unwrap_or_default() }),
            is_disabled: self.is_disabled,
        };
        Ok(Source {
            id: self.id.into(),
            tenant_id: self.tenant_id.into(),
            mask: Mask::parse(&self.mask).ok_or_else(broken)?,
            definition,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}
