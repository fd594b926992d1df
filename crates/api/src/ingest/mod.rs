//! Where other services send to us: `/ingest/{mask}`.
//!
//! There is no token: a request proves itself to the source's verifier. So nothing is done with one before that: its body is read, and no more
//! of it than a message may have; then it is verified over the bytes that came; only then is it parsed, for the key that
//! makes a repeat known. A 200 means that the event and all that it owes are committed. An `Idempotency-Key` means nothing here, unless the source
//! names that header.

mod answer;
mod content;
mod pairs;

use std::sync::Arc;

use axum::{
    RequestPartsExt,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use domain::{
    message::Particulars,
    source::{
        self, Definition, Mask, Provider, Source,
        key::{Extracted, extract},
        verifier::{Refusal, Verifier, answer_to_challenge},
    },
};
use storage::{
    applications::Reference,
    committer::{KeyScope, NewMessage, Published},
    directory::{self, Door},
};
use tracing::Span;

use self::{answer::Challenged, content::Parsed};
use crate::{
    bodies::Whose,
    context::Context,
    convoy::{Convoy, Refused, source::INGEST},
    error::{ApiError, ApiResult},
    transport::admission::{self, Incoming},
};

/// The name of X's challenge in the query.
const CHALLENGE: &str = "crc_token";
/// The longest challenge that is answered.
const MAX_CHALLENGE: usize = 256;
/// The most bytes of headers and query that go with an event: they are kept beside its body.
const MAX_PARTICULARS: usize = 32 * 1024;
/// A body up to this size is looked into at once; a larger one on a thread where nobody waits behind it.
const QUICK: usize = 32 * 1024;

/// Receive Event
///
/// Takes a request of another service for a source: `{mask}` is the last part of the source's `url`. The service proves itself as the source's
/// verifier asks; no token is needed. A 200 means that the event is stored, with all that it owes to endpoints. A repeat, which has the same key
/// as an earlier event, is stored, marked and not sent: the message and the header `Posthaste-Duplicate` say so.
#[utoipa::path(post, path = "/ingest/{mask}", tag = "Ingest", operation_id = "ingest.receive",
    params(("mask" = String, Path, description = "What the source is called in its URL")),
    request_body(content = String, content_type = "*/*", description = "Anything: it goes on byte for byte"),
    responses(
        (status = 200, description = "The event is stored; a source may answer with words of its own", body = answer::Received),
        (status = 400, description = "The sender did not prove itself, or a key is missing that the source insists on", body = Refused),
        (status = 404, description = "There is no such source, or it is disabled", body = Refused),
        (status = 408, description = "The body did not arrive in time", body = Refused),
        (status = 413, description = "The body is too large", body = Refused),
        (status = 500, description = "An error of the server's own", body = Refused),
        (status = 503, description = "Temporarily unavailable: repeat the request after `Retry-After` seconds", body = Refused),
    ))]
pub(crate) async fn receive(State(context): State<Context>, request: Request) -> Response {
    let tasks = context.tasks.clone();
    admission::to_the_end(tasks, &Convoy, async move {
        let (mut parts, body) = request.into_parts();
        let mut body = Incoming::new(body, &parts.headers);
        match take(&context, &mut parts, &mut body).await {
            Ok(answer) => answer,
            Err(refusal) => {
                body.drain();
                refusal.into_response()
            }
        }
    })
    .await
}

/// Answer Challenge
///
/// Proves to X that whoever has this URL has the secret: the answer is the challenge, signed.
#[utoipa::path(get, path = "/ingest/{mask}", tag = "Ingest", operation_id = "ingest.challenge",
    params(
        ("mask" = String, Path, description = "What the source is called in its URL"),
        ("crc_token" = String, Query, description = "The challenge: up to 256 letters, digits and `-_.~+/=`"),
    ),
    responses(
        (status = 200, description = "The challenge, signed", body = Challenged),
        (status = 400, description = "No challenge, or not for this source", body = Refused),
        (status = 404, description = "There is no such source, or it is disabled", body = Refused),
        (status = 503, description = "Temporarily unavailable: repeat the request after `Retry-After` seconds", body = Refused),
    ))]
