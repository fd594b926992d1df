//! Makes partitions ahead of time, drops those past their retention, removes payloads whose own retention is over, forgets
//! endpoints that are well again, and erases secrets that sign no more, on start and every hour.

use std::{error::Error, time::Duration};

use storage::{Db, endpoints, health, messages, partitions};
use tokio::time::sleep;

/// The rest after a round that worked.
const INTERVAL: Duration = Duration::from_hours(1);
/// The rest after one that did not: partitions are made weeks ahead, so there is time.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// Goes on until it is aborted, which loses nothing: each round does what the last one left.
pub(crate) async fn run(db: Db, retention: Duration) {
    let mut stuck = Vec::new();
    loop {
        let is_done = round(&db, retention, &mut stuck).await;
        sleep(if is_done { INTERVAL } else { AFTER_FAILURE }).await;
    }
}

/// Does everything that is due, whatever becomes of the rest; `false` if something is to be tried again soon. `stuck` are the
/// partitions that the last round could not deal with.
async fn round(db: &Db, retention: Duration, stuck: &mut Vec<String>) -> bool {
    let is_made = went_well("make partitions", partitions::ensure(db).await);
    let is_forgotten = went_well("forget the endpoints that are well", health::forget_the_well(db).await);
    let is_erased = went_well("erase secrets that sign no more", endpoints::erase_left_over(db).await);
    let is_removed = went_well("remove payloads whose time is over", messages::remove_expired_payloads(db).await);
    let is_swept = match partitions::drop_expired(db, retention).await {
        Ok(left) => {
            left.iter().filter(|part| !stuck.contains(&part.partition)).for_each(tell);
            *stuck = left.into_iter().map(|part| part.partition).collect();
            stuck.is_empty()
        }
        swept => went_well("drop what is past its time", swept),
    };
    is_made && is_forgotten && is_erased && is_removed && is_swept
}

fn went_well<T>(what: &str, result: storage::Result<T>) -> bool {
    let Err(error) = result else { return true };
    tracing::error!(error = &error as &dyn Error, "upkeep could not {what}; it will be tried again");
    false
}

/// Once for each partition, however long it takes: a backup may read for hours.
fn tell(stuck: &partitions::Stuck) {
    let partitions::Stuck { partition, error, oldest_transaction } = stuck;
    let error = error as &dyn Error;
    tracing::warn!(error, partition, oldest_transaction, "a partition cannot be dropped yet; trying again each minute until it works");
}
