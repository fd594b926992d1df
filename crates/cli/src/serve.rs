//! Runs a server until a signal comes, and then stops it.

use anyhow::{Context as _, Result};
use storage::Db;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::Settings,
    server::{self, Roles, Running},
    telemetry,
};

/// `serve`, `api` and `worker`.
pub(crate) async fn run(settings: &Settings, roles: Roles, is_migrating: bool) -> Result<()> {
    let config = settings.config(roles)?;
    telemetry::start(settings)?;
    let signals = Signals::listen()?;
    if is_migrating {
        Db::migrate(&config.database).await.context("cannot migrate the database of POSTHASTE_DATABASE_URL")?;
    }
    let running = server::start(&config, roles).await?;
    until_signalled(running, signals).await;
    Ok(())
}

/// The signals that end us. They count from the moment that this is made, so that none is missed while starting.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns the exit status that this signal deserves by custom, 128 and its number, when one comes.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

/// Serves until SIGINT or SIGTERM, then stops in order; a second signal ends the process at once.
pub(crate) async fn until_signalled(running: Running, mut signals: Signals) {
    signals.next().await;
    tracing::info!("stopping: a second signal ends it at once");
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        status = signals.next() => std::process::exit(status),
    }
}
