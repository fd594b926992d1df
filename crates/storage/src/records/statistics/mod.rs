//! What is counted by time: `write` adds what a process has summed, once whatever becomes of a connection · `fold` makes hours of minutes
//! and days of hours · `read` what somebody asks.

/// The query that adds counts to those that endpoints have: `$rows` selects endpoint, moment, tenant and span, then the counts in the order
/// of [`domain::statistics`]; `$with` stands before all of it.
macro_rules! add_to_endpoints {
    ($with:tt, $rows:tt, $($argument:expr),* $(,)?) => {
        sqlx::query!(
            $with
                + "insert into endpoint_rollup as r (endpoint_id, at, tenant_id, span,
             deliveries, succeeded, redirected, client_errors, server_errors, timed_out, refused, blocked, other_failures,
             unknown, canceled, discarded, under_16_ms, under_32_ms, under_64_ms, under_128_ms, under_256_ms, under_512_ms,
             under_1024_ms, under_2048_ms, under_4096_ms, under_8192_ms, under_16384_ms, slower)
           "
                + $rows
                + "
           on conflict (endpoint_id, span, at) do update set
             deliveries = r.deliveries + excluded.deliveries, succeeded = r.succeeded + excluded.succeeded,
             redirected = r.redirected + excluded.redirected, client_errors = r.client_errors + excluded.client_errors,
             server_errors = r.server_errors + excluded.server_errors, timed_out = r.timed_out + excluded.timed_out,
             refused = r.refused + excluded.refused, blocked = r.blocked + excluded.blocked,
             other_failures = r.other_failures + excluded.other_failures, unknown = r.unknown + excluded.unknown,
             canceled = r.canceled + excluded.canceled, discarded = r.discarded + excluded.discarded,
             under_16_ms = r.under_16_ms + excluded.under_16_ms, under_32_ms = r.under_32_ms + excluded.under_32_ms,
             under_64_ms = r.under_64_ms + excluded.under_64_ms, under_128_ms = r.under_128_ms + excluded.under_128_ms,
             under_256_ms = r.under_256_ms + excluded.under_256_ms, under_512_ms = r.under_512_ms + excluded.under_512_ms,
             under_1024_ms = r.under_1024_ms + excluded.under_1024_ms, under_2048_ms = r.under_2048_ms + excluded.under_2048_ms,
             under_4096_ms = r.under_4096_ms + excluded.under_4096_ms, under_8192_ms = r.under_8192_ms + excluded.under_8192_ms,
             under_16384_ms = r.under_16384_ms + excluded.under_16384_ms, slower = r.slower + excluded.slower",
            $($argument),*
        )
    };
}

mod fold;
mod read;
mod write;

pub use fold::fold;
pub use read::{Attempted, Counted, attempts_of, of_endpoint};
pub(crate) use write::{EndpointRow, Parcel, TypeCounts, TypeRow, write};
