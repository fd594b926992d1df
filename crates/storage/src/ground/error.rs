//! What can go wrong in the database, in the words of the domain.

use domain::id::MessageId;
use thiserror::Error;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a storage operation did not happen. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such thing, or it is another tenant's.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// It would break a rule of uniqueness.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// An endpoint may filter only on event types that exist and are not archived.
    #[error("these event types do not exist: {}", .0.join(", "))]
    UnknownEventTypes(Vec<String>),
    /// What would come of it may not be, by a field of the request.
    #[error("`{field}` {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A limit on how many of a thing may exist.
    #[error("{0}")]
    LimitReached(&'static str),
    /// Another request with the same idempotency key is being executed.
    #[error("a request with this idempotency key is in progress")]
    KeyInProgress,
    /// The idempotency key was used with another request.
    #[error("this idempotency key was used with a different request")]
    KeyReused,
    /// The name by which the request called its application stands for another one by now: looked up again, it will do.
    #[error("this name stands for another application by now")]
    Renamed,
    /// More is waiting than we are willing to hold in memory.
    #[error("too many requests are waiting")]
    Overloaded,
    /// Postgres cannot be reached, or did not answer in time. If the connection broke while a commit was under way, the
    /// effect may have happened: a repeat under the same idempotency key finds out.
    #[error("the database is unavailable")]
    Unavailable(#[source] Option<sqlx::Error>),
    /// A list could not be read in time, or too many are being read; nothing else is the worse for it.
    #[error("a list could not be read in time")]
    ListTimedOut(#[source] sqlx::Error),
    /// A sealed value cannot be opened: the main secret is not the one that it was sealed with.
    #[error("a sealed value cannot be opened with this main secret")]
    Sealed,
    /// The database cannot be used as it is, or as it was set up; the text says why and what to do.
    #[error("{0}")]
    Unusable(String),
    /// Everything else: our fault.
    #[error("database error")]
    Database(#[source] sqlx::Error),
}

/// Which rule of uniqueness is in the way.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Conflict {
    /// Application uids are unique in the tenant.
    #[error("an application with this uid already exists")]
    ApplicationUid,
    /// Endpoint uids are unique in the application.
    #[error("an endpoint with this uid already exists")]
    EndpointUid,
    /// Event type names are unique in the tenant.
    #[error("an event type with this name already exists")]
    EventTypeName,
    /// Event ids are unique in the application.
    #[error("a message with this eventId already exists: {}", domain::id::Id::public(*.0))]
    EventId(MessageId),
    /// A duplicate is not resent; its original is.
    #[error("this message is a duplicate and was not delivered: resend the original, {}, or release this one (POST …/deliver)", domain::id::Id::public(*.0))]
    Duplicate(MessageId),
    /// Only a duplicate is released.
    #[error("this message is not a duplicate, so it is delivered already: to send it once more, resend it")]
    NotADuplicate,
    /// A duplicate is released once.
    #[error("this duplicate has been released already: to send it once more, resend it")]
    AlreadyReleased,
    /// The message's content is gone, so there is nothing to send.
    #[error("the content of this message has been removed, so it cannot be sent again")]
    Expunged,
    /// An endpoint has one subscription, unless its project says otherwise.
    #[error("this endpoint has a subscription already: change that one, or let endpoints of the project have several")]
    Subscribed,
    /// A subscription has one filter of each event type.
    #[error("this subscription has a filter of this event type already: change that one")]
    FilterOfType,
    /// A disabled endpoint gets nothing.
    #[error("this endpoint is disabled: enable it before resending to it")]
    Disabled,
    /// A tenant has one project.
    #[error(
        "this token or key is of a project that there is already, and each has one: change it (PUT), or make a key of another one with \
         `posthaste key create --tenant org_…`"
    )]
    ProjectExists,
    /// A project is deleted when nothing of it is left.
    #[error("the project still has endpoints or sources: delete them first")]
    ProjectInUse,
    /// A delivery does not stand so that it could be sent again.
    #[error("{0}")]
    NotSentAgain(&'static str),
}

impl Error {
    /// Whether this is an answer that the effect itself reached, and that a policy may therefore remember under a key.
    pub fn is_outcome(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::LimitReached(_))
    }

    /// Whether the partition of a row that was to be written has not been made.
    pub(crate) fn is_missing_partition(&self) -> bool {
        matches!(self, Self::Database(error) if is_partition_missing(error))
    }
}

impl Error {
    /// What an error means to who reads a list: that it took too long, or that all of the lists' own connections are busy, says
    /// nothing of the database. See PostgreSQL, Appendix A, on `query_canceled` and `lock_not_available`.
    pub(crate) fn of_list(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        if matches!(error, sqlx::Error::PoolTimedOut) || matches!(code.as_deref(), Some("57014" | "55P03")) {
            return Self::ListTimedOut(error);
        }
        error.into()
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(Some(error)),
            sqlx::Error::Database(inner) if is_outage(inner.code().as_deref()) || takes_no_writes(&error) => Self::Unavailable(Some(error)),
            _ => Self::Database(error),
        }
    }
}

/// SQLSTATE classes that say "not now": connection exceptions, insufficient resources, operator intervention (shutdown,
/// cancelled by a timeout), lock not available, system errors. See PostgreSQL, Appendix A.
fn is_outage(code: Option<&str>) -> bool {
    code.is_some_and(|code| {
        matches!(code.get(..2), Some("08" | "53" | "57" | "58")) || matches!(code, "55P03" | "25P03" | "40001" | "40P01")
    })
}

/// Whether it is what a standby says to who writes: `read_only_sql_transaction`.
pub(crate) fn takes_no_writes(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("25006"))
}

/// Whether it is what an insert meets when the partition of its row has not been made: SQLSTATE 23514 (`check_violation`) without the
/// name of a constraint.
pub(crate) fn is_partition_missing(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("23514") && error.constraint().is_none())
}

/// Turns the violation of a named constraint into the error that it means.
pub(crate) fn on_constraint<T>(result: std::result::Result<T, sqlx::Error>, constraint: &str, meaning: Conflict) -> Result<T> {
    result.map_err(|error| match error.as_database_error().and_then(sqlx::error::DatabaseError::constraint) {
        Some(name) if name == constraint => Error::Conflict(meaning),
        _ => error.into(),
    })
}
