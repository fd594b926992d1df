//! Why there is no response, or not all of it, in words that a customer may read.

use std::{error::Error, io, time::Duration};

use domain::{delivery::Silence, egress_policy::Forbidden};
use thiserror::Error;

/// How a [`Failure::Connection`] says that nobody listens.
pub(super) const REFUSED: &str = "refused";

/// Why there is no response. What a name resolves to is not the customer's to know: of it, only [`Failure::remark`] speaks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Failure {
    /// The policy forbids the address, or one of the addresses of the name.
    #[error("blocked: {0} is not on the public internet; the operator can allow its network with POSTHASTE_EGRESS_ALLOW")]
    Blocked(String, Forbidden),
    /// The name has no address.
    #[error("dns: the name {0} could not be resolved")]
    Unresolved(String),
    /// No connection in time.
    #[error("timeout: no connection within {0:?}")]
    NoConnection(Duration),
    /// No complete response in time.
    #[error("timeout: no complete response within {0:?}")]
    NoResponse(Duration),
    /// There was no connection, or it broke.
    #[error("connection failed: {0}")]
    Connection(&'static str),
    /// The operator's proxy could not reach the receiver.
    #[error("proxy: {0}")]
    Proxy(String),
    /// The operator's proxy is at fault, and so we are: for certain, or as far as can be told from one refusal.
    #[error("proxy: {why}")]
    WayOut { why: String, is_certain: bool },
    /// No encrypted connection came about.
    #[error("tls: {0}")]
    Tls(String),
}

impl Failure {
    /// The same for those who count.
    pub(super) fn silence(&self) -> Silence {
        match self {
            Self::NoConnection(_) | Self::NoResponse(_) => Silence::Timeout,
            Self::Connection(REFUSED) => Silence::Refused,
            Self::Blocked(..) => Silence::Blocked,
            Self::Unresolved(_) | Self::Connection(_) | Self::Proxy(_) | Self::WayOut { .. } | Self::Tls(_) => Silence::Other,
        }
    }

    /// The same for the operator's log.
    pub(super) fn remark(&self) -> String {
        match self {
            Self::Blocked(host, forbidden) => {
                format!("blocked: {host}: {forbidden}; to allow it, add {} to POSTHASTE_EGRESS_ALLOW", forbidden.network)
            }
            plain => plain.to_string(),
        }
    }

    /// Why a connection could not be opened.
    pub(super) fn of_opening(error: &io::Error) -> Self {
        Self::Connection(match error.kind() {
            io::ErrorKind::ConnectionRefused => REFUSED,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the address cannot be reached",
            io::ErrorKind::TimedOut => "the address does not answer",
            _ => "it could not be opened",
        })
    }

    /// Why a request has no response.
    pub(super) fn of_request(error: &(dyn Error + 'static)) -> Self {
        if let Some(failure) = find::<Self>(error) {
            return failure.clone();
        }
        if let Some(error) = find::<rustls::Error>(error) {
            return Self::Tls(error.to_string());
        }
        let Some(error) = find::<hyper::Error>(error) else { return Self::Connection("it broke") };
        Self::Connection(if error.is_incomplete_message() {
            "the receiver closed it before it had answered"
        } else if error.is_parse() {
            "the answer is not HTTP/1.1, or its headers are too large"
        } else {
            "it broke"
        })
    }
}

/// The first error of type `T` among `error` and its causes. An `io::Error` hides the error that it wraps from `source()`.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.and_then(|inner| find(inner)).or_else(|| find(error.source()?))
}
