//! The records: what the tables hold, read and written in one short transaction each. Nothing is remembered here.

pub mod ahead;
pub(crate) mod answer;
pub mod applications;
pub mod attempts;
pub mod bench;
pub(crate) mod claim;
pub mod deliveries;
pub(crate) mod effect;
pub(crate) mod endpoint_health;
pub mod endpoints;
pub mod event_types;
pub mod messages;
pub(crate) mod outcomes;
pub mod own_endpoints;
pub(crate) mod own_events;
pub mod policies;
pub(crate) mod published;
pub(crate) mod reference;
pub mod reseal;
pub(crate) mod resends;
pub(crate) mod sealed_parts;
pub mod statistics;
pub mod tasks;
pub(crate) mod tenants;
pub mod workers;
