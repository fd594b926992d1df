//! A tenant's own events, noted in the transaction of what they tell of.

use domain::{
    id::{ApplicationId, TenantId},
    own_event::Kind,
};
use serde_json::Value;
use sqlx::types::Uuid;

use crate::{Database, Result, connection::Connection};

/// Notes what happened in an application, or in none of them, in the order of `kinds`, if anybody of the tenant wants to hear of it: in the transaction in
/// which it happens, so that both are true or neither is. A tenant without endpoints of its own costs one look-up. `facts` are an
/// object in the words of [`crate::outbox`]; the application and its uid are added. Nothing is told of the hidden application itself.
pub(crate) async fn note(
    db: &Database,
    tx: &mut Connection,
    tenant_id: TenantId,
    application_id: Option<ApplicationId>,
    kinds: &[Kind],
    facts: &Value,
) -> Result<()> {
    // The news goes out with the commit, when the rows can be seen.
    sqlx::query!(
        "with heard as (
           select a.id, a.uid from (select $2::uuid as id) wanted left join application a on a.id = wanted.id and a.tenant_id = $1 and not a.is_own
            where (a.id is not null or wanted.id is null)
              and exists (select from application o join endpoint e on e.application_id = o.id
                           where o.tenant_id = $1 and o.is_own and o.deleted_at is null and e.deleted_at is null and not e.is_disabled)
         ), noted as (
           insert into own_event (tenant_id, id, kind, facts)
             select $1, t.id, t.kind, jsonb_build_object('application', heard.id, 'application_uid', heard.uid) || $5
               from heard, unnest($3::uuid[], $4::smallint[]) t(id, kind)
             returning tenant_id
         )
         select pg_notify('posthaste_own_' || 'own_event'::regclass::oid, '') from noted",
        Uuid::from(tenant_id),
        application_id.map(Uuid::from),
        &kinds.iter().map(|_| db.new_id()).collect::<Vec<_>>(),
        &kinds.iter().map(|kind| kind.code()).collect::<Vec<_>>(),
        facts,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Tells all workers, once this transaction has committed, that there is something to publish or somebody who wants to hear.
pub(crate) async fn tell(tx: &mut Connection) -> Result<()> {
    sqlx::query!("select pg_notify('posthaste_own_' || 'own_event'::regclass::oid, '')").execute(tx).await?;
    Ok(())
}
