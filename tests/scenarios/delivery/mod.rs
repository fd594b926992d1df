//! What a receiver sees, and what becomes of a delivery.

mod auto_disable;
mod barred;
mod breaker;
mod disable;
mod egress;
mod fair_share;
mod fan_out;
mod incomplete;
mod liberal;
mod our_fault;
mod redelivery_until;
mod redirect;
mod resend;
mod resent;
mod retry;
mod signature;
mod throttle;
mod timeout;
mod unknown;
mod way_out;
