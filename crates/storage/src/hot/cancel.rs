//! Ends, in batches, what is due to endpoints that are off.

use domain::{id::EndpointId, statistics::End};
use sqlx::types::Uuid;

use crate::{
    Db, Result,
    connection::Connection,
    directory::{self, Names},
    hand_off::HandOff,
    reference::Owner,
};

/// How many rows one statement ends.
const ROWS: i32 = 1_000;

/// Ends some of what is due to endpoints that are off, without a request; returns whether there may be more.
pub(crate) async fn run(db: &Db, hand_off: &HandOff, connection: &mut Connection) -> Result<bool> {
    let switched_off = hand_off.switched_off();
    let next = switched_off.next();
    if next.is_empty() {
        return Ok(false);
    }
    let ids: Vec<_> = next.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(r#"select endpoint_id as "endpoint_id!", canceled as "canceled!" from cancel_v1($1, $2)"#, &ids, ROWS)
        .fetch_all(connection)
        .await?;
    let (mut in_all, mut looked_at) = (0, Vec::with_capacity(rows.len()));
    for row in rows {
        let (endpoint_id, canceled) = (EndpointId::from(row.endpoint_id), u64::try_from(row.canceled).unwrap_or(0));
        if canceled == 0 {
            switched_off.forget(endpoint_id);
        } else {
            let owner = switched_off.owner(endpoint_id);
            log(db, endpoint_id, owner, canceled);
            if let Some(owner) = owner {
                db.node.rollups.found(endpoint_id, owner.tenant_id, End::Canceled, canceled, db.now());
            }
            looked_at.push(endpoint_id);
        }
        in_all += canceled;
    }
    switched_off.go_on(&looked_at);
    db.metrics().canceled(in_all);
    Ok(in_all > 0)
}

fn log(db: &Db, endpoint_id: EndpointId, owner: Option<Owner>, canceled: u64) {
    let names = owner.map(|owner| directory::names(db, owner));
    let application_id = owner.map(|owner| tracing::field::display(owner.application_id));
    tracing::info!(
        tenant = names.as_ref().and_then(Names::tenant),
        application_id,
        application_uid = names.as_ref().and_then(Names::application_uid),
        %endpoint_id,
        canceled,
        "canceled what was owed to an endpoint that is disabled or deleted"
    );
}
