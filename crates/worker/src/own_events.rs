//! Publishes what tenants are to hear of their own things, soon after it was noted.

use std::{error::Error, time::Duration};

use storage::outbox::{Outbox, Round};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::stopped;

/// How long it rests unless it is told that there is something.
const POLL: Duration = Duration::from_secs(5);
/// The rest after a round that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Goes on until the worker stops; a round that is cut off is made up for by the next one, of any process.
pub(crate) async fn run(outbox: Outbox, is_stopping: watch::Receiver<bool>) {
    let emptying = async {
        let mut is_failing = false;
        loop {
            match outbox.run_once().await {
                Ok(round) => {
                    is_failing = false;
                    if round == Round::Done {
                        // Woken or not, the next round finds out what is due.
                        let _ = timeout(POLL, outbox.is_told()).await;
                    }
                }
                Err(error) => {
                    // An outage is logged once, however long it lasts.
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(
                            error = &error as &dyn Error,
                            "cannot publish what tenants are to hear of their own things; trying again until it works"
                        );
                    }
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stopped(is_stopping) => {}
        () = emptying => {}
    }
    if let Err(error) = outbox.stop().await {
        tracing::debug!(?error, "could not let others empty the outbox at once: they will find out");
    }
}
