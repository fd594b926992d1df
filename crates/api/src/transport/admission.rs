//! What every operation checks before its handler runs, in this order: the token, the permission, the body's size and media type,
//! the syntax of the idempotency key.
//!
//! A client that hangs up after the last byte of the body changes nothing: the work goes on in a task of its own then.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use domain::{
    caller::{Caller, Permission},
    id::TenantId,
    idempotency::Key,
};
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::{
    dialect::{self, Dialect, Dialects},
    pace,
};
use crate::{
    bodies::{Bodies, Room, Whose},
    context::Context,
    error::ApiError,
};

/// The header that names a request.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// For how long the rest of a refused body is read and thrown away, so that the client gets to read the answer.
const DRAIN: Duration = Duration::from_secs(2);

/// What an operation asks of a request: its line in the route table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// What the caller has to be allowed.
    pub(crate) permission: Permission,
    /// In which words the request is made and answered.
    pub(crate) dialect: &'static dyn Dialect,
}

/// A request that may be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// Who asks.
    pub(crate) caller: Caller,
    /// Of event types that are behind a flag, the caller sees only those with one of these; absent: all.
    pub(crate) feature_flags: Option<Arc<[String]>>,
    /// What was asked of the request.
    pub(crate) rules: Rules,
    /// Its idempotency key, if it has one and its method takes one.
    pub(crate) key: Option<Key>,
    /// Its whole body.
    pub(crate) body: Bytes,
}

/// Admits a request or refuses it, and carries it out to the end even if its connection goes away meanwhile.
pub(crate) async fn admit(State((context, rules)): State<(Context, Rules)>, request: Request, next: Next) -> Response {
    let tasks = context.tasks.clone();
    to_the_end(tasks, rules.dialect, carry_out(context, rules, request, next)).await
}

/// Carries work out to the end whoever waits for it, and tells a refusal in the words of this dialect.
pub(crate) fn to_the_end(
    tasks: TaskTracker,
    dialect: &'static dyn Dialect,
    work: impl Future<Output = Response> + Send + 'static,
) -> impl Future<Output = Response> + Send {
    let work = AssertUnwindSafe(work).catch_unwind().map(move |answer| {
        let answer = answer.unwrap_or_else(|_| {
            tracing::error!("a handler panicked");
            ApiError::Internal.into_response()
        });
        dialect::told(answer, dialect)
    });
    ToTheEnd { work: Some(Box::pin(work)), tasks }
}

/// Work that is finished whoever waits for it: if it is dropped half-way, a task of its own takes it over.
struct ToTheEnd {
    work: Option<Pin<Box<dyn Future<Output = Response> + Send>>>,
    tasks: TaskTracker,
}

impl Future for ToTheEnd {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Response> {
        let work = self.work.as_mut().expect("work that has ended is not asked again");
        let answer = task::ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(answer)
    }
}

impl Drop for ToTheEnd {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.tasks.spawn_on(work.instrument(Span::current()), &runtime);
        }
    }
}

async fn carry_out(context: Context, rules: Rules, request: Request, next: Next) -> Response {
    let echo = request.headers().get(IDEMPOTENCY_KEY).cloned();
    let (mut parts, body) = request.into_parts();
    let mut body = Incoming::new(body, &parts.headers);
    let (admitted, room) = match check(&context, rules, &parts.method, &parts.headers, &mut body).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            body.drain();
            return refusal.into_response();
        }
    };
    let echo = echo.filter(|_| admitted.key.is_some());
    parts.extensions.insert(admitted);
    let mut response = next.run(Request::from_parts(parts, Body::empty())).await;
    drop(room);
    if let Some(key) = echo {
        response.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    response
}

