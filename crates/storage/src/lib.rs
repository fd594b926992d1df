//! Everything Postgres: the only crate that writes SQL.
//!
//! Reading order:
//! [`committer`] the one writer of the hot path: new messages in, results back · [`hand_off`] jobs that need no claim ·
//! [`queue`] claim, promote, rescue, resend · [`health`] who is held back · `put_off` who is out of our own reach ·
//! `switched_off` who gets nothing more · [`workers`] who claims · [`idempotency`] every other write, at most once ·
//! [`policies`] how a tenant wants its keys treated · [`directory`] the cached endpoints of an application ·
//! [`tenants`] [`applications`] [`endpoints`] [`event_types`] [`messages`] [`attempts`] one table each · [`sealed`] secrets at
//! rest · [`main_secret`] which ones they are sealed with · [`reseal`] sealing them anew · `hosts` where the database is · `connect` the first
//! contact · `connection` on which nothing is waited for in vain · `pool` those that requests share · `schema` what is
//! migrated · `functions` the statements of the hot path · [`partitions`] time-sliced tables · `trim` what
//! refers to messages that are gone · [`wakeups`] LISTEN and NOTIFY · `session` a connection that one task keeps ·
//! [`metrics`] what is counted · [`page`] keyset pages · [`clock`] the database's time · [`ahead`] what was written before it was set back ·
//! [`bench`] what a benchmark asks.

pub mod ahead;
pub mod applications;
pub mod attempts;
pub mod bench;
pub mod clock;
pub mod committer;
mod connect;
mod connection;
mod db;
pub mod directory;
pub mod endpoints;
mod error;
pub mod event_types;
mod functions;
pub mod hand_off;
pub mod health;
mod hosts;
pub mod idempotency;
pub mod main_secret;
pub mod messages;
pub mod metrics;
pub mod page;
pub mod partitions;
pub mod policies;
mod pool;
mod put_off;
pub mod queue;
pub mod reseal;
mod schema;
pub mod sealed;
mod session;
mod switched_off;
pub mod tenants;
mod trim;
pub mod wakeups;
pub mod workers;

pub use db::{Config, Db};
pub use error::{Conflict, Error, Result};
pub use schema::{Ahead, Migrated, SchemaState};
