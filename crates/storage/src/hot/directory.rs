//! The endpoints of an application with opened secrets, cached; the committer proves each use current.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use domain::{
    application::{Application, Uid},
    id::{ApplicationId, EndpointId, TenantId},
    source::Mask,
};

use crate::{
    Database, Db, Error, Result,
    applications::{self, Reference},
    endpoint_health, endpoints,
    known_sources::Turn,
    policies, project_rules,
    sealed_parts::{self, SecretRow},
    sources,
};

pub use crate::{
    known_sources::Door,
    reference::Owner,
    subscribers::{Subscribers, Target},
};

/// The application by reference, from memory if it is there: it may be stale, which the committer finds out.
pub async fn find(db: &Db, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<Arc<Subscribers>> {
    match db.node.subscribers.find(tenant_id, application) {
        Some(found) => Ok(found),
        // Boxed, so that every caller's future stays small.
        None => Box::pin(reload(db, tenant_id, application)).await,
    }
}

/// The application of an endpoint, from memory if it is there; none if the tenant has no such endpoint. Once it has been found, what this
/// process remembers of its application knows the endpoint: it may have been made a moment ago, and elsewhere.
pub async fn application_of(db: &Db, tenant_id: TenantId, endpoint_id: EndpointId) -> Result<Option<ApplicationId>> {
    match db.node.subscribers.application_of(tenant_id, endpoint_id) {
        Some(found) => Ok(Some(found)),
        None => Box::pin(meet(db, tenant_id, endpoint_id)).await,
    }
}

async fn meet(db: &Db, tenant_id: TenantId, endpoint_id: EndpointId) -> Result<Option<ApplicationId>> {
    let found = endpoints::application_of(db, endpoint_id).await?.filter(|(owner, _)| *owner == tenant_id);
    let Some((_, application_id)) = found else { return Ok(None) };
    // What belongs to a deleted or to the hidden application is nobody's here.
    match reload(db, tenant_id, &Reference::Id(application_id)).await {
        Ok(subscribers) => Ok(subscribers.target(endpoint_id).map(|_| application_id)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a mask leads, as it was within the last second: to no source, if it is deleted. Whether it is switched off is for the caller to see.
pub async fn door(db: &Db, mask: &Mask) -> Result<Option<Arc<Door>>> {
    match db.node.sources.get(mask) {
        Some(found) => Ok(found.into()),
        // Boxed, so that every caller's future stays small.
        None => Box::pin(knock(db, mask)).await,
    }
}

async fn knock(db: &Db, mask: &Mask) -> Result<Option<Arc<Door>>> {
    let question = match db.node.sources.wait(mask).await {
        Turn::Known(found) => return Ok(found),
        Turn::Ask(question) => question,
    };
    let masks: Vec<_> = question.masks.iter().map(|mask| mask.as_str().to_owned()).collect();
    let found = sources::behind(db, &masks).await?;
    let doors = found.into_iter().map(|(source, application_id)| Door { source, application_id });
    Ok(question.answer(doors.collect(), mask))
}

/// What an [`Owner`] is called, for the log: as far as this process knows, since a line is no reason to ask the database.
#[derive(Clone, Debug)]
pub struct Names {
    tenant: Option<Arc<str>>,
    known: Option<Arc<Subscribers>>,
}

impl Names {
    /// The tenant's: the subject of its tokens.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The application's uid, if it has one.
    pub fn application_uid(&self) -> Option<&str> {
        self.known.as_ref()?.application.uid.as_ref().map(Uid::as_str)
    }
}

/// What this owner is called.
pub fn names(db: &Db, owner: Owner) -> Names {
    let known = db.node.subscribers.get(owner.application_id);
    Names { tenant: db.node.tenants.subject(owner.tenant_id), known }
}

/// The application by id, at least as new as `version`.
pub async fn at_least(db: &Db, application_id: ApplicationId, version: i64) -> Result<Arc<Subscribers>> {
    let known = db.node.subscribers.get(application_id);
    if let Some(found) = known.filter(|found| found.application.version >= version) {
        return Ok(found);
    }
    Box::pin(renew(db, application_id)).await
}

async fn renew(db: &Db, application_id: ApplicationId) -> Result<Arc<Subscribers>> {
    let found = sqlx::query!("select tenant_id, is_own from application where id = $1", sqlx::types::Uuid::from(application_id))
        .fetch_optional(db.pool())
        .await?;
    let found = found.ok_or(Error::NotFound("application"))?;
    let reference = if found.is_own { Reference::own() } else { Reference::Id(application_id) };
    reload(db, found.tenant_id.into(), &reference).await
}

/// The application by reference, as it is now.
pub async fn reload(db: &Db, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<Arc<Subscribers>> {
    let mut connection = db.pool().acquire().await?;
    let Some(row) = applications::find(&mut connection, tenant_id, application).await? else {
        db.node.subscribers.forget(tenant_id, application);
        return Err(Error::NotFound("application"));
    };
    let application = Application::from(row);
    // After the version: endpoints that are newer than it are found stale later, never the other way round.
    let (rows, secret_rows) = endpoints::all(&mut connection, application.id).await?;
    let paused = endpoint_health::paused_of(&mut connection, tenant_id, &rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
    let policy = policies::of(db, &mut connection, tenant_id).await?;
    let project = project_rules::of(&mut connection, tenant_id).await?;
    let tenant = db.node.tenants.find_subject(&mut connection, tenant_id).await?;
    let mut targets = targets(db, rows, secret_rows, &paused);
    if let Some(known) = db.node.subscribers.get(application.id) {
        keep_filters(&mut targets, &known);
    }
    let targets = targets.into_iter().map(Arc::new).collect();
    let subscribers = Arc::new(Subscribers { application, targets, policy, project, tenant });
    db.node.subscribers.insert(&subscribers);
    Ok(subscribers)
}

/// Opens what is sealed. What cannot be opened is its endpoint's trouble and nobody else's.
fn targets(db: &Database, rows: Vec<endpoints::Row>, secret_rows: Vec<SecretRow>, paused: &HashSet<EndpointId>) -> Vec<Target> {
    let mut secrets: HashMap<_, Vec<_>> = HashMap::new();
    let mut unreadable = HashSet::new();
    for row in secret_rows {
        match sealed_parts::open_secret(db, row.id, &row.secret) {
            Ok(secret) => secrets.entry(row.endpoint_id).or_default().push((secret, row.expires_at)),
            Err(_) => drop(unreadable.insert(row.endpoint_id)),
        }
    }
    let opened = rows.into_iter().map(|row| {
        let headers = sealed_parts::open_headers(db, row.id, row.headers.as_deref());
        let is_unreadable = headers.is_err() || unreadable.contains(&row.id);
        let is_paused = paused.contains(&row.id.into());
        let secrets = secrets.remove(&row.id).unwrap_or_default();
        let since_version = row.since_version;
        Target { endpoint: row.into(), headers: headers.unwrap_or_default(), secrets, since_version, is_unreadable, is_paused }
    });
    opened.collect()
}

/// Takes over filters that are as they were: they have been made ready, which takes longer than anything else here.
fn keep_filters(targets: &mut [Target], known: &Subscribers) {
    let known = known.targets.iter().map(|target| (target.endpoint.id, &target.endpoint.filter));
    let known: HashMap<_, _> = known.filter(|(_, filter)| filter.content_filters().next().is_some()).collect();
    for target in targets.iter_mut().filter(|_| !known.is_empty()) {
        if let Some(known) = known.get(&target.endpoint.id) {
            target.endpoint.filter.keep(known);
        }
    }
}

/// Looks again at endpoints that could not be opened; returns those that can be, with their owners, and those that are gone.
pub async fn look_again(db: &Db, unreadable: &[EndpointId]) -> Result<Vec<(EndpointId, Option<Owner>)>> {
    let mut readable = Vec::new();
    for endpoint_id in unreadable {
        let found = endpoints::application_of(db, *endpoint_id).await?;
        let is_readable = match found {
            None => true,
            Some((_, application_id)) => match renew(db, application_id).await {
                Ok(subscribers) => subscribers.target(*endpoint_id).is_none_or(|target| !target.is_unreadable),
                Err(Error::NotFound(_)) => true,
                Err(error) => return Err(error),
            },
        };
        let owner = found.map(|(tenant_id, application_id)| Owner { tenant_id, application_id });
        readable.extend(is_readable.then_some((*endpoint_id, owner)));
    }
    Ok(readable)
}
