//! The shipped claims keep the contract in every history.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::Database;

use crate::{
    explore::{self, Dice, Found},
    history::{Before, Crash, Plan, Retry, Stage, Tick},
    process::Point::{self, Commit, Effect, Lock, LookUp},
    report,
    shipped::{self, Kind},
};

/// The same body twice, and two bodies.
const BODIES: [[u8; 2]; 2] = [[0, 0], [0, 1]];
/// How many histories of three requests happen, for each claim.
const SAMPLES: usize = 250;

/// A stage for a shipped claim.
async fn stage(kind: Kind, processes: usize) -> Stage {
    let database = Database::create().await;
    database.execute(include_str!("stops.sql")).await;
    let claim = match kind {
        Kind::Message => shipped::message(&database).await,
        Kind::Write => shipped::write(),
    };
    Stage::set(database, &claim, processes).await
}

/// Explores all histories of each of these plans, and demands that none breaks the contract.
async fn explore_all(what: &str, kind: Kind, plans: &[Plan]) {
    let mut stage = stage(kind, 2).await;
    let mut found = Found::default();
    for plan in plans {
        found.add(explore::all(&mut stage, plan).await);
    }
    found.demand_none(what);
    report(what, &found, "");
}

/// All orders of all steps, whatever is known of the key before.
fn orders() -> Vec<Plan> {
    let known = [Before::Today, Before::ExpiredToday, Before::Yesterday, Before::ExpiredYesterday];
    let of = |bodies: [u8; 2]| {
        let known = known.map(|before| Plan { before, ..Plan::of(&bodies, &[LookUp, Effect, Commit]) });
        known.into_iter().chain([Plan::of(&bodies, &Point::ALL)])
    };
    BODIES.into_iter().flat_map(of).collect()
}

/// One transaction is ended at each of its steps, or its answer is lost, and it is tried again. With two bodies the steps are
/// fewer: what another body changes is what the look-up says, and nothing else.
fn ended_transactions() -> Vec<Plan> {
    let of = |bodies: [u8; 2], stops: &[Point]| Plan { victims: 1, crash: Crash::Transaction, ..Plan::of(&bodies, stops) };
    vec![of([0, 0], &[LookUp, Effect, Commit]), of([0, 1], &[LookUp, Commit])]
}

/// One session dies at each step that matters to others, and its request is tried again, in both ways.
fn dead_sessions() -> Vec<Plan> {
    let of = |bodies: [u8; 2]| [Retry::Anew, Retry::Rerun].map(|retry| Plan { victims: 1, retry, ..Plan::of(&bodies, &[LookUp, Commit]) });
    BODIES.into_iter().flat_map(of).collect()
}

/// The saved outcome expires, or midnight passes, at each moment.
fn ticks() -> Vec<Plan> {
    let of = |tick| {
        let (one, two) = (Plan::of(&[0, 0], &[Lock, LookUp, Commit]), Plan::of(&[0, 1], &[Lock, Commit]));
        [Plan { tick: Some(tick), ..one }, Plan { tick: Some(tick), ..two }]
    };
    [Tick::Expiry, Tick::Midnight].into_iter().flat_map(of).collect()
}

#[tokio::test]
async fn messages_in_every_order() {
    explore_all("messages, in every order", Kind::Message, &orders()).await;
}

#[tokio::test]
async fn messages_with_a_transaction_that_is_ended_anywhere() {
    explore_all("messages, a transaction ended at each step", Kind::Message, &ended_transactions()).await;
}

#[tokio::test]
async fn messages_with_a_session_that_dies_anywhere() {
    explore_all("messages, a session dead at each step", Kind::Message, &dead_sessions()).await;
}

#[tokio::test]
async fn messages_with_expiry_or_midnight_at_any_moment() {
    explore_all("messages, expiry or midnight at each moment", Kind::Message, &ticks()).await;
}

#[tokio::test]
async fn other_writes_in_every_order_with_all_of_that() {
    // The same statement cannot be run again here: it is not one statement.
    let sessions = BODIES.map(|bodies| Plan { victims: 1, ..Plan::of(&bodies, &[LookUp, Effect, Commit]) });
    let plans = [orders(), ended_transactions(), sessions.to_vec(), ticks()].concat();
    explore_all("other writes, all of that", Kind::Write, &plans).await;
}

#[tokio::test]
async fn three_requests_at_random() {
    let seed = std::env::var("POSTHASTE_TEST_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"));
    for kind in [Kind::Message, Kind::Write] {
        let (mut stage, mut found) = (stage(kind, 3).await, Found::default());
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        for _ in 0..SAMPLES {
            let plan = any_plan(&mut dice.0, kind);
            found.note(stage.run(&plan, &mut dice).await);
        }
        let what = format!("three requests ({kind:?}) at random, POSTHASTE_TEST_SEED={seed}");
        found.demand_none(&what);
        report(&what, &found, "");
    }
}

/// Three requests of which two may crash, in a world of any kind.
fn any_plan(random: &mut StdRng, kind: Kind) -> Plan {
    let bodies: [u8; 3] = std::array::from_fn(|place| u8::from(place > 0 && random.random_bool(0.3)));
    let before = [Before::Nothing, Before::Today, Before::ExpiredToday, Before::Yesterday, Before::ExpiredYesterday];
    Plan {
        victims: random.random_range(0..3),
        crash: if random.random_bool(0.5) { Crash::Session } else { Crash::Transaction },
        retry: if kind == Kind::Message && random.random_bool(0.5) { Retry::Rerun } else { Retry::Anew },
        tick: [None, Some(Tick::Expiry), Some(Tick::Midnight)][random.random_range(0..3)],
        before: if random.random_bool(0.6) { Before::Nothing } else { before[random.random_range(0..before.len())] },
        ..Plan::of(&bodies, &Point::ALL)
    }
}
