//! The publisher's side: requests at a fixed concurrency or a fixed rate, from a thread of its own.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, oneshot},
    task::JoinSet,
};

use crate::{
    scenario::Keys,
    tally::Tally,
    template::{Load, Template},
    wire::Connection,
};

/// How long an answer may take before the request counts as refused.
const PATIENCE: Duration = Duration::from_secs(30);
/// How late a request at a fixed rate may be without counting as late: our timers tick each millisecond.
const TICK: Duration = Duration::from_millis(2);

/// Starts to send until the tally says that it is over or is full; the receiver gets the time of the last answer.
pub(crate) fn start(load: Load, tally: Arc<Tally>) -> io::Result<oneshot::Receiver<io::Result<Instant>>> {
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        let _ = ended.send(runtime.block_on(run(load, tally)).map(|()| Instant::now()));
    };
    thread::Builder::new().name("load".to_owned()).spawn(work)?;
    Ok(end)
}

async fn run(load: Load, tally: Arc<Tally>) -> io::Result<()> {
    let (load, pace) = (Arc::new(load), Arc::new(Mutex::new(Pace { begun: Instant::now(), turns: 0 })));
    if load.keys == Keys::One {
        // The first use of the key must be over before there can be a replay.
        let mut first = Publisher::new(&load, &tally, 0);
        first.post(0, 0, false, Instant::now()).await;
    }
    let mut publishers = JoinSet::new();
    for worker in 0..load.concurrency {
        let (mut publisher, pace) = (Publisher::new(&load, &tally, worker), Arc::clone(&pace));
        publishers.spawn(async move { publisher.run(&pace).await });
    }
    while publishers.join_next().await.is_some() {}
    if tally.accepted.load(Relaxed) == 0 {
        return Err(io::Error::other("not one message was accepted"));
    }
    Ok(())
}

/// Gives out turns at a fixed rate, to one connection after the other.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    turns: u64,
}

impl Pace {
    /// Waits for the next turn. Returns when the request counts as sent: now; but when it ought to have been, if no connection
    /// was free by then.
    async fn turn(&mut self, rate: u64) -> Instant {
        let due = self.begun + Duration::from_micros(self.turns * 1_000_000 / rate.max(1));
        self.turns += 1;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        if now > due + TICK { due } else { now }
    }
}

/// One connection's worth of load.
struct Publisher {
    load: Arc<Load>,
    tally: Arc<Tally>,
    server: SocketAddr,
    connection: Option<Connection>,
    template: Template,
}

impl Publisher {
    fn new(load: &Arc<Load>, tally: &Arc<Tally>, worker: usize) -> Self {
        let server = load.servers[worker % load.servers.len()];
        Self { load: Arc::clone(load), tally: Arc::clone(tally), server, connection: None, template: Template::new(load, server) }
    }

    async fn run(&mut self, pace: &Mutex<Pace>) {
        loop {
            let sent_at = match self.load.rate {
                None => Instant::now(),
                Some(rate) => {
                    let mut pace = pace.lock().await;
                    // Those who waited for their turn in vain do not wait for its time as well.
                    if self.tally.is_over.load(Relaxed) {
                        return;
                    }
                    pace.turn(rate).await
                }
            };
            if self.tally.is_over.load(Relaxed) {
                return;
            }
            let turn = self.tally.next.fetch_add(1, Relaxed);
            if turn >= self.tally.capacity() {
                return;
            }
            let is_measured = self.tally.is_measured(turn);
            let number = if self.load.keys == Keys::One { 0 } else { turn };
            self.post(number, 0, is_measured, sent_at).await;
            if self.load.keys == Keys::Twice {
                // The same request again, and then the same message under another key.
                self.post(number, 0, is_measured, Instant::now()).await;
                self.post(number, 1, is_measured, Instant::now()).await;
            }
        }
    }

    async fn post(&mut self, number: u64, post: u8, is_measured: bool, sent_at: Instant) {
        self.template.fill(number, post, self.load.has_both && number % 2 == 1);
        self.tally.sending(number, sent_at);
        let answer = tokio::time::timeout(PATIENCE, self.exchange()).await;
        let is_accepted = matches!(answer, Ok(Ok(200..=299)));
        if !matches!(answer, Ok(Ok(_))) {
            self.connection = None;
        }
        self.tally.answered(number, is_accepted, is_measured, sent_at);
    }

    async fn exchange(&mut self) -> io::Result<u16> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(Connection::open(self.server).await?),
        };
        Ok(connection.call(&self.template.bytes).await?.0)
    }
}
