//! Messages on the wire.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use domain::{
    id::{Id, MessageId},
    message::{Message, Particulars},
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use storage::{
    Conflict,
    committer::{KeyScope, NewMessage, Published},
    idempotency::Answered,
    messages::{self, Filter},
    queue::Release,
};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use super::{
    Timestamp,
    application::ApplicationIn,
    fields::{EventId, EventTypeName, MessageChannels, MessageKey, MessageTags, NotYet},
    filter::ListFilter,
    page::{self, Listed, Paging},
    payload_retention::{self, Days, Hours},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        json::{self, MEDIA_TYPE},
        publish::{self, Outcome},
        query::{Asked, Parameters},
        reply::Reply,
    },
};

/// A message to be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageIn<'a> {
    /// What happened
    event_type: EventTypeName,
    /// What receivers get, byte for byte
    #[serde(borrow, alias = "data")]
    #[schema(value_type = Payload)]
    payload: &'a RawValue,
    /// Optional unique identifier for the message; a second use is a conflict
    event_id: Option<EventId>,
    /// List of free-form identifiers that endpoints can filter by
    channels: Option<MessageChannels>,
    /// Optional key that dedupes messages: a second message with it is stored, flagged as a duplicate and not delivered
    #[serde(rename = "idempotency_key", alias = "idempotencyKey")]
    message_key: Option<MessageKey>,
    /// For how many days the payload is kept; it is not shown or sent after that. Absent: as long as the message, which
    /// `POSTHASTE_RETENTION` bounds
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 90)]
    payload_retention_period: Days,
    /// The same in hours, in place of days
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 2160)]
    payload_retention_hours: Hours,
    /// Makes the application of the path with this, if there is none; its uid is that of the path
    application: Option<ApplicationIn>,
    /// List of free-form tags that lists can be filtered by
    tags: Option<MessageTags>,
    #[serde(default, rename = "deliverAt")]
    #[schema(ignore)]
    _deliver_at: NotYet,
    #[serde(default, rename = "transformationsParams")]
    #[schema(ignore)]
    _transformations_params: NotYet,
}

/// What a message carries, in the document.
#[derive(Debug)]
pub(crate) struct Payload;

impl PartialSchema for Payload {
    fn schema() -> RefOr<Schema> {
        let any = ObjectBuilder::new().schema_type(Type::Object).description(Some("A JSON object, kept and delivered byte for byte"));
        Schema::from(any.examples([json!({"email": "test@example.com", "username": "test_user"})]).build()).into()
    }
}

impl ToSchema for Payload {}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageOut<'a> {
    #[schema(required, example = "unique-msg-identifier")]
    event_id: Option<&'a str>,
    #[schema(example = "user.signup")]
    event_type: &'a str,
    /// The publisher's bytes; `{}` without `with_content`, `{"expired":true}` once expunged
    #[schema(value_type = Payload)]
    payload: Cow<'a, RawValue>,
    #[schema(required, example = json!(["project_123", "group_2"]))]
    channels: Option<&'a [String]>,
    #[schema(example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: String,
    timestamp: Timestamp,
    /// What it is found by
    #[schema(required, example = json!(["my_tag", "other"]))]
    tags: Option<&'a [String]>,
    /// The key that dedupes messages, if the message has one
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "order-4711-paid")]
    idempotency_key: Option<&'a str>,
    /// Whether an earlier message had the same key, so that this one is not delivered unless it is released
    is_duplicate: bool,
    /// That earlier message
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    duplicate_of: Option<String>,
    /// Whether this duplicate carries another payload than that earlier message
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payload_mismatch: Option<bool>,
    /// When this duplicate was released, to be delivered after all
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    released_at: Option<Timestamp>,
}

impl<'a> MessageOut<'a> {
    /// As it was said at first: also of a duplicate that has been released since.
    pub(super) fn first(message: &'a Message, with_content: bool) -> Self {
        Self { released_at: None, ..Self::new(message, with_content) }
    }

