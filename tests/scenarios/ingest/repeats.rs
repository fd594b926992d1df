//! A provider repeats itself, everywhere at once, while a server dies: one event is delivered.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt, stream};
use serde_json::json;
use support::{App, Options, Receiver, Roles, processes::ServerProcess};

use super::{Project, hex, hmac_sha256};

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
