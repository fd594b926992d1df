//! Long work on the wire: what asks for it, and how far it is.

use chrono::{DateTime, Utc};
use domain::{
    id::Id,
    task::{Kind, State, Task},
};
use serde::{Deserialize, Serialize};
use storage::{
    project_tasks::{Ended, ResendTo},
    tasks::{self, Cancel, Filter, SendAgain},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Timestamp,
    attempt::{MessageStatus, StatusCodeClass},
    fields::{Channel, EventTypeNames, Tag},
    filter::Moment,
    page::{self, InOrder, Listed, Paging},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::Reply,
    },
};

/// How far a task is. One that was stopped has failed; its `data` says that it was canceled.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackgroundTaskStatus {
    /// It is being done, or waits for its turn.
    Running,
    /// It is done.
    Finished,
    /// It could not be done, or was stopped.
    Failed,
}

/// What a task does.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) enum BackgroundTaskType {
    /// Messages that an endpoint was never sent are sent to it.
    #[serde(rename = "endpoint.replay")]
    EndpointReplay,
    /// Messages that failed are sent to an endpoint again.
    #[serde(rename = "endpoint.recover")]
    EndpointRecover,
    /// Messages are sent again, to an endpoint or to all that want them.
    #[serde(rename = "endpoint.bulk-replay")]
    EndpointBulkReplay,
    /// The payloads of an application's messages are erased.
    #[serde(rename = "application.purge_content")]
    ApplicationPurgeContent,
    /// A message goes to every application.
    #[serde(rename = "message.broadcast")]
    MessageBroadcast,
}

/// What a task has done so far.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackgroundTaskData {
    /// How many messages are sent
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 2)]
    messages_sent: Option<u64>,
    /// How many messages have lost their payload
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    messages_purged: Option<u64>,
    /// How many attempts, messages or applications it has looked at
    #[schema(example = 1000)]
    scanned: u64,
    /// Absent if it goes through all applications
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "app_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    endpoint_id: Option<String>,
    /// Why it failed, or what keeps it from going on
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// A piece of long work.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackgroundTaskOut {
    #[schema(example = "qtask_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: String,
    status: BackgroundTaskStatus,
    task: BackgroundTaskType,
    data: BackgroundTaskData,
    updated_at: Timestamp,
}

/// Which messages are to be sent.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SinceIn {
    /// Only messages that were created at this moment or later
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// Only messages that were created before this moment
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Moment>,
}

/// Which tasks a list shows.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TaskFilter {
    /// Filter the response based on the status.
    #[param(inline)]
    status: Option<BackgroundTaskStatus>,
    /// Filter the response based on the type.
    #[param(inline)]
    task: Option<BackgroundTaskType>,
}

impl Parameters for TaskFilter {}

impl BackgroundTaskStatus {
    fn of(state: State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Finished => Self::Finished,
            State::Failed | State::Canceled => Self::Failed,
        }
    }

    fn states(self) -> &'static [State] {
        match self {
            Self::Running => &[State::Running],
            Self::Finished => &[State::Finished],
            Self::Failed => &[State::Failed, State::Canceled],
        }
    }
}

impl BackgroundTaskType {
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::EndpointReplay => &[Kind::ReplayMissing],
            Self::EndpointRecover => &[Kind::Recover],
            Self::EndpointBulkReplay => &[Kind::Resend, Kind::Replay],
            Self::MessageBroadcast => &[Kind::Broadcast],
            Self::ApplicationPurgeContent => &[Kind::Expunge],
        }
    }
}

impl From<&Task> for BackgroundTaskOut {
    fn from(task: &Task) -> Self {
        let kind = match task.kind {
            // Nobody asks for a fan-out, so nobody is shown one.
            Kind::ReplayMissing | Kind::FanOut => BackgroundTaskType::EndpointReplay,
            Kind::Recover => BackgroundTaskType::EndpointRecover,
            Kind::Resend | Kind::Replay => BackgroundTaskType::EndpointBulkReplay,
            Kind::Broadcast => BackgroundTaskType::MessageBroadcast,
            Kind::Expunge => BackgroundTaskType::ApplicationPurgeContent,
        };
        let error = if task.state == State::Canceled { Some("canceled".to_owned()) } else { task.error.clone() };
        Self {
            id: task.id.public(),
            status: BackgroundTaskStatus::of(task.state),
            task: kind,
            data: BackgroundTaskData {
                messages_sent: Some(task.made).filter(|_| task.kind != Kind::Expunge),
                messages_purged: Some(task.made).filter(|_| task.kind == Kind::Expunge),
                scanned: task.scanned,
                app_id: task.application_id.map(Id::public),
                endpoint_id: task.endpoint_id.map(Id::public),
                error,
            },
            updated_at: Timestamp(task.updated_at),
        }
    }
}

/// Recover Failed Webhooks
///
/// Sends all messages again that failed since a given time, or were canceled because the endpoint was disabled. Messages that were sent
/// successfully, even if they failed at first, and those that are still being tried are left alone. The answer is the task that does it.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/recover",
    tag = "Endpoint",
    operation_id = "v1.endpoint.recover",
    request_body = SinceIn
)]
pub(crate) async fn recover(call: Call) -> ApiResult<Reply<202, BackgroundTaskOut>> {
    send_again(call, Kind::Recover).await
}

