//! What a receiver sees, and what becomes of a delivery.

mod disable;
mod egress;
mod fan_out;
mod redirect;
mod resend;
mod retry;
mod signature;
mod timeout;
mod unknown;
