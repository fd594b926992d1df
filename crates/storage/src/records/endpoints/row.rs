//! The row of an endpoint: how it is made, and how it is changed.

use domain::{
    application::Metadata,
    endpoint::{Endpoint, Settings},
    id::{ApplicationId, TenantId},
    signing::Secret,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use super::{Change, Row, keep_rate, settings};
use crate::{
    Conflict, Database, Error, Result,
    connection::Connection,
    endpoint_health,
    error::on_constraint,
    event_types,
    sealed_parts::{random_secret, write_secret},
};

/// Refuses event types that do not exist, are archived, or are not shown to whoever asks, but for those that the endpoint has already: it may keep them.
async fn check_event_types(tx: &mut Connection, tenant_id: TenantId, change: &Change, had: &[String]) -> Result<()> {
    let Some(Some(names)) = change.event_types.as_ref().filter(|_| !change.has_checked_event_types) else { return Ok(()) };
    let new: Vec<_> = names.iter().filter(|name| !had.contains(name)).cloned().collect();
    let missing = event_types::missing(tx, tenant_id, &new, change.feature_flags.as_deref()).await?;
    if missing.is_empty() { Ok(()) } else { Err(Error::UnknownEventTypes(missing)) }
}

/// Makes an endpoint. Its application must be locked, and gets its next version in the same transaction.
pub(super) async fn insert(
    db: &Database,
    tx: &mut Connection,
    tenant_id: TenantId,
    application_id: ApplicationId,
    change: Change,
    secret: Option<Secret>,
) -> Result<Endpoint> {
    check_event_types(&mut *tx, tenant_id, &change, &[]).await?;
    let settings = settings_with_retry(&change, None);
    let url = change.url.ok_or(Error::NotFound("url"))?;
    let inserted = sqlx::query_as!(
        Row,
        r#"insert into endpoint (id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter, metadata,
             subscriptions, settings, since_version)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1 + (select version from application where id = $3))
           returning id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                     subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                     metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at"#,
        db.new_id(),
        Uuid::from(tenant_id),
        Uuid::from(application_id),
        change.uid.flatten().map(|uid| uid.to_string()),
        url.as_str(),
        change.description.unwrap_or_default(),
        change.version.unwrap_or(1),
        change.throttle_rate.flatten().map(i32::from),
        change.is_disabled.unwrap_or_default(),
        change.event_types.flatten() as _,
        change.channels.flatten() as _,
        change.filter.flatten().map(|filter| Json(filter.written().clone())) as _,
        Json(change.metadata.unwrap_or_default()) as _,
        (change.is_subscribed == Some(true)).then(|| Json(Value::Array(Vec::new()))) as _,
        settings.as_ref().and_then(settings::write).map(Json) as _,
    )
    .fetch_one(&mut *tx)
    .await;
    let row = on_constraint(inserted, "endpoint_uid", Conflict::EndpointUid)?;
    write_secret(db, &mut *tx, row.id.into(), &secret.unwrap_or_else(random_secret)).await?;
    if row.throttle_rate.is_some() {
        keep_rate(tx, row.id).await?;
    }
    Ok(row.into())
}

/// The settings as they are to be; nothing, if they stay.
fn settings_with_retry(change: &Change, was: Option<&Json<Value>>) -> Option<Settings> {
    let Some(retry) = change.retry else { return change.settings.clone() };
    let known = || was.map(|Json(written)| settings::read(written.clone())).unwrap_or_default();
    Some(Settings { retry, ..change.settings.clone().unwrap_or_else(known) })
}

/// Changes an endpoint. Its application must be locked.
pub(super) async fn update(tx: &mut Connection, tenant_id: TenantId, was: &Row, change: Change) -> Result<Endpoint> {
    check_event_types(&mut *tx, tenant_id, &change, was.event_types.as_deref().unwrap_or_default()).await?;
    let settings = settings_with_retry(&change, was.settings.as_ref());
    let updated = sqlx::query_as!(
        Row,
        r#"update endpoint set
             uid = case when $2 then $3 else uid end,
             url = coalesce($4, url),
             description = coalesce($5, description),
             version = coalesce($6, version),
             throttle_rate = case when $7 then $8 else throttle_rate end,
             is_disabled = coalesce($9, is_disabled),
             event_types = case when $10 then $11 else event_types end,
             channels = case when $12 then $13 else channels end,
             filter = case when $14 then $15 else filter end,
             metadata = coalesce($16, metadata),
             settings = case when $17 then $18 else settings end,
             updated_at = now()
           where id = $1
           returning id, tenant_id, application_id, uid, url, description, version, throttle_rate, is_disabled, event_types, channels, filter as "filter: Json<Value>",
                     subscriptions as "subscriptions: Json<Value>", settings as "settings: Json<Value>",
                     metadata as "metadata: Json<Metadata>", headers, since_version, created_at, updated_at"#,
        was.id,
        change.uid.is_some(),
        change.uid.flatten().map(|uid| uid.to_string()),
        change.url.map(|url| url.to_string()),
        change.description,
        change.version,
        change.throttle_rate.is_some(),
        change.throttle_rate.flatten().map(i32::from),
        change.is_disabled,
        change.event_types.is_some(),
        change.event_types.flatten() as _,
        change.channels.is_some(),
        change.channels.flatten() as _,
        change.filter.is_some(),
        change.filter.flatten().map(|filter| Json(filter.written().clone())) as _,
        change.metadata.map(Json) as _,
        settings.is_some(),
        settings.as_ref().and_then(settings::write).map(Json) as _,
    )
    .fetch_one(&mut *tx)
    .await;
    let row = on_constraint(updated, "endpoint_uid", Conflict::EndpointUid)?;
    // Failures at the old address say nothing of the new one, and whoever switches an endpoint on or off wants that at once.
    if row.url != was.url || row.is_disabled != was.is_disabled {
        endpoint_health::reset(&mut *tx, row.id).await?;
    }
    if row.throttle_rate != was.throttle_rate || row.is_disabled != was.is_disabled {
        keep_rate(tx, row.id).await?;
    }
    Ok(row.into())
}
