//! A history in words.

use std::fmt::Write;

use crate::{
    history::{Crash, Event, History, Phase, Retry, Tick},
    process::{Answer, Point},
};

/// The name of a process.
fn name(who: usize) -> char {
    char::from(b'A' + u8::try_from(who).expect("a few processes"))
}

impl History {
    /// The steps between two places: what comes after `from`, before `to`.
    fn steps(&self, from: Option<Point>, to: Option<Point>) -> String {
        let begin = from.is_none().then_some("begin").into_iter();
        let points = Point::ALL.into_iter().zip(self.steps);
        let taken =
            points.filter(|(point, step)| from.is_none_or(|from| *point >= from) && to.is_none_or(|to| *point < to) && !step.is_empty());
        begin.chain(taken.map(|(_, step)| step)).collect::<Vec<_>>().join(", ")
    }

    fn answer(&self, answer: Answer) -> String {
        let number = |effect| self.effects.iter().position(|known| *known == effect).map_or(0, |place| place + 1);
        match answer {
            Answer::Executed(effect) => format!("executed (effect {})", number(effect)),
            Answer::Replay(effect) => format!("replay (of effect {})", number(effect)),
            Answer::Mismatch => "this key is another body's".to_owned(),
            Answer::Busy => "busy".to_owned(),
        }
    }

    /// What happened: who did it, if it is a step, and the words for it.
    fn event(&self, event: &Event) -> (Option<usize>, String) {
        match event {
            Event::Stopped(who, from, to) => (Some(*who), self.steps(*from, Some(*to))),
            Event::Answered(who, from, answer, is_heard) => {
                let end =
                    if *is_heard { format!("is told: {}", self.answer(*answer)) } else { "the answer is lost; asks again".to_owned() };
                (Some(*who), format!("{} -> {end}", self.steps(*from, None)))
            }
            Event::Waits(who, from, lock) => {
                (Some(*who), format!("{} ... somewhere in there it waits for a {lock}", self.steps(*from, None)))
            }
            Event::Crashed(who, crash, retry) => {
                let what = if *crash == Crash::Session { "session dies" } else { "transaction is ended" };
                let next = if *retry == Retry::Anew { "its client asks again" } else { "it runs the same statement again" };
                (None, format!("{}'s {what}; {next}", name(*who)))
            }
            Event::Ticked(Tick::Expiry) => (None, "the time passes after which a saved outcome expires".to_owned()),
            Event::Ticked(Tick::Midnight) => (None, "midnight passes".to_owned()),
        }
    }

    /// What happened, a line for each time that somebody else goes on, and what came of it.
    pub(crate) fn words(&self) -> String {
        let mut lines = Vec::new();
        for told in self.told.iter().filter(|told| told.phase == Phase::Before) {
            lines.push(format!("before, at {}: {}", told.request.now, self.answer(told.answer)));
        }
        let mut last = None;
        for event in &self.events {
            let (who, words) = self.event(event);
            match who {
                Some(_) if who == last => {
                    let line = lines.last_mut().expect("the last one's line");
                    let _ = write!(line, ", {words}");
                }
                Some(who) => lines.push(format!("{}: {words}", name(who))),
                None => lines.push(words),
            }
            last = who;
        }
        for told in self.told.iter().filter(|told| !matches!(told.phase, Phase::Before | Phase::Concurrent)) {
            let when = if told.phase == Phase::AfterExpiry { "when all has expired" } else { "afterwards" };
            lines.push(format!("{when} {} asks again and is told: {}", name(told.who), self.answer(told.answer)));
        }
        lines.push(format!("the tables hold {} effects and {} records", self.effects.len(), self.records.len()));
        lines.into_iter().fold(String::new(), |words, line| words + "      " + &line + "\n")
    }

    /// How often another process goes on than the one before.
    pub(crate) fn switches(&self) -> usize {
        let who = |event: &Event| match event {
            Event::Stopped(who, ..) | Event::Answered(who, ..) | Event::Waits(who, ..) | Event::Crashed(who, ..) => Some(*who),
            Event::Ticked(_) => None,
        };
        let order: Vec<_> = self.events.iter().filter_map(who).collect();
        order.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}
