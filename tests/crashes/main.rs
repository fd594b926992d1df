//! Crashes, with real processes: one after the other.

/// Clients that publish with keys and never give up, and those that hang up.
mod clients;
/// Replicas of the server, and what befalls them.
mod fleet;
/// A replica stands still and goes on.
mod frozen;
/// Clients that hang up at any byte.
mod hang_up;
/// Postgres has no room for more locks.
mod locks;
/// `kill -9` at the worst moments.
mod moments;
/// What was asked for, what was told, what is held and what was delivered.
mod sets;
/// Everything at once, under load.
mod storm;

/// One crash scenario at a time: each wants the machine to itself.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Says what a crash run must show, also in a run whose tests are green: what `eprint!` writes is kept from its readers then.
fn say(text: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}
