//! What this process has counted of what happened: summed in memory, added to the statistics once a second.
//!
//! Nothing is counted before it is committed, and counting is nobody's wait: the statement that accepts and records knows nothing of
//! it. A process that is killed takes its last second of counts with it, and nothing else.

mod parcels;
mod sums;

pub(crate) use parcels::{flush, keep_flushing};
pub(crate) use sums::Rollups;
