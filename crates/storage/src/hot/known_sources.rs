//! The sources that this process has met, by mask, and the masks that lead nowhere: each for a second.
//!
//! So a source that is switched off or deleted takes nothing more after that time, and whoever knocks often is told from memory. Those who
//! come with ever new masks wait for each other: however many they are, the database is asked one question at a time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    id::ApplicationId,
    source::{Mask, Source},
};
use parking_lot::Mutex;
use tokio::sync::MutexGuard;

/// For how long what was read holds, from when it was asked for.
const MEMORY: Duration = Duration::from_secs(1);
/// How many sources one process remembers.
const CAPACITY: usize = 20_000;
/// How many masks that lead nowhere: they are kept apart, so that guessing drives out no source.
const MISSES: usize = 10_000;
/// How many masks are in one question.
const QUESTION: usize = 500;

/// A source, and the application that its messages belong to.
#[derive(Debug)]
pub struct Door {
    /// The source.
    pub source: Source,
    /// Whose its messages are.
    pub application_id: ApplicationId,
}

/// What a process remembers, and who waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct KnownSources {
    known: Mutex<Known>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    sources: HashMap<Mask, (Arc<Door>, Instant)>,
    misses: HashMap<Mask, Instant>,
    wanted: HashSet<Mask>,
}

/// The masks that somebody has to ask the database about.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// Which.
    pub(crate) masks: Vec<Mask>,
    begun: Instant,
    known: &'a KnownSources,
    _turn: MutexGuard<'a, ()>,
}

/// Where a mask leads.
#[derive(Debug)]
pub(crate) enum Leads {
    /// To a source.
    To(Arc<Door>),
    /// To none.
    Nowhere,
}

impl From<Leads> for Option<Arc<Door>> {
    fn from(leads: Leads) -> Self {
        match leads {
            Leads::To(door) => Some(door),
            Leads::Nowhere => None,
        }
    }
}

/// What becomes of who wants to know where a mask leads.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// It is known by now.
    Known(Option<Arc<Door>>),
    /// It is its turn to ask.
    Ask(Question<'a>),
}

/// Who waits for an answer.
struct Waiting<'a> {
    mask: &'a Mask,
    known: &'a KnownSources,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.known.known.lock().wanted.remove(self.mask);
    }
}

impl KnownSources {
    /// What the mask leads to, if that was read within the last second: a source, or nothing.
    pub(crate) fn get(&self, mask: &Mask) -> Option<Leads> {
        let known = self.known.lock();
        let is_fresh = |read: &Instant| read.elapsed() < MEMORY;
        if let Some((door, _)) = known.sources.get(mask).filter(|(_, read)| is_fresh(read)) {
            return Some(Leads::To(Arc::clone(door)));
        }
        known.misses.get(mask).is_some_and(is_fresh).then_some(Leads::Nowhere)
    }

    /// Waits until it is known where the mask leads, or it is the caller's turn to ask about it and about what others want to know.
    pub(crate) async fn wait(&self, mask: &Mask) -> Turn<'_> {
        self.known.lock().wanted.insert(mask.clone());
        let waiting = Waiting { mask, known: self };
        let turn = self.turn.lock().await;
        if let Some(found) = self.get(mask) {
            return Turn::Known(found.into());
        }
        drop(waiting);
        let mut known = self.known.lock();
        let others: Vec<_> = known.wanted.iter().take(QUESTION).cloned().collect();
        for other in &others {
            known.wanted.remove(other);
        }
        drop(known);
        let masks = others.into_iter().filter(|other| other != mask).chain([mask.clone()]).collect();
        Turn::Ask(Question { masks, begun: Instant::now(), known: self, _turn: turn })
    }
}

impl Question<'_> {
    /// Remembers the answer; tells where `mask` leads.
    pub(crate) fn answer(self, found: Vec<Door>, mask: &Mask) -> Option<Arc<Door>> {
        let mut known = self.known.known.lock();
        let mut missed: HashSet<_> = self.masks.iter().cloned().collect();
        if known.sources.len() + found.len() > CAPACITY {
            known.sources.clear();
        }
        if known.misses.len() + missed.len() > MISSES {
            known.misses.clear();
        }
        let mut wanted = None;
        for door in found {
            let (its, door) = (door.source.mask.clone(), Arc::new(door));
            missed.remove(&its);
            known.misses.remove(&its);
            if its == *mask {
                wanted = Some(Arc::clone(&door));
            }
            known.sources.insert(its, (door, self.begun));
        }
        for its in missed {
            known.sources.remove(&its);
            known.misses.insert(its, self.begun);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use uuid::Uuid;

    use super::*;

    fn mask_of(number: usize) -> Mask {
        Mask::parse(&format!("{number:032}")).expect("a mask")
    }

    fn door(mask: Mask) -> Door {
        use chrono::DateTime;
        use domain::source::{Definition, forward::ForwardedHeaders, location::Locations, verifier::Verifier};

        let definition = Definition {
            name: String::new(),
            provider: None,
            verifier: Verifier::None,
            locations: Locations::default(),
            rejects_missing_key: false,
            forwarded: ForwardedHeaders::default(),
            event_type_at: None,
            response: None,
            is_disabled: false,
        };
        let (created_at, id) = (DateTime::UNIX_EPOCH, Uuid::nil());
        let source = Source { id: id.into(), tenant_id: id.into(), mask, definition, version: 1, created_at, updated_at: created_at };
        Door { source, application_id: id.into() }
    }

    #[tokio::test]
    async fn those_who_come_with_ever_new_masks_wait_for_few_questions() {
        let known = KnownSources::default();
        let asked = Mutex::new(0);
        let knock = async |number: usize| {
            let mask = mask_of(number);
            match known.wait(&mask).await {
                Turn::Known(found) => found,
                Turn::Ask(question) => {
                    tokio::task::yield_now().await;
                    *asked.lock() += 1;
                    assert!(question.masks.len() <= QUESTION + 1);
                    let found = question.masks.iter().find(|its| **its == mask_of(77)).cloned().map(door);
                    question.answer(found.into_iter().collect(), &mask)
                }
            }
        };
        let found = join_all((0..2_000).map(knock)).await;
        let places: Vec<_> = found.iter().enumerate().filter(|(_, found)| found.is_some()).map(|(place, _)| place).collect();
        assert_eq!(places, [77]);
        let asked = *asked.lock();
        assert!(asked <= 6, "{asked} questions for 2000 masks");
        assert!(known.known.lock().wanted.is_empty());
    }

    #[tokio::test]
    async fn guesses_drive_out_no_source_and_fill_no_memory() {
        let known = KnownSources::default();
        let ask = async |number: usize, found: Vec<Door>| match known.wait(&mask_of(number)).await {
            Turn::Ask(question) => question.answer(found, &mask_of(number)),
            Turn::Known(found) => found,
        };
        assert!(ask(0, vec![door(mask_of(0))]).await.is_some());
        for number in 1..=2 * MISSES {
            assert!(ask(number, Vec::new()).await.is_none());
        }
        assert!(known.known.lock().misses.len() <= MISSES);
        assert_eq!(known.known.lock().sources.len(), 1);
    }
}
