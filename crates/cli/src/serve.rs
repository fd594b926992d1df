//! Runs a server until a signal comes, and then stops it.

use anyhow::{Context as _, Result, bail};
use storage::{Db, Migrated};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Config, Settings},
    roles::Roles,
    server::{self, Running, too_old},
    telemetry,
};

/// `serve`, `api` and `worker`.
pub(crate) async fn run(settings: &Settings, roles: Roles, is_migrating: bool) -> Result<()> {
    let config = settings.config(roles)?;
    telemetry::start(settings)?;
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        started = start(&config, roles, is_migrating) => started?,
        _ = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    until_signalled(running, signals).await;
    Ok(())
}

async fn start(config: &Config, roles: Roles, is_migrating: bool) -> Result<Running> {
    if is_migrating {
        migrate(&config.database).await?;
    }
    server::start(config, roles).await
}

/// Brings the schema up to date. A schema that is newer than this program stays as it is, and is no obstacle if it allows this program.
pub(crate) async fn migrate(database: &storage::Config) -> Result<Migrated> {
    let migrated = Db::migrate(database).await.context("cannot migrate the database of POSTHASTE_DATABASE_URL")?;
    match migrated {
        Migrated::Newer(ahead) if !ahead.is_allowed() => bail!("{}", too_old(ahead)),
        migrated => Ok(migrated),
    }
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
