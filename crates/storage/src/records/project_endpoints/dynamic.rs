//! Endpoints that are made by the event that is to go to them: one for each URL, found again by the next such event.

use domain::{
    application::Uid,
    content_filter::ContentFilter,
    endpoint::{Endpoint, EndpointUrl, Headers, Settings, SignatureStyle},
    id::{ApplicationId, EndpointId, TenantId},
    idempotency::scope_hash,
    signing::Secret,
    subscription::ALL_TYPES,
};
use serde_json::{Map, Value};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::Effect,
    endpoints,
    locks::MESSAGE_KEY_OF_TENANT,
    projects, subscriptions,
};

/// What such an endpoint and its subscription are called.
const NAME: &str = "dynamic";

/// Where an event is to go.
#[derive(Clone, Debug)]
pub struct Dynamic {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// To this URL.
    pub url: EndpointUrl,
    /// The signing secret of an endpoint that is made; a random one if absent.
    pub secret: Option<Secret>,
    /// What the endpoint gets from now on; all types, if none is named.
    pub event_types: Vec<String>,
}

/// The application of the first event of the tenant with this message key, if there is one: a duplicate is stored beside it, and makes nothing.
pub async fn application_of_key(db: &Database, tenant_id: TenantId, key: &str) -> Result<Option<ApplicationId>> {
    let hash = scope_hash(MESSAGE_KEY_OF_TENANT, tenant_id.into(), key);
    let found = sqlx::query_scalar!(
        "select a.id from message_key k join message m on m.id = k.message_id join application a on a.id = m.application_id
          where k.scope_hash = $1 and k.tenant_id = $2 and a.deleted_at is null",
        hash,
        Uuid::from(tenant_id)
    );
    Ok(found.fetch_optional(db.pool()).await?.map(ApplicationId::from))
}

/// The endpoint of a URL, made if there is none, with its application. Where nothing has to change nothing is locked.
pub async fn ensure(db: &Database, wanted: Dynamic) -> Result<(ApplicationId, EndpointId)> {
    let uid = Uid::stored(format!("{NAME}_{}", scope_hash(NAME, wanted.tenant_id.into(), wanted.url.as_str()).simple()));
    let mut tx = db.pool().begin().await?;
    let application_id = projects::ensure(db, &mut tx, wanted.tenant_id).await?;
    let known = Reference::Uid(uid.to_string());
    let found = endpoints::find(&mut tx, application_id, &known).await?.map(Endpoint::from);
    let endpoint_id = match found {
        Some(endpoint) if has_types(&endpoint, &wanted.event_types) => endpoint.id,
        _ => {
            applications::lock(&mut tx, wanted.tenant_id, &Reference::Id(application_id)).await?;
            let found = endpoints::find(&mut tx, application_id, &known).await?.map(Endpoint::from);
            make_or_change(db, &mut tx, application_id, uid, found, wanted).await?
        }
    };
    tx.commit().await?;
    Ok((application_id, endpoint_id))
}

/// Whether the endpoint is one that such an event finds as it wants it.
fn has_types(endpoint: &Endpoint, event_types: &[String]) -> bool {
    let subscriptions = endpoint.filter.subscriptions.as_deref().unwrap_or_default();
    matches!(subscriptions, [only] if event_types.is_empty() || only.event_types == event_types)
}

async fn make_or_change(
    db: &Database,
    tx: &mut Connection,
    application_id: ApplicationId,
    uid: Uid,
    found: Option<Endpoint>,
    wanted: Dynamic,
) -> Result<EndpointId> {
    let Dynamic { tenant_id, url, secret, event_types } = wanted;
    let endpoint = if let Some(endpoint) = found {
        endpoint
    } else {
        let name = Some(format!("{NAME}: {url}"));
        let settings = Settings { name, signature: Some(SignatureStyle::Advanced), ..Settings::default() };
        let change = endpoints::Change {
            uid: Some(Some(uid)),
            url: Some(url),
            settings: Some(settings),
            is_subscribed: Some(true),
            ..endpoints::Change::default()
        };
        let secret = Some(secret.unwrap_or_else(super::write::random_secret));
        let application = Reference::Id(application_id);
        endpoints::Create { tenant_id, application, change, secret, headers: Headers::default() }.apply(db, &mut *tx).await?
    };
    let subscription = endpoint.filter.subscriptions.as_deref().and_then(<[_]>::first).map(|wanted| wanted.id);
    match subscription {
        Some(id) if !event_types.is_empty() => {
            let change = subscriptions::Change { event_types: Some(event_types), ..subscriptions::Change::default() };
            subscriptions::Update { tenant_id, id, change, is_only: true }.apply(db, tx).await?;
        }
        Some(_) => {}
        None => {
            let event_types = if event_types.is_empty() { vec![ALL_TYPES.to_owned()] } else { event_types };
            let nothing = || Value::Object(Map::new());
            let filter = ContentFilter::parse(nothing()).map_err(|error| Error::Invalid { field: "filter", why: error.to_string() })?;
            let name = NAME.to_owned();
            let create = subscriptions::Create {
                tenant_id,
                endpoint_id: endpoint.id,
                source_id: None,
                name,
                event_types,
                filter,
                settings: nothing(),
                is_only: true,
            };
            create.apply(db, tx).await?;
        }
    }
    Ok(endpoint.id)
}