/// Returns the room that the body takes as well: it is to be kept until the request is answered.
async fn check(
    context: &Context,
    rules: Rules,
    method: &Method,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<(Admitted, Option<Room>), ApiError> {
    let token = context.verifier.token(&context.db, headers).await?;
    Span::current().record("tenant", &*token.tenant);
    if !token.permissions().contain(rules.permission) {
        return Err(ApiError::Forbidden(token.refusal()));
    }
    let tenant_id = storage::tenants::find_or_create(&context.db, &token.tenant).await?;
    let (body, room) = if matches!(*method, Method::GET | Method::HEAD) {
        (Bytes::new(), None)
    } else {
        let (body, room) = body.read(context.config.max_payload, &context.bodies, tenant_id).await?;
        (body, Some(room))
    };
    if !body.is_empty() && !rules.dialect.reads(headers) {
        return Err(rules.dialect.unread(headers));
    }
    let key = if takes_key(context, tenant_id, method, headers).await? {
        Key::parse(headers.get_all(IDEMPOTENCY_KEY).into_iter().map(HeaderValue::as_bytes))?
    } else {
        None
    };
    if key.as_ref().is_some_and(Key::is_mistake) {
        context.db.metrics().mistaken_key();
    }
    let feature_flags = token.feature_flags.clone();
    Ok((Admitted { caller: token.caller(tenant_id), feature_flags, rules, key, body }, room))
}

/// Whether the header means anything on this request: on a POST always, on a PUT and a PATCH as the tenant's policy has it.
async fn takes_key(context: &Context, tenant_id: TenantId, method: &Method, headers: &HeaderMap) -> Result<bool, ApiError> {
    match *method {
        _ if !headers.contains_key(IDEMPOTENCY_KEY) => Ok(false),
        Method::POST => Ok(true),
        // Boxed, so that every other request's future stays small.
        Method::PUT | Method::PATCH => Ok(Box::pin(storage::policies::find(&context.db, tenant_id)).await?.covers(method.as_str())),
        _ => Ok(false),
    }
}

/// A body that is still coming in.
#[derive(Debug)]
pub(crate) struct Incoming {
    body: Body,
    /// What the sender says the length is.
    announced: Option<usize>,
    /// The sender has not begun: it waits for our consent ("Expect: 100-continue"), which the first read gives.
    awaits_consent: bool,
    /// How much has come in.
    received: usize,
    /// Since when we wait for it.
    begun: Instant,
}

impl Incoming {
    /// The body of a request with these headers.
    pub(crate) fn new(body: Body, headers: &HeaderMap) -> Self {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        Self { body, announced, awaits_consent: headers.contains_key(header::EXPECT), received: 0, begun: Instant::now() }
    }

    /// Reads all of it, if it is at most `limit` bytes, and there is room for one of this owner.
    pub(crate) async fn read(&mut self, limit: usize, bodies: &Arc<Bodies>, whose: impl Into<Whose>) -> Result<(Bytes, Room), ApiError> {
        if self.announced.is_some_and(|length| length > limit) {
            return Err(ApiError::TooLarge { limit });
        }
        let mut room = bodies.room_for(whose, self.announced.unwrap_or(0))?;
        self.awaits_consent = false;
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(part) = self.next().await? {
            if self.received > limit {
                return Err(ApiError::TooLarge { limit });
            }
            room.take(part.len())?;
            if first.is_empty() {
                first = part;
            } else {
                if rest.is_empty() {
                    rest.reserve(self.announced.unwrap_or(0).max(first.len() + part.len()));
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&part);
            }
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, room))
    }

    /// Reads on beside the answer for a moment, without keeping anything: a client that is still sending would otherwise lose it.
    pub(crate) fn drain(mut self) {
        if !self.awaits_consent && !self.body.is_end_stream() {
            tokio::spawn(tokio::time::timeout(DRAIN, async move { while let Ok(Some(_)) = self.next().await {} }));
        }
    }

    /// The next part. All of them together have one deadline, so that a client cannot win time by sending drops.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let size = self.announced.unwrap_or(self.received);
            let deadline = self.begun + pace::allowed(u64::try_from(size).unwrap_or(u64::MAX));
            match tokio::time::timeout_at(deadline, self.body.frame()).await.map_err(|_| ApiError::Timeout)? {
                None => return Ok(None),
                Some(Err(_)) => return Err(ApiError::BrokenBody),
                Some(Ok(frame)) => {
                    if let Ok(part) = frame.into_data() {
                        self.received += part.len();
                        return Ok(Some(part));
                    }
                }
            }
        }
    }
}

