//! What HTTP asks of every dialect alike: connections, what is checked before a handler runs, and how input is read.
//!
//! Reading order:
//! [`listener`] [`pace`] connections · [`request_id`] their names in the log · [`admission`] what every operation checks first ·
//! [`bodies`] how much of their bodies is in memory · [`call`] a request as handlers see it · [`json`] [`query`] input whose faults are told by name · [`idempotency`] writes under a key.

pub(crate) mod admission;
pub(crate) mod bodies;
pub(crate) mod call;
pub(crate) mod idempotency;
pub(crate) mod json;
pub(crate) mod listener;
mod pace;
pub(crate) mod query;
pub(crate) mod request_id;
