//! Attempts on the wire, and the operation that asks for a further one.

use domain::{
    application::check_name,
    delivery::{Attempt, Outcome, Trigger},
    id::Id,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::json;
use storage::{
    applications::Reference,
    attempts::{self, Filter},
    queue::Resend,
};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use super::{
    Timestamp,
    fields::NotYetAsked,
    filter::ListFilter,
    page::{self, Listed, Paging},
};
use crate::{
    error::ApiResult,
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::Reply,
    },
};

/// How an attempt ended or a delivery stands, as a word; `status` has it as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MessageStatusText {
    /// The receiver took it.
    Success,
    /// It is owed and was not tried yet.
    Pending,
    /// It failed, or may have been sent.
    Fail,
    /// It is being sent, or is owed after a try.
    Sending,
    /// It ended without a request.
    Canceled,
}

impl MessageStatusText {
    /// What ended without a request has a status of its own only for clients that ask for `expanded_statuses`.
    fn of(outcome: Outcome, is_expanded: bool) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Success,
            Outcome::Canceled | Outcome::Discarded if is_expanded => Self::Canceled,
            Outcome::Failed | Outcome::Unknown | Outcome::Canceled | Outcome::Discarded => Self::Fail,
        }
    }

    pub(crate) fn number(self) -> MessageStatus {
        MessageStatus(match self {
            Self::Success => 0,
            Self::Pending => 1,
            Self::Fail => 2,
            Self::Sending => 3,
            Self::Canceled => 4,
        })
    }
}

/// Declares a number with few values; in a query it is written in digits.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident, $text:literal, $values:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub(crate) struct $name(u16);

        impl $name {
            const VALUES: &'static [u16] = &$values;
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
                let value = text.parse().ok().filter(|value| is_plain && Self::VALUES.contains(value));
                value.map(Self).ok_or_else(|| D::Error::custom(format!("must be one of {:?}", Self::VALUES)))
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let values = Self::VALUES.iter().map(|value| json!(value));
                let number = ObjectBuilder::new().schema_type(Type::Integer).description(Some($text)).enum_values(Some(values));
                Schema::from(number.build()).into()
            }
        }

        impl ToSchema for $name {}
    };
}

numbers!(
    /// How an attempt ended.
    MessageStatus, "How an attempt ended or a delivery stands: Success = 0, Pending = 1, Fail = 2, Sending = 3, Canceled = 4. No attempt is ever pending or sending, because attempts are recorded when they are over.",
    [0, 1, 2, 3, 4]
);
numbers!(
    /// A class of HTTP status codes.
    StatusCodeClass, "A class of HTTP status codes: 200 is 200 to 299, and so on; 0 is no response.", [0, 100, 200, 300, 400, 500]
);
numbers!(
    /// Why an attempt was made.
    MessageAttemptTriggerType, "Why an attempt was made: Scheduled = 0, Manual = 1.", [0, 1]
);

/// Those of them that stand in bodies, where they are numbers.
macro_rules! in_bodies {
    ($($name:ident)*) => {$(
        impl $name {
            /// The number.
            pub(super) fn value(self) -> u16 {
                self.0
            }

            /// Reads one, or null.
            pub(super) fn in_body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
                let value = Option::<u16>::deserialize(deserializer)?;
                let is_one = value.is_none_or(|value| Self::VALUES.contains(&value));
                if is_one { Ok(value.map(Self)) } else { Err(D::Error::custom(format!("must be one of {:?}", Self::VALUES))) }
            }
        }
    )*};
}

in_bodies!(MessageStatus StatusCodeClass);

impl MessageStatus {
    /// The outcomes with this status.
    fn outcomes(self, is_expanded: bool) -> Vec<Outcome> {
        let all = [Outcome::Succeeded, Outcome::Failed, Outcome::Unknown, Outcome::Canceled, Outcome::Discarded];
        all.into_iter().filter(|outcome| MessageStatusText::of(*outcome, is_expanded).number() == self).collect()
    }
}

