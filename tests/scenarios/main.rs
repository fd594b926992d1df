//! Everything that a user can observe, scenario by scenario.

/// What is refused, and how: hostile requests get a 4xx that names the field and change nothing.
mod bad_input;
/// The commands of the program, run as processes.
mod cli;
/// Every variable and every writable field acts, also on another node.
mod configuration;
/// What a receiver sees, and what becomes of a delivery.
mod delivery;
/// `posthaste dev`, as a stranger runs it.
mod dev;
/// One request, one effect.
mod idempotency;
/// The published contract is the one that the server keeps.
mod openapi;
/// Postgres goes away and comes back.
mod outage;
/// Time-sliced tables are made when they are missing.
mod partitions;
/// Secrets stay in.
mod secrets;
/// The Svix dialect, driven by the official SDK where it can.
mod svix;
/// The tree keeps to its own rules.
mod tidy;
