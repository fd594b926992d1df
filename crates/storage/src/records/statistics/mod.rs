//! What is counted by time: `write` adds what a process has summed, once whatever becomes of a connection · `fold` makes hours of minutes
//! and days of hours · `read` what somebody asks.

mod fold;
mod read;
mod write;

pub use fold::fold;
pub use read::{Counted, of_endpoint};
pub(crate) use write::{EndpointRow, Parcel, TypeCounts, TypeRow, write};
