//! Everything at once, under load: replicas die and stand still, lines are cut, Postgres crashes; and every client's word holds.

use std::{
    fmt::Write as _,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{Customer, Receiver, Reply};

use crate::{
    ONE_AT_A_TIME,
    clients::{Clients, Counts, Ledger},
    fleet::{Fleet, PROXIED, REPLICAS},
    say,
    sets::{self, Compared},
};

/// How often each kind of calamity comes in one storm.
const ROUNDS: usize = 3;
/// How many of the other replicas are killed while one stands still.
const KILLS_BESIDE_A_FROZEN_ONE: usize = 4;
/// How long a replica stands still: longer than its server sessions may idle in a transaction.
const FROZEN: Duration = Duration::from_secs(6);
const PATHS: [&str; 2] = ["/quick", "/slow"];
/// What every message's payload carries, so what passes when a batch does.
const A_BATCH: &[u8] = b"\"number\":";
/// What passes when any other write ends.
const A_COMMIT: &[u8] = b"COMMIT";

/// The number in a variable of the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// One storm, or as many as there is time for: `POSTHASTE_TEST_MINUTES`.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_is_lost_and_nothing_is_done_twice_whatever_crashes() {
    let _one = ONE_AT_A_TIME.lock().await;
    let end = Instant::now() + Duration::from_mins(variable("POSTHASTE_TEST_MINUTES").unwrap_or(0));
    let first = variable("POSTHASTE_TEST_SEED").unwrap_or_else(rand::random);
    for seed in (0..).map(|storm| first.wrapping_add(storm)) {
        say(&format!("storm: POSTHASTE_TEST_SEED={seed}\n"));
        storm(seed).await;
        if Instant::now() >= end {
            return;
        }
    }
}

/// What befell the fleet.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Sends that receivers had not answered when a replica was killed.
    in_flight: usize,
    /// Leases that were taken from replicas that stood still, or were dead.
    rescued: i64,
    freezes: usize,
    cuts: usize,
    postgres_crashes: usize,
}

async fn storm(seed: u64) {
    let begun = Instant::now();
    let mut luck = SmallRng::seed_from_u64(seed);
    let mut fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    receiver.on(PATHS[0], [Reply::status(204)]);
    receiver.on(PATHS[1], [Reply::status(200).after(Duration::from_millis(40))]);
    let clients = fleet.clients();
    let customer = Customer::create(&clients[0]).await;
    let urls = PATHS.map(|path| receiver.url(path));
    for url in &urls {
        customer.endpoint(url).await;
    }
    let customers: Vec<_> = clients.iter().map(|client| customer.through(client)).collect();
    let load = Clients::start(&customers, luck.random());
    let mut tally = Tally::default();
    for _ in 0..ROUNDS {
        let frozen = luck.random_range(0..REPLICAS);
        freeze_one_and_kill_the_others(&mut fleet, &receiver, frozen, &mut luck, &mut tally).await;
        for replica in 0..REPLICAS {
            pause(&mut luck, 150..700).await;
            kill(&mut fleet, &receiver, replica, &mut tally).await;
        }
        cut_the_line(&fleet, &mut tally).await;
        pause(&mut luck, 100..500).await;
        fleet.crash_postgres().await;
        tally.postgres_crashes += 1;
        pause(&mut luck, 300..700).await;
    }
    let ledger = load.finish().await;
    let now = fleet.time().await;
    fleet.outlast_sends().await;
    tally.rescued += fleet.let_leases_run_out(&now).await;
    fleet.database.nothing_owed().await;
    let compared = sets::compare(&ledger, &fleet.database, &receiver.so_far(), &urls).await;
    for replica in &fleet.replicas {
        replica.assert_calm();
    }
    report(&tally, &ledger, &compared, begun.elapsed());
}

async fn pause(luck: &mut SmallRng, milliseconds: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(luck.random_range(milliseconds))).await;
}

