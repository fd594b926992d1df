//! A provider repeats itself, everywhere at once, while a server dies: one event is delivered.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use serde_json::json;
use support::{App, Options, Receiver, Roles, eventually, processes::ServerProcess};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Project, Source, hex, hmac_sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// How many different events there are.
const EVENTS: usize = 20;
/// How often each is sent.
const REPEATS: usize = 30;

#[tokio::test]
async fn of_concurrent_repeats_at_two_servers_of_which_one_is_killed_one_is_delivered() {
    let app = App::with(Options { roles: Roles::Both, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    project.customer.endpoint(&receiver.url("/")).await;
    let definition = json!({
        "name": "github", "provider": "github", "verifier": { "type": "hmac", "hmac": { "secret": "s" } }, "idempotency_keys": ["request.body.id"],
    });
    let source = project.source(&definition).await;
    let mut doomed = ServerProcess::start(PROGRAM, "api", &app.database.url, &app.tenant, &[]).await;
    let sources = Arc::new([source.clone(), source.through(&doomed.client)]);
    let send = |number: usize| {
        let sources = Arc::clone(&sources);
        async move {
            let event = number % EVENTS;
            let body = format!("{{\"id\": {event}, \"attempt\": {number}}}");
            let signature = format!("sha256={}", hex(&hmac_sha256("s", &[body.as_bytes()])));
            // As a provider does: what is not answered with a 2xx is sent again, here to the server that stays.
            for at in [number % 2, 0, 0, 0] {
                let request = sources[at].request(body.clone()).header("x-hub-signature-256", &signature);
                if let Ok(answer) = request.try_send().await
                    && answer.status == 200
                {
                    return (event, answer.header("posthaste-duplicate") == Some("true"));
                }
            }
            panic!("event {event} was not taken");
        }
    };
    let mut answers = Vec::new();
    let mut sending = stream::iter(0..EVENTS * REPEATS).map(send).buffer_unordered(40);
    while let Some(answer) = sending.next().await {
        answers.push(answer);
        if answers.len() == EVENTS * REPEATS / 3 {
            doomed.process.kill().await;
        }
    }
    app.database.nothing_owed().await;
    let received = receiver.so_far();
    let delivered: HashSet<_> = received.iter().map(|webhook| webhook.json()["id"].as_u64().expect("a number")).collect();
    assert_eq!((received.len(), delivered.len()), (EVENTS, EVENTS), "each once");
    let firsts = app.database.number("select count(*) from message where duplicate_of is null and message_key is not null").await;
    assert_eq!(firsts, i64::try_from(EVENTS).expect("few"));
    // The answer to a first one may have been lost with its server; nobody was told twice that an event is the first.
    let mut told = HashSet::new();
    for (event, is_duplicate) in answers {
        assert!(is_duplicate || told.insert(event), "event {event} was the first twice");
    }
}

/// How often one event is sent, and how many of these requests are on their way at the same time: as many as a process may have open with
/// the usual limit of a thousand files.
const OF_ONE: usize = 10_000;
const ON_THE_WAY: usize = 600;

/// What one provider sends again and again, to the replicas in turn.
struct Flood {
    replicas: Vec<Source>,
    turns: Semaphore,
    body: String,
    signature: String,
    answered: AtomicUsize,
    /// Requests that got no answer.
    broken: AtomicUsize,
}

impl Flood {
    /// Sends it until it is answered with a 200; says whether it was the first.
    async fn send(self: Arc<Self>, number: usize) -> bool {
        let _turn = self.turns.acquire().await.expect("it stays open");
        for attempt in number..number + 50 {
            let source = &self.replicas[attempt % self.replicas.len()];
            // Ten thousand equal answers need not be held against the contract.
            let request = source.request(self.body.clone()).header("x-hub-signature-256", &self.signature).unchecked();
            match request.header("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958").try_send().await {
                Ok(answer) if answer.status == 200 => {
                    self.answered.fetch_add(1, Relaxed);
                    return answer.header("posthaste-duplicate") != Some("true");
                }
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    let wait = answer.header("retry-after").expect("it says when to come back").parse().expect("seconds");
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                }
                Err(_) => drop(self.broken.fetch_add(1, Relaxed)),
            }
        }
        panic!("repeat {number} was not taken");
    }
}

#[tokio::test]
async fn of_ten_thousand_repeats_of_one_event_at_three_replicas_of_which_one_is_killed_one_is_delivered() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let receiver = Receiver::start().await;
    let project = Project::of(&app).await;
    for path in ["/one", "/other"] {
        project.customer.endpoint(&receiver.url(path)).await;
    }
    let verifier = json!({ "type": "hmac", "hmac": { "secret": "s" } });
    let locations = ["request.header.X-GitHub-Delivery"];
    let definition = json!({ "name": "github", "provider": "github", "verifier": verifier, "idempotency_keys": locations });
    let source = project.source(&definition).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(ServerProcess::start(PROGRAM, "serve", &app.database.url, &app.tenant, &[]).await);
    }
    let body = json!({ "action": "opened", "issue": { "number": 1347 } }).to_string();
    let flood = Arc::new(Flood {
        replicas: replicas.iter().map(|replica| source.through(&replica.client)).collect(),
        turns: Semaphore::new(ON_THE_WAY),
        signature: format!("sha256={}", hex(&hmac_sha256("s", &[body.as_bytes()]))),
        body,
        answered: AtomicUsize::new(0),
        broken: AtomicUsize::new(0),
    });
    let mut sending: JoinSet<bool> = (0..OF_ONE).map(|number| Arc::clone(&flood).send(number)).collect();
    eventually("a quarter is answered", async || (flood.answered.load(Relaxed) >= OF_ONE / 4).then_some(())).await;
    // What the one that dies may have been sending itself would be sent again: that is another promise.
    app.database.nothing_owed().await;
    replicas[0].process.kill().await;
    let mut firsts = 0;
    while let Some(is_first) = sending.join_next().await {
        firsts += usize::from(is_first.expect("taken"));
    }
    app.database.nothing_owed().await;
    let broken = flood.broken.load(Relaxed);
    assert!(broken > 0, "nobody was waiting for the one that was killed");
    assert!(firsts <= 1, "{firsts} were told that theirs was the first");
    let stored = app.database.number("select count(*) from message").await;
    let stored = usize::try_from(stored).expect("a count");
    assert!((OF_ONE..=OF_ONE + broken).contains(&stored), "{stored} are stored, {broken} requests were not answered");
    let of_the_first = "select count(*) from message where duplicate_of = (select id from message where duplicate_of is null)";
    assert_eq!(app.database.number(of_the_first).await, i64::try_from(stored - 1).expect("a count"), "all but one repeat that one");
    let mut paths: Vec<_> = receiver.so_far().into_iter().map(|webhook| webhook.path).collect();
    paths.sort();
    assert_eq!(paths, ["/one", "/other"], "each endpoint got it once");
    assert_eq!(app.database.number("select count(*) from attempt").await, 2);
}
