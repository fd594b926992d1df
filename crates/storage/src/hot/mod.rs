//! The hot paths: accepting, handing over, claiming, executing once; and what a process remembers for them.

pub(crate) mod cancel;
pub mod committer;
pub(crate) mod db;
pub mod directory;
pub(crate) mod flights;
pub(crate) mod gates;
pub mod hand_off;
pub mod health;
pub mod idempotency;
pub(crate) mod keys;
pub(crate) mod known_sources;
pub(crate) mod known_tenants;
pub(crate) mod listeners;
pub mod metrics;
pub mod outbox;
pub(crate) mod progress;
pub(crate) mod put_off;
pub mod queue;
pub(crate) mod replays;
pub(crate) mod report;
pub(crate) mod rollups;
pub mod runner;
pub(crate) mod subscribers;
pub(crate) mod switched_off;
pub mod tenants;
