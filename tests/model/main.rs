//! A model of the claim: the shipped statements on real sessions, stopped between their steps, in every order.
//!
//! Reading order: [`history`] what happens · [`contract`] what must hold afterwards · [`explore`] all histories of a plan ·
//! [`process`] a session that stops where it is told to · [`shipped`] the text of the claims · [`statements`] how they are run.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
};

use explore::Found;

mod contract;
mod explore;
mod history;
mod notices;
mod process;
mod shipped;
mod shipped_claims;
mod statements;
mod words;
mod wrong_claims;

/// How many histories have happened, in all tests.
static EXPLORED: AtomicUsize = AtomicUsize::new(0);

/// Says what was explored, past the test harness, which shows only what failing tests print.
fn report(what: &str, found: &Found, more: &str) {
    let so_far = EXPLORED.fetch_add(found.histories, Ordering::Relaxed) + found.histories;
    let Found { histories, crashes, .. } = found;
    let report = format!("model: {what}: {histories} histories, {crashes} crashes ({so_far} histories so far){more}\n");
    io::stderr().write_all(report.as_bytes()).expect("stderr takes it");
}
