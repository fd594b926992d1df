//! Content that is erased for good, on the wire.

use std::collections::BTreeMap;

use domain::id::MessageId;
use serde::{Deserialize, Serialize};
use storage::{
    applications::Reference,
    expunge::{Expunge, ExpungeAll, ExpungeAnswer, ExpungeMany},
};
use utoipa::ToSchema;

use super::{fields::MessageName, task::BackgroundTaskOut};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        reply::{Nothing, Reply},
    },
};

/// How many messages are erased at one time.
const MOST: usize = 500;

/// Delete Message Content
///
/// Erases a message's content for good: it is not shown any more, and attempts that are still to come are not made. The message itself
/// stays, with its attempts.
#[utoipa::path(delete, path = "/api/v1/app/{app_id}/msg/{msg_id}/content", tag = "Message", operation_id = "v1.message.expunge-content")]
pub(crate) async fn message(call: Call) -> ApiResult<Nothing> {
    let effect = Expunge { tenant_id: call.tenant_id(), application: call.application(), message: call.message() };
    call.write(Ok(effect), |()| Nothing::new()).await
}

/// Whose content is to be erased.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BulkExpungeContentsIn {
    /// Ids of messages, or event ids; at most 500
    #[schema(max_items = 500)]
    ids: Option<Vec<MessageName>>,
}

/// What became of the content of a message.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BulkExpungeStatus {
    /// It is gone.
    Expunged,
    /// The application has no such message.
    NotFound,
}

/// What became of the content of each message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkExpungeContentsOut {
    /// By the ids that were sent
    results: BTreeMap<String, BulkExpungeStatus>,
}

/// Bulk Delete Message Contents
///
/// As for one message; of all or, if the database fails meanwhile, of none.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/bulk-expunge",
    tag = "Message",
    operation_id = "v1.message.bulk-expunge-content",
    request_body = BulkExpungeContentsIn
)]
pub(crate) async fn messages(call: Call) -> ApiResult<Reply<200, BulkExpungeContentsOut>> {
    let names = call.json::<BulkExpungeContentsIn>().and_then(|BulkExpungeContentsIn { ids }| match ids.unwrap_or_default() {
        ids if ids.len() <= MOST => Ok(ids.into_iter().map(|name| name.0).collect::<Vec<_>>()),
        _ => Err(ApiError::invalid(&["body", "ids"], format!("must be at most {MOST}: send the others in another request"))),
    });
    let effect = names.as_ref().map_err(Clone::clone).map(|names| ExpungeMany {
        tenant_id: call.tenant_id(),
        application: call.application(),
        messages: names.iter().map(|name| Reference::<MessageId>::parse(name)).collect(),
    });
    let names = names.unwrap_or_default();
    call.write(effect, move |erased| {
        let status = |is_there: &bool| if *is_there { BulkExpungeStatus::Expunged } else { BulkExpungeStatus::NotFound };
        Reply::new(&BulkExpungeContentsOut { results: names.iter().cloned().zip(erased.iter().map(status)).collect() })
    })
    .await
}

/// Delete All Message Contents
///
/// Of all messages that the application has by now. The answer is the task that does it.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/expunge-all-contents",
    tag = "Message",
    operation_id = "v1.message.expunge-all-contents"
)]
pub(crate) async fn all(call: Call) -> ApiResult<Reply<202, BackgroundTaskOut>> {
    let effect = ExpungeAll { tenant_id: call.tenant_id(), application: call.application() };
    call.write(Ok(effect), |task| Reply::new(&BackgroundTaskOut::from(task))).await
}

/// Delete Attempt Response Body
///
/// Erases what the receiver answered.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.expunge-content"
)]
pub(crate) async fn answer(call: Call) -> ApiResult<Nothing> {
    let effect = call.attempt().map(|attempt| ExpungeAnswer {
        tenant_id: call.tenant_id(),
        application: call.application(),
        message: call.message(),
        attempt,
    });
    call.write(effect, |()| Nothing::new()).await
}
