//! Events that are to be sent: to one endpoint, to all of an owner, or to whoever the request names.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use domain::{
    application::check_name,
    endpoint::{check_header_changes, check_header_count},
    id::{ApplicationId, EndpointId, Id, TaskId},
    message::{Message, Particulars},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::{
    applications::Reference,
    committer::{KeyScope, NewMessage, Published},
    directory,
    idempotency::Answered,
    project_endpoints::{self, Dynamic},
    projects, tasks,
};
use utoipa::ToSchema;

use super::{
    Ulid,
    answer::Told,
    fields::{EventKey, EventTypeName, SecretText, Url},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        json::MEDIA_TYPE,
        publish::{self, Outcome},
    },
};

/// What an answer says of an event that repeats the key of another.
pub(super) const DUPLICATE: &str = "Duplicate event received, but will not be sent";

/// Declares the body of a request that makes an event: what all have, and what this one has of its own.
macro_rules! event_in {
    ($(#[$doc:meta])* $name:ident as $schema_name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, ToSchema)]
        #[schema(as = $schema_name)]
        pub(crate) struct $name<'a> {
            $($(#[$field_doc])* $field: $kind,)*
            event_type: EventTypeName,
            /// What receivers get, byte for byte: any JSON
            #[serde(borrow)]
            #[schema(value_type = Object)]
            data: &'a RawValue,
            /// Headers that go on with each copy; none of an endpoint's own is replaced
            #[serde(default)]
            custom_headers: Option<BTreeMap<String, String>>,
            /// Dedupes events of the whole project: a second one with this key is stored, flagged as a duplicate and not sent
            #[serde(default)]
            idempotency_key: Option<EventKey>,
        }

        impl<'a> $name<'a> {
            fn into_draft(self, body: &Bytes, only: Option<EndpointId>) -> ApiResult<Draft> {
                let headers = custom_headers(self.custom_headers.unwrap_or_default())?;
                Ok(Draft {
                    event_type: self.event_type.0,
                    payload: body.slice_ref(self.data.get().as_bytes()),
                    message_key: self.idempotency_key.map(|key| key.0).filter(|key| !key.is_empty()),
                    particulars: Particulars { only, headers, ..Particulars::default() },
                    broadcast: None,
                })
            }
        }
    };
}

event_in!(
    /// An event for one endpoint.
    EventIn as ConvoyEventIn {
        /// The endpoint that it is for, if one of its subscriptions lets it through
        endpoint_id: String,
    }
);
event_in!(
    /// An event for a URL.
    DynamicIn as ConvoyDynamicIn {
        /// Where it goes: an endpoint of the project is made for each URL
        url: Url,
        /// Signs the webhooks of an endpoint that is made; a random one if absent
        secret: Option<SecretText>,
        /// What the endpoint gets from now on; if absent, all types of one that is made, and no change of one that there is
        event_types: Option<Vec<EventTypeName>>,
    }
);
event_in!(
    /// An event for all endpoints of an owner.
    FanoutIn as ConvoyFanoutIn {
        /// Whose endpoints it is for: those of which a subscription lets it through
        owner_id: String,
    }
);

event_in!(
    /// An event for everybody.
    BroadcastIn as ConvoyBroadcastIn {}
);

/// A message, but for whom it is.
struct Draft {
    event_type: String,
    payload: Bytes,
    message_key: Option<String>,
    particulars: Particulars,
    /// The task that gives it to everybody.
    broadcast: Option<TaskId>,
}

impl Draft {
    /// The same for one endpoint.
    fn only(mut self, endpoint_id: EndpointId) -> Self {
        self.particulars.only = Some(endpoint_id);
        self
    }

    async fn publish(self, call: &Call, application: Reference<ApplicationId>) -> ApiResult<Outcome> {
        let only = self.particulars.only;
        let draft = |subscribers: Arc<directory::Subscribers>, claim| {
            if only.is_some_and(|endpoint_id| subscribers.target(endpoint_id).is_none()) {
                return Err(ApiError::NotFound("endpoint"));
            }
            Ok(NewMessage {
                subscribers,
                application: application.clone(),
                event_type: self.event_type,
                event_id: None,
                channels: Vec::new(),
                message_key: self.message_key,
                key_scope: KeyScope::Tenant,
                payload: self.payload,
                content_type: MEDIA_TYPE.to_owned(),
                broadcast: self.broadcast,
                payload_retention: None,
                particulars: (self.particulars != Particulars::default()).then(|| Arc::new(self.particulars)),
                claim,
            })
        };
        publish::publish(call, &application, draft).await
    }
}

/// Headers that go on with a message, if they may.
fn custom_headers(headers: BTreeMap<String, String>) -> ApiResult<Vec<(String, String)>> {
    let refused = |error: domain::endpoint::InvalidHeader| ApiError::invalid(&["body", "custom_headers"], error.to_string());
    check_header_count(headers.len()).map_err(refused)?;
    check_header_changes(headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))).map_err(refused)?;
    Ok(headers.into_iter().collect())
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyEventMade)]
pub(crate) struct EventMade {
    uid: Ulid,
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// Empty if it has none
    idempotency_key: String,
    is_duplicate_event: bool,
    /// The first event with this key, of a duplicate
    #[schema(required)]
    duplicate_of: Option<Ulid>,
}

