//! The rules of Posthaste that are true without a database: no I/O, no clock, no wire format.
//!
//! Reading order:
//! [`id`] what things are called · [`caller`] who asks, and what they may · [`api_key`] by which key · [`application`] one customer of a tenant ·
//! [`endpoint`] a URL with filters and limits · [`event_type`] what can happen · [`message`] what was published ·
//! [`offer`] that as endpoints are asked for it · [`filter`] who gets it · [`subscription`] who asked for it how ·
//! [`content_filter`] who wants what is in it · [`delivery`] what is owed and what became of it ·
//! [`standing`] where that stands, and why ·
//! [`retry`] when to try again · [`retry_strategy`] that in a line · [`health`] when to hold back · [`signing`] how a receiver
//! knows that it was us · [`convoy_signature`] how one of Convoy does · [`egress_policy`] whom we may call · [`url_policy`] which URLs
//! an endpoint may have · [`source`] requests that others send to us · [`statistics`] what is counted · [`mac`] keyed hashes as others write them ·
//! [`own_event`] what a tenant hears of its own things · [`project`] a tenant as Convoy knows it, and how it wants its webhooks made ·
//! [`portal`] what opens an application for its customer · [`idempotency`] one request, one effect · [`task`] long work · [`throttle`] so many a second.
//!
//! Nothing in here is `Serialize`: each dialect owns its wire format, and the two share every row and no type.

pub mod api_key;
pub mod application;
pub mod caller;
pub mod content_filter;
pub mod convoy_signature;
pub mod delivery;
pub mod egress_policy;
pub mod endpoint;
pub mod event_type;
pub mod filter;
pub mod health;
pub mod id;
pub mod idempotency;
pub mod mac;
pub mod message;
pub mod offer;
pub mod own_event;
pub mod portal;
pub mod project;
pub mod retry;
pub mod retry_strategy;
pub mod signing;
pub mod source;
pub mod standing;
pub mod statistics;
pub mod subscription;
pub mod task;
pub mod throttle;
pub mod url_policy;