    pub(crate) fn new(message: &'a Message, with_content: bool) -> Self {
        Self {
            event_id: message.event_id.as_deref(),
            event_type: &message.event_type,
            payload: payload(message, with_content),
            channels: Some(message.channels.as_slice()).filter(|channels| !channels.is_empty()),
            id: message.id.public(),
            timestamp: Timestamp(message.created_at),
            tags: message.particulars.as_ref().map(|particulars| particulars.tags.as_slice()).filter(|tags| !tags.is_empty()),
            idempotency_key: message.message_key.as_deref(),
            is_duplicate: message.is_duplicate(),
            duplicate_of: message.duplicate_of.map(Id::public),
            payload_mismatch: message.is_duplicate().then_some(message.payload_mismatch),
            released_at: message.released_at.map(Timestamp),
        }
    }
}

fn payload(message: &Message, with_content: bool) -> Cow<'_, RawValue> {
    if !with_content {
        return Cow::Owned(constant("{}"));
    }
    let Some(bytes) = &message.payload else { return Cow::Owned(constant(r#"{"expired":true}"#)) };
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(raw) => Cow::Borrowed(raw),
        // Not JSON: shown as text. No operation of this dialect accepts such a payload.
        Err(_) => Cow::Owned(serde_json::value::to_raw_value(&String::from_utf8_lossy(bytes)).unwrap_or_else(|_| constant("{}"))),
    }
}

fn constant(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("the constant is JSON")
}

/// Whether payloads are wanted.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WithContent {
    /// When `true` message payloads are included in the response
    #[serde(default = "yes")]
    #[param(required = false, default = true)]
    pub(crate) with_content: bool,
}

/// Only messages with one message key.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfKey {
    /// Filter response based on the key that dedupes messages: the first message with it, and its duplicates
    idempotency_key: Option<MessageKey>,
}

impl Parameters for WithContent {}
impl Parameters for OfKey {}

fn yes() -> bool {
    true
}

/// List Messages
///
/// The application's messages, the newest first.
#[utoipa::path(get, path = "/api/v1/app/{app_id}/msg", tag = "Message", operation_id = "v1.message.list")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, ListFilter, OfKey, WithContent)>) -> ApiResult<Listed<MessageOut<'static>>> {
    let (paging, filter, OfKey { idempotency_key }, WithContent { with_content }) = asked.read()?;
    let page = paging.of_ids::<MessageId>(false)?;
    let wanted = Filter { message_key: idempotency_key.map(|key| key.0), ..filter.into() };
    let page = messages::list(call.db(), call.tenant_id(), &call.application(), &wanted, &page).await?;
    Ok(page::list(&page, |message| message.id.public(), |message| MessageOut::new(message, with_content)))
}

/// Get Message
#[utoipa::path(get, path = "/api/v1/app/{app_id}/msg/{msg_id}", tag = "Message", operation_id = "v1.message.get")]
pub(crate) async fn get(call: Call, asked: Asked<WithContent>) -> ApiResult<Reply<200, MessageOut<'static>>> {
    let WithContent { with_content } = asked.read()?;
    let message = messages::get(call.db(), call.tenant_id(), &call.application(), &call.message()).await?;
    Ok(Reply::new(&MessageOut::new(&message, with_content)))
}

/// Deliver Duplicate
///
/// Releases a message that is a duplicate: it is delivered after all, to every endpoint that wants it, and retried like any other. Its
/// webhooks carry its own id in `X-Convoy-Idempotency-Key` in place of the message key, which their receivers have seen. Later messages
/// with that key are duplicates as before. The answer shows no payload.
#[utoipa::path(post, path = "/api/v1/app/{app_id}/msg/{msg_id}/deliver", tag = "Message", operation_id = "v1.message.deliver")]
pub(crate) async fn deliver(call: Call) -> ApiResult<Reply<202, MessageOut<'static>>> {
    let release = Release { tenant_id: call.tenant_id(), application: call.application(), message: call.message() };
    // What is answered is kept under the request's key, and content is to be kept in one place.
    call.write(Ok(release), |(message, _)| Reply::new(&MessageOut::new(message, false))).await
}

