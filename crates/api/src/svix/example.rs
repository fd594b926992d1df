//! Messages that nobody published: an example for one endpoint, and whether anybody would get such a message at all.

use std::sync::Arc;

use bytes::Bytes;
use domain::{message::Particulars, offer::Offer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::{
    applications::Reference,
    committer::{KeyScope, NewMessage, Published},
    directory, endpoints, event_types,
    idempotency::Answered,
};
use utoipa::ToSchema;

use super::{
    fields::{EventTypeName, MessageChannels},
    message::MessageOut,
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{call::Call, json::MEDIA_TYPE, publish, reply::Reply},
};

/// Of which event type an example is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventExampleIn {
    event_type: EventTypeName,
    /// Which of the examples that the schema has, the first being 0
    #[schema(minimum = 0)]
    example_index: Option<usize>,
}

/// Send Event Type Example Message
///
/// Sends the example that the event type's newest schema has (`examples`, or `example`) to this endpoint, whatever it asks for, and to no other. It
/// is a message like any other: stored, signed, retried, and shown in lists.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example",
    tag = "Endpoint",
    operation_id = "v1.endpoint.send-example",
    request_body = EventExampleIn
)]
pub(crate) async fn send(call: Call) -> ApiResult<Reply<202, MessageOut<'static>>> {
    let publishing = async {
        let EventExampleIn { event_type, example_index } = call.json()?;
        let payload = payload(&call, &event_type.0, example_index.unwrap_or(0)).await?;
        let endpoint = endpoints::get(call.db(), &call.address()).await?;
        if endpoint.is_disabled {
            return Err(ApiError::Conflict(storage::Conflict::Disabled));
        }
        let particulars = Arc::new(Particulars { only: Some(endpoint.id), is_example: true, ..Particulars::default() });
        let application = Reference::Id(endpoint.application_id);
        let draft = |subscribers, claim| {
            Ok(NewMessage {
                subscribers,
                claim,
                application: application.clone(),
                event_type: event_type.0,
                event_id: None,
                channels: Vec::new(),
                message_key: None,
                key_scope: KeyScope::Application,
                payload,
                content_type: MEDIA_TYPE.to_owned(),
                particulars: Some(particulars),
                broadcast: None,
                payload_retention: None,
            })
        };
        publish::publish(&call, &application, draft).await
    };
    publish::answer(&call, publishing, |published| match published {
        Published::Accepted { message, is_replay } => Reply::new(&MessageOut::new(&message, true)).replayed(is_replay),
        // It has no event id.
        Published::EventIdTaken { is_replay, .. } => Answered { answer: call.dialect.refusal(&ApiError::Internal), is_replay }.into(),
        Published::Refused(answer) => Answered { answer, is_replay: true }.into(),
    })
    .await
}

/// The example of an event type.
async fn payload(call: &Call, event_type: &str, index: usize) -> ApiResult<Bytes> {
    let refused = |why: String| ApiError::invalid(&["body", "eventType"], why);
    let known =
        event_types::get(call.db(), call.tenant_id(), event_type, call.feature_flags.as_deref()).await.map_err(|error| match error {
            storage::Error::NotFound(_) => {
                refused(format!("there is no event type `{event_type}`: create it first, with a schema that has an example"))
            }
            error => error.into(),
        })?;
    let newest =
        known.schemas.as_ref().and_then(Value::as_object).and_then(|versions| versions.iter().max_by_key(|(version, _)| number(version)));
    let example = newest.and_then(|(_, schema)| match schema["examples"].as_array().filter(|examples| !examples.is_empty()) {
        Some(examples) => examples.get(index),
        None => Some(&schema["example"]),
    });
    match example {
        Some(example) if example.is_object() => Ok(example.to_string().into()),
        _ => Err(refused(format!("its newest schema has no example {index} that is an object: add `examples` to it"))),
    }
}

/// What is larger is newer.
fn number(version: &str) -> u64 {
    version.trim_start_matches('v').parse().unwrap_or(0)
}

/// What would be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessagePrecheckIn {
    event_type: EventTypeName,
    channels: Option<MessageChannels>,
}

/// Whether anybody would get it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagePrecheckOut {
    /// Whether there is an endpoint that would be owed such a message. A filter on content may still leave it out
    active: bool,
}

/// Message Precheck
///
/// Whether a message of this type, in these channels, would be owed to anybody. Nothing is stored.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/precheck/active",
    tag = "Message",
    operation_id = "v1.message.precheck",
    request_body = MessagePrecheckIn
)]
pub(crate) async fn precheck(call: Call) -> ApiResult<Reply<200, MessagePrecheckOut>> {
    let MessagePrecheckIn { event_type, channels } = call.json()?;
    let channels = channels.map(|channels| channels.0).unwrap_or_default();
    let subscribers = directory::reload(call.db(), call.tenant_id(), &call.application()).await?;
    let offer = Offer::new(&event_type.0, &channels).asked_at(call.db().now());
    let active = subscribers.targets.iter().any(|target| !target.endpoint.is_disabled && target.endpoint.filter.wants_kind(&offer));
    Ok(Reply::new(&MessagePrecheckOut { active }))
}
