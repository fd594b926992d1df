//! Messages by the batch, on the wire: each is accepted or refused for itself. svix-server has no such operation; it is written in its style.

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::{committer::Published, idempotency::Answered};
use utoipa::ToSchema;

use super::{
    error,
    message::{MessageIn, MessageOut, publish_one},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{call::Call, publish::Outcome, reply::Reply},
};

/// The most messages of one request.
const MOST: usize = 1_000;

/// Messages to be published.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MessageBatchIn<'a> {
    /// At most 1000. They may also be sent one a line, as `application/x-ndjson`
    #[serde(borrow)]
    #[schema(value_type = Vec<MessageIn>, min_items = 1, max_items = 1000)]
    messages: Vec<&'a RawValue>,
}

/// What became of one message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageBatchItem {
    /// What the creation of this message alone would be answered with: 202 if it is stored, with everything that it owes
    #[schema(minimum = 202, maximum = 599, example = 202)]
    status: u16,
    /// The message, without its payload, if it is stored
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = MessageOut)]
    message: Option<Box<RawValue>>,
    /// Why it is not
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Object)]
    error: Option<Box<RawValue>>,
}

/// What became of each message, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageBatchOut {
    data: Vec<MessageBatchItem>,
}

/// Create Messages
///
/// Each message is stored with everything that it owes, or refused, whatever becomes of the others. An `Idempotency-Key` is that of the whole request: a
/// repeat finds for each message what became of it at first, and stores those that were not stored because the request was cut off.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/batch",
    tag = "Message",
    operation_id = "v1.message.create-batch",
    request_body = MessageBatchIn
)]
pub(crate) async fn create(call: Call) -> ApiResult<Reply<200, MessageBatchOut>> {
    let messages = messages(&call.body)?;
    let publishing = messages.iter().enumerate().map(|(place, text)| Box::pin(one(&call, place, text)));
    let outcomes = join_all(publishing).await;
    // What the path names is not there: that is not about one of them.
    if !outcomes.iter().any(Result::is_ok)
        && let Some(ApiError::NotFound(what)) =
            outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).find(|error| matches!(error, ApiError::NotFound(_)))
    {
        return Err(ApiError::NotFound(what));
    }
    let items: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map_or_else(|error| refused(&error, false), item)).collect();
    let is_replay = items.iter().all(|(_, is_replay)| *is_replay);
    let data = items.into_iter().map(|(item, _)| item).collect();
    Ok(Reply::new(&MessageBatchOut { data }).replayed(is_replay))
}

/// The messages of a body: the member of an object, or one JSON text after the other.
fn messages(body: &[u8]) -> ApiResult<Vec<&RawValue>> {
    let texts: Vec<&RawValue> = serde_json::Deserializer::from_slice(body)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::malformed(&["body"], format!("must be JSON: {error}")))?;
    let messages = match texts.as_slice() {
        [whole] => match serde_json::from_str::<MessageBatchIn<'_>>(whole.get()) {
            Ok(batch) => batch.messages,
            Err(_) => texts,
        },
        _ => texts,
    };
    match messages.len() {
        1..=MOST => Ok(messages),
        _ => Err(ApiError::invalid(
            &["body", "messages"],
            format!("must be at least one and at most {MOST}: send the others in another request"),
        )),
    }
}

/// Publishes one of them.
async fn one(call: &Call, place: usize, text: &RawValue) -> ApiResult<Outcome> {
    publish_one(call, text.get().as_bytes(), Some(place)).await.map_err(|error| match error {
        ApiError::Invalid(mut problem) => {
            problem.place.splice(1..1, ["messages".to_owned(), place.to_string()]);
            ApiError::Invalid(problem)
        }
        other => other,
    })
}

/// What became of one of them, and whether that is the outcome of an earlier request.
fn item(outcome: Outcome) -> (MessageBatchItem, bool) {
    match outcome {
        Outcome::Published(Published::Accepted { message, is_replay }) => {
            let message = serde_json::value::to_raw_value(&MessageOut::first(&message, false)).ok();
            (MessageBatchItem { status: 202, message, error: None }, is_replay)
        }
        Outcome::Published(Published::EventIdTaken { by, is_replay }) => {
            refused(&ApiError::Conflict(storage::Conflict::EventId(by)), is_replay)
        }
        Outcome::Published(Published::Refused(answer)) | Outcome::Refused(Answered { answer, .. }) => {
            let error = serde_json::from_slice(&answer.body).ok();
            (MessageBatchItem { status: answer.status, message: None, error }, true)
        }
    }
}

fn refused(error: &ApiError, is_replay: bool) -> (MessageBatchItem, bool) {
    let answer = error::answer(error);
    (MessageBatchItem { status: answer.status, message: None, error: serde_json::from_slice(&answer.body).ok() }, is_replay)
}