async fn kill(fleet: &mut Fleet, receiver: &Receiver, replica: usize, tally: &mut Tally) {
    tally.in_flight += receiver.in_flight();
    fleet.replicas[replica].kill().await;
    tally.kills += 1;
    fleet.replicas[replica].restart().await;
}

/// While it stands still, what it was sending is given to the others, and its transactions are ended.
async fn freeze_one_and_kill_the_others(fleet: &mut Fleet, receiver: &Receiver, frozen: usize, luck: &mut SmallRng, tally: &mut Tally) {
    let thaw = tokio::time::Instant::now() + FROZEN;
    let moment = fleet.time().await;
    fleet.replicas[frozen].freeze();
    tally.freezes += 1;
    for _ in 0..KILLS_BESIDE_A_FROZEN_ONE {
        pause(luck, 100..500).await;
        let other = (frozen + luck.random_range(1..REPLICAS)) % REPLICAS;
        kill(fleet, receiver, other, tally).await;
    }
    fleet.outlast_sends().await;
    tally.rescued += fleet.let_leases_run_out(&moment).await;
    tokio::time::sleep_until(thaw).await;
    fleet.replicas[frozen].thaw();
}

/// Between one replica and Postgres: right after a statement was sent, right before its answer is heard, and for a while.
async fn cut_the_line(fleet: &Fleet, tally: &mut Tally) {
    for bytes in [A_BATCH, A_COMMIT] {
        fleet.proxy.cut_once_after(bytes);
        fleet.proxy.lose_answer_once(bytes);
    }
    tally.cuts += 4;
    fleet.proxy.has_sprung(tally.cuts).await;
    fleet.proxy.cut();
    let refused = support::eventually("a replica without a database says so", async || {
        let answer = fleet.replicas[PROXIED].client().get("/api/v1/health").await;
        (answer.status == 503).then_some(())
    });
    refused.await;
    fleet.proxy.mend();
}

/// Says what happened, and fails if the storm did not hit work.
fn report(tally: &Tally, ledger: &Ledger, compared: &Compared, took: Duration) {
    let Counts { unanswered, given_up, hung_up, replays, in_progress, refused } = &ledger.counts;
    let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let figures: [(&str, u64); 18] = [
        ("kills", count(tally.kills)),
        ("requests unanswered at the kill", number(unanswered)),
        ("sends in flight at the kill, at receivers", count(tally.in_flight)),
        ("sends taken over from dead and frozen replicas", tally.rescued.cast_unsigned()),
        ("attempts of unknown outcome", compared.unknown.cast_unsigned()),
        ("retries answered by a replay", number(replays)),
        ("freezes", count(tally.freezes)),
        ("requests that were given up on", number(given_up)),
        ("lines cut", count(tally.cuts)),
        ("crashes of Postgres", count(tally.postgres_crashes)),
        ("clients that hung up", number(hung_up)),
        ("answers \"in progress\" (409)", number(in_progress)),
        ("answers \"not now\" (503)", number(refused)),
        ("messages that clients know", count(compared.told)),
        ("messages that the database holds", count(compared.held)),
        ("duplicates among them", count(compared.duplicates)),
        ("applications made", count(compared.registered)),
        ("webhooks received", count(compared.received)),
    ];
    let mut text = format!("storm: {took:.0?}, {} copies beyond the first, {} attempts failed\n", compared.copies, compared.failed);
    for (name, figure) in figures {
        writeln!(text, "storm: {figure:>7} {name}").expect("text");
    }
    say(&text);
    for (name, figure) in figures {
        assert!(figure > 0, "the storm did not hit work: no {name}");
    }
    assert!(tally.kills >= 20, "{} kills", tally.kills);
    let (rescued, unknown) = (tally.rescued, compared.unknown);
    assert!(unknown >= rescued, "a crash hides no attempt: {rescued} sends were taken over, and {unknown} attempts show it");
}

fn count(of: usize) -> u64 {
    u64::try_from(of).expect("a count")
}
