//! Wrong claims are found out: for each, the model demands a history that breaks the contract, and shows the shortest.

use support::Database;

use crate::{
    contract::Flaw,
    explore::{self, Found},
    history::{Plan, Stage, Tick},
    process::Point::{Commit, Effect, Lock, LookUp},
    report,
    shipped::{self, Claim},
};

/// Explores the histories of a wrong claim, and demands one with such a flaw.
async fn find_out(what: &str, database: Database, claim: &Claim, plan: &Plan, is_wanted: impl Fn(&Flaw) -> bool) {
    let mut stage = Stage::set(database, claim, 2).await;
    let found: Found = explore::all(&mut stage, plan).await;
    let Some((flaw, history)) = found.shortest(is_wanted) else {
        panic!("{what}: none of {} histories has shown what is wrong with it; found: {:?}", found.histories, found.shortest(|_| true));
    };
    report(what, &found, &format!("; {} break the contract; in the shortest, {flaw}:\n{}", found.flaws.len(), history.words()));
}

async fn database() -> Database {
    let database = Database::create().await;
    database.execute(include_str!("stops.sql")).await;
    database
}

#[tokio::test]
async fn lock_and_look_up_in_one_statement() {
    let database = database().await;
    let claim = shipped::one_statement(&database).await;
    let plan = Plan::of(&[0, 0], &[Lock, Effect, Commit]);
    find_out("WRONG: lock and look-up in one statement", database, &claim, &plan, |flaw| *flaw == Flaw::TwoEffects).await;
}

#[tokio::test]
async fn on_conflict_waits() {
    let database = database().await;
    let claim = shipped::on_conflict(&database).await;
    let plan = Plan::of(&[0, 0], &[LookUp, Effect, Commit]);
    find_out("WRONG: on conflict do nothing", database, &claim, &plan, |flaw| matches!(flaw, Flaw::Waits(_))).await;
}

#[tokio::test]
async fn on_conflict_executes_twice_across_midnight() {
    let database = database().await;
    let claim = shipped::on_conflict(&database).await;
    let plan = Plan { tick: Some(Tick::Midnight), ..Plan::of(&[0, 0], &[LookUp, Effect, Commit]) };
    find_out("WRONG: on conflict do nothing, across midnight", database, &claim, &plan, |flaw| *flaw == Flaw::TwoEffects).await;
}

#[tokio::test]
async fn repeatable_read() {
    let database = database().await;
    let claim = shipped::repeatable_read(&database).await;
    let plan = Plan::of(&[0, 0], &[Lock, LookUp, Commit]);
    find_out("WRONG: repeatable read", database, &claim, &plan, |flaw| *flaw == Flaw::TwoEffects).await;
}

#[tokio::test]
async fn other_writes_at_repeatable_read() {
    let claim = shipped::write_at_repeatable_read();
    let plan = Plan::of(&[0, 0], &[Lock, LookUp, Commit]);
    find_out("WRONG: other writes at repeatable read", database().await, &claim, &plan, |flaw| *flaw == Flaw::TwoEffects).await;
}
