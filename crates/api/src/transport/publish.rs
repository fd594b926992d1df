//! Publishing for whichever dialect asks: under the request's key, with what an earlier request met, and with endpoints that are current.

use std::{future::Future, sync::Arc};

use domain::id::ApplicationId;
use storage::{
    applications::Reference,
    committer::{NewMessage, Published},
    directory::{self, Subscribers},
    idempotency::{Answered, Claim, Found},
};

use super::{call::Call, reply::Replies};
use crate::error::{ApiError, ApiResult};

/// How often a message is offered again because its application's name changed hands meanwhile.
const RENAMES: usize = 3;

/// What came of it.
pub(crate) enum Outcome {
    /// It is stored, by this request or an earlier one with its key; or there was something in the way that is remembered.
    Published(Published),
    /// An earlier request with this key was refused, and is remembered so.
    Refused(Answered),
}

/// Publishes a message to an application. `draft` makes it of who may be owed it and the claim on the request's key, and may refuse it.
pub(crate) async fn publish(
    call: &Call,
    application: &Reference<ApplicationId>,
    draft: impl FnOnce(Arc<Subscribers>, Option<Claim>) -> ApiResult<NewMessage> + Send,
) -> ApiResult<Outcome> {
    publish_one(call, application, None, draft).await
}

/// The same of one message of several, which has this place: its key is the request's with that place.
pub(crate) async fn publish_one(
    call: &Call,
    application: &Reference<ApplicationId>,
    place: Option<usize>,
    draft: impl FnOnce(Arc<Subscribers>, Option<Claim>) -> ApiResult<NewMessage> + Send,
) -> ApiResult<Outcome> {
    let subscribers = directory::find(call.db(), call.tenant_id(), application).await?;
    if place.is_none()
        && let Some(refusal) = call.known_refusal(subscribers.policy).await?
    {
        return Ok(Outcome::Refused(refusal));
    }
    let of_one = |claim: Claim| place.map_or(claim, |place| claim.of_one(place));
    let claim = call.claim(subscribers.policy).await?.map(of_one);
    let mut new = Arc::new(draft(subscribers, claim)?);
    for _ in 0..RENAMES {
        match call.context.publisher.publish(&new).await {
            Err(storage::Error::Renamed) => {
                let subscribers = directory::find(call.db(), call.tenant_id(), application).await?;
                let claim = call.claim(subscribers.policy).await?.map(of_one);
                new = Arc::new(NewMessage { subscribers, claim, ..Arc::unwrap_or_clone(new) });
            }
            published => return Ok(Outcome::Published(published?)),
        }
    }
    Err(ApiError::Unavailable)
}

/// Answers what was published, or was not: a saved outcome wins over validation and over an application that has been deleted since.
pub(crate) async fn answer<R: Replies>(
    call: &Call,
    publishing: impl Future<Output = ApiResult<Outcome>>,
    render: impl Fn(Published) -> R,
) -> ApiResult<R> {
    match publishing.await {
        Ok(Outcome::Published(published)) => Ok(render(published)),
        Ok(Outcome::Refused(answered)) => Ok(answered.into()),
        Err(refusal @ (ApiError::Invalid(_) | ApiError::NotFound(_))) => match Box::pin(call.saved()).await? {
            Some(Found::Answer(answer)) => Ok(Answered { answer, is_replay: true }.into()),
            Some(Found::Published(published)) => Ok(render(published)),
            None => Box::pin(call.refuse(refusal)).await,
        },
        Err(error) => Box::pin(call.refuse(error)).await,
    }
}
