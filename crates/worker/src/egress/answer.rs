//! What is kept of an answer: its status, what it asks for, and as much of its body as came.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use domain::delivery::{Exchange, MAX_RESPONSE};
use http::{
    HeaderMap, HeaderName, Response,
    header::{DATE, RETRY_AFTER},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;

/// Reads an answer until `deadline`, which is `allowed` after the request began.
///
/// The status is the receiver's word, and it has been given: if the body breaks off or does not come in time, the status
/// counts all the same, and the record says what broke.
pub(super) async fn take(response: Response<Incoming>, deadline: Instant, allowed: Duration) -> Exchange {
    let status_code = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let mut kept = BytesMut::new();
    let broken = match timeout_at(deadline, read(response.into_body(), &mut kept)).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(Failure::Connection("it broke before the response was complete")),
        Err(_) => Some(Failure::NoResponse(allowed)),
    };
    let remark = broken.map(|broken| format!("incomplete response: {broken}"));
    if let Some(remark) = &remark {
        append(&mut kept, remark);
    }
    Exchange { status_code, response: kept.freeze(), duration: Duration::ZERO, retry_after, silence: None, remark, is_resent: false }
}

/// What became of a request that was not answered.
pub(super) fn none(failure: &Failure) -> Exchange {
    Exchange {
        status_code: 0,
        response: Bytes::from(failure.to_string()),
        duration: Duration::ZERO,
        retry_after: None,
        silence: Some(failure.silence()),
        remark: Some(failure.remark()),
        is_resent: false,
    }
}

/// Reads the first [`MAX_RESPONSE`] bytes, whatever they are. A longer body is left unread, which ends the connection.
async fn read(mut body: Incoming, kept: &mut BytesMut) -> Result<(), hyper::Error> {
    while kept.len() < MAX_RESPONSE
        && let Some(frame) = body.frame().await
    {
        if let Some(bytes) = frame?.data_ref() {
            kept.extend_from_slice(&bytes[..bytes.len().min(MAX_RESPONSE - kept.len())]);
        }
    }
    Ok(())
}

/// Puts our words on a line of their own behind the receiver's, which make room for them.
fn append(kept: &mut BytesMut, words: &str) {
    kept.truncate(MAX_RESPONSE - words.len() - 1);
    if !kept.is_empty() {
        kept.extend_from_slice(b"\n");
    }
    kept.extend_from_slice(words.as_bytes());
}

/// What `Retry-After` asks for (RFC 9110 §10.2.3): seconds, or a date, which is read by the receiver's own clock if it says
/// what that shows.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let from = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    until.duration_since(from).ok()
}