/// Replay Missing Webhooks
///
/// Sends all messages since a given time that the endpoint wants and was never sent, because it was not there, was disabled or did not
/// want them then. The answer is the task that does it.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing",
    tag = "Endpoint",
    operation_id = "v1.endpoint.replay-missing",
    request_body = SinceIn
)]
pub(crate) async fn replay_missing(call: Call) -> ApiResult<Reply<202, BackgroundTaskOut>> {
    send_again(call, Kind::ReplayMissing).await
}

/// Which of an endpoint's deliveries are made once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkReplayIn {
    /// Only messages that were created at this moment or later
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// Only messages that were created before this moment
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Moment>,
    /// Only messages of these types
    event_types: Option<EventTypeNames>,
    /// Only messages in this channel
    channel: Option<Channel>,
    /// Only messages with this tag
    tag: Option<Tag>,
    /// Only deliveries that ended so: succeeded (0), failed (2) or canceled (4). What is still owed is sent without being asked for
    #[serde(default, deserialize_with = "MessageStatus::in_body")]
    status: Option<MessageStatus>,
    /// Only deliveries to which the receiver's answer was of this class
    #[serde(default, deserialize_with = "StatusCodeClass::in_body")]
    status_code_class: Option<StatusCodeClass>,
}

/// Bulk Replay
///
/// Sends messages to an endpoint again whose deliveries have ended, successful ones too. The answer is the task that does it.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay",
    tag = "Endpoint",
    operation_id = "v1.endpoint.bulk-replay",
    request_body = BulkReplayIn
)]
pub(crate) async fn bulk_replay(call: Call) -> ApiResult<Reply<202, BackgroundTaskOut>> {
    let effect = call.json::<BulkReplayIn>().and_then(|asked| {
        let (since, until) = span(asked.since, asked.until)?;
        let ended = match asked.status.map(MessageStatus::value) {
            None => None,
            Some(0) => Some(Ended::Delivered),
            Some(2) => Some(Ended::Failed),
            Some(4) => Some(Ended::Discarded),
            Some(_) => {
                return Err(ApiError::invalid(
                    &["body", "status"],
                    "must be 0, 2 or 4: what is still owed is sent without being asked for",
                ));
            }
        };
        Ok(ResendTo {
            address: call.address(),
            since,
            until,
            event_types: asked.event_types.map(|names| names.0),
            channel: asked.channel.map(|channel| channel.0),
            tag: asked.tag.map(|tag| tag.0),
            ended: ended.map(|ended| vec![ended]),
            status_class: asked.status_code_class.map(|class| class.value() / 100),
        })
    });
    call.write(effect, |task| Reply::new(&BackgroundTaskOut::from(task))).await
}

/// From when until when.
fn span(since: Moment, until: Option<Moment>) -> ApiResult<(DateTime<Utc>, Option<DateTime<Utc>>)> {
    let (since, until) = (since.0, until.map(|until| until.0));
    if until.is_some_and(|until| until <= since) {
        return Err(ApiError::invalid(&["body", "until"], "must be later than `since`"));
    }
    Ok((since, until))
}

async fn send_again(call: Call, kind: Kind) -> ApiResult<Reply<202, BackgroundTaskOut>> {
    let effect = call.json::<SinceIn>().and_then(|asked| {
        let (since, until) = span(asked.since, asked.until)?;
        Ok(SendAgain { address: call.address(), kind, since, until })
    });
    call.write(effect, |task| Reply::new(&BackgroundTaskOut::from(task))).await
}

/// List Background Tasks
#[utoipa::path(get, path = "/api/v1/background-task", tag = "Background Task", operation_id = "v1.background-task.list")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, InOrder, TaskFilter)>) -> ApiResult<Listed<BackgroundTaskOut>> {
    let (paging, order, filter) = asked.read()?;
    let page = paging.of_ids(order.is_ascending(false))?;
    let filter = Filter { states: filter.status.map(BackgroundTaskStatus::states), kinds: filter.task.map(BackgroundTaskType::kinds) };
    let tasks = tasks::list(call.db(), call.tenant_id(), filter, &page).await?;
    Ok(page::list(&tasks, |task| task.id.public(), BackgroundTaskOut::from))
}

/// Get Background Task
#[utoipa::path(get, path = "/api/v1/background-task/{task_id}", tag = "Background Task", operation_id = "v1.background-task.get")]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, BackgroundTaskOut>> {
    let task = tasks::get(call.db(), call.tenant_id(), call.task()?).await?;
    Ok(Reply::new(&BackgroundTaskOut::from(&task)))
}

/// Cancel Background Task
///
/// Stops a task: what it has sent so far stays sent. One that is over already stays as it is, and is shown.
#[utoipa::path(
    post,
    path = "/api/v1/background-task/{task_id}/cancel",
    tag = "Background Task",
    operation_id = "v1.background-task.cancel"
)]
pub(crate) async fn cancel(call: Call) -> ApiResult<Reply<200, BackgroundTaskOut>> {
    let effect = call.task().map(|id| Cancel { tenant_id: call.tenant_id(), id });
    call.write(effect, |task| Reply::new(&BackgroundTaskOut::from(task))).await
}