/// Answers a path that has no operation.
pub(crate) async fn unknown_path(request: Request) -> ApiError {
    refuse(request, ApiError::UnknownPath)
}

/// The same where a dialect is spoken: an operation of it that we do not have says so.
pub(crate) async fn no_operation(context: Context, dialects: Dialects, request: Request) -> ApiError {
    unless_known(&context, dialects, request, ApiError::UnknownPath).await
}

/// Answers a method that the path does not take.
pub(crate) async fn method_not_allowed(context: Context, dialects: Dialects, request: Request) -> ApiError {
    unless_known(&context, dialects, request, ApiError::MethodNotAllowed).await
}

/// Refuses a request, unless it is for an operation of the dialect that we do not have: as with those that we have, the token comes first.
async fn unless_known(context: &Context, dialects: Dialects, request: Request, refusal: ApiError) -> ApiError {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let refusal = match dialects.of(path).missing(&parts.method, path) {
        Some(operation) => match context.verifier.token(&context.db, &parts.headers).await {
            Ok(_) => ApiError::NotYet(operation),
            Err(refusal) => refusal,
        },
        None => refusal,
    };
    Incoming::new(body, &parts.headers).drain();
    refusal
}

/// Answers a request whose body nobody wants.
pub(crate) fn refuse(request: Request, refusal: ApiError) -> ApiError {
    let (parts, body) = request.into_parts();
    Incoming::new(body, &parts.headers).drain();
    refusal
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn in_parts(parts: &[&'static str]) -> Incoming {
        let parts: Vec<_> = parts.iter().map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))).collect();
        Incoming::new(Body::from_stream(stream::iter(parts)), &HeaderMap::new())
    }

    /// Reads it where there is room for so much.
    async fn read(body: &mut Incoming, limit: usize, bound: usize) -> Result<Bytes, ApiError> {
        body.read(limit, &Bodies::new(bound), TenantId(uuid::Uuid::nil())).await.map(|(body, _)| body)
    }

    #[tokio::test]
    async fn a_body_is_whole_however_it_came() {
        for parts in [["{\"a\":1}"].as_slice(), &["{\"a", "\":", "1}"], &["", "{\"a\":", "", "1}"]] {
            assert_eq!(read(&mut in_parts(parts), 7, 100).await.expect("a body"), "{\"a\":1}");
        }
        assert_eq!(read(&mut in_parts(&[]), 7, 100).await.expect("no body"), "");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let mut body = in_parts(&["1234", "5678", "9"]);
        assert!(matches!(read(&mut body, 7, 100).await, Err(ApiError::TooLarge { limit: 7 })));
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_room_is_refused() {
        let mut body = in_parts(&["1234", "5678", "9"]);
        assert!(matches!(read(&mut body, 9, 17).await, Err(ApiError::NoRoom)));
        assert_eq!(read(&mut in_parts(&["1234", "5678", "9"]), 9, 18).await.expect("a body"), "123456789");
    }

    #[tokio::test(start_paused = true)]
    async fn drops_of_a_body_win_no_time() {
        let drops = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let begun = Instant::now();
        let mut body = Incoming::new(Body::from_stream(drops), &HeaderMap::new());
        assert!(matches!(read(&mut body, 1000, 1 << 20).await, Err(ApiError::Timeout)));
        assert!(begun.elapsed() < Duration::from_secs(32), "{:?}", begun.elapsed());
    }
}
