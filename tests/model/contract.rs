//! What must hold after every history, of what clients were told and of what the tables hold.

use std::{collections::BTreeSet, fmt};

use crate::{
    history::{Event, History, Phase, Record, Told},
    process::Answer,
};

/// How a history breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flaw {
    /// Somebody waited, and not at a stop.
    Waits(String),
    /// Two effects under one key, the second one while the first one's outcome was still to be remembered.
    TwoEffects,
    /// An effect without its record, or a record without its effect.
    Apart,
    /// A client was told of an effect that is not there.
    ToldInVain,
    /// A replay, of an outcome that was another body's.
    ReplayForAnotherBody,
    /// A replay of what had expired.
    ReplayOfTheExpired,
    /// "Another body's", but no other body's outcome was remembered.
    FalseMismatch,
    /// "Busy", but nobody else was running.
    FalseBusy,
    /// When all was over, a retry still did not end in an outcome.
    NeverSettled,
    /// After expiry not exactly one executed anew.
    NotAnew,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waits(lock) => return write!(f, "a request waits for a {lock}"),
            Self::TwoEffects => "one key has two effects",
            Self::Apart => "an effect and its record are not committed together",
            Self::ToldInVain => "somebody was told of an effect that is not there",
            Self::ReplayForAnotherBody => "another body was answered with a replay",
            Self::ReplayOfTheExpired => "an expired outcome was replayed",
            Self::FalseMismatch => "the key was refused as another body's, which it was not",
            Self::FalseBusy => "a key was called busy that nobody used",
            Self::NeverSettled => "a retry after everything brought no outcome",
            Self::NotAnew => "after expiry not exactly one request executed anew",
        })
    }
}

/// The first thing that is wrong with a history.
pub(crate) fn flaw(history: &History) -> Option<Flaw> {
    if let Some(Event::Waits(_, _, lock)) = history.events.last() {
        return Some(Flaw::Waits(lock.clone()));
    }
    // Ordered by their begin: so it is enough to compare neighbours.
    if history.records.windows(2).any(|pair| pair[1].created_at < pair[0].expires_at) {
        return Some(Flaw::TwoEffects);
    }
    let recorded: BTreeSet<_> = history.records.iter().map(|record| record.effect).collect();
    if recorded != history.effects || recorded.len() != history.records.len() {
        return Some(Flaw::Apart);
    }
    let anew = |told: &&Told| told.phase == Phase::AfterExpiry;
    let executed = history.told.iter().filter(anew).filter(|told| matches!(told.answer, Answer::Executed(_))).count();
    if history.told.iter().any(|told| anew(&told)) && executed != 1 {
        return Some(Flaw::NotAnew);
    }
    history.told.iter().find_map(|told| flaw_of(told, &history.records))
}

fn flaw_of(told: &Told, records: &[Record]) -> Option<Flaw> {
    let is_over = !matches!(told.phase, Phase::Concurrent);
    let of = |effect| records.iter().find(|record| record.effect == effect);
    let is_live = |record: &Record| record.expires_at > told.request.now;
    match told.answer {
        Answer::Busy if is_over => Some(Flaw::NeverSettled),
        Answer::Busy => told.was_alone.then_some(Flaw::FalseBusy),
        Answer::Executed(effect) => {
            let is_there = of(effect).is_some_and(|record| record.fingerprint == told.request.fingerprint);
            (!is_there || effect != told.request.id).then_some(Flaw::ToldInVain)
        }
        Answer::Replay(effect) => match of(effect) {
            None => Some(Flaw::ToldInVain),
            Some(record) if record.fingerprint != told.request.fingerprint => Some(Flaw::ReplayForAnotherBody),
            Some(record) => (!is_live(record)).then_some(Flaw::ReplayOfTheExpired),
        },
        Answer::Mismatch => {
            let is_true = records.iter().any(|record| record.fingerprint != told.request.fingerprint && is_live(record));
            (!is_true).then_some(Flaw::FalseMismatch)
        }
    }
}
