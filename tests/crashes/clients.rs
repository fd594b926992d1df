//! Clients that publish through every replica, each message under a key of its own, and ask until they know what became of it;
//! some hang up, some ask again, some never come back.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use support::{Answer, Customer, client::Request, customer::message};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

/// How many publish messages: as many as keep three committers busy.
const PUBLISHERS: u64 = 48;
/// How many make applications.
const REGISTRARS: u64 = 4;
/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(15);
/// How long most wait for an answer before they hang up and ask elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the others wait: longer than a replica stands still.
const LONG_PATIENCE: Duration = Duration::from_secs(20);
/// Messages whose numbers are in one such range may have one message key.
const GROUP: u64 = 12;

/// The message key that message number `number` carries.
pub(crate) fn message_key(number: u64) -> Option<String> {
    number.is_multiple_of(3).then(|| format!("order-{}", number / GROUP))
}

/// The request that publishes message number `number`: all about it follows from the number.
pub(crate) fn request(customer: &Customer, number: u64) -> Request {
    customer.client.request("POST", &customer.path("/msg")).key(&key(number)).json(&body(number))
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

fn body(number: u64) -> Value {
    let mut body = message(&json!({ "number": number }));
    if let Some(key) = message_key(number) {
        body["idempotency_key"] = key.into();
    }
    if number.is_multiple_of(5) {
        body["eventId"] = format!("event-{number}").into();
    }
    body
}

/// The same request as bytes on the wire.
pub(crate) fn on_the_wire(customer: &Customer, number: u64) -> Vec<u8> {
    let body = body(number).to_string();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nidempotency-key: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        customer.path("/msg"),
        key(number),
        customer.client.token.as_deref().expect("a token"),
        body.len()
    );
    (head + &body).into_bytes()
}

/// Sends so many bytes of a request and hangs up. Whether they went out.
pub(crate) async fn hang_up(customer: &Customer, request: &[u8]) -> bool {
    let address = customer.client.base.trim_start_matches("http://");
    match TcpStream::connect(address).await {
        Ok(mut connection) => connection.write_all(request).await.is_ok(),
        Err(_) => false,
    }
}

/// What the clients met with.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// The connection broke before an answer came.
    pub(crate) unanswered: AtomicU64,
    /// No answer came in time, and the client hung up.
    pub(crate) given_up: AtomicU64,
    /// The client hung up before it had sent all, or right after.
    pub(crate) hung_up: AtomicU64,
    /// A repeat was answered with what an earlier try had done.
    pub(crate) replays: AtomicU64,
    /// "The first is still running" (409).
    pub(crate) in_progress: AtomicU64,
    /// "Not now" (503).
    pub(crate) refused: AtomicU64,
}

/// What a client was told about one thing that it asked for.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Its id.
    pub(crate) id: String,
    /// The message that it is a duplicate of.
    pub(crate) duplicate_of: Option<String>,
    body: Bytes,
    /// How many answers said that it had just been made.
    firsts: u32,
}

/// What was asked for and what was told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The messages whose requests were sent to the last byte, by number.
    pub(crate) asked: Mutex<BTreeSet<u64>>,
    /// What was told of them.
    pub(crate) told: Mutex<BTreeMap<u64, Told>>,
    /// The names of the applications that were asked for, and what was told of them.
    pub(crate) registered: Mutex<BTreeMap<u64, Told>>,
    /// What was told in two ways, or as something new twice.
    pub(crate) contradictions: Mutex<Vec<String>>,
    pub(crate) counts: Counts,
}

impl Ledger {
    fn note(&self, told: &Mutex<BTreeMap<u64, Told>>, number: u64, answer: &Answer) {
        let is_replay = answer.is_replay();
        self.counts.replays.fetch_add(u64::from(is_replay), Ordering::Relaxed);
        let duplicate_of = answer.json()["duplicateOf"].as_str().map(str::to_owned);
        let new = || Told { id: answer.text("id"), duplicate_of, body: answer.body.clone(), firsts: 0 };
        let mut told = told.lock();
        let known = match told.entry(number) {
            Entry::Vacant(place) => place.insert(new()),
            Entry::Occupied(known) => known.into_mut(),
        };
        known.firsts += u32::from(!is_replay);
        if known.body != answer.body || known.firsts > 1 {
            let contradiction = format!("{number}: first {:?}, then {answer:?}", known.body);
            self.contradictions.lock().push(contradiction);
        }
    }
}

