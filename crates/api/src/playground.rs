//! A receiver to try webhooks with: `/_play/{id}` takes whatever is sent to it and shows the last of it.
//!
//! For development: it needs no token and forgets everything when the server stops.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use domain::id::TenantId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    front::{self, escaped},
    svix::Timestamp,
    transport::admission::Incoming,
};

/// Whose the webhooks are as long as they are read: those of all receivers together count as one tenant's.
const NOBODY: TenantId = TenantId(Uuid::nil());
/// How many webhooks a receiver remembers.
const MAX_RECEIVED: usize = 50;
/// How many receivers there are at a time; the oldest makes room.
const MAX_RECEIVERS: usize = 20;
/// The largest webhook that is taken, in bytes: with the two bounds above, 64 MB in all.
const MAX_BODY: usize = 64 * 1024;
/// The longest id of a receiver.
const MAX_ID: usize = 64;

/// What the receivers got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receivers(Arc<Mutex<VecDeque<Memory>>>);

/// A receiver's id and what it got, the newest first.
type Memory = (String, VecDeque<Received>);

/// One webhook.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Received {
    at: Timestamp,
    headers: BTreeMap<String, String>,
    body: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    received: Vec<Received>,
}

/// The id of a receiver.
#[derive(Debug, Deserialize)]
pub(crate) struct Receiver {
    id: String,
}

impl Receivers {
    fn add(&self, id: String, webhook: Received) {
        let mut receivers = self.0.lock();
        let place = receivers.iter().position(|(found, _)| *found == id).unwrap_or_else(|| {
            if receivers.len() == MAX_RECEIVERS {
                receivers.pop_front();
            }
            receivers.push_back((id, VecDeque::new()));
            receivers.len() - 1
        });
        let received = &mut receivers[place].1;
        received.push_front(webhook);
        received.truncate(MAX_RECEIVED);
    }

    /// The newest first.
    fn of(&self, id: &str) -> Vec<Received> {
        let receivers = self.0.lock();
        receivers.iter().find(|(found, _)| found == id).map(|(_, received)| received.iter().cloned().collect()).unwrap_or_default()
    }
}

fn check(receiver: Receiver) -> ApiResult<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let Receiver { id } = receiver;
    if !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(is_allowed) {
        Ok(id)
    } else {
        Err(ApiError::invalid(&["path", "id"], format!("must be 1 to {MAX_ID} letters, digits, `-` or `_`")))
    }
}

/// Takes a webhook.
pub(crate) async fn receive(
    State((context, receivers)): State<(Context, Receivers)>,
    Path(receiver): Path<Receiver>,
    request: Request,
) -> ApiResult<Json<serde_json::Value>> {
    let id = check(receiver)?;
    let (parts, body) = request.into_parts();
    let mut body = Incoming::new(body, &parts.headers);
    let content = body.read(MAX_BODY, &context.bodies, NOBODY).await;
    body.drain();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), lossy(value.as_bytes()))).collect();
    let (content, _room) = content?;
    receivers.add(id, Received { at: Timestamp(context.db.now()), headers, body: lossy(&content) });
    Ok(Json(serde_json::json!({"received": true})))
}

/// Shows what a receiver got, the newest first: to a browser as a page, to others as JSON.
pub(crate) async fn show(
    State((_, receivers)): State<(Context, Receivers)>,
    Path(receiver): Path<Receiver>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let id = check(receiver)?;
    let received = receivers.of(&id);
    let wants_page = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains("text/html"));
    Ok(if wants_page { front::html(rendered(&id, &received)) } else { Json(Shown { received }).into_response() })
}

fn rendered(id: &str, received: &[Received]) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"3\">\
         <title>Receiver {id}</title><style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         pre{{background:#f4f4f4;padding:1rem;overflow:auto}}</style></head><body><h1>Receiver {id}</h1>\
         <p>{} received. Send webhooks to this address; this page reloads by itself.</p>",
        received.len()
    );
    for webhook in received {
        let headers = webhook.headers.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}: {value}");
            text
        });
        let at = webhook.at.0.to_rfc3339();
        let _ = write!(html, "<h2>{at}</h2><pre>{}\n{}</pre>", escaped(&headers), escaped(&webhook.body));
    }
    html.push_str("</body></html>");
    html
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn webhook(body: &str) -> Received {
        Received { at: Timestamp(DateTime::UNIX_EPOCH), headers: BTreeMap::new(), body: body.into() }
    }

    #[test]
    fn a_receiver_remembers_the_last_and_forgets_the_rest() {
        let receivers = Receivers::default();
        for number in 0..=MAX_RECEIVED {
            receivers.add("a".into(), webhook(&number.to_string()));
        }
        let received = receivers.of("a");
        assert_eq!((received.len(), received[0].body.as_str()), (MAX_RECEIVED, "50"));
        for number in 0..MAX_RECEIVERS {
            receivers.add(format!("b{number}"), webhook("x"));
        }
        assert!(receivers.of("a").is_empty());
        assert_eq!(receivers.of("b19").len(), 1);
    }

    #[test]
    fn what_was_received_cannot_become_markup() {
        let mut hostile = webhook("</pre><script>alert(1)</script>");
        hostile.headers.insert("x-hostile".into(), "<img src=x onerror=alert(1)>&\"'".into());
        let page = rendered("a", &[hostile]);
        assert!(
            page.contains("&lt;/pre&gt;&lt;script&gt;") && page.contains("&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;"),
            "{page}"
        );
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    }
}
