//! One history: the steps of some processes that use one key, in an order that somebody chooses, and what came of it.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use sqlx::{Connection, PgConnection, Row};
use support::Database;
use uuid::Uuid;

use crate::{
    process::{Answer, Keeper, Point, Process, Reached, Request},
    shipped::{Claim, Kind, Steps},
};

/// How long keys are remembered: the default policy's time.
pub(crate) const TTL: Duration = Duration::from_mins(24 * 60 + 1);

/// What happens once, at any moment of a history, besides the steps of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// So much time passes that what has been saved expires.
    Expiry,
    /// The day ends, and with it the partition of records.
    Midnight,
}

/// What is known of the key when a history begins: the outcome of a request with the first body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Today,
    ExpiredToday,
    Yesterday,
    ExpiredYesterday,
}

/// What dies of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The transaction: the server ends it, as a time-out would.
    Transaction,
    /// The session, as when the process or its connection dies.
    Session,
}

/// How a process that has crashed goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Its client sends the request to another one.
    Anew,
    /// It has only lost its connection, and runs the same statement again.
    Rerun,
}

/// What is explored.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The body of each process's request; the first is 0.
    pub(crate) bodies: Vec<u8>,
    pub(crate) stops: Vec<Point>,
    /// Those that crash or lose an answer once, and how they go on.
    pub(crate) victims: usize,
    pub(crate) crash: Crash,
    pub(crate) retry: Retry,
    pub(crate) tick: Option<Tick>,
    pub(crate) before: Before,
}

impl Plan {
    /// These requests, with nothing else going on.
    pub(crate) fn of(bodies: &[u8], stops: &[Point]) -> Self {
        let (bodies, stops) = (bodies.to_vec(), stops.to_vec());
        Self { bodies, stops, victims: 0, crash: Crash::Session, retry: Retry::Anew, tick: None, before: Before::Nothing }
    }
}

/// Who decides what comes next.
pub(crate) trait Chooser {
    /// One of `n` possibilities.
    fn choose(&mut self, n: usize) -> usize;
}

/// When a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    Concurrent,
    /// After everything, for those that were told to come again, or nothing.
    Retry,
    /// After everything, by everybody.
    Repeat,
    /// The same when all that was saved has expired.
    AfterExpiry,
}

/// What somebody was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) phase: Phase,
    pub(crate) who: usize,
    pub(crate) request: Request,
    pub(crate) answer: Answer,
    /// No other request was running when this one tried the lock.
    pub(crate) was_alone: bool,
}

/// A saved outcome, as the table has it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) effect: Uuid,
    pub(crate) fingerprint: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A process went from one stop (or its begin) to another one.
    Stopped(usize, Option<Point>, Point),
    /// A process went from a stop to its end; whether anybody heard the answer.
    Answered(usize, Option<Point>, Answer, bool),
    /// A process went from a stop to where it waits.
    Waits(usize, Option<Point>, String),
    Crashed(usize, Crash, Retry),
    Ticked(Tick),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    pub(crate) told: Vec<Told>,
    /// What is in the tables.
    pub(crate) effects: BTreeSet<Uuid>,
    pub(crate) records: Vec<Record>,
    pub(crate) crashes: usize,
    /// What the steps of the claim are called.
    pub(crate) steps: Steps,
    /// All ids that effects could have.
    ids: Vec<Uuid>,
}

/// The processes of one claim, on a database of their own.
#[derive(Debug)]
pub(crate) struct Stage {
    kind: Kind,
    steps: Steps,
    keeper: Keeper,
    processes: Vec<Process>,
    /// Today's midnight, the one that has passed.
    today: DateTime<Utc>,
    database: Database,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    Stopped(Point),
    Done,
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Go(usize),
    Crash(usize),
    LoseAnswer(usize),
    Tick(Tick),
}

/// A history while it happens.
struct Run<'a> {
    stage: &'a mut Stage,
    plan: &'a Plan,
    key: Uuid,
    clock: DateTime<Utc>,
    tick: Option<Tick>,
    may_crash: Vec<bool>,
    states: Vec<State>,
    requests: Vec<Option<Request>>,
    /// Ids that a process uses again.
    reruns: Vec<Option<Uuid>>,
    was_alone: Vec<bool>,
    history: History,
}

