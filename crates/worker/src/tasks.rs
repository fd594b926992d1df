//! Does long work: fan-outs to many endpoints, and what somebody asked to be sent again.

use std::time::{Duration, Instant};

use storage::{Db, runner::Runner};
use tokio::{sync::watch, time::sleep};

use crate::stopped;

/// How long the runner rests when there is nothing to do and nobody wakes it.
const POLL: Duration = Duration::from_millis(500);
/// The rest while the database cannot be reached.
const OUTAGE_POLL: Duration = Duration::from_secs(1);

/// Works until the worker stops; a step that is under way is finished. A step is followed by a rest of its own length, so that long work
/// takes no more than half of one connection, whatever waits for the other half.
pub(crate) async fn run(db: Db, is_stopping: watch::Receiver<bool>) {
    let mut runner = Runner::connect(&db);
    let mut is_failing = false;
    while !*is_stopping.borrow() {
        let begun = Instant::now();
        let done = runner.run_once().await;
        let (is_woken_early, rest) = match &done {
            Ok(true) => (false, begun.elapsed()),
            Ok(false) => (true, POLL),
            Err(_) => (false, OUTAGE_POLL),
        };
        match done {
            Ok(_) if std::mem::take(&mut is_failing) => tracing::info!("the database answers the runner of tasks again"),
            // An outage is logged once, however long it lasts.
            Err(error) if !std::mem::replace(&mut is_failing, true) => {
                tracing::error!(error = &error as &dyn std::error::Error, "tasks cannot go on; trying again until they can");
            }
            _ => {}
        }
        tokio::select! {
            () = stopped(is_stopping.clone()) => return,
            () = sleep(rest) => {}
            () = runner.wait(), if is_woken_early => {}
        }
    }
}
