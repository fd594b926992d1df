//! The Convoy dialect: one file per resource.

mod behind;
mod callers;
mod endpoint;
mod event_type;
mod events;
mod keys;
mod many;
mod not_yet;
mod particulars;
mod project;
mod source;
mod subscribed;
mod subscription;
mod terms;
