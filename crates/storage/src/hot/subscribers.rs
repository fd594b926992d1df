//! Who may be owed the messages of an application, with opened secrets: as of one version, and as a process remembers it.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use domain::{
    application::Application,
    endpoint::{Endpoint, Headers},
    id::{ApplicationId, EndpointId, TenantId},
    idempotency::Policy,
    project::Rules,
    signing::Secret,
};
use parking_lot::RwLock;

use crate::reference::Reference;

/// An application and everyone who may be owed its messages, as of `application.version`.
#[derive(Debug)]
pub struct Subscribers {
    /// The application.
    pub application: Application,
    /// Its endpoints, the disabled ones too.
    pub targets: Vec<Arc<Target>>,
    /// How its tenant wants idempotency keys treated.
    pub policy: Policy,
    /// How its tenant wants webhooks made.
    pub project: Arc<Rules>,
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
    /// The first version of its application that has it.
    pub since_version: i64,
    /// Whether secrets or headers are missing because this process cannot open them: nothing may be sent as if there were none.
    pub is_unreadable: bool,
    /// Whether its owner has paused it: what it is owed waits in the queue.
    pub is_paused: bool,
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
pub(crate) struct KnownSubscribers {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<ApplicationId, Arc<Subscribers>>,
    by_uid: HashMap<(TenantId, String), ApplicationId>,
    /// Which application each endpoint of those above belongs to: for as long as it lives.
    endpoint_owners: HashMap<EndpointId, ApplicationId>,
}

impl KnownSubscribers {
    pub(crate) fn get(&self, application_id: ApplicationId) -> Option<Arc<Subscribers>> {
        self.known.read().by_id.get(&application_id).cloned()
    }

    pub(crate) fn find(&self, tenant_id: TenantId, application: &Reference<ApplicationId>) -> Option<Arc<Subscribers>> {
        let known = self.known.read();
        let id = match application {
            Reference::Id(id) => *id,
            Reference::Uid(uid) => *known.by_uid.get(&(tenant_id, uid.clone()))?,
        };
        let found = known.by_id.get(&id).filter(|found| found.application.tenant_id == tenant_id)?;
        // The hidden application is known by id to whoever sends, and found by id by nobody.
        Some(found).filter(|found| application.is_uid() || !found.application.is_own()).cloned()
    }

    /// The application that an endpoint of this tenant belongs to.
    pub(crate) fn application_of(&self, tenant_id: TenantId, endpoint_id: EndpointId) -> Option<ApplicationId> {
        let known = self.known.read();
        let application_id = *known.endpoint_owners.get(&endpoint_id)?;
        known.by_id.get(&application_id).filter(|found| found.application.tenant_id == tenant_id).map(|_| application_id)
    }

    pub(crate) fn insert(&self, subscribers: &Arc<Subscribers>) {
        let mut known = self.known.write();
        if known.by_id.len() >= CAPACITY {
            *known = Known::default();
        }
        let application = &subscribers.application;
        let is_newer = known.by_id.get(&application.id).is_none_or(|old| old.application.version <= application.version);
        if is_newer {
            if let Some(old) = known.by_id.insert(application.id, Arc::clone(subscribers)) {
                for target in &old.targets {
                    known.endpoint_owners.remove(&target.endpoint.id);
                }
            }
            known.endpoint_owners.extend(subscribers.targets.iter().map(|target| (target.endpoint.id, application.id)));
            if let Some(uid) = &application.uid {
                known.by_uid.insert((application.tenant_id, uid.as_str().to_owned()), application.id);
            }
        }
    }

    pub(crate) fn forget(&self, tenant_id: TenantId, application: &Reference<ApplicationId>) {
        let mut known = self.known.write();
        match application {
            Reference::Id(id) => drop(known.by_id.remove(id)),
            Reference::Uid(uid) => drop(known.by_uid.remove(&(tenant_id, uid.clone()))),
        }
    }
}