/// One HTTP request to an endpoint and what came back.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageAttemptOut<'a> {
    /// The URL that was called
    #[schema(example = "https://example.com/webhook/")]
    url: &'a str,
    /// The first 16 kB of the response, or why there was none; `{}` without `with_content`
    #[schema(example = "{}")]
    response: String,
    /// 0 if there was no response
    #[schema(example = 200)]
    response_status_code: u16,
    /// Response duration in milliseconds.
    response_duration_ms: i64,
    status: MessageStatus,
    status_text: MessageStatusText,
    trigger_type: MessageAttemptTriggerType,
    #[schema(example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    msg_id: String,
    #[schema(example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    endpoint_id: String,
    #[schema(example = "atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: String,
    timestamp: Timestamp,
    /// Whether the request was sent twice: the receiver had closed the kept connection under the first, which it may have got
    /// or not; the second one's `Posthaste-Attempt` ends in `.1`
    resent: bool,
}

impl<'a> MessageAttemptOut<'a> {
    fn new(attempt: &'a Attempt, with_content: bool, is_expanded: bool) -> Self {
        let status_text = MessageStatusText::of(attempt.outcome, is_expanded);
        let response = if with_content { String::from_utf8_lossy(&attempt.response).into_owned() } else { "{}".into() };
        Self {
            url: &attempt.url,
            response,
            response_status_code: attempt.status_code,
            response_duration_ms: i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX),
            status: status_text.number(),
            status_text,
            trigger_type: MessageAttemptTriggerType(match attempt.trigger {
                Trigger::Scheduled => 0,
                Trigger::Manual => 1,
            }),
            msg_id: attempt.message_id.public(),
            endpoint_id: attempt.endpoint_id.public(),
            id: attempt.id.public(),
            timestamp: Timestamp(attempt.created_at),
            resent: attempt.is_resent,
        }
    }
}

/// Which attempts a list shows, besides what it shares with lists of messages.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttemptFilter {
    /// Filter response based on the delivery status
    #[param(inline)]
    status: Option<MessageStatus>,
    /// Filter response based on the HTTP status code
    #[param(inline)]
    status_code_class: Option<StatusCodeClass>,
    /// When `true` attempt content is included in the response
    #[serde(default = "yes")]
    #[param(required = false, default = true)]
    with_content: bool,
    /// When `true`, what ended without a request is `canceled` (4); else it is `fail` (2)
    #[serde(default)]
    #[param(required = false, default = false)]
    expanded_statuses: bool,
    #[serde(default, rename = "with_msg")]
    #[param(ignore)]
    _with_msg: NotYetAsked,
}

impl AttemptFilter {
    fn show(self, attempt: &Attempt) -> MessageAttemptOut<'_> {
        MessageAttemptOut::new(attempt, self.with_content, self.expanded_statuses)
    }

    fn into_filter(self, shared: ListFilter) -> Filter {
        let outcomes = self.status.map(|status| status.outcomes(self.expanded_statuses));
        Filter { outcomes, status_code_class: self.status_code_class.map(|class| class.0), ..shared.into() }
    }
}

/// How many kinds of status an answer may tell apart.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExpandedStatuses {
    /// When `true`, what ended without a request is `canceled` (4); else it is `fail` (2)
    #[serde(default)]
    #[param(required = false, default = false)]
    pub(crate) expanded_statuses: bool,
}

/// Only attempts to one endpoint.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfEndpoint {
    /// Filter the attempts based on the attempted endpoint
    #[serde(default, deserialize_with = "name")]
    #[param(min_length = 1, max_length = 256, pattern = r"^(\.*[a-zA-Z0-9\-_][a-zA-Z0-9\-_.]*|\.{3,})$", example = "unique-ep-identifier")]
    endpoint_id: Option<String>,
}

impl Parameters for AttemptFilter {}
impl Parameters for ExpandedStatuses {}
impl Parameters for OfEndpoint {}

