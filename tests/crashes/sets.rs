//! Holds against each other what was asked for, what clients were told, what the database holds and what receivers got.

use std::collections::{BTreeMap, BTreeSet};

use domain::id::{Id, MessageId};
use serde_json::Value;
use support::{Database, Received};
use uuid::Uuid;

use crate::clients::{Ledger, message_key};

/// A message as the database holds it.
struct Held {
    id: String,
    duplicate_of: Option<String>,
    is_mismatch: bool,
    message_key: Option<String>,
}

/// What became of one message at one endpoint.
struct Delivery {
    succeeded: u64,
    attempts: u64,
}

/// Everything that the database holds.
struct Holdings {
    /// By number.
    messages: BTreeMap<u64, Held>,
    /// How many saved outcomes point at each message.
    records: BTreeMap<String, u64>,
    /// How many saved outcomes are answers to other requests.
    answers: u64,
    /// By message and URL.
    deliveries: BTreeMap<(String, String), Delivery>,
    /// The applications that clients made, by name.
    registered: BTreeMap<String, u64>,
}

/// How much was compared.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) told: usize,
    pub(crate) held: usize,
    pub(crate) duplicates: usize,
    pub(crate) registered: usize,
    pub(crate) received: usize,
    /// Of these, beyond the first of each message at each endpoint.
    pub(crate) copies: usize,
    pub(crate) unknown: i64,
    pub(crate) failed: i64,
}

/// Fails unless the sets agree.
pub(crate) async fn compare(ledger: &Ledger, database: &Database, received: &[Received], urls: &[String]) -> Compared {
    assert_eq!(*ledger.contradictions.lock(), [""; 0], "every answer about one thing is the same, byte for byte, and one is the first");
    let holdings = Holdings::of(database).await;
    assert_the_told_is_held(ledger, &holdings);
    assert_the_held_was_asked_for_once(ledger, &holdings);
    let duplicates = assert_one_of_each_message_key_is_not_a_duplicate(&holdings);
    let copies = assert_the_delivered_is_what_is_held(&holdings, received, urls);
    let told = ledger.told.lock().len();
    let count = async |outcome: i16| database.number(&format!("select count(*) from attempt where outcome = {outcome}")).await;
    Compared {
        told,
        held: holdings.messages.len(),
        duplicates,
        registered: holdings.registered.len(),
        received: received.len(),
        copies,
        unknown: count(2).await,
        failed: count(1).await,
    }
}

fn assert_the_told_is_held(ledger: &Ledger, holdings: &Holdings) {
    for (number, told) in &*ledger.told.lock() {
        let held = holdings.messages.get(number).unwrap_or_else(|| panic!("message {number} was accepted as {} and is lost", told.id));
        assert_eq!((&told.id, &told.duplicate_of), (&held.id, &held.duplicate_of), "message {number}");
    }
    let registered = ledger.registered.lock();
    for number in registered.keys() {
        let made = holdings.registered.get(&format!("registered-{number}"));
        assert_eq!(made, Some(&1), "application {number} was made once");
    }
    assert_eq!(holdings.registered.len(), registered.len(), "every application that was made was asked for until it was told");
    let answers = u64::try_from(registered.len()).expect("a count");
    assert_eq!(holdings.answers, answers, "each application's answer is saved once");
}

fn assert_the_held_was_asked_for_once(ledger: &Ledger, holdings: &Holdings) {
    let asked = ledger.asked.lock();
    for (number, held) in &holdings.messages {
        assert!(asked.contains(number), "message {number} was never asked for to the last byte, and is held as {}", held.id);
        assert_eq!(held.message_key, message_key(*number), "message {number}");
        assert_eq!(holdings.records.get(&held.id), Some(&1), "message {number} has one saved outcome");
    }
    assert_eq!(holdings.records.len(), holdings.messages.len(), "every saved outcome is of a message that is held");
}

/// Returns how many are.
fn assert_one_of_each_message_key_is_not_a_duplicate(holdings: &Holdings) -> usize {
    let mut groups: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for held in holdings.messages.values() {
        match held.message_key.as_deref() {
            Some(key) => groups.entry(key).or_default().push(held),
            None => assert_eq!(held.duplicate_of, None, "{} has no key to be a duplicate by", held.id),
        }
    }
    let mut duplicates = 0;
    for (key, group) in groups {
        let firsts: Vec<_> = group.iter().filter(|held| held.duplicate_of.is_none()).collect();
        assert_eq!(firsts.len(), 1, "of {} messages with the key {key} one is not a duplicate", group.len());
        for twin in group.iter().filter(|held| held.duplicate_of.is_some()) {
            assert_eq!(twin.duplicate_of.as_deref(), Some(firsts[0].id.as_str()), "{key}");
            assert!(twin.is_mismatch, "{} has another payload than its original", twin.id);
            duplicates += 1;
        }
    }
    duplicates
}

