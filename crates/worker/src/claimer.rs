//! Fetches what nobody handed over: due retries, overflow, and the rows of nodes that died.

use std::{
    future::pending,
    pin::pin,
    time::{Duration, Instant},
};

use storage::{
    Db,
    hand_off::HandOff,
    queue::{Claimer, Progress},
    wakeups::Wakeups,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::stopped;

/// The shortest time between two claims for throttled endpoints: less than what they may catch up on, so that none is slower than
/// its rate.
const THROTTLE_POLL: Duration = Duration::from_millis(25);
/// How long the claimer rests when nothing is due and nobody wakes it.
const POLL: Duration = Duration::from_millis(500);
/// The longest rest while the database cannot be reached.
const OUTAGE_POLL: Duration = Duration::from_secs(1);
/// The shortest rest, so that a burst of wake-ups becomes one claim.
const SHORTEST: Duration = Duration::from_millis(5);
/// A round is followed by a rest of at least this many times its own cost, so that a large backlog takes no more than a fifth
/// of one connection.
const REST_PER_COST: u32 = 4;

/// Claims until the worker stops; a round that is under way is finished, so that nothing stays leased to nobody.
pub(crate) async fn run(db: Db, hand_off: HandOff, lease: Duration, is_stopping: watch::Receiver<bool>) {
    let mut claimer = Claimer::connect(&db, hand_off, lease);
    let mut wakeups = Wakeups::listen(&db);
    let mut pace = Pace::default();
    while !*is_stopping.borrow() {
        let begun = Instant::now();
        let rest = match claimer.run_once().await {
            Ok(progress) => pace.after(&progress, begun.elapsed()),
            Err(error) => pace.after_failure(&error),
        };
        let resting = async {
            sleep(rest.at_least).await;
            // Woken or not, the next round finds out what is due.
            let _ = timeout(rest.then_at_most, wakeups.wait()).await;
        };
        Box::pin(rest_but_for_throttles(resting, rest.tokens_in, &mut claimer, &is_stopping)).await;
    }
    if let Err(error) = claimer.stop().await {
        tracing::debug!(?error, "could not say that this process claims no more: others will find out");
    }
}

/// Rests until the rest or the worker ends; meanwhile throttled endpoints get their tokens on time, by claims that look at
/// nothing else.
async fn rest_but_for_throttles(
    resting: impl Future<Output = ()>,
    mut tokens_in: Option<Duration>,
    claimer: &mut Claimer,
    is_stopping: &watch::Receiver<bool>,
) {
    let mut resting = pin!(resting);
    loop {
        let token = async {
            match tokens_in {
                Some(wait) => sleep(wait.max(THROTTLE_POLL)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(is_stopping.clone()) => return,
            () = &mut resting => return,
            () = token => {}
        }
        // Never cut off; and a failure ends the rest, since the next round meets it too, and knows what to do.
        match claimer.run_throttled().await {
            Ok(progress) => tokens_in = progress.tokens_in,
            Err(_) => return,
        }
    }
}

/// A pause between two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    /// This long in any case,
    at_least: Duration,
    /// and then this long, unless something wakes us;
    then_at_most: Duration,
    /// but throttled endpoints are served then.
    tokens_in: Option<Duration>,
}

/// How the claimer chooses its rests.
#[derive(Debug, Default)]
struct Pace {
    /// Rounds in a row that failed.
    failures: u32,
}

impl Pace {
    fn after(&mut self, progress: &Progress, cost: Duration) -> Rest {
        if self.failures > 0 {
            tracing::info!("the database answers the claimer again");
            self.failures = 0;
        }
        if progress.claimed > 0 {
            tracing::debug!(claimed = progress.claimed, "claimed deliveries");
        }
        let at_least = (cost * REST_PER_COST).clamp(SHORTEST, POLL);
        let then_at_most = if progress.is_more_due { Duration::ZERO } else { POLL.saturating_sub(at_least) };
        Rest { at_least, then_at_most, tokens_in: progress.tokens_in }
    }

    /// An outage is logged once, however long it lasts.
    fn after_failure(&mut self, error: &storage::Error) -> Rest {
        if self.failures == 0 {
            tracing::error!(error = error as &dyn std::error::Error, "cannot claim deliveries; trying again until it works");
        }
        self.failures = self.failures.saturating_add(1);
        let doubled = SHORTEST * 2_u32.pow(self.failures.min(10));
        Rest { at_least: doubled.min(OUTAGE_POLL), then_at_most: Duration::ZERO, tokens_in: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claimer_goes_on_while_more_is_due_and_rests_by_its_cost() {
        let mut pace = Pace::default();
        let tokens_in = None;
        let mut after = |claimed, is_more_due, cost| pace.after(&Progress { claimed, is_more_due, tokens_in }, Duration::from_millis(cost));
        let ms = Duration::from_millis;
        let rest = |at_least, then_at_most| Rest { at_least: ms(at_least), then_at_most: ms(then_at_most), tokens_in };
        assert_eq!(after(0, false, 1), rest(5, 495));
        assert_eq!(after(10, false, 1), rest(5, 495));
        assert_eq!(after(10, true, 2), rest(8, 0));
        assert_eq!(after(0, false, 2), rest(8, 492));
        assert_eq!(after(10, true, 10_000), rest(500, 0));
    }

    #[test]
    fn a_failing_database_is_asked_ever_more_rarely() {
        let mut pace = Pace::default();
        let error = storage::Error::Unavailable(None);
        let waits: Vec<_> = (0..12).map(|_| pace.after_failure(&error).at_least).collect();
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&OUTAGE_POLL));
        pace.after(&Progress { claimed: 0, is_more_due: false, tokens_in: None }, Duration::ZERO);
        assert_eq!(pace.after_failure(&error).at_least, SHORTEST * 2);
    }
}
