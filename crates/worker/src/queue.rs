//! The runtime of the deliveries: an apalis worker over storage's channel of jobs, one task per delivery.
//!
//! Nothing here can fail: storage deals with an unreachable database, so that no outage ends the worker.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, ready},
};

use apalis::prelude::{ParallelizeExt, Task, TaskBuilder, WorkerBuilder, WorkerBuilderExt, WorkerContext};
use apalis_core::backend::{Backend, BackendConfig, finalize::Ephemeral};
use storage::{
    committer::Completer,
    hand_off::{Job, Jobs},
};
use tokio::{sync::watch, task::JoinHandle};
use tower::layer::util::Identity;

use crate::dispatch::Dispatcher;

/// Starts the runtime. It ends when the hand-off is closed, what was waiting is handed back, and what was being sent is done.
pub(crate) fn start(jobs: Jobs, completer: Completer, dispatcher: Arc<Dispatcher>, is_stopping: watch::Receiver<bool>) -> JoinHandle<()> {
    let patience = dispatcher.patience();
    let worker = WorkerBuilder::new(format!("deliveries-{}", std::process::id()))
        .backend(Deliveries { jobs, completer, is_stopping })
        // The first layer is the outermost: all below runs in a task of its own, and a timeout ends the sending itself.
        .parallelize(tokio::spawn)
        .timeout(patience)
        .catch_panic()
        .build(move |job: Job| {
            let dispatcher = Arc::clone(&dispatcher);
            // Boxed at once: every layer above moves it.
            Box::pin(async move { dispatcher.deliver(job).await })
        });
    let running = tokio::spawn(worker.run());
    tokio::spawn(async move {
        match running.await {
            Ok(Ok(())) => tracing::debug!("every delivery has ended"),
            Ok(Err(error)) => tracing::error!(%error, "the runtime of the deliveries has ended"),
            Err(error) => tracing::error!(%error, "the runtime of the deliveries has failed"),
        }
    })
}

/// Storage's jobs as apalis sees them.
struct Deliveries {
    jobs: Jobs,
    completer: Completer,
    is_stopping: watch::Receiver<bool>,
}

impl Deliveries {
    /// The next job that is to be sent; those that come while the worker is stopping go straight back.
    fn poll_job(&mut self, cx: &mut Context<'_>) -> Poll<Option<Job>> {
        while let Some(job) = ready!(self.jobs.poll_recv(cx)) {
            if !*self.is_stopping.borrow() {
                return Poll::Ready(Some(job));
            }
            self.completer.hand_back(job);
        }
        Poll::Ready(None)
    }
}

impl Backend for Deliveries {
    type Task = Task<Job>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        self.poll_job(cx).map(|job| job.map(|job| Ok(TaskBuilder::new(job).build())))
    }

    /// Called once nothing is being sent; hands back whatever is still in the channel.
    fn poll_close(&mut self, cx: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        while let Poll::Ready(Some(job)) = self.jobs.poll_recv(cx) {
            self.completer.hand_back(job);
        }
        // A backend that has run dry does not end its worker: that takes a word from us. It fails only if it has ended.
        let _ = worker.stop();
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Deliveries {
    type Args = Job;
    type Id = ();
    type Kind = Ephemeral;
    type Config = ();
    /// No acknowledgement of apalis' own: the dispatcher reports to the committer.
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