/// Returns how many copies there were beyond the first of each message at each endpoint.
fn assert_the_delivered_is_what_is_held(holdings: &Holdings, received: &[Received], urls: &[String]) -> usize {
    let numbers: BTreeMap<&str, u64> = holdings.messages.iter().map(|(number, held)| (held.id.as_str(), *number)).collect();
    let mut got: BTreeMap<(String, String), u64> = BTreeMap::new();
    for webhook in received {
        let number = *numbers.get(webhook.id()).unwrap_or_else(|| panic!("{} was delivered and is not held", webhook.id()));
        let held = &holdings.messages[&number];
        assert_eq!(held.duplicate_of, None, "a duplicate was delivered: {}", held.id);
        assert_eq!(webhook.json()["number"], number, "{}", held.id);
        assert_eq!(webhook.header("x-convoy-idempotency-key"), held.message_key.as_deref().unwrap_or(&held.id));
        let url = urls.iter().find(|url| url.ends_with(&webhook.path)).expect("one of the endpoints");
        *got.entry((held.id.clone(), url.clone())).or_default() += 1;
    }
    let mut copies = 0;
    let owed: BTreeSet<_> = holdings
        .messages
        .values()
        .filter(|held| held.duplicate_of.is_none())
        .flat_map(|held| urls.iter().map(|url| (held.id.clone(), url.clone())))
        .collect();
    for delivery in &owed {
        let times = got.get(delivery).copied().unwrap_or(0);
        assert!(times >= 1, "{delivery:?} was never delivered");
        let Delivery { succeeded, attempts } = holdings.deliveries[delivery];
        assert_eq!(succeeded, 1, "{delivery:?} has succeeded once");
        assert!(attempts >= times, "{delivery:?} came {times} times, and {attempts} attempts are recorded");
        copies += usize::try_from(times - 1).expect("a count");
    }
    assert!(holdings.deliveries.keys().all(|delivery| owed.contains(delivery)), "nothing was attempted that is not owed");
    copies
}

impl Holdings {
    async fn of(database: &Database) -> Self {
        let rows = async |fields: &str, from: &str| -> Vec<Value> {
            let lines = database.texts(&format!("select json_build_object({fields})::text from {from}")).await;
            lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let fields = "'id', id, 'number', convert_from(payload, 'utf8')::json->'number', 'original', duplicate_of,
            'mismatch', payload_mismatch, 'key', message_key";
        let mut messages = BTreeMap::new();
        for row in rows(fields, "message").await {
            let held = Held {
                id: message_id(&row["id"]).expect("an id"),
                duplicate_of: message_id(&row["original"]),
                is_mismatch: row["mismatch"] == true,
                message_key: row["key"].as_str().map(str::to_owned),
            };
            let number = row["number"].as_u64().expect("a number");
            assert!(messages.insert(number, held).is_none(), "message {number} is held twice");
        }
        let of_messages = rows("'id', ref, 'count', count(*)", "idempotency where ref is not null and status = 202 group by ref").await;
        let records = of_messages.iter().map(|row| (message_id(&row["id"]).expect("an id"), count(row, "count"))).collect();
        let answers = u64::try_from(database.number("select count(*) from idempotency where ref is null").await).expect("a count");
        assert_eq!(database.number("select count(*) from idempotency where ref is not null and status <> 202").await, 0);
        let fields = "'id', message_id, 'url', e.url, 'succeeded', count(*) filter (where outcome = 0), 'attempts', count(*)";
        let tried = rows(fields, "attempt a join endpoint e on e.id = a.endpoint_id group by message_id, e.url").await;
        let delivery = |row: &Value| {
            let key = (message_id(&row["id"]).expect("an id"), row["url"].as_str().expect("a URL").to_owned());
            (key, Delivery { succeeded: count(row, "succeeded"), attempts: count(row, "attempts") })
        };
        let deliveries = tried.iter().map(delivery).collect();
        let made = rows("'name', name, 'count', count(*)", "application where name like 'registered-%' group by name").await;
        let registered = made.iter().map(|row| (row["name"].as_str().expect("a name").to_owned(), count(row, "count"))).collect();
        Self { messages, records, answers, deliveries, registered }
    }
}

fn count(row: &Value, name: &str) -> u64 {
    row[name].as_u64().expect("a count")
}

/// The public form of an id, if there is one.
fn message_id(value: &Value) -> Option<String> {
    value.as_str().map(|text| MessageId::from(text.parse::<Uuid>().expect("a UUID")).public())
}
