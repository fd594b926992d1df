//! Logs, on standard error.

use std::io::IsTerminal as _;

use anyhow::{Result, anyhow};
use tracing_subscriber::fmt;

use crate::config::{LogFormat, Settings};

/// Starts logging as configured, and reports variables that nobody reads.
pub(crate) fn start(settings: &Settings) -> Result<()> {
    let logs = fmt().with_env_filter(settings.log_filter()?).with_writer(std::io::stderr);
    let started = match settings.log_format()? {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).with_ansi(false).try_init(),
    };
    started.map_err(|error| anyhow!("cannot start logging: {error}"))?;
    for unknown in crate::config::unknown_variables() {
        tracing::warn!("{unknown}");
    }
    Ok(())
}
