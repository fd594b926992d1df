//! What tenants are told of their own things, on the wire: the bodies of operational webhooks.

use domain::{
    id::Id,
    own_event::{About, Kind, OwnEvent},
};
use serde_json::{Map, Value, json};
use storage::outbox::Worded;

use super::{Timestamp, task::BackgroundTaskOut};

/// The event types of operational webhooks, in the order of [`Kind::ALL`].
pub(super) const NAMES: [&str; Kind::ALL.len()] = [
    "endpoint.created",
    "endpoint.updated",
    "endpoint.deleted",
    "endpoint.enabled",
    "endpoint.disabled",
    "message.attempt.failing",
    "message.attempt.exhausted",
    "message.attempt.recovered",
    "background_task.finished",
];

/// What the endpoints that hear of this event get, and what they filter it by.
///
/// # Panics
/// Never: text and numbers are JSON.
pub fn put_into_words(event: &OwnEvent) -> Worded {
    let name = Kind::ALL.iter().position(|kind| *kind == event.kind).map_or("", |place| NAMES[place]);
    let payload = serde_json::to_vec(&json!({ "type": name, "data": data(event) })).expect("text and numbers are JSON");
    Worded { event_type: name.to_owned(), payload: payload.into() }
}

fn data(event: &OwnEvent) -> Value {
    if let About::Task(task) = &event.about {
        let shown = json!(BackgroundTaskOut::from(&**task));
        return json!({ "taskId": shown["id"], "task": shown["task"], "status": shown["status"], "data": shown["data"] });
    }
    let mut data = Map::new();
    let mut set = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    set("appId", event.application_id.map(Id::public).into());
    set("appUid", event.application_uid.clone().into());
    set("endpointId", event.endpoint_id.map(Id::public).into());
    match &event.about {
        About::Endpoint { uid, disabled } => {
            set("endpointUid", uid.clone().into());
            if let Some(disabled) = disabled {
                set("failSince", json!(disabled.failing_since.map(Timestamp)));
                set("trigger", if disabled.is_automatic { "automatic" } else { "manual" }.into());
            }
        }
        About::Attempt { message_id, event_id, attempt_id, status_code } => {
            set("msgId", message_id.public().into());
            set("msgEventId", event_id.clone().into());
            let at = Timestamp(attempt_id.created_at());
            set("lastAttempt", json!({ "id": attempt_id.public(), "responseStatusCode": status_code, "timestamp": at }));
        }
        About::Task(_) => {}
    }
    Value::Object(data)
}

#[cfg(test)]
mod tests {
    use domain::id::{ApplicationId, AttemptId, EndpointId, MessageId};
    use domain::own_event::Disabled;
    use uuid::Uuid;

    use super::*;

    fn event(kind: Kind, about: About) -> (OwnEvent, Value) {
        let (application_id, endpoint_id) = (ApplicationId(Uuid::now_v7()), EndpointId(Uuid::now_v7()));
        let event = OwnEvent {
            kind,
            application_id: Some(application_id),
            application_uid: Some("acme".into()),
            endpoint_id: Some(endpoint_id),
            about,
        };
        let words = put_into_words(&event);
        let body: Value = serde_json::from_slice(&words.payload).expect("JSON");
        assert_eq!(body["type"], words.event_type);
        assert_eq!((&body["data"]["appId"], &body["data"]["appUid"]), (&json!(application_id.public()), &json!("acme")));
        assert_eq!(body["data"]["endpointId"], endpoint_id.public());
        (event, body)
    }

    #[test]
    fn what_happened_to_an_endpoint_is_told_with_its_names() {
        let (_, body) = event(Kind::EndpointCreated, About::Endpoint { uid: None, disabled: None });
        assert_eq!(body["type"], "endpoint.created");
        assert_eq!(body["data"]["endpointUid"], Value::Null);
        assert_eq!(body["data"].get("trigger"), None);
        let disabled = Disabled { is_automatic: true, failing_since: chrono::DateTime::from_timestamp(1_787_313_600, 0) };
        let (_, body) = event(Kind::EndpointDisabled, About::Endpoint { uid: Some("main".into()), disabled: Some(disabled) });
        assert_eq!((&body["type"], &body["data"]["endpointUid"]), (&json!("endpoint.disabled"), &json!("main")));
        assert_eq!((&body["data"]["trigger"], &body["data"]["failSince"]), (&json!("automatic"), &json!("2026-08-21T12:00:00.000000Z")));
    }

    #[test]
    fn what_became_of_a_delivery_is_told_with_its_last_attempt() {
        let (message_id, attempt_id) = (MessageId(Uuid::now_v7()), AttemptId(Uuid::now_v7()));
        let about = About::Attempt { message_id, event_id: None, attempt_id, status_code: 503 };
        let (_, body) = event(Kind::AttemptExhausted, about);
        assert_eq!(body["type"], "message.attempt.exhausted");
        assert_eq!((&body["data"]["msgId"], &body["data"]["msgEventId"]), (&json!(message_id.public()), &Value::Null));
        assert_eq!(body["data"]["lastAttempt"]["id"], attempt_id.public());
        assert_eq!(body["data"]["lastAttempt"]["responseStatusCode"], 503);
    }
}
