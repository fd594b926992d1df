//! Where deliveries stand, on the wire: of one message to its endpoints, and of one endpoint's messages.

use chrono::{DateTime, Utc};
use domain::{
    endpoint::Endpoint,
    health::State,
    id::Id,
    standing::{Gate, Last, LeftOut, Standing},
};
use serde::{Deserialize, Serialize};
use storage::{
    deliveries::{self, Delivery, Kind},
    endpoints,
    messages::Filter,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Timestamp,
    attempt::{ExpandedStatuses, MessageStatus, MessageStatusText},
    endpoint::EndpointOut,
    filter::ListFilter,
    message::{MessageOut, WithContent},
    page::{self, Listed, Paging},
};
use crate::{
    error::ApiResult,
    transport::{
        call::Call,
        query::{Asked, Parameters},
    },
};

/// Where a delivery stands, in a word.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DeliveryState {
    /// The receiver took it.
    Delivered,
    /// It is being sent.
    Sending,
    /// It is sent as soon as a worker gets to it.
    Due,
    /// Its endpoint keeps failing: it waits for a probe to succeed.
    Held,
    /// It waits for its endpoint's throttle.
    Throttled,
    /// It failed and waits for its next attempt.
    Sleeping,
    /// Its attempts are used up.
    Failed,
    /// It ended without a request, since its endpoint was off or gone.
    Canceled,
    /// It ended without a request, since the content of its message was gone.
    Discarded,
    /// It was never owed.
    LeftOut,
}

/// Why a message is not owed to an endpoint.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum DeliveryLeftOut {
    /// The message is a duplicate, and was not released.
    Duplicate,
    /// The endpoint is younger than the message.
    Younger,
    /// The endpoint is disabled.
    Disabled,
    /// The message was published for another endpoint alone.
    Elsewhere,
    /// The endpoint has no subscription that the message could come by.
    Subscription,
    /// The endpoint asks for other event types.
    EventType,
    /// The endpoint asks for other channels.
    Channel,
    /// The endpoint asks for other payloads, or the payload is gone, so that nobody can tell any more.
    Content,
    /// The endpoint would get such a message now: it was changed since.
    Changed,
}

/// Where a delivery stands, and why.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryOut {
    status: MessageStatus,
    status_text: MessageStatusText,
    /// When it is sent next, as far as that is known; null if it has ended or is being sent
    #[schema(required)]
    next_attempt: Option<Timestamp>,
    state: DeliveryState,
    /// Why, in words; null if there is nothing to say
    #[schema(required, example = "the receiver answered 503")]
    reason: Option<String>,
    /// Why it was never owed; null if it was
    #[schema(required)]
    left_out: Option<DeliveryLeftOut>,
    /// Of one that is held, since when its endpoint is; else null
    #[schema(required)]
    since: Option<Timestamp>,
    /// Until when it is held (the next probe), throttled or asleep; null in every other state
    #[schema(required)]
    until: Option<Timestamp>,
    /// The attempt that decides: one that succeeded, else the last one; null if there was none
    #[schema(required, example = "atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    attempt_id: Option<String>,
}

/// An endpoint, and where a message to it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageEndpointOut<'a> {
    #[serde(flatten)]
    endpoint: EndpointOut<'a>,
    #[serde(flatten)]
    delivery: DeliveryOut,
    /// Whether the endpoint was deleted
    deleted: bool,
}

/// A message, and where its delivery to an endpoint stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointMessageOut<'a> {
    #[serde(flatten)]
    message: MessageOut<'a>,
    #[serde(flatten)]
    delivery: DeliveryOut,
}

impl From<Standing> for DeliveryState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Delivered => Self::Delivered,
            Standing::Sending => Self::Sending,
            Standing::Due => Self::Due,
            Standing::Held { .. } => Self::Held,
            Standing::Throttled { .. } => Self::Throttled,
            Standing::Sleeping { .. } => Self::Sleeping,
            Standing::Failed => Self::Failed,
            Standing::Canceled => Self::Canceled,
            Standing::Discarded => Self::Discarded,
            Standing::LeftOut(_) => Self::LeftOut,
        }
    }
}