/// The answer to a creation.
type Accepted = Reply<202, MessageOut<'static>>;

/// Create Message
///
/// Once this is answered with 202, the message and everything that it owes to endpoints are stored.
#[utoipa::path(post, path = "/api/v1/app/{app_id}/msg", tag = "Message", operation_id = "v1.message.create", request_body = MessageIn)]
pub(crate) async fn create(call: Call, asked: Asked<WithContent>) -> ApiResult<Accepted> {
    let asked = asked.read().map(|asked| asked.with_content);
    let with_content = *asked.as_ref().unwrap_or(&true);
    let publishing = async {
        asked?;
        publish_one(&call, &call.body, None).await
    };
    publish::answer(&call, publishing, |published| rendered(&call, published, with_content)).await
}

/// Publishes the message that a text says, which is the request's body or a part of it: then its place among others is part of the request's key.
pub(super) async fn publish_one(call: &Call, text: &[u8], place: Option<usize>) -> ApiResult<Outcome> {
    let new = json::parse::<MessageIn>(text)?;
    let payload = object_slice(&call.body, new.payload)?;
    let payload_retention = payload_retention::wanted(new.payload_retention_period, new.payload_retention_hours)?;
    let application = call.application();
    let tags = new.tags.map(|tags| tags.0).unwrap_or_default();
    let particulars = (!tags.is_empty()).then(|| Arc::new(Particulars { tags, ..Particulars::default() }));
    let draft = |subscribers, claim| {
        Ok(NewMessage {
            claim,
            subscribers,
            application: application.clone(),
            event_type: new.event_type.0,
            event_id: new.event_id.map(|id| id.0.to_string()),
            channels: new.channels.map(|channels| channels.0).unwrap_or_default(),
            message_key: new.message_key.map(|key| key.0),
            key_scope: KeyScope::Application,
            payload,
            content_type: MEDIA_TYPE.to_owned(),
            particulars: particulars.clone(),
            broadcast: None,
            payload_retention,
        })
    };
    if let Some(inline) = new.application {
        inline.make(call, &application).await?;
    }
    publish::publish_one(call, &application, place, draft).await
}

/// The payload as a slice of the request's body, without a copy. It must be a JSON object.
fn object_slice(body: &Bytes, payload: &RawValue) -> ApiResult<Bytes> {
    let text = payload.get();
    if text.starts_with('{') {
        Ok(body.slice_ref(text.as_bytes()))
    } else {
        Err(ApiError::malformed(&["body", "payload"], "must be a JSON object"))
    }
}

