//! Clients hang up at every byte of their requests, and ask later what became of them.

use serde_json::json;
use support::{Customer, Database, Receiver, new_tenant};

use crate::{
    ONE_AT_A_TIME,
    clients::{hang_up, on_the_wire, request},
    fleet::Replica,
    say,
};

/// How many hang up after the last byte.
const TO_THE_END: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_at_any_byte_finds_its_message_once() {
    let _one = ONE_AT_A_TIME.lock().await;
    let database = Database::create().await;
    let replica = Replica::start(&database.url, &new_tenant()).await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(replica.client()).await;
    customer.endpoint(&receiver.url("/")).await;
    // Numbers that carry neither a message key nor an event id.
    let mut numbers = (0_u64..).filter(|number| number % 3 != 0 && number % 5 != 0);
    let mut cut_short = Vec::new();
    let length = on_the_wire(&customer, 1).len();
    for (end, number) in (0..length).zip(&mut numbers) {
        let bytes = on_the_wire(&customer, number);
        assert!(hang_up(&customer, &bytes[..end.min(bytes.len() - 1)]).await);
        cut_short.push(number);
    }
    let whole: Vec<_> = (0..TO_THE_END).zip(&mut numbers).map(|(_, number)| number).collect();
    for number in &whole {
        assert!(hang_up(&customer, &on_the_wire(&customer, *number)).await);
    }
    let mut replays = 0;
    for number in cut_short.iter().chain(&whole) {
        let answer = support::eventually("the client is told", async || {
            let answer = request(&customer, *number).send().await;
            (answer.status != 409).then_some(answer)
        });
        let answer = answer.await.expect(202);
        assert!(whole.contains(number) || !answer.is_replay(), "{number} was executed before it was asked for to the last byte");
        replays += u64::from(answer.is_replay());
    }
    // A request whose client is gone before it is looked at may be left undone; one that has begun is never left half-way.
    say(&format!("hang-ups: of {TO_THE_END} whole requests {replays} had taken effect\n"));
    assert!(replays > 0, "the hang-ups did not hit work");
    database.nothing_owed().await;
    let mut expected: Vec<_> = cut_short.iter().chain(&whole).map(|number| json!(number)).collect();
    let mut delivered: Vec<_> = receiver.so_far().iter().map(|webhook| webhook.json()["number"].clone()).collect();
    expected.sort_unstable_by_key(serde_json::Value::as_u64);
    delivered.sort_unstable_by_key(serde_json::Value::as_u64);
    assert_eq!(delivered, expected, "each was delivered once");
    assert_eq!(customer.messages().await.len(), expected.len());
    replica.assert_calm();
}
