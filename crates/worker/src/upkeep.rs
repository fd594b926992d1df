//! Makes partitions ahead of time, drops those past their retention, removes payloads whose own retention is over, forgets tasks that are over and
//! endpoints that are well again, erases secrets that sign no more, folds the statistics, and brings back what a clock that was set back has left in the
//! future: on start, every hour, and when the clock was set back.

use std::{error::Error, time::Duration};

use storage::{Db, ahead, endpoints, health, messages, partitions, statistics, tasks};
use tokio::time::timeout;

/// The rest after a round that worked.
const INTERVAL: Duration = Duration::from_hours(1);
/// The rest after one that did not: partitions are made weeks ahead, so there is time.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// By what it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long messages and attempts are kept.
    pub(crate) retention: Duration,
    /// The longest that a delivery is leased,
    pub(crate) lease: Duration,
    /// and the longest that it sleeps.
    pub(crate) longest_wait: Duration,
}

/// Goes on until it is aborted, which loses nothing: each round does what the last one left.
pub(crate) async fn run(db: Db, terms: Terms) {
    let mut stuck = Vec::new();
    loop {
        let is_done = round(&db, terms, &mut stuck).await;
        let rest = if is_done { INTERVAL } else { AFTER_FAILURE };
        // Woken or not, the next round finds out what is to be done.
        let _ = timeout(rest, ahead::clock_is_set_back(&db)).await;
    }
}

/// Does everything that is due, whatever becomes of the rest; `false` if something is to be tried again soon. `stuck` are the
/// partitions that the last round could not deal with.
async fn round(db: &Db, terms: Terms, stuck: &mut Vec<String>) -> bool {
    let is_made = went_well("make partitions", partitions::ensure(db).await);
    let brought_back = ahead::bring_back(db, terms.lease, terms.longest_wait).await;
    let is_brought_back = went_well("bring back what lies too far ahead", brought_back);
    let is_forgotten = went_well("forget the endpoints that are well", health::forget_the_well(db).await);
    let is_erased = went_well("erase secrets that sign no more", endpoints::erase_left_over(db).await);
    let is_removed = went_well("remove payloads whose time is over", messages::remove_expired_payloads(db).await);
    let is_over = went_well("forget tasks that were over long ago", tasks::forget(db, terms.retention).await);
    let is_folded = went_well("fold the statistics", statistics::fold(db, terms.retention).await);
    let is_swept = swept(partitions::drop_expired(db, terms.retention).await, stuck);
    is_made && is_brought_back && is_forgotten && is_erased && is_removed && is_over && is_folded && is_swept
}

/// Whether nothing is left. Another node that sweeps at the moment may be about to die: what it leaves is not to wait for an hour.
fn swept(result: storage::Result<Option<Vec<partitions::Stuck>>>, stuck: &mut Vec<String>) -> bool {
    match result {
        Ok(Some(left)) => {
            left.iter().filter(|part| !stuck.contains(&part.partition)).for_each(tell);
            *stuck = left.into_iter().map(|part| part.partition).collect();
            stuck.is_empty()
        }
        Ok(None) => false,
        failed => went_well("drop what is past its time", failed),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_node_may_leave_behind_is_looked_at_again_soon() {
        let mut stuck = Vec::new();
        assert!(swept(Ok(Some(Vec::new())), &mut stuck), "all is done");
        assert!(!swept(Ok(None), &mut stuck), "another node is at it");
        assert!(!swept(Err(storage::Error::Unavailable(None)), &mut stuck), "it could not be tried");
        let left =
            partitions::Stuck { partition: "message_20260105".into(), error: storage::Error::Unavailable(None), oldest_transaction: None };
        assert!(!swept(Ok(Some(vec![left])), &mut stuck), "one is in use");
        assert_eq!(stuck, ["message_20260105"]);
    }
}