impl Stage {
    /// Prepares a database; `claim` makes its functions and gets its connections.
    pub(crate) async fn set(database: Database, claim: &Claim, processes: usize) -> Self {
        let keeper = Keeper(PgConnection::connect(&database.url).await.expect("a session"));
        let mut stage = Self {
            kind: claim.kind,
            steps: claim.steps,
            keeper,
            processes: Vec::new(),
            today: Utc::now().date_naive().and_time(NaiveTime::MIN).and_utc(),
            database,
        };
        for _ in 0..processes {
            stage.processes.push(Process::start(&stage.database.url, claim).await);
        }
        stage
    }

    /// Lets one history happen.
    pub(crate) async fn run(&mut self, plan: &Plan, chooser: &mut impl Chooser) -> History {
        let n = plan.bodies.len();
        let noon = self.today + TimeDelta::hours(12);
        let clock = if plan.tick == Some(Tick::Midnight) { self.today + Days::new(1) - TimeDelta::milliseconds(100) } else { noon };
        let steps = self.steps;
        let mut run = Run {
            stage: self,
            plan,
            key: Uuid::new_v4(),
            clock,
            tick: plan.tick,
            may_crash: (0..n).map(|i| i < plan.victims).collect(),
            states: vec![State::Ready; n],
            requests: vec![None; n],
            reruns: vec![None; n],
            was_alone: vec![true; n],
            history: History { steps, ..History::default() },
        };
        run.before().await;
        if run.all_steps(chooser).await {
            run.epilogue().await;
        }
        run.look().await;
        run.history
    }
}