/// Running clients.
pub(crate) struct Clients {
    pub(crate) ledger: Arc<Ledger>,
    is_over: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Clients {
    /// Starts them all. `customers` are one application, asked for through each replica.
    pub(crate) fn start(customers: &[Customer], seed: u64) -> Self {
        let mut clients = Self { ledger: Arc::default(), is_over: Arc::default(), running: JoinSet::new() };
        for place in 0..PUBLISHERS + REGISTRARS {
            let patience = if place.is_multiple_of(4) { LONG_PATIENCE } else { PATIENCE };
            let luck = SmallRng::seed_from_u64(seed.wrapping_add(place));
            let one = One { customers: customers.to_vec(), ledger: clients.ledger.clone(), patience, luck };
            let is_over = clients.is_over.clone();
            if place < PUBLISHERS {
                clients.running.spawn(one.publish(place, is_over));
            } else {
                clients.running.spawn(one.register(place - PUBLISHERS, is_over));
            }
        }
        clients
    }

    /// Lets every client learn what became of its last request.
    pub(crate) async fn finish(self) -> Arc<Ledger> {
        self.is_over.store(true, Ordering::Relaxed);
        self.running.join_all().await;
        self.ledger
    }
}

/// One client.
struct One {
    customers: Vec<Customer>,
    ledger: Arc<Ledger>,
    patience: Duration,
    luck: SmallRng,
}

impl One {
    async fn publish(mut self, first: u64, is_over: Arc<AtomicBool>) {
        let mut number = first;
        while !is_over.load(Ordering::Relaxed) {
            match self.luck.random_range(0..16) {
                // Gone for good, somewhere in its request.
                0 => self.hang_up_anywhere(number).await,
                1 | 2 => {
                    self.hang_up_anywhere(number).await;
                    self.learn(number).await;
                }
                3 => {
                    self.learn(number).await;
                    self.learn(number).await;
                }
                _ => self.learn(number).await,
            }
            number += PUBLISHERS;
        }
    }

    async fn register(mut self, first: u64, is_over: Arc<AtomicBool>) {
        let mut number = first;
        while !is_over.load(Ordering::Relaxed) {
            let name = format!("registered-{number}");
            let body = json!({ "name": name, "uid": name });
            let answer = self.insist(201, |customer| customer.client.request("POST", "/api/v1/app").key(&name).json(&body)).await;
            self.ledger.note(&self.ledger.registered, number, &answer);
            number += REGISTRARS;
        }
    }

    /// Half of the time after the last byte.
    async fn hang_up_anywhere(&mut self, number: u64) {
        let customer = self.anywhere();
        let request = on_the_wire(&customer, number);
        let end = if self.luck.random() { request.len() } else { self.luck.random_range(0..request.len()) };
        if end == request.len() {
            self.ledger.asked.lock().insert(number);
        }
        let is_out = hang_up(&customer, &request[..end]).await;
        self.ledger.counts.hung_up.fetch_add(u64::from(is_out), Ordering::Relaxed);
    }

    /// Asks until it is told.
    async fn learn(&mut self, number: u64) {
        self.ledger.asked.lock().insert(number);
        let answer = self.insist(202, |customer| request(customer, number)).await;
        self.ledger.note(&self.ledger.told, number, &answer);
    }

    async fn insist(&mut self, success: u16, request: impl Fn(&Customer) -> Request) -> Answer {
        loop {
            let request = request(&self.anywhere());
            let counts = &self.ledger.counts;
            match tokio::time::timeout(self.patience, request.try_send()).await {
                Ok(Ok(answer)) if answer.status == success => return answer,
                Ok(Ok(answer)) => {
                    assert!(answer.header("retry-after").is_some(), "{answer:?}");
                    let met = match (answer.status, answer.text("code").as_str()) {
                        (409, "idempotency_in_progress") => &counts.in_progress,
                        (503, "unavailable") => &counts.refused,
                        _ => panic!("{answer:?}"),
                    };
                    met.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) if error.is_connect() => {}
                Ok(Err(_)) => {
                    counts.unanswered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    counts.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The application by way of whichever replica.
    fn anywhere(&mut self) -> Customer {
        self.customers[self.luck.random_range(0..self.customers.len())].clone()
    }
}
