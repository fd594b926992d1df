//! What a write is: done inside a transaction that somebody else owns.

use std::future::Future;

use crate::{Database, Result, connection::Connection};

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
}
