//! `kill -9` of the server at random moments and at full load, while clients retry with their keys.

use std::{sync::atomic::Ordering, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{
    Customer, Database, Receiver, Reply, cluster, new_tenant,
    processes::{self, ServerProcess},
};

use crate::{
    ONE_AT_A_TIME,
    load::{Counts, Load, assert_each_is_delivered, assert_each_is_listed_once},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
const KILLS: u32 = 22;
/// As many as keep the committer busy all the time.
const CLIENTS: u64 = 64;
/// Who is still connected.
const SESSIONS: &str = "select count(*) from pg_stat_activity where application_name like 'posthaste%' and datname = current_database()";
/// As in [`VARIABLES`].
const TIMEOUT: Duration = Duration::from_secs(2);
const PATHS: [&str; 2] = ["/quick", "/slow"];
const VARIABLES: [(&str, &str); 3] =
    [("POSTHASTE_REQUEST_TIMEOUT", "2s"), ("POSTHASTE_RETRY_SCHEDULE", "100ms,200ms,400ms,1s,2s,4s"), ("POSTHASTE_LOG", "warn")];

/// The seed of the random moments: `POSTHASTE_TEST_SEED`, or a new one.
fn seed() -> u64 {
    std::env::var("POSTHASTE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_server_is_killed_again_and_again() {
    let _one = ONE_AT_A_TIME.lock().await;
    let seed = seed();
    eprintln!("crash run: POSTHASTE_TEST_SEED={seed}");
    let mut moments = SmallRng::seed_from_u64(seed);
    let own = cluster::Own::start().await;
    let url = own.database("crash").await;
    let database = Database::existing(&url);
    let receiver = Receiver::start().await;
    receiver.on("/quick", [Reply::status(204)]);
    receiver.on("/slow", [Reply::status(200).after(Duration::from_millis(40))]);
    let (address, tenant) = (processes::free_address(), new_tenant());
    let mut last_start = database.texts("select now()::text").await.remove(0);
    let mut server = ServerProcess::spawn(PROGRAM, "serve", &url, &tenant, address, &VARIABLES);
    server.ready().await;
    let customer = Customer::create(&server.client).await;
    for path in PATHS {
        customer.endpoint(&receiver.url(path)).await;
    }
    let lease = worker::lease(TIMEOUT).as_secs();
    let load = Load::start(&customer, CLIENTS);
    let counts = load.counts.clone();
    let (mut in_flight, mut leased) = (0, 0);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(moments.random_range(150..1200))).await;
        in_flight += receiver.in_flight();
        server.process.kill().await;
        support::eventually("its sessions have ended", async || (database.number(SESSIONS).await == 0).then_some(())).await;
        // Those that this server had leased since it was started; the others count already.
        let since = format!("'{last_start}'::timestamptz + interval '{lease} seconds'");
        leased += database.number(&format!("select count(*) from queue where lease is not null and due_at >= {since}")).await;
        last_start = database.texts("select now()::text").await.remove(0);
        server = ServerProcess::spawn(PROGRAM, "serve", &url, &tenant, address, &VARIABLES);
        server.ready().await;
    }
    let accepted = load.finish().await;
    // Time passes for the leases of the dead: those that were taken before the last start.
    let sql = format!(
        "update queue set due_at = now() where lease is not null and due_at < '{last_start}'::timestamptz + interval '{lease} seconds'"
    );
    database.execute(&sql).await;
    database.nothing_owed().await;
    let extra_copies = assert_each_is_delivered(&receiver, &PATHS, &accepted);
    assert_each_is_listed_once(&customer, &accepted).await;
    let sent = Sent { received: receiver.so_far().len(), extra_copies, in_flight, leased };
    assert_the_kills_hit_work(&counts, &sent, accepted.len(), &database).await;
    assert!(!server.process.log().contains("panicked"), "{}", server.process.log());
}

/// What the server had sent, and what it was sending when it was killed.
struct Sent {
    received: usize,
    /// Of these, copies beyond the first.
    extra_copies: usize,
    /// At the receiver, without an answer.
    in_flight: usize,
    /// Under a lease of the server that was killed.
    leased: i64,
}

async fn assert_the_kills_hit_work(counts: &Counts, sent: &Sent, accepted: usize, database: &Database) {
    let Sent { received, extra_copies, in_flight, leased } = sent;
    let unknown = database.number("select count(*) from attempt where outcome = 2").await;
    let failed = database.number("select count(*) from attempt where outcome = 1").await;
    let given_up = database.number("select count(*) from attempt where outcome = 1 and next_attempt_at is null").await;
    let attempts = database.number("select count(*) from attempt").await;
    let unanswered = counts.unanswered.load(Ordering::Relaxed);
    let replays = counts.replays.load(Ordering::Relaxed);
    let put_off = counts.put_off.load(Ordering::Relaxed);
    eprintln!(
        "crash run: {KILLS} kills, {accepted} messages accepted, {received} webhooks received ({extra_copies} copies beyond the first)\n\
         crash run: requests unanswered at the kill: {unanswered}\n\
         crash run: sends in flight at the kill: {in_flight} at the receiver, {leased} under lease\n\
         crash run: attempts of unknown outcome: {unknown}\n\
         crash run: retries answered by a replay: {replays}\n\
         crash run: requests put off (409, 503): {put_off}; attempts {attempts}"
    );
    assert!(unanswered > 0 && *in_flight > 0 && unknown > 0 && replays > 0, "the kills did not hit work");
    assert_eq!(given_up, 0, "no delivery was given up");
    assert!(unknown >= *leased, "what was under lease at a kill shows as unknown: {unknown} do, {leased} were");
    let repeated = i64::try_from(*extra_copies).expect("a count");
    assert!(repeated <= leased + failed, "only what was in flight is repeated: {repeated} copies, {leased} under lease, {failed} failed");
    let received = i64::try_from(*received).expect("a count");
    assert!(attempts >= received, "a crash never hides an attempt: {received} were received, {attempts} are recorded");
}
