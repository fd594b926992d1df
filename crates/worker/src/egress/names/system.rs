//! What the system finds by other ways than DNS: its own resolver is asked, on a thread, since it blocks.

use std::{
    collections::HashMap,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::spawn_blocking};

/// How many threads may wait for it; further names queue, for as long as the deadlines of those who ask let them.
const THREADS: usize = 32;
/// How long its answers are good: it does not say.
const LIFE: Duration = Duration::from_secs(5);
/// How many of them are remembered.
const MAX_ANSWERS: usize = 4096;

/// A look-up and, once it is over, its answer and when it came. Equal ones that wait at once are one.
type LookUp = Shared<BoxFuture<'static, (Vec<IpAddr>, Instant)>>;

/// The resolver of the C library, which follows `nsswitch.conf`.
#[derive(Debug)]
pub(super) struct SystemResolver {
    threads: Arc<Semaphore>,
    look_ups: Mutex<HashMap<String, LookUp>>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS)), look_ups: Mutex::default() }
    }
}

impl SystemResolver {
    /// Every address of `host`; none, if there are none.
    pub(super) async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        loop {
            let (found, at) = self.look_up(host).await;
            // Nobody may have been left to hear an answer, which is old by now.
            if at.elapsed() < LIFE {
                return found;
            }
        }
    }

    /// The one that is under way or was a moment ago, or a new one.
    fn look_up(&self, host: &str) -> LookUp {
        let mut look_ups = self.look_ups.lock();
        if let Some(known) = look_ups.get(host).filter(|known| known.peek().is_none_or(|(_, at)| at.elapsed() < LIFE)) {
            return known.clone();
        }
        if look_ups.len() >= MAX_ANSWERS {
            look_ups.clear();
        }
        let begun = ask(Arc::clone(&self.threads), host.to_owned());
        look_ups.insert(host.to_owned(), begun.clone());
        begun
    }
}

/// Goes on although those who asked have given up: a thread cannot be called back, and its answer is good for the next one.
fn ask(threads: Arc<Semaphore>, host: String) -> LookUp {
    let asking = tokio::spawn(async move {
        let thread = threads.acquire_owned().await;
        let found = spawn_blocking(move || {
            let _thread = thread;
            (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
        });
        (found.await.unwrap_or_default(), Instant::now())
    });
    async { asking.await.unwrap_or_else(|_| (vec![], Instant::now())) }.boxed().shared()
}