/// The answer to a creation; the same for the same message, so that a replay equals the first answer.
fn rendered(call: &Call, published: Published, with_content: bool) -> Accepted {
    match published {
        Published::Accepted { message, is_replay } => {
            tracing::debug!(application_id = %message.application_id, message_id = %message.id, is_replay,
                is_duplicate = message.is_duplicate(),
                "a message was accepted");
            let public_url = &call.context.config.public_url;
            let location = format!("{public_url}/api/v1/app/{}/msg/{}", message.application_id, message.id);
            Reply::at(location, &MessageOut::first(&message, with_content)).replayed(is_replay)
        }
        Published::EventIdTaken { by, is_replay } => {
            Answered { answer: call.dialect.refusal(&ApiError::Conflict(Conflict::EventId(by))), is_replay }.into()
        }
        Published::Refused(answer) => Answered { answer, is_replay: true }.into(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use domain::id::{ApplicationId, TenantId};
    use uuid::Uuid;

    use super::*;

    fn payload_of(body: &str) -> ApiResult<Bytes> {
        let body = Bytes::from(body.to_owned());
        let parsed: MessageIn = crate::transport::json::parse(&body)?;
        object_slice(&body, parsed.payload)
    }

    fn place(body: &str) -> String {
        match payload_of(body) {
            Err(ApiError::Invalid(problem)) => problem.place.join("."),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn payloads_are_kept_byte_for_byte() {
        for payload in ["{}", "{ \"b\" :1.10,\n  \"a\": \"\\u00e9\\u0000\", \"a\": 1e400 }", "{\"é\":\"\u{1F4E6}\"}"] {
            for name in ["payload", "data"] {
                let body = format!("{{ \"eventType\":\"a.b\", \"{name}\" :  {payload}  }}");
                assert_eq!(payload_of(&body).expect("a payload"), payload);
            }
        }
    }

    #[test]
    fn the_wrong_message_is_refused_by_field() {
        for (rest, loc) in [
            ("\"payload\":[]", "body.payload"),
            ("\"payload\":\"{}\"", "body.payload"),
            ("\"payload\":null", "body.payload"),
            ("\"payload\":{\"a\"}", "body.payload"),
            ("\"x\":1", "body.payload"),
            ("\"payload\":{},\"data\":{}", "body.payload"),
            ("\"payload\":{},\"channels\":[]", "body.channels"),
            ("\"payload\":{},\"channels\":[\"a\",\"b c\"]", "body.channels.1"),
            ("\"payload\":{},\"channels\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]", "body.channels"),
            ("\"payload\":{},\"eventId\":\"msg_1\"", "body.eventId"),
            ("\"payload\":{},\"eventId\":\"a\\u0000\"", "body.eventId"),
            ("\"payload\":{},\"idempotency_key\":\"\"", "body.idempotency_key"),
            ("\"payload\":{},\"tags\":[\"a b\"]", "body.tags.0"),
            ("\"payload\":{},\"deliverAt\":\"2030-01-01T00:00:00Z\"", "body.deliverAt"),
            ("\"payload\":{},\"payloadRetentionPeriod\":91", "body.payloadRetentionPeriod"),
            ("\"payload\":{},\"payloadRetentionHours\":0", "body.payloadRetentionHours"),
            ("\"payload\":{},\"application\":{\"name\":\"\"}", "body.application.name"),
        ] {
            assert_eq!(place(&format!("{{\"eventType\":\"a\",{rest}}}")), loc, "{rest}");
        }
        assert!(payload_of("{\"eventType\":\"a\",\"payload\":{},\"tags\":null,\"payloadRetentionPeriod\":90,\"unknown\":1}").is_ok());
    }

    #[test]
    fn a_message_shows_its_payload_as_it_was() {
        let message = Message {
            id: MessageId(Uuid::now_v7()),
            tenant_id: TenantId(Uuid::now_v7()),
            application_id: ApplicationId(Uuid::now_v7()),
            event_type: "user.signup".into(),
            event_id: None,
            channels: Vec::new(),
            payload: Some(Bytes::from_static(b"{ \"a\" : 1.10 }")),
            content_type: MEDIA_TYPE.into(),
            message_key: None,
            duplicate_of: None,
            released_at: None,
            payload_mismatch: false,
            particulars: None,
            created_at: DateTime::UNIX_EPOCH,
        };
        let json = |message: &Message, with_content| serde_json::to_string(&MessageOut::new(message, with_content)).expect("JSON");
        let expected = format!(
            r#"{{"eventId":null,"eventType":"user.signup","payload":{{ "a" : 1.10 }},"channels":null,"id":"{}","timestamp":"1970-01-01T00:00:00.000000Z","tags":null,"isDuplicate":false}}"#,
            message.id
        );
        assert_eq!(json(&message, true), expected);
        assert!(json(&message, false).contains(r#""payload":{},"#));
        assert!(json(&Message { payload: None, ..message.clone() }, true).contains(r#""payload":{"expired":true},"#));
        let twin = Message { duplicate_of: Some(message.id), message_key: Some("k".into()), ..message.clone() };
        let tail = format!(r#""idempotencyKey":"k","isDuplicate":true,"duplicateOf":"{}","payloadMismatch":false}}"#, message.id);
        assert!(json(&twin, true).ends_with(&tail));
    }
}
