//! What is told of an endpoint to whoever of its tenant wants to hear of it.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{
    application::Uid,
    endpoint::Endpoint,
    id::{ApplicationId, EndpointId, TenantId},
    own_event::Kind,
};
use serde_json::json;
use sqlx::types::Uuid;

use crate::{Database, Result, connection::Connection, own_events};

/// It was made.
pub(super) async fn created(db: &Database, tx: &mut Connection, endpoint: &Endpoint) -> Result<()> {
    tell(db, tx, endpoint, &[Kind::EndpointCreated]).await
}

/// It was changed; whether it is switched on or off by that is told apart.
pub(super) async fn updated(db: &Database, tx: &mut Connection, endpoint: &Endpoint, was_disabled: bool) -> Result<()> {
    let switched = match (was_disabled, endpoint.is_disabled) {
        (false, true) => Kind::EndpointDisabled,
        (true, false) => Kind::EndpointEnabled,
        _ => return tell(db, tx, endpoint, &[Kind::EndpointUpdated]).await,
    };
    tell(db, tx, endpoint, &[Kind::EndpointUpdated, switched]).await
}

/// It was removed.
pub(super) async fn deleted(
    db: &Database,
    tx: &mut Connection,
    tenant_id: TenantId,
    application_id: ApplicationId,
    endpoint_id: EndpointId,
    uid: Option<String>,
) -> Result<()> {
    let facts = json!({ "endpoint": Uuid::from(endpoint_id).to_string(), "endpoint_uid": uid });
    own_events::note(db, tx, tenant_id, Some(application_id), &[Kind::EndpointDeleted], &facts).await
}

/// We switched it off, which has been failing since then.
pub(super) async fn given_up(
    db: &Database,
    tx: &mut Connection,
    tenant_id: TenantId,
    application_id: ApplicationId,
    endpoint_id: EndpointId,
    uid: Option<String>,
    failing_since: Option<DateTime<Utc>>,
) -> Result<()> {
    let failing_since = failing_since.map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true));
    let facts = json!({ "endpoint": Uuid::from(endpoint_id).to_string(), "endpoint_uid": uid, "is_automatic": true, "failing_since": failing_since });
    own_events::note(db, tx, tenant_id, Some(application_id), &[Kind::EndpointDisabled], &facts).await
}

async fn tell(db: &Database, tx: &mut Connection, endpoint: &Endpoint, kinds: &[Kind]) -> Result<()> {
    let uid = endpoint.uid.as_ref().map(Uid::as_str);
    let facts = json!({ "endpoint": Uuid::from(endpoint.id).to_string(), "endpoint_uid": uid, "is_automatic": false });
    own_events::note(db, tx, endpoint.tenant_id, Some(endpoint.application_id), kinds, &facts).await
}
