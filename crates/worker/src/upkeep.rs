//! Makes partitions ahead of time, drops those past their retention, removes payloads whose own retention is over, and forgets
//! endpoints that are well again, on start and every hour.

use std::time::Duration;

use storage::{Db, health, messages, partitions};
use tokio::time::sleep;

/// The rest after a round that worked.
const INTERVAL: Duration = Duration::from_hours(1);
/// The rest after one that did not: partitions are made weeks ahead, so there is time.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// Goes on until it is aborted, which loses nothing: each round does what the last one left.
pub(crate) async fn run(db: Db, retention: Duration) {
    loop {
        let rest = match round(&db, retention).await {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the hourly upkeep failed; it will be repeated");
                AFTER_FAILURE
            }
        };
        sleep(rest).await;
    }
}

async fn round(db: &Db, retention: Duration) -> storage::Result<()> {
    partitions::ensure(db).await?;
    health::forget_the_well(db).await?;
    messages::remove_expired_payloads(db).await?;
    partitions::drop_expired(db, retention).await
}
