//! The claims as they are shipped, stops put between their statements; and wrong ones, made of their text.

use std::{fs, path::Path};

use serde_json::Value;
use support::Database;

use crate::process::Point;

/// Which of the two claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message's creation: one statement.
    Message,
    /// Every other write: a transaction of several statements.
    Write,
}

/// A claim under test.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) kind: Kind,
    /// The statements by which a process runs it.
    pub(crate) statements: Statements,
    /// The isolation level of its sessions.
    pub(crate) isolation: &'static str,
    /// What it does after each of [`Point::ALL`], in words.
    pub(crate) steps: Steps,
}

/// A step in words for each point; empty for one that a claim does not have.
pub(crate) type Steps = [&'static str; 5];

const STEPS: Steps = ["try the lock", "look the key up", "write the effect", "save the outcome", "commit"];

/// The text of statements.
#[derive(Clone, Debug)]
pub(crate) enum Statements {
    /// The call of the function.
    Call(String),
    /// What [`Kind::Write`] runs, one after the other.
    Each { lock: String, look_up: String, save: String },
}

/// All recorded queries: the text of each statement that the program runs.
fn recorded() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(".sqlx");
    let texts = fs::read_dir(folder).expect("the recorded queries").map(|entry| fs::read_to_string(entry.expect("a file").path()));
    let query = |text: String| serde_json::from_str::<Value>(&text).expect("JSON")["query"].as_str().expect("a query").to_owned();
    texts.map(|text| query(text.expect("text"))).collect()
}

/// The one recorded query of which this holds.
fn the_one(what: &str, is_it: impl Fn(&str) -> bool) -> String {
    let mut found: Vec<_> = recorded().into_iter().filter(|query| is_it(query)).collect();
    assert_eq!(found.len(), 1, "the model knows the program by its recorded queries, and of these one must be {what}: {found:#?}");
    found.remove(0)
}

/// The claim of every other write.
pub(crate) fn write() -> Claim {
    let lock = the_one("the lock", |query| query.starts_with("select pg_try_advisory_xact_lock($1)"));
    let look_up = the_one("the look-up", |query| query.contains("from idempotency") && query.contains("where k = $1"));
    let save = the_one("the record", |query| query.starts_with("insert into idempotency ("));
    Claim { kind: Kind::Write, statements: Statements::Each { lock, look_up, save }, isolation: "read committed", steps: STEPS }
}

/// The claim of messages.
pub(crate) async fn message(database: &Database) -> Claim {
    Source::shipped(database).await.stop_before(LOOK_UP, Point::LookUp).install(database, "claim_as_shipped").await
}

/// Beginnings of statements of the shipped function. What is not found any more fails the run: then the model is to follow.
const GUARD: &str = "\n  if current_setting('transaction_isolation')";
const AFTER_GUARD: &str = "\n  if cardinality(f_message) > 0";
const LOCK: &str = "\n  -- Claim without ever waiting";
const LOOK_UP: &str = "\n  for v_row in\n    select t.n, i.fingerprint";
const AFTER_LOOK_UP: &str = "\n  -- Caches are true or the request waits";
const EFFECT: &str = "\n  insert into message (";
const RECORD: &str = "\n  insert into idempotency (";
const END: &str = "\n  if 0 <> any (v_state) then";

/// The shipped function's text, on the way to another one.
struct Source {
    name: String,
    call: String,
    text: String,
}

impl Source {
    async fn shipped(database: &Database) -> Self {
        let call = the_one("the call of the step", |query| query.contains("from step_v"));
        let name = call.split("from ").nth(1).and_then(|rest| rest.split('(').next()).expect("a call").to_owned();
        let text = database.texts(&format!("select pg_get_functiondef('{name}'::regproc)")).await.remove(0);
        Self { name, call, text }
    }

    fn stop_before(self, statement: &str, point: Point) -> Self {
        let stop = format!("\n  perform model.stop({});{statement}", point.number());
        Self { text: replaced(&self.text, statement, &stop), ..self }
    }

    /// Puts another text between two places.
    fn cut(self, from: &str, to: &str, instead: &str) -> Self {
        let begins = self.text.find(from).unwrap_or_else(|| panic!("the shipped function has changed: the model looks for {from:?}"));
        let ends =
            begins + self.text[begins..].find(to).unwrap_or_else(|| panic!("the shipped function has changed: the model looks for {to:?}"));
        Self { text: format!("{}\n{instead}{}", &self.text[..begins], &self.text[ends..]), ..self }
    }

    /// Puts the stops that all variants have, and makes it a function of its own.
    async fn install(self, database: &Database, name: &str) -> Claim {
        let source = if self.text.contains(RECORD) { self.stop_before(RECORD, Point::Record) } else { self };
        let source = source.stop_before(EFFECT, Point::Effect).stop_before(END, Point::Commit);
        let shipped = source.name;
        database.execute(&replaced(&source.text, &format!("FUNCTION public.{shipped}("), &format!("FUNCTION public.{name}("))).await;
        let call = replaced(&source.call, &format!("from {shipped}("), &format!("from {name}("));
        Claim { kind: Kind::Message, statements: Statements::Call(call), isolation: "read committed", steps: STEPS }
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "the shipped function has changed: the model looks for {from:?}");
    text.replacen(from, to, 1)
}

/// Lock and look-up in one statement.
pub(crate) async fn one_statement(database: &Database) -> Claim {
    let wrong = include_str!("wrong/one_statement.sql");
    let claim = Source::shipped(database).await.cut(LOCK, AFTER_LOOK_UP, wrong).install(database, "claim_in_one_statement").await;
    Claim { steps: ["try the lock and look the key up", "", STEPS[2], STEPS[3], STEPS[4]], ..claim }
}

/// `insert ... on conflict` as the claim, with the unique index that a partitioned table can have.
pub(crate) async fn on_conflict(database: &Database) -> Claim {
    let partitions = "select inhrelid::regclass::text from pg_inherits where inhparent = 'idempotency'::regclass";
    for partition in database.texts(partitions).await {
        database.execute(&format!("create unique index on {partition} (k)")).await;
    }
    let wrong = include_str!("wrong/on_conflict.sql");
    let source = Source::shipped(database).await.cut(LOCK, AFTER_LOOK_UP, wrong).cut(RECORD, END, "");
    let claim = source.install(database, "claim_on_conflict").await;
    Claim { steps: ["", "look the key up, insert the record on conflict do nothing", STEPS[2], "", STEPS[4]], ..claim }
}

/// The shipped text in one snapshot for the whole transaction: its guard against that is gone.
pub(crate) async fn repeatable_read(database: &Database) -> Claim {
    let source = Source::shipped(database).await.cut(GUARD, AFTER_GUARD, "").stop_before(LOOK_UP, Point::LookUp);
    Claim { isolation: "repeatable read", ..source.install(database, "claim_repeatable_read").await }
}

/// The other writes' shipped statements in one snapshot.
pub(crate) fn write_at_repeatable_read() -> Claim {
    Claim { isolation: "repeatable read", ..write() }
}