pub(crate) async fn challenge(State(context): State<Context>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    answered(&context, &mut parts).await.map_or_else(IntoResponse::into_response, |answer| answer::json(&answer))
}

async fn answered(context: &Context, parts: &mut Parts) -> ApiResult<Challenged> {
    let door = door(context, parts).await?;
    let Definition { provider: Some(Provider::Twitter), verifier: Verifier::Body(_, secret), .. } = &door.source.definition else {
        return Err(ApiError::invalid(&["path", "mask"], "is of a source that answers no challenges: send events to it, by POST"));
    };
    let query = pairs::decoded(parts.uri.query().unwrap_or_default().as_bytes());
    let token = query.into_iter().find(|(name, _)| name == CHALLENGE).map(|(_, token)| token);
    // The answer is the signature that a body of this text would have: so nothing is signed that can be taken for an event.
    let is_harmless = |token: &String| {
        (1..=MAX_CHALLENGE).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/= ".contains(&byte))
    };
    let token = token.filter(is_harmless);
    let token = token.ok_or_else(|| {
        ApiError::invalid(&["query", CHALLENGE], format!("must be 1 to {MAX_CHALLENGE} letters, digits and any of -_.~+/="))
    })?;
    Ok(Challenged { response_token: answer_to_challenge(secret, &token) })
}

/// The source that the path names, if it takes anything.
async fn door(context: &Context, parts: &mut Parts) -> ApiResult<Arc<Door>> {
    const NO_SOURCE: ApiError = ApiError::NotFound("source");

    let Path(mask) = parts.extract::<Path<String>>().await.map_err(|_| NO_SOURCE)?;
    let mask = Mask::parse(&mask).ok_or(NO_SOURCE)?;
    let door = directory::door(&context.db, &mask).await?;
    door.filter(|door| !door.source.definition.is_disabled).ok_or(NO_SOURCE)
}

/// What is wanted of a request that has been verified.
struct Found {
    key: Option<String>,
    event_type: String,
    particulars: Particulars,
}

async fn take(context: &Context, parts: &mut Parts, body: &mut Incoming) -> ApiResult<Response> {
    let door = door(context, parts).await?;
    let source = &door.source;
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let why = "must be `identity` or absent: what goes on is what came, and it goes on without this header";
        return Err(ApiError::invalid(&["header", "content-encoding"], why));
    }
    let whose = Whose { tenant_id: source.tenant_id, source_id: Some(source.id) };
    let (body, _room) = body.read(context.config.max_payload, &context.bodies, whose).await?;
    let query = pairs::decoded(parts.uri.query().unwrap_or_default().as_bytes());
    let asked = Asked { headers: std::mem::take(&mut parts.headers), raw_query: parts.uri.query().map(str::to_owned), query, body };
    asked.show(|incoming| source.definition.verifier.verify(incoming, context.db.now())).map_err(|refusal| match refusal {
        Refusal::Unreadable => ApiError::Unavailable,
        refusal => {
            context.db.metrics().unverified();
            ApiError::Unverified(refusal)
        }
    })?;
    let content_type = content::media_type(&asked.headers, &asked.body);
    let (found, body) = found(&door, asked, &content_type).await?;
    let (is_of_length, message) = (body.len(), publish(context, &door, found, body, content_type).await?);
    match message {
        Published::Accepted { message, .. } => {
            tracing::debug!(source_id = %source.id, message_id = %message.id, is_duplicate = message.is_duplicate(), "an event was received");
            Ok(answer::received(&source.definition, &message, is_of_length))
        }
        // Neither an event id nor a key of a request is given.
        Published::EventIdTaken { .. } | Published::Refused(_) => Err(ApiError::Internal),
    }
}