impl From<LeftOut> for DeliveryLeftOut {
    fn from(why: LeftOut) -> Self {
        match why {
            LeftOut::Duplicate => Self::Duplicate,
            LeftOut::Younger => Self::Younger,
            LeftOut::Disabled => Self::Disabled,
            LeftOut::Elsewhere => Self::Elsewhere,
            LeftOut::Subscription => Self::Subscription,
            LeftOut::EventType => Self::EventType,
            LeftOut::Channel => Self::Channel,
            LeftOut::Content => Self::Content,
            LeftOut::Changed => Self::Changed,
        }
    }
}

impl DeliveryOut {
    fn new(delivery: &Delivery, endpoint: &Endpoint, is_expanded: bool) -> Self {
        let Delivery { standing, facts } = delivery;
        let is_off = facts.is_deleted || endpoint.is_disabled;
        let (since, until) = match *standing {
            Standing::Held { since, until } => (Some(since), until),
            Standing::Throttled { until } | Standing::Sleeping { until } => (None, Some(until)),
            _ => (None, None),
        };
        let due_at = facts.owed.filter(|_| *standing == Standing::Due).map(|owed| owed.due_at);
        let reason = match standing {
            Standing::Due if is_off => Some("its endpoint is off: it will be canceled".to_owned()),
            Standing::Due if is_recovering(facts.gate) => Some("its endpoint recovers, and is sent to in growing numbers".to_owned()),
            Standing::Held { .. } => Some("its endpoint keeps failing: it waits until a probe succeeds".to_owned()),
            Standing::Throttled { .. } => Some("its endpoint is sent no more than it permits".to_owned()),
            Standing::Sleeping { .. } | Standing::Failed | Standing::Canceled | Standing::Discarded => facts.attempt.as_ref().map(words),
            Standing::LeftOut(why) => Some(why_left_out(*why).to_owned()),
            Standing::Delivered | Standing::Sending | Standing::Due => None,
        };
        let left_out = if let Standing::LeftOut(why) = standing { Some((*why).into()) } else { None };
        let status_text = status(*standing, facts.attempt.is_some(), is_expanded);
        let time = |at: Option<DateTime<Utc>>| at.map(Timestamp);
        Self {
            status: status_text.number(),
            status_text,
            next_attempt: time(until.or(due_at)),
            state: (*standing).into(),
            reason,
            left_out,
            since: time(since),
            until: time(until),
            attempt_id: facts.attempt.as_ref().map(|attempt| attempt.id.public()),
        }
    }
}

/// What clients of the contract understand: what was not tried yet is pending, and what is owed after a try is being sent.
fn status(standing: Standing, is_tried: bool, is_expanded: bool) -> MessageStatusText {
    match standing {
        Standing::Delivered => MessageStatusText::Success,
        Standing::Sending => MessageStatusText::Sending,
        Standing::Due | Standing::Held { .. } | Standing::Throttled { .. } | Standing::Sleeping { .. } if is_tried => {
            MessageStatusText::Sending
        }
        Standing::Due | Standing::Held { .. } | Standing::Throttled { .. } | Standing::Sleeping { .. } => MessageStatusText::Pending,
        Standing::LeftOut(_) => MessageStatusText::Canceled,
        Standing::Canceled | Standing::Discarded if is_expanded => MessageStatusText::Canceled,
        Standing::Failed | Standing::Canceled | Standing::Discarded => MessageStatusText::Fail,
    }
}

fn is_recovering(gate: Option<Gate>) -> bool {
    gate.is_some_and(|gate| gate.state == State::Recovering)
}

/// What came of an attempt: of a response its status alone, since its text is the receiver's.
fn words(attempt: &Last) -> String {
    match attempt.status_code {
        0 => attempt.response.clone(),
        code => format!("the receiver answered {code}"),
    }
}