impl Run<'_> {
    fn request(&mut self, who: usize, ttl: Duration) -> Request {
        self.clock += TimeDelta::milliseconds(1);
        let rerun = self.reruns[who].take();
        let id = rerun.unwrap_or_else(Uuid::now_v7);
        self.history.ids.push(id);
        let fingerprint = Uuid::from_u128(u128::from(self.plan.bodies[who]) + 1);
        Request { id, key: self.key, fingerprint, ttl, is_rerun: rerun.is_some(), now: self.clock }
    }

    /// A request that nothing stops and nobody disturbs.
    async fn alone(&mut self, who: usize, phase: Phase, ttl: Duration) {
        let request = self.request(who, ttl);
        let reached = self.stage.processes[who].begin(&mut self.stage.keeper, request.clone(), &[]).await;
        let Reached::Answer(answer) = reached else { panic!("alone, and not answered: {reached:?}") };
        self.history.told.push(Told { phase, who, request, answer, was_alone: true });
    }

    async fn before(&mut self) {
        let now = self.clock;
        let (ago, ttl) = match self.plan.before {
            Before::Nothing => return,
            Before::Today => (TimeDelta::hours(1), TTL),
            Before::ExpiredToday => (TimeDelta::hours(2), Duration::from_hours(1)),
            Before::Yesterday => (TimeDelta::hours(23), TTL),
            Before::ExpiredYesterday => (TimeDelta::minutes(24 * 60 + 2), TTL),
        };
        self.clock -= ago;
        self.alone(0, Phase::Before, ttl).await;
        self.clock = now;
    }

    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (who, state) in self.states.iter().enumerate() {
            match state {
                State::Done => {}
                State::Ready => choices.push(Choice::Go(who)),
                State::Stopped(point) => {
                    choices.push(Choice::Go(who));
                    if self.may_crash[who] {
                        choices.push(Choice::Crash(who));
                        choices.extend((*point == Point::Commit).then_some(Choice::LoseAnswer(who)));
                    }
                }
            }
        }
        if !choices.is_empty() {
            choices.extend(self.tick.map(Choice::Tick));
        }
        choices
    }

    /// Everything that happens at once; false if somebody waited, which ends it.
    async fn all_steps(&mut self, chooser: &mut impl Chooser) -> bool {
        loop {
            let choices = self.choices();
            let choice = match choices.as_slice() {
                [] => return true,
                [only] => *only,
                several => several[chooser.choose(several.len())],
            };
            match choice {
                Choice::Go(who) => {
                    if !self.step(who, true).await {
                        return false;
                    }
                }
                Choice::LoseAnswer(who) => {
                    if !self.step(who, false).await {
                        return false;
                    }
                    self.retry(who);
                }
                Choice::Crash(who) => {
                    self.stage.processes[who].crash(&mut self.stage.keeper, self.plan.crash).await;
                    self.history.crashes += 1;
                    self.history.events.push(Event::Crashed(who, self.plan.crash, self.plan.retry));
                    self.retry(who);
                }
                Choice::Tick(tick) => {
                    self.tick = None;
                    self.clock += match tick {
                        Tick::Expiry => TimeDelta::from_std(TTL).expect("a day"),
                        Tick::Midnight => TimeDelta::milliseconds(200),
                    };
                    self.history.events.push(Event::Ticked(tick));
                }
            }
        }
    }

    fn retry(&mut self, who: usize) {
        self.may_crash[who] = false;
        self.states[who] = State::Ready;
        if self.plan.retry == Retry::Rerun {
            self.reruns[who] = self.requests[who].as_ref().map(|request| request.id);
        }
    }

    /// One step of one process; false if it waits.
    async fn step(&mut self, who: usize, is_heard: bool) -> bool {
        let others_run = self.states.iter().enumerate().any(|(other, state)| other != who && matches!(state, State::Stopped(_)));
        let (from, reached) = match self.states[who] {
            State::Done => unreachable!("nobody chooses who is done"),
            State::Stopped(from) => (Some(from), self.stage.processes[who].go(&mut self.stage.keeper, from).await),
            State::Ready => {
                let request = self.request(who, TTL);
                self.requests[who] = Some(request.clone());
                (None, self.stage.processes[who].begin(&mut self.stage.keeper, request, &self.plan.stops).await)
            }
        };
        if from <= Some(Point::Lock) {
            self.was_alone[who] = !others_run;
        }
        match reached {
            Reached::Stop(point) => {
                self.history.events.push(Event::Stopped(who, from, point));
                self.states[who] = State::Stopped(point);
            }
            Reached::Answer(answer) => {
                self.history.events.push(Event::Answered(who, from, answer, is_heard));
                self.states[who] = State::Done;
                let request = self.requests[who].clone().expect("it was begun");
                if is_heard {
                    self.history.told.push(Told { phase: Phase::Concurrent, who, request, answer, was_alone: self.was_alone[who] });
                }
            }
            Reached::Waits(lock) => {
                self.history.events.push(Event::Waits(who, from, lock));
                self.stage.keeper.let_all_pass().await;
                for process in &mut self.stage.processes {
                    process.finish().await;
                }
                return false;
            }
        }
        true
    }

    /// Whoever has no outcome asks again; then everybody repeats; and once more when everything has expired.
    async fn epilogue(&mut self) {
        for who in 0..self.plan.bodies.len() {
            let last = self.history.told.iter().rfind(|told| told.who == who && told.phase == Phase::Concurrent);
            if last.is_none_or(|told| told.answer == Answer::Busy) {
                self.alone(who, Phase::Retry, TTL).await;
            }
        }
        for who in 0..self.plan.bodies.len() {
            self.alone(who, Phase::Repeat, TTL).await;
        }
        if self.plan.tick == Some(Tick::Expiry) {
            self.clock += TimeDelta::from_std(TTL).expect("a day");
            for who in 0..self.plan.bodies.len() {
                self.alone(who, Phase::AfterExpiry, TTL).await;
            }
        }
    }

    /// Reads what the tables hold.
    async fn look(&mut self) {
        let connection = &mut self.stage.keeper.0;
        let effects = match self.stage.kind {
            Kind::Message => {
                sqlx::query_scalar("select id from message where id = any ($1)").bind(&self.history.ids).fetch_all(&mut *connection)
            }
            Kind::Write => sqlx::query_scalar("select id from model.effect where k = $1").bind(self.key).fetch_all(&mut *connection),
        };
        self.history.effects = effects.await.expect("the effects").into_iter().collect();
        let sql = "select coalesce(ref, encode(answer, 'hex')::uuid) as effect, fingerprint, created_at, expires_at from idempotency
             where k = $1 and created_at > $2 and created_at < $3 order by created_at";
        let records = sqlx::query(sql).bind(self.key).bind(self.stage.today - Days::new(2)).bind(self.stage.today + Days::new(6));
        let record = |row: &sqlx::postgres::PgRow| Record {
            effect: row.get(0),
            fingerprint: row.get(1),
            created_at: row.get(2),
            expires_at: row.get(3),
        };
        self.history.records = records.fetch_all(connection).await.expect("the records").iter().map(record).collect();
    }
}
