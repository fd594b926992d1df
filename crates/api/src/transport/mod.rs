//! What HTTP asks of every dialect alike: connections, what is checked before a handler runs, how input is read and answers are made.
//!
//! Reading order:
//! [`listener`] [`pace`] connections · [`trailing_slash`] · [`request_id`] their names in the log · [`table`] operations and who may use
//! them · [`admission`] what every operation checks first · [`call`] a request as handlers see it · [`json`] [`query`] input whose faults
//! are told by name · [`text_field`] fields that read only what they may hold · [`reply`] what handlers answer · [`idempotency`] writes under a key · [`publish`] messages under one · [`dialect`] what a dialect decides.

pub(crate) mod admission;
pub(crate) mod call;
pub(crate) mod dialect;
mod idempotency;
pub(crate) mod json;
pub(crate) mod listener;
mod pace;
pub(crate) mod publish;
pub(crate) mod query;
pub(crate) mod reply;
pub(crate) mod request_id;
pub(crate) mod table;
pub(crate) mod text_field;
mod trailing_slash;
