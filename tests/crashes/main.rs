//! Crashes under load, with real processes and a cluster that nothing else uses: one after the other.

/// `kill -9` of the server, again and again.
mod kill;
/// Clients that publish with keys and never give up.
mod load;
/// Postgres crashes, or a client hangs up.
mod outage;

/// One crash scenario at a time: each wants the machine to itself.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
