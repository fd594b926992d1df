//! All histories of a plan, one after the other; or some, at random.

use rand::{RngExt, rngs::StdRng};

use crate::{
    contract::{self, Flaw},
    history::{Chooser, History, Plan, Stage},
};

/// Chooses as it did the last time, up to a point.
#[derive(Debug, Default)]
struct Script {
    /// What is chosen, and of how many possibilities.
    choices: Vec<(usize, usize)>,
    place: usize,
}

impl Chooser for Script {
    fn choose(&mut self, n: usize) -> usize {
        if self.place == self.choices.len() {
            self.choices.push((0, n));
        }
        let (choice, of) = self.choices[self.place];
        assert_eq!(of, n, "the same choices lead to the same place");
        self.place += 1;
        choice
    }
}

impl Script {
    /// Moves on to the next history; false after the last.
    fn next(&mut self) -> bool {
        self.place = 0;
        while let Some((choice, of)) = self.choices.pop() {
            if choice + 1 < of {
                self.choices.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

/// Chooses at random.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) StdRng);

impl Chooser for Dice {
    fn choose(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) histories: usize,
    pub(crate) crashes: usize,
    pub(crate) flaws: Vec<(Flaw, History)>,
}

impl Found {
    pub(crate) fn note(&mut self, history: History) {
        self.histories += 1;
        self.crashes += history.crashes;
        if let Some(flaw) = contract::flaw(&history) {
            self.flaws.push((flaw, history));
        }
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.histories += more.histories;
        self.crashes += more.crashes;
        self.flaws.extend(more.flaws);
    }

    /// The shortest history with such a flaw: of the fewest steps, and then of the fewest switches.
    pub(crate) fn shortest(&self, is_wanted: impl Fn(&Flaw) -> bool) -> Option<&(Flaw, History)> {
        self.flaws.iter().filter(|(flaw, _)| is_wanted(flaw)).min_by_key(|(_, history)| (history.events.len(), history.switches()))
    }

    /// Fails with the shortest history that breaks the contract, if there is one.
    pub(crate) fn demand_none(&self, what: &str) {
        if let Some((flaw, history)) = self.shortest(|_| true) {
            panic!(
                "{what}: {} of {} histories break the contract. In the shortest, {flaw}:\n{}",
                self.flaws.len(),
                self.histories,
                history.words()
            );
        }
    }
}

/// Lets all histories of a plan happen.
pub(crate) async fn all(stage: &mut Stage, plan: &Plan) -> Found {
    let (mut script, mut found) = (Script::default(), Found::default());
    loop {
        found.note(stage.run(plan, &mut script).await);
        if !script.next() {
            return found;
        }
    }
}
