//! Long work that goes on after the request that asked for it.

use chrono::{DateTime, Utc};

use crate::id::{ApplicationId, EndpointId, TaskId, TenantId};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message is owed to so many endpoints that the deliveries are made after its commit.
    FanOut,
    /// What failed is sent to an endpoint again.
    Recover,
    /// What an endpoint was never sent is sent to it.
    ReplayMissing,
    /// A message goes to everybody: each application with an endpoint that wants it gets one of its own.
    Broadcast,
    /// Deliveries that ended are made once more.
    Resend,
    /// Messages are sent once more to whoever wants them now.
    Replay,
    /// The payloads of an application's messages are erased.
    Expunge,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Being done, or waiting for its turn.
    Running,
    /// Done.
    Finished,
    /// It cannot be done.
    Failed,
    /// Somebody stopped it: what it has done stays.
    Canceled,
}

/// A piece of long work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which; a fan-out has the id of its message.
    pub id: TaskId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer it is about, if it is about one.
    pub application_id: Option<ApplicationId>,
    /// Which endpoint, if it is about one.
    pub endpoint_id: Option<EndpointId>,
    /// What is done.
    pub kind: Kind,
    /// How far it is.
    pub state: State,
    /// How many attempts, messages, endpoints or applications it has looked at.
    pub scanned: u64,
    /// How many deliveries it has made, or messages erased.
    pub made: u64,
    /// Why it failed, or what is in its way.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its last step was.
    pub updated_at: DateTime<Utc>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::FanOut, Self::Recover, Self::ReplayMissing, Self::Broadcast, Self::Resend, Self::Replay, Self::Expunge];

    /// Its number in the table.
    pub const fn code(self) -> i16 {
        match self {
            Self::FanOut => 1,
            Self::Recover => 2,
            Self::ReplayMissing => 3,
            Self::Broadcast => 4,
            Self::Resend => 5,
            Self::Replay => 6,
            Self::Expunge => 7,
        }
    }

    /// The kind with this number; `None` for one of a newer release.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Finished, Self::Failed, Self::Canceled];

    /// Its number in the table.
    pub const fn code(self) -> i16 {
        match self {
            Self::Running => 0,
            Self::Finished => 1,
            Self::Failed => 2,
            Self::Canceled => 3,
        }
    }

    /// The state with this number; what is not known is not done.
    pub fn from_code(code: i16) -> Self {
        Self::ALL.into_iter().find(|state| state.code() == code).unwrap_or(Self::Running)
    }
}
