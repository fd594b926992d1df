//! The endpoints of an application with opened secrets, cached; the committer proves each use current.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use domain::{
    application::{Application, Uid},
    endpoint::{Endpoint, Headers},
    id::{ApplicationId, EndpointId, TenantId},
    idempotency::Policy,
    signing::Secret,
};

use parking_lot::RwLock;

use crate::{
    Db, Error, Result,
    applications::{self, Reference},
    endpoints, policies, tenants,
};

/// An application and everyone who may be owed its messages, as of `application.version`.
#[derive(Debug)]
pub struct Subscribers {
    /// The application.
    pub application: Application,
    /// Its endpoints, the disabled ones too.
    pub targets: Vec<Arc<Target>>,
    /// How its tenant wants idempotency keys treated.
    pub policy: Policy,
    /// What its tenant is called: the subject of its tokens.
    pub tenant: Arc<str>,
}

impl Subscribers {
    /// The endpoint with this id, unless it is deleted.
    pub fn target(&self, endpoint_id: EndpointId) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| target.endpoint.id == endpoint_id)
    }
}

/// All that a send needs to know of an endpoint.
#[derive(Debug)]
pub struct Target {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Custom headers.
    pub headers: Headers,
    /// Signing secrets, the current one first; a superseded one has the time until which it signs.
    pub secrets: Vec<(Secret, Option<DateTime<Utc>>)>,
    /// Whether secrets or headers are missing because this process cannot open them: nothing may be sent as if there were none.
    pub is_unreadable: bool,
}

impl Target {
    /// The secrets that sign at `now`, the current one first.
    pub fn live_secrets(&self, now: DateTime<Utc>) -> Vec<Secret> {
        self.secrets.iter().filter(|(_, until)| until.is_none_or(|until| until > now)).map(|(secret, _)| secret.clone()).collect()
    }
}

/// How many applications one process remembers.
const CAPACITY: usize = 20_000;

/// What a process remembers. Never trusted alone: the committer compares versions in the transaction.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<ApplicationId, Arc<Subscribers>>,
    by_uid: HashMap<(TenantId, String), ApplicationId>,
}

impl Directory {
    fn find(&self, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Option<Arc<Subscribers>> {
        let known = self.known.read();
        let id = match application {
            Reference::Id(id) => *id,
            Reference::Uid(uid) => *known.by_uid.get(&(tenant_id, uid.clone()))?,
        };
        known.by_id.get(&id).filter(|found| found.application.tenant_id == tenant_id).cloned()
    }

    fn insert(&self, subscribers: &Arc<Subscribers>) {
        let mut known = self.known.write();
        if known.by_id.len() >= CAPACITY {
            *known = Known::default();
        }
        let application = &subscribers.application;
        let is_newer = known.by_id.get(&application.id).is_none_or(|old| old.application.version <= application.version);
        if is_newer {
            known.by_id.insert(application.id, Arc::clone(subscribers));
            if let Some(uid) = &application.uid {
                known.by_uid.insert((application.tenant_id, uid.as_str().to_owned()), application.id);
            }
        }
    }

    fn forget(&self, tenant_id: TenantId, application: &Reference<ApplicationId>) {
        let mut known = self.known.write();
        match application {
            Reference::Id(id) => drop(known.by_id.remove(id)),
            Reference::Uid(uid) => drop(known.by_uid.remove(&(tenant_id, uid.clone()))),
        }
    }
}

/// The application by reference, from memory if it is there: it may be stale, which the committer finds out.
pub async fn find(db: &Db, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<Arc<Subscribers>> {
    match db.inner.directory.find(tenant_id, application) {
        Some(found) => Ok(found),
        // Boxed, so that every caller's future stays small.
        None => Box::pin(reload(db, tenant_id, application)).await,
    }
}

/// Whose a delivery or an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Which customer of it.
    pub application_id: ApplicationId,
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
    let known = db.inner.directory.known.read().by_id.get(&owner.application_id).cloned();
    Names { tenant: db.inner.tenants.subject(owner.tenant_id), known }
}

/// The application by id, at least as new as `version`.
pub async fn at_least(db: &Db, application_id: ApplicationId, version: i64) -> Result<Arc<Subscribers>> {
    let known = db.inner.directory.known.read().by_id.get(&application_id).cloned();
    if let Some(found) = known.filter(|found| found.application.version >= version) {
        return Ok(found);
    }
    Box::pin(renew(db, application_id)).await
}

async fn renew(db: &Db, application_id: ApplicationId) -> Result<Arc<Subscribers>> {
    let tenant_id = sqlx::query_scalar!("select tenant_id from application where id = $1", sqlx::types::Uuid::from(application_id))
        .fetch_optional(db.pool())
        .await?;
    let tenant_id = tenant_id.ok_or(Error::NotFound("application"))?;
    reload(db, tenant_id.into(), &Reference::Id(application_id)).await
}

/// The application by reference, as it is now.
pub(crate) async fn reload(db: &Db, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Result<Arc<Subscribers>> {
    let mut connection = db.pool().acquire().await?;
    let Some(row) = applications::find(&mut connection, tenant_id, application).await? else {
        db.inner.directory.forget(tenant_id, application);
        return Err(Error::NotFound("application"));
    };
    let application = Application::from(row);
    // After the version: endpoints that are newer than it are found stale later, never the other way round.
    let (rows, secret_rows) = endpoints::all(&mut connection, application.id).await?;
    let policy = policies::of(db, &mut connection, tenant_id).await?;
    let tenant = tenants::subject(db, &mut connection, tenant_id).await?;
    let subscribers = Arc::new(Subscribers { application, targets: targets(db, rows, secret_rows), policy, tenant });
    db.inner.directory.insert(&subscribers);
    Ok(subscribers)
}

/// Opens what is sealed. What cannot be opened is its endpoint's trouble and nobody else's.
fn targets(db: &Db, rows: Vec<endpoints::Row>, secret_rows: Vec<endpoints::SecretRow>) -> Vec<Arc<Target>> {
    let mut secrets: HashMap<_, Vec<_>> = HashMap::new();
    let mut unreadable = HashSet::new();
    for row in secret_rows {
        match endpoints::open_secret(db, row.id, &row.secret) {
            Ok(secret) => secrets.entry(row.endpoint_id).or_default().push((secret, row.expires_at)),
            Err(_) => drop(unreadable.insert(row.endpoint_id)),
        }
    }
    let opened = rows.into_iter().map(|row| {
        let headers = endpoints::open_headers(db, row.id, row.headers.as_deref());
        let is_unreadable = headers.is_err() || unreadable.contains(&row.id);
        let secrets = secrets.remove(&row.id).unwrap_or_default();
        Arc::new(Target { endpoint: row.into(), headers: headers.unwrap_or_default(), secrets, is_unreadable })
    });
    opened.collect()
}

/// Looks again at endpoints that could not be opened; returns those that can be, with their owners, and those that are gone.
pub async fn look_again(db: &Db, unreadable: &[EndpointId]) -> Result<Vec<(EndpointId, Option<Owner>)>> {
    let mut readable = Vec::new();
    for endpoint_id in unreadable {
        let found = endpoints::application_of(db, *endpoint_id).await?;
        let is_readable = match found {
            None => true,
            Some((tenant_id, application_id)) => match reload(db, tenant_id, &Reference::Id(application_id)).await {
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