fn why_left_out(why: LeftOut) -> &'static str {
    match why {
        LeftOut::Duplicate => "the message is a duplicate, and was not released",
        LeftOut::Younger => "the endpoint is younger than the message",
        LeftOut::Disabled => "the endpoint is disabled",
        LeftOut::Elsewhere => "the message was published for another endpoint alone",
        LeftOut::Subscription => "the endpoint has no subscription that the message could come by",
        LeftOut::EventType => "the endpoint asks for other event types",
        LeftOut::Channel => "the endpoint asks for other channels",
        LeftOut::Content => "the endpoint asks for other payloads",
        LeftOut::Changed => "the endpoint was changed since: it would get such a message now",
    }
}

/// Whether endpoints are listed that get nothing.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WithLeftOut {
    /// When `true`, all endpoints of the application are listed, and those that the message was never owed to say why
    #[serde(default)]
    #[param(required = false, default = false)]
    with_left_out: bool,
}

/// Which attempted messages a list shows, besides what it shares with lists of messages.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttemptedFilter {
    /// Filter response based on the delivery status; none is ever pending (1), because these have been tried
    #[param(inline)]
    status: Option<MessageStatus>,
    /// When `true`, what ended without a request is `canceled` (4); else it is `fail` (2)
    #[serde(default)]
    #[param(required = false, default = false)]
    expanded_statuses: bool,
}

impl Parameters for WithLeftOut {}
impl Parameters for AttemptedFilter {}

impl AttemptedFilter {
    fn kinds(self) -> Option<Vec<Kind>> {
        let all = [
            (MessageStatusText::Success, Kind::Succeeded),
            (MessageStatusText::Sending, Kind::Owed),
            (MessageStatusText::Fail, Kind::Failed),
            (if self.expanded_statuses { MessageStatusText::Canceled } else { MessageStatusText::Fail }, Kind::Canceled),
        ];
        self.status.map(|status| all.into_iter().filter(|(text, _)| text.number() == status).map(|(_, kind)| kind).collect())
    }
}

/// List Attempted Destinations
///
/// The endpoints that a message is or was owed to, also those to which nothing has been sent yet, and where each delivery stands. The
/// time of a throttle is that of the next send to the endpoint, whichever message that is of.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-attempted-destinations"
)]
pub(crate) async fn list_destinations(
    call: Call,
    asked: Asked<(Paging, WithLeftOut, ExpandedStatuses)>,
) -> ApiResult<Listed<MessageEndpointOut<'static>>> {
    let (paging, WithLeftOut { with_left_out }, ExpandedStatuses { expanded_statuses }) = asked.read()?;
    let page = paging.of_ids(true)?;
    let (application, message) = (call.application(), call.message());
    let page = deliveries::destinations(call.db(), call.tenant_id(), &application, &message, with_left_out, &page).await?;
    Ok(page::list(
        &page,
        |destination| destination.endpoint.id.public(),
        |destination| MessageEndpointOut {
            endpoint: EndpointOut::from(&destination.endpoint),
            delivery: DeliveryOut::new(&destination.delivery, &destination.endpoint, expanded_statuses),
            deleted: destination.delivery.facts.is_deleted,
        },
    ))
}

/// List Attempted Messages
///
/// The messages that were attempted to be sent to an endpoint, the newest first, and where each delivery stands. What is owed and was
/// not tried yet is not among them.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-attempted-messages"
)]
pub(crate) async fn list_messages(
    call: Call,
    asked: Asked<(Paging, ListFilter, WithContent, AttemptedFilter)>,
) -> ApiResult<Listed<EndpointMessageOut<'static>>> {
    let (paging, shared, WithContent { with_content }, filter) = asked.read()?;
    let page = paging.of_ids(false)?;
    let address = call.address();
    let endpoint = endpoints::get(call.db(), &address).await?;
    let page = deliveries::attempted(call.db(), &endpoint, &Filter::from(shared), filter.kinds().as_deref(), &page).await?;
    Ok(page::list(
        &page,
        |attempted| attempted.message.id.public(),
        |attempted| EndpointMessageOut {
            message: MessageOut::new(&attempted.message, with_content),
            delivery: DeliveryOut::new(&attempted.delivery, &endpoint, filter.expanded_statuses),
        },
    ))
}