impl EventMade {
    fn new(message: &Message) -> Self {
        Self {
            uid: Ulid::of(message.id),
            event_type: message.event_type.clone(),
            idempotency_key: message.message_key.clone().unwrap_or_default(),
            is_duplicate_event: message.is_duplicate(),
            duplicate_of: message.duplicate_of.map(Ulid::of),
        }
    }
}

/// The answer to a creation; the same for the same event, so that a replay equals the first answer.
fn told(call: &Call, published: Published, queued: &str) -> Told<201, EventMade> {
    match published {
        Published::Accepted { message, is_replay } => {
            let words = if message.is_duplicate() { DUPLICATE } else { queued };
            Told::new(words, &EventMade::new(&message)).replayed(is_replay)
        }
        // No event of this dialect has an event id.
        Published::EventIdTaken { is_replay, .. } => Answered { answer: call.dialect.refusal(&ApiError::Internal), is_replay }.into(),
        Published::Refused(answer) => Answered { answer, is_replay: true }.into(),
    }
}

/// Create an event
///
/// For one endpoint. Once this is answered, the event and everything that it owes are stored.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/events", tag = "Convoy: Events", operation_id = "convoy.CreateEndpointEvent",
    request_body = EventIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, EventMade>> {
    let publishing = async {
        let new = call.json::<EventIn<'_>>()?;
        let endpoint_id = EndpointId::parse_ulid(&new.endpoint_id).map_err(|_| ApiError::NotFound("endpoint"))?;
        let application_id = directory::application_of(call.db(), call.tenant_id(), endpoint_id).await?;
        let application_id = application_id.ok_or(ApiError::NotFound("endpoint"))?;
        let draft = new.into_draft(&call.body, Some(endpoint_id))?;
        draft.publish(&call, Reference::Id(application_id)).await
    };
    publish::answer(&call, publishing, |published| told(&call, published, "Event queued successfully")).await
}

/// Fan out an event
///
/// To all endpoints of an owner.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/events/fanout", tag = "Convoy: Events",
    operation_id = "convoy.CreateEndpointFanoutEvent", request_body = FanoutIn)]
pub(crate) async fn fan_out(call: Call) -> ApiResult<Told<201, EventMade>> {
    let publishing = async {
        let new = call.json::<FanoutIn<'_>>()?;
        check_name(&new.owner_id).map_err(|error| ApiError::invalid(&["body", "owner_id"], error.to_string()))?;
        let owner = Reference::Uid(new.owner_id.clone());
        let draft = new.into_draft(&call.body, None)?;
        draft.publish(&call, owner).await.map_err(no_owner)
    };
    publish::answer(&call, publishing, |published| told(&call, published, "Endpoint fanout event queued successfully")).await
}

/// Create a broadcast event
///
/// To everybody: each owner with an endpoint of which a subscription lets it through gets an event of its own, and so do the endpoints without an
/// owner; all have the same bytes and key. A task does it, which `GET /api/v1/background-task` shows and which goes on after a restart.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/events/broadcast", tag = "Convoy: Events",
    operation_id = "convoy.CreateBroadcastEvent", request_body = BroadcastIn)]
pub(crate) async fn broadcast(call: Call) -> ApiResult<Told<201, EventMade>> {
    let publishing = async {
        let mut draft = call.json::<BroadcastIn<'_>>()?.into_draft(&call.body, None)?;
        draft.broadcast = Some(tasks::new_id(call.db()));
        let application_id = projects::own_application(call.db(), call.tenant_id()).await?;
        draft.publish(&call, Reference::Id(application_id)).await
    };
    publish::answer(&call, publishing, |published| told(&call, published, "Broadcast event created successfully")).await
}

/// Create a dynamic event
///
/// For a URL. A duplicate makes and changes no endpoint.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/events/dynamic", tag = "Convoy: Events",
    operation_id = "convoy.CreateDynamicEvent", request_body = DynamicIn)]
pub(crate) async fn dynamic(call: Call) -> ApiResult<Told<201, EventMade>> {
    let publishing = async {
        let mut new = call.json::<DynamicIn<'_>>()?;
        let tenant_id = call.tenant_id();
        call.context.config.urls.check(&new.url.0).map_err(|refused| ApiError::invalid(&["body", "url"], refused.to_string()))?;
        let wanted = Dynamic {
            tenant_id,
            url: new.url.0.clone(),
            secret: new.secret.take().and_then(|secret| secret.secret()),
            event_types: new.event_types.take().unwrap_or_default().into_iter().map(|name| name.0).collect(),
        };
        let draft = new.into_draft(&call.body, None)?;
        if let Some(key) = &draft.message_key
            && let Some(of_original) = project_endpoints::application_of_key(call.db(), tenant_id, key).await?
        {
            return draft.publish(&call, Reference::Id(of_original)).await;
        }
        let (_, endpoint_id) = project_endpoints::ensure(call.db(), wanted).await?;
        // It may be newer than what this process remembers of its application.
        let application_id = directory::application_of(call.db(), tenant_id, endpoint_id).await?;
        let application_id = application_id.ok_or(ApiError::NotFound("endpoint"))?;
        draft.only(endpoint_id).publish(&call, Reference::Id(application_id)).await
    };
    publish::answer(&call, publishing, |published| told(&call, published, "Dynamic event created successfully")).await
}

fn no_owner(error: ApiError) -> ApiError {
    match error {
        ApiError::NotFound("application") => {
            ApiError::invalid(&["body", "owner_id"], "is nobody's: it is the `owner_id` of an endpoint, which has to be made first")
        }
        other => other,
    }
}
