//! The Convoy dialect: one file per resource.

mod callers;
mod event_type;
mod keys;
mod not_yet;
mod project;
