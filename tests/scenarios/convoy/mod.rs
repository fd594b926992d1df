//! The Convoy dialect: one file per resource.

mod behind;
mod callers;
mod elsewhere;
mod endpoint;
mod event_type;
mod events;
mod failure_rate;
mod keys;
mod many;
mod meta_event;
mod not_yet;
mod onboard;
mod particulars;
mod project;
mod source;
mod subscribed;
mod subscription;
mod terms;
