//! What a write is: done inside a transaction that somebody else owns.

use std::future::Future;

use domain::id::EndpointId;

use crate::{Database, Result, connection::Connection, reference::Owner};

/// A write. Its fields say what is to happen; [`crate::idempotency::execute`] makes it happen.
pub trait Effect: Send {
    /// What it brings.
    type Output: Send;

    /// Whether it makes something due.
    const WAKES: bool = false;

    /// Whether it may ask for long work.
    const ASKS_FOR_A_TASK: bool = false;

    /// Does it, inside a transaction that the caller owns.
    fn apply(self, db: &Database, tx: &mut Connection) -> impl Future<Output = Result<Self::Output>> + Send;

    /// What came to be owed by it, to be counted once it is committed.
    fn owed(_: &Self::Output) -> &[OwedAnew] {
        &[]
    }
}

/// What came to be owed because somebody asked.
#[derive(Clone, Debug)]
pub struct OwedAnew {
    pub(crate) owner: Owner,
    pub(crate) event_type: String,
    pub(crate) endpoints: Vec<EndpointId>,
}

impl OwedAnew {
    /// To whom.
    pub fn endpoints(&self) -> &[EndpointId] {
        &self.endpoints
    }
}
