//! What is seen of endpoints.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    application::Uid,
    endpoint::Endpoint,
    id::{EndpointId, TenantId},
};
use sqlx::types::Uuid;

use super::{Shown, ShownSecret, WHAT};
use crate::{
    Database, Error, Result,
    connection::Connection,
    endpoint_health,
    endpoints::{self, Address},
    page::{Page, PageRequest},
    reference::Reference,
    sealed_parts::{open_headers, open_secret},
};

/// Which endpoints a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this owner.
    pub owner: Option<String>,
    /// Only those with this in their name, URL or description, whatever the case.
    pub text: Option<String>,
}

/// Whose an endpoint of the tenant is. The hidden application's are nobody's here.
pub async fn address(db: &Database, tenant_id: TenantId, endpoint_id: EndpointId) -> Result<Address> {
    address_of(&mut db.pool().acquire().await?, tenant_id, endpoint_id).await
}

pub(super) async fn address_of(connection: &mut Connection, tenant_id: TenantId, endpoint_id: EndpointId) -> Result<Address> {
    let application_id = sqlx::query_scalar!(
        "select a.id from endpoint e join application a on a.id = e.application_id
          where e.id = $2 and e.tenant_id = $1 and e.deleted_at is null and a.deleted_at is null and not a.is_own",
        Uuid::from(tenant_id),
        Uuid::from(endpoint_id),
    )
    .fetch_optional(connection)
    .await?;
    let application = Reference::Id(application_id.ok_or(Error::NotFound(WHAT))?.into());
    Ok(Address { tenant_id, application, endpoint: Reference::Id(endpoint_id) })
}

/// One endpoint.
pub async fn get(db: &Database, tenant_id: TenantId, endpoint_id: EndpointId) -> Result<Shown> {
    let mut connection = db.pool().acquire().await?;
    address_of(&mut connection, tenant_id, endpoint_id).await?;
    let endpoint = endpoints::of_tenant(&mut connection, tenant_id, &[endpoint_id.into()]).await?;
    shown(db, &mut connection, tenant_id, endpoint).await?.pop().ok_or(Error::NotFound(WHAT))
}

/// The tenant's endpoints by id.
pub async fn list(db: &Database, tenant_id: TenantId, filter: &Filter, page: &PageRequest<EndpointId>) -> Result<Page<Shown>> {
    let (first, end) = page.bounds(None, None);
    let text = filter.text.as_ref().map(|text| text.to_lowercase());
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_scalar!(
                r#"select id from endpoint where tenant_id = $1 and deleted_at is null and id >= $2 and id < $3
                    and exists (select from application a where a.id = endpoint.application_id and a.deleted_at is null and not a.is_own
                      and ($5::text is null or a.uid = $5 or endpoint.settings->>'owner' = $5))
                    and ($6::text is null or strpos(lower(concat_ws(' ', settings->>'name', url, description)), $6) > 0)
                    order by id "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                first,
                end,
                page.rows(),
                filter.owner.as_deref() as _,
                text.as_deref() as _,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let ids = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    let mut connection = db.lists().acquire().await.map_err(Error::of_list)?;
    let mut found = endpoints::of_tenant(&mut connection, tenant_id, &ids).await?;
    found.sort_unstable_by_key(|endpoint| endpoint.id);
    if !page.scans_up() {
        found.reverse();
    }
    Ok(page.page(shown(db, &mut connection, tenant_id, found).await?))
}

/// These endpoints of the tenant with what is shown beside them.
pub(super) async fn shown(db: &Database, connection: &mut Connection, tenant_id: TenantId, endpoints: Vec<Endpoint>) -> Result<Vec<Shown>> {
    let ids: Vec<_> = endpoints.iter().map(|endpoint| Uuid::from(endpoint.id)).collect();
    let mut secrets = secrets(db, &mut *connection, tenant_id, &ids).await?;
    let mut paused = endpoint_health::paused_of(&mut *connection, tenant_id, &ids).await?;
    let rows = sqlx::query!(
        "select e.id, e.headers, a.uid from endpoint e join application a on a.id = e.application_id where e.id = any ($1) and e.tenant_id = $2",
        &ids,
        Uuid::from(tenant_id),
    )
    .fetch_all(connection)
    .await?;
    let mut beside: HashMap<_, _> = rows.into_iter().map(|row| (row.id, (row.headers, row.uid))).collect();
    let show = |endpoint: Endpoint| {
        let id = Uuid::from(endpoint.id);
        let (headers, uid) = beside.remove(&id).unwrap_or_default();
        let owner = endpoint.settings.owner.clone().or_else(|| uid.map(|uid| Uid::stored(uid).to_string()));
        let headers = open_headers(db, id, headers.as_deref())?;
        let secrets = secrets.remove(&id).unwrap_or_default();
        Ok(Shown { owner, secrets, headers, is_paused: paused.remove(&endpoint.id), endpoint })
    };
    endpoints.into_iter().map(show).collect()
}

/// What signs for these endpoints, the oldest first.
async fn secrets(
    db: &Database,
    connection: &mut Connection,
    tenant_id: TenantId,
    endpoints: &[Uuid],
) -> Result<HashMap<Uuid, Vec<ShownSecret>>> {
    let rows = sqlx::query!(
        r#"select id, endpoint_id, secret, expires_at as "expires_at: DateTime<Utc>" from endpoint_secret
            where endpoint_id = any ($1) and tenant_id = $2 and (expires_at is null or expires_at > now()) order by id"#,
        endpoints,
        Uuid::from(tenant_id),
    )
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        let secret = ShownSecret { id: row.id, secret: open_secret(db, row.id, &row.secret)?, expires_at: row.expires_at };
        found.entry(row.endpoint_id).or_default().push(secret);
    }
    Ok(found)
}
