//! A thousand repeats at once: one is executed, and the database hears of one request per node.

use std::collections::HashSet;

use futures::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use support::{App, Client, Node, Options, Receiver, Roles, customer::message, eventually, token};

use super::publishing;

/// How many send the same request at once, half of them to each node.
const REPEATS: usize = 1000;
/// Makes every session that begins from now on count the calls of functions.
const COUNT_CALLS: &str = "do $$ begin execute format('alter database %I set track_functions = ''all''', current_database()); end $$";
/// How often the committers' statement was called; a session reports its calls when it ends, at the latest.
const CALLS: &str = "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname like 'step\\_v%'";

/// A connection has two ends in this process: some machines allow fewer files unless they are asked.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit is allowed");
}

/// The answer of whoever comes back as often as it is told to: on a slow machine, those who have waited a tenth of a second for the
/// first one's answer are, and those for whom no connection was free in three.
async fn told_in_the_end(ask: impl AsyncFn() -> support::Answer) -> support::Answer {
    loop {
        let answer = ask().await;
        if !matches!(answer.status, 409 | 503) {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_thousand_repeats_at_once_make_one_message_and_one_database_call_per_node() {
    allow_many_files();
    let app = App::start().await;
    app.database.execute(COUNT_CALLS).await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let options = Options { roles: Roles::Api, ..Options::default() };
    let nodes = [app.node_with(&options).await, app.node_with(&options).await];
    customer.endpoint(&receiver.url("/")).await;

    // Both writers are busy with another message, so all repeats meet before any of them has reached the database.
    let hold = app.database.hold_inserts("message").await;
    let busy: Vec<_> = nodes
        .iter()
        .map(|node| {
            publishing(&customer, &node.client, &json!({ "eventType": "busy", "payload": {}, "channels": ["x"] }), &node.client.base)
        })
        .collect();
    hold.holds(2).await;
    let body = message(&json!({ "n": 1 }));
    let mut storm: Vec<_> = (0..REPEATS).map(|number| publishing(&customer, &nodes[number % 2].client, &body, "storm")).collect();
    // All but the first of each node are told to come back while those wait, without a word to the database.
    let told = async || (storm.iter().filter(|repeat| repeat.is_finished()).count() >= REPEATS - nodes.len()).then_some(());
    eventually("the repeats have been told", told).await;
    hold.release().await;
    let answers = join_all(storm.drain(..)).await.into_iter().map(|answer| answer.expect("no panic"));
    let (accepted, told): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.status == 202);
    assert!(accepted.len() <= nodes.len(), "{} were accepted", accepted.len());
    for answer in &told {
        // On a slow machine a first one that has waited for five seconds is told so.
        assert!(matches!(answer.status, 409 | 503) && answer.header("retry-after") == Some("1"), "{answer:?}");
    }
    assert!(told.iter().filter(|answer| answer.status == 503).count() <= nodes.len());
    for answer in busy {
        answer.await.expect("no panic");
    }
    join_all(nodes.map(Node::stop)).await;
    let calls = async || (app.database.number(CALLS).await >= 4).then_some(());
    eventually("the sessions have reported", calls).await;
    assert_eq!(app.database.number(CALLS).await, 4, "for each node one with the other message, and one with the key");

    let fresh = Node::start(&app.database.url, &options, &token(&app.tenant)).await;
    let again = async |client: &Client| told_in_the_end(async || customer.through(client).publish_raw(&body, Some("storm")).await).await;
    let answers = join_all((0..REPEATS).map(|number| again(if number % 2 == 0 { &app.client } else { &fresh.client }))).await;
    let bodies: HashSet<_> = answers.iter().chain(&accepted).map(|answer| (answer.status, answer.body.clone())).collect();
    assert_eq!(bodies.len(), 1, "all who come back hear the same: {bodies:?}");
    assert!(answers.iter().all(support::Answer::is_replay));
    assert!(accepted.iter().filter(|answer| !answer.is_replay()).count() <= 1, "one was executed");
    app.database.nothing_owed().await;
    let delivered = receiver.so_far().iter().filter(|webhook| webhook.id() == answers[0].text("id")).count();
    assert_eq!((delivered, customer.messages().await.len()), (1, 3));
}

#[tokio::test]
async fn a_storm_of_any_other_write_is_executed_once_and_asks_the_database_for_nothing_more() {
    let app = App::start().await;
    let create = || app.client.request("POST", "/api/v1/app").key("storm").json(&json!({ "name": "x" }));
    let hold = app.database.hold_inserts("application").await;
    let first = tokio::spawn(create().send());
    hold.holds(1).await;
    // Whoever asks for the policy or tries the lock waits from now on, and would be told 503 in the end.
    let mut somebody = PgConnection::connect(&app.database.url).await.expect("a side connection");
    let closed = "begin; lock table idempotency_policy in access exclusive mode";
    sqlx::raw_sql(closed).execute(&mut somebody).await.expect("the table is closed");
    let told = join_all((0..200).map(|_| create().send())).await;
    assert!(told.iter().all(|answer| answer.status == 409 && answer.text("code") == "idempotency_in_progress"));
    somebody.close().await.expect("closed");
    hold.release().await;
    let first = first.await.expect("no panic").expect(201);
    let answers = join_all((0..200).map(|_| told_in_the_end(async || create().send().await))).await;
    assert!(answers.iter().all(|answer| answer.is_replay() && answer.body == first.body));
    assert_eq!(app.database.number("select count(*) from application").await, 1);
}

#[tokio::test]
async fn repeats_on_two_nodes_are_not_in_each_others_way() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let body = message(&json!({ "n": 1 }));
    customer.publish_raw(&body, Some("key")).await.expect(202);
    let create = |client: &Client| client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send();
    create(&app.client).await.expect(201);
    for _ in 0..50 {
        let (here, there) = (&app.client, &other_node.client);
        let published = join_all([here, there].map(|client| publishing(&customer, client, &body, "key"))).await;
        assert!(published.into_iter().all(|answer| answer.expect("no panic").expect(202).is_replay()));
        let (one, two) = tokio::join!(create(here), create(there));
        assert!(one.expect(201).is_replay() && two.expect(201).is_replay());
    }
}