fn yes() -> bool {
    true
}

/// Reads what may stand for a thing in a path.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| check_name(&text).map(|()| text)).transpose().map_err(D::Error::custom)
}

/// List Attempts By Endpoint
///
/// The newest first.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-by-endpoint"
)]
pub(crate) async fn list_by_endpoint(
    call: Call,
    asked: Asked<(Paging, AttemptFilter, ListFilter)>,
) -> ApiResult<Listed<MessageAttemptOut<'static>>> {
    let (paging, filter, shared) = asked.read()?;
    let page = paging.of_ids(false)?;
    let page = attempts::list_by_endpoint(call.db(), &call.address(), &filter.into_filter(shared), &page).await?;
    Ok(page::list(&page, |attempt| attempt.id.public(), |attempt| filter.show(attempt)))
}

/// List Attempts By Msg
///
/// The newest first.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/attempt/msg/{msg_id}",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-by-msg"
)]
pub(crate) async fn list_by_message(
    call: Call,
    asked: Asked<(Paging, AttemptFilter, ListFilter, OfEndpoint)>,
) -> ApiResult<Listed<MessageAttemptOut<'static>>> {
    let (paging, filter, shared, OfEndpoint { endpoint_id }) = asked.read()?;
    let page = paging.of_ids(false)?;
    let endpoint = endpoint_id.as_deref().map(Reference::parse);
    let (application, message) = (call.application(), call.message());
    let wanted = filter.into_filter(shared);
    let page = attempts::list_by_message(call.db(), call.tenant_id(), &application, &message, endpoint.as_ref(), &wanted, &page).await?;
    Ok(page::list(&page, |attempt| attempt.id.public(), |attempt| filter.show(attempt)))
}

/// Get Attempt
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.get"
)]
pub(crate) async fn get(call: Call, asked: Asked<ExpandedStatuses>) -> ApiResult<Reply<200, MessageAttemptOut<'static>>> {
    let attempt = attempts::get(call.db(), call.tenant_id(), &call.application(), &call.message(), call.attempt()?).await?;
    let ExpandedStatuses { expanded_statuses } = asked.read()?;
    Ok(Reply::new(&MessageAttemptOut::new(&attempt, true, expanded_statuses)))
}

/// An empty object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmptyResponse {}

/// Resend Webhook
///
/// Sends a message to one endpoint again, once, whatever became of earlier attempts.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend",
    tag = "Message Attempt",
    operation_id = "v1.message-attempt.resend"
)]
pub(crate) async fn resend(call: Call) -> ApiResult<Reply<202, EmptyResponse>> {
    let effect =
        Resend { tenant_id: call.tenant_id(), application: call.application(), message: call.message(), endpoint: call.endpoint() };
    call.write(Ok(effect), |_| Reply::new(&EmptyResponse {})).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_filter_names_outcomes() {
        fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
            T::deserialize(serde_json::Value::from(text)).ok()
        }
        let outcomes = |text: &str| read::<MessageStatus>(text).map(|status| status.outcomes(true));
        assert_eq!(outcomes("0"), Some(vec![Outcome::Succeeded]));
        assert_eq!(outcomes("1"), Some(vec![]));
        assert_eq!(outcomes("2"), Some(vec![Outcome::Failed, Outcome::Unknown]));
        assert_eq!(outcomes("4"), Some(vec![Outcome::Canceled, Outcome::Discarded]));
        let plain = read::<MessageStatus>("2").map(|status| status.outcomes(false));
        assert_eq!(plain, Some(vec![Outcome::Failed, Outcome::Unknown, Outcome::Canceled, Outcome::Discarded]));
        for text in ["5", "-1", "", "fail", "250"] {
            assert!(outcomes(text).is_none(), "{text}");
        }
        assert!(read::<StatusCodeClass>("500").is_some());
        assert!(read::<StatusCodeClass>("404").is_none());
    }
}
