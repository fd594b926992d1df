//! Everything that a user can observe, scenario by scenario.

/// What waits and why, and whether anybody works.
mod backlog;
/// What is refused, and how: hostile requests get a 4xx that names the field and change nothing.
mod bad_input;
/// The benchmark that is shipped measures what it says.
mod bench;
/// Two installations in two schemas of one database.
mod cells;
/// No modules of a crate use each other in a circle.
mod circles;
/// The commands of the program, run as processes.
mod cli;
/// The clock of the database's server is set.
mod clock_jumps;
/// No node acts on what another has changed.
mod coherence;
/// Every variable and every writable field acts, also on another node.
mod configuration;
/// The Convoy dialect.
mod convoy;
/// What a receiver sees, and what becomes of a delivery.
mod delivery;
/// `posthaste dev`, as a stranger runs it.
mod dev;
/// Postgres fails over.
mod failover;
/// What a browser finds.
mod front;
/// One request, one effect.
mod idempotency;
/// Events of other services, which they send to sources.
mod ingest;
/// Slow lists are nobody else's trouble.
mod lists;
/// Somebody else locks our rows.
mod locked;
/// Another main secret, while servers run.
mod main_secret;
/// Each metric moves by exactly what happened.
mod metrics;
/// The published contract is the one that the server keeps.
mod openapi;
/// Postgres goes away and comes back.
mod outage;
/// More than can be written, and what cannot be written.
mod overload;
/// A tenant hears what happens to its own endpoints and messages.
mod own_events;
/// The files that somebody deploys with.
mod packaging;
/// What a page of a list costs, however long the list is.
mod page_plans;
/// Time-sliced tables are made when they are missing.
mod partitions;
/// What the statements of the hot path cost, however much is stored.
mod plans;
/// PgBouncer before the database.
mod pooler;
/// Ids are spelled alike in the API and in SQL.
mod public_ids;
/// What the README shows is what happens.
mod readme;
/// The receivers that we show to customers do everything once.
mod receivers;
/// Requests have names, and the log speaks of them.
mod request_id;
/// Statistics say what happened.
mod rollups;
/// Secrets stay in.
mod secrets;
/// The network falls silent.
mod silence;
/// Slow, silent and many clients.
mod slow_clients;
/// The first contact with a database that does not answer.
mod starting;
/// The Svix dialect, driven by the official SDK where it can.
mod svix;
/// The tree keeps to its own rules.
mod tasks;
mod tidy;
/// An older release on a newer schema, and a newer one on an older schema.
mod upgrades;
/// The hourly upkeep, and what is in its way.
mod upkeep;
/// What the worker logs says whose it is.
mod worker_log;
