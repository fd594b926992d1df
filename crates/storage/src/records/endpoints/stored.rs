//! An endpoint as its table holds it.

use chrono::{DateTime, Utc};
use domain::{
    application::{Metadata, Uid},
    content_filter::ContentFilter,
    endpoint::{Endpoint, EndpointUrl},
    filter::Filter,
};
use serde_json::Value;
use sqlx::types::{Json, Uuid};

use super::settings;
use crate::wanted;

/// A row of its table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) application_id: Uuid,
    pub(super) uid: Option<String>,
    pub(super) url: String,
    pub(super) description: String,
    pub(super) version: i32,
    pub(super) throttle_rate: Option<i32>,
    pub(crate) is_disabled: bool,
    pub(super) event_types: Option<Vec<String>>,
    pub(super) channels: Option<Vec<String>>,
    pub(super) filter: Option<Json<Value>>,
    pub(super) subscriptions: Option<Json<Value>>,
    pub(super) settings: Option<Json<Value>>,
    pub(super) metadata: Json<Metadata>,
    pub(crate) headers: Option<Vec<u8>>,
    pub(crate) since_version: i64,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// What an endpoint asks for.
pub(crate) fn filter(
    event_types: Option<Vec<String>>,
    channels: Option<Vec<String>>,
    content: Option<Json<Value>>,
    subscriptions: Option<Json<Value>>,
) -> Filter {
    Filter {
        event_types,
        channels,
        content: content.map(|Json(written)| ContentFilter::stored(written)),
        subscriptions: subscriptions.map(|Json(written)| wanted::read(written)),
    }
}

impl From<Row> for Endpoint {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            tenant_id: row.tenant_id.into(),
            application_id: row.application_id.into(),
            uid: row.uid.map(Uid::stored),
            url: EndpointUrl::stored(row.url),
            description: row.description,
            version: row.version,
            throttle_rate: row.throttle_rate.and_then(|rate| u16::try_from(rate).ok()),
            is_disabled: row.is_disabled,
            filter: filter(row.event_types, row.channels, row.filter, row.subscriptions),
            settings: row.settings.map(|Json(written)| settings::read(written)).unwrap_or_default(),
            metadata: row.metadata.0,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
