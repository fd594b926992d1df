//! Clients that publish, each message under a key of its own, and repeat a request until they know what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use support::{Customer, Receiver, client::Request, customer::message};
use tokio::task::JoinSet;

/// How long a client waits before it repeats a request.
const PAUSE: Duration = Duration::from_millis(15);

/// What the clients met with.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// The connection broke before an answer came.
    pub(crate) unanswered: AtomicU64,
    /// A repeat was answered with what the first try had done.
    pub(crate) replays: AtomicU64,
    /// "Not now" (503), or "the first is still running" (409).
    pub(crate) put_off: AtomicU64,
}

/// Running clients.
pub(crate) struct Load {
    pub(crate) counts: Arc<Counts>,
    is_over: Arc<AtomicBool>,
    clients: JoinSet<BTreeMap<u64, String>>,
}

/// The request that publishes message number `number`.
pub(crate) fn request(customer: &Customer, number: u64) -> Request {
    let body = message(&json!({ "number": number }));
    customer.client.request("POST", &customer.path("/msg")).key(&format!("key-{number}")).json(&body)
}

impl Load {
    /// Starts so many clients.
    pub(crate) fn start(customer: &Customer, clients: u64) -> Self {
        let mut load = Self { counts: Arc::default(), is_over: Arc::default(), clients: JoinSet::new() };
        for client in 0..clients {
            let (customer, counts, is_over) = (customer.clone(), load.counts.clone(), load.is_over.clone());
            load.clients.spawn(async move {
                let mut accepted = BTreeMap::new();
                let mut number = client;
                while !is_over.load(Ordering::Relaxed) {
                    accepted.insert(number, publish(&customer, number, &counts).await);
                    number += clients;
                }
                accepted
            });
        }
        load
    }

    /// Lets every client finish its last message; returns the id of each message by its number.
    pub(crate) async fn finish(self) -> BTreeMap<u64, String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

/// Repeats until the message is accepted; returns its id.
pub(crate) async fn publish(customer: &Customer, number: u64, counts: &Counts) -> String {
    loop {
        match request(customer, number).try_send().await {
            Ok(answer) if answer.status == 202 => {
                counts.replays.fetch_add(u64::from(answer.is_replay()), Ordering::Relaxed);
                return answer.text("id");
            }
            Ok(answer) => {
                assert!(matches!(answer.status, 409 | 503), "{answer:?}");
                counts.put_off.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.is_connect() => {}
            Err(_) => {
                counts.unanswered.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every accepted message is in the list exactly once, and nothing else is.
pub(crate) async fn assert_each_is_listed_once(customer: &Customer, accepted: &BTreeMap<u64, String>) {
    let listed: Vec<_> = customer.messages().await.into_iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect();
    let distinct: BTreeSet<_> = listed.iter().collect();
    assert_eq!(distinct.len(), listed.len(), "no id is listed twice");
    let missing = accepted.values().filter(|id| !distinct.contains(id)).count();
    assert_eq!(missing, 0, "acknowledged messages that are not in the list");
    assert_eq!(listed.len(), accepted.len(), "messages in the list, and keys that were used");
}

/// Every message reached every endpoint at least once, under one id. Returns how many copies there were beyond the first.
pub(crate) fn assert_each_is_delivered(receiver: &Receiver, paths: &[&str], accepted: &BTreeMap<u64, String>) -> usize {
    let received = receiver.so_far();
    for path in paths {
        let mut ids: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        for webhook in received.iter().filter(|webhook| webhook.path == *path) {
            ids.entry(webhook.json()["number"].as_u64().expect("a number")).or_default().insert(webhook.id());
        }
        for (number, id) in accepted {
            let seen = ids.get(number).unwrap_or_else(|| panic!("message {number} ({id}) never reached {path}"));
            assert!(seen.len() == 1 && seen.contains(id.as_str()), "message {number} is {id}, but {path} saw {seen:?}");
        }
        assert_eq!(ids.len(), accepted.len(), "nothing was delivered that was not accepted");
    }
    received.len() - paths.len() * accepted.len()
}
