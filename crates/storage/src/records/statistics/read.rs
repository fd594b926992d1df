//! What was counted of an endpoint.

use chrono::{DateTime, Utc};
use domain::{
    id::{EndpointId, TenantId},
    statistics::{COUNTS, ENDS, End, LATENCY_BUCKETS},
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    endpoints::{self, Address, Owed},
};

/// What was counted of an endpoint.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Which.
    pub endpoint_id: EndpointId,
    /// Deliveries that came to be owed, resends among them.
    pub deliveries: i64,
    /// What is owed at the moment.
    pub owed: Owed,
    ends: [i64; ENDS],
    /// Attempts that were answered, by [`domain::statistics::latency_bucket`].
    pub latency: [i64; LATENCY_BUCKETS],
}

impl Counted {
    /// How many attempts, or deliveries without one, ended so.
    pub fn ended(&self, end: End) -> i64 {
        self.ends[end.place()]
    }
}

/// What was counted of an endpoint in the minutes that began in `since..until`; of what is older, in the hours or days. What the last
/// second brought may be missing.
pub async fn of_endpoint(db: &Database, address: &Address, since: DateTime<Utc>, until: DateTime<Utc>) -> Result<Counted> {
    let endpoint = endpoints::get(db, address).await?;
    // A row for each minute, hour and day that is kept: some hundreds, next to each other in the index.
    let counts = sqlx::query_scalar!(
        r#"select array[
               coalesce(sum(deliveries), 0)::bigint, coalesce(sum(succeeded), 0)::bigint, coalesce(sum(redirected), 0)::bigint,
               coalesce(sum(client_errors), 0)::bigint, coalesce(sum(server_errors), 0)::bigint,
               coalesce(sum(timed_out), 0)::bigint, coalesce(sum(refused), 0)::bigint, coalesce(sum(blocked), 0)::bigint,
               coalesce(sum(other_failures), 0)::bigint, coalesce(sum(unknown), 0)::bigint, coalesce(sum(canceled), 0)::bigint,
               coalesce(sum(discarded), 0)::bigint, coalesce(sum(under_16_ms), 0)::bigint, coalesce(sum(under_32_ms), 0)::bigint,
               coalesce(sum(under_64_ms), 0)::bigint, coalesce(sum(under_128_ms), 0)::bigint,
               coalesce(sum(under_256_ms), 0)::bigint, coalesce(sum(under_512_ms), 0)::bigint,
               coalesce(sum(under_1024_ms), 0)::bigint, coalesce(sum(under_2048_ms), 0)::bigint,
               coalesce(sum(under_4096_ms), 0)::bigint, coalesce(sum(under_8192_ms), 0)::bigint,
               coalesce(sum(under_16384_ms), 0)::bigint, coalesce(sum(slower), 0)::bigint] as "counts!"
             from endpoint_rollup where endpoint_id = $1 and tenant_id = $4 and span in (0, 1, 2)
              and at >= date_trunc('minute', $2::timestamptz, 'UTC') and at < $3"#,
        Uuid::from(endpoint.id),
        since,
        until,
        Uuid::from(address.tenant_id),
    )
    .fetch_one(db.lists())
    .await
    .map_err(Error::of_list)?;
    let count = |place: usize| counts.get(place).copied().unwrap_or(0);
    debug_assert_eq!(counts.len(), COUNTS);
    Ok(Counted {
        endpoint_id: endpoint.id,
        deliveries: count(0),
        owed: endpoints::owed(db, endpoint.id).await?,
        ends: std::array::from_fn(|place| count(1 + place)),
        latency: std::array::from_fn(|bucket| count(1 + ENDS + bucket)),
    })
}

/// What was counted of the attempts to one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// Which.
    pub endpoint_id: EndpointId,
    /// Those that delivered.
    pub succeeded: i64,
    /// Those that did not.
    pub failed: i64,
    /// Those beyond one for each delivery.
    pub retries: i64,
}

/// The same as [`of_endpoint`] for several endpoints of a tenant, as far as anything was counted of them: attempts alone.
pub async fn attempts_of(
    db: &Database,
    tenant_id: TenantId,
    endpoints: &[EndpointId],
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<Attempted>> {
    let ids: Vec<_> = endpoints.iter().copied().map(Uuid::from).collect();
    let rows = sqlx::query!(
        r#"select endpoint_id, sum(deliveries)::bigint as "deliveries!", sum(succeeded)::bigint as "succeeded!",
                  sum(redirected + client_errors + server_errors + timed_out + refused + blocked + other_failures)::bigint as "failed!"
             from endpoint_rollup where endpoint_id = any ($1) and tenant_id = $4 and span in (0, 1, 2)
              and at >= date_trunc('minute', $2::timestamptz, 'UTC') and at < $3
            group by endpoint_id"#,
        &ids,
        since,
        until,
        Uuid::from(tenant_id),
    )
    .fetch_all(db.lists())
    .await
    .map_err(Error::of_list)?;
    let attempted = |(id, deliveries, succeeded, failed): (Uuid, i64, i64, i64)| Attempted {
        endpoint_id: id.into(),
        succeeded,
        failed,
        retries: (succeeded + failed - deliveries).max(0),
    };
    Ok(rows.into_iter().map(|row| attempted((row.endpoint_id, row.deliveries, row.succeeded, row.failed))).collect())
}