/// A request, taken apart.
struct Asked {
    headers: HeaderMap<HeaderValue>,
    raw_query: Option<String>,
    query: Vec<(String, String)>,
    body: Bytes,
}

impl Asked {
    /// Shows it as the domain looks at it.
    fn show<T>(&self, look: impl FnOnce(&source::Incoming<'_>) -> T) -> T {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let query: Vec<_> = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        look(&source::Incoming { headers: &headers, query: &query, body: &self.body })
    }

    /// Looks for what the source wants to know.
    fn look(&self, source: &Source, parsed: &Parsed) -> (Extracted, String) {
        let Source { id, definition, .. } = source;
        self.show(|incoming| {
            parsed.look(&self.body, |content| {
                (extract(*id, &definition.locations, incoming, content), definition.event_type(*id, incoming, content))
            })
        })
    }

    /// What goes on with the event: never what the sender proved itself with.
    fn particulars(&self, source: &Source) -> Particulars {
        let Source { id, definition, .. } = source;
        let credentials = definition.verifier.credentials();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = self.show(|incoming| {
            let kept = definition.forwarded.select(incoming.headers, &credentials);
            kept.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
        });
        let query = self.raw_query.as_ref().map(|raw| pairs::without(raw, &credentials.parameters)).filter(|query| !query.is_empty());
        // Without the mask, which is as good as a key.
        Particulars { source: Some(*id), headers, query, path: Some(INGEST.to_owned()), ..Particulars::default() }
    }
}

async fn found(door: &Arc<Door>, asked: Asked, content_type: &str) -> ApiResult<(Found, Bytes)> {
    let particulars = asked.particulars(&door.source);
    if particulars.bytes() > MAX_PARTICULARS {
        let why = format!(
            "and the query are more than the {MAX_PARTICULARS} bytes that are kept with an event: let the source forward fewer headers"
        );
        return Err(ApiError::invalid(&["header"], why));
    }
    let definition = &door.source.definition;
    let parsed = if definition.looks_into_bodies() { Parsed::read(content_type, &asked.body).await } else { Parsed::Opaque };
    let ((Extracted { key, missing }, event_type), body) = if asked.body.len() > QUICK && definition.looks_into_bodies() {
        let door = Arc::clone(door);
        let looked = tokio::task::spawn_blocking(move || (asked.look(&door.source, &parsed), asked.body));
        looked.await.map_err(|_| ApiError::Internal)?
    } else {
        (asked.look(&door.source, &parsed), asked.body)
    };
    if key.is_none() && definition.rejects_missing_key && !definition.locations.is_empty() {
        return Err(ApiError::invalid(&["request"], format!("has nothing at {}: this source insists on a key", missing.join(", "))));
    }
    Ok((Found { key, event_type, particulars }, body))
}

async fn publish(context: &Context, door: &Door, found: Found, body: Bytes, content_type: String) -> ApiResult<Published> {
    let Found { key, event_type, particulars } = found;
    let application = Reference::Id(door.application_id);
    let subscribers = match directory::find(&context.db, door.source.tenant_id, &application).await {
        // Somebody has deleted the application that all sources of the project send to. That is no fault of the sender.
        Err(storage::Error::NotFound(_)) => {
            tracing::error!(source_id = %door.source.id, "the application that this source's events belong to is deleted");
            return Err(ApiError::Unavailable);
        }
        subscribers => subscribers?,
    };
    Span::current().record("tenant", &*subscribers.tenant);
    let new = NewMessage {
        subscribers,
        application,
        event_type,
        event_id: None,
        channels: Vec::new(),
        message_key: key,
        key_scope: KeyScope::Tenant,
        payload: body,
        content_type,
        broadcast: None,
        payload_retention: None,
        claim: None,
        particulars: Some(Arc::new(particulars)),
    };
    Ok(context.publisher.publish(&Arc::new(new)).await?)
}
