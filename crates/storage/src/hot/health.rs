//! Which endpoints are held because they keep failing: what each process saw is summed in memory, and shared once a second.
//!
//! The claim obeys the rows of [`crate::endpoint_health`]; what this process knows of them are its [`crate::gates`].

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    time::{Duration, Instant},
};

use domain::{health::OPENS_AFTER, id::EndpointId};
use parking_lot::Mutex;

use crate::{
    Db, Result,
    connection::Connection,
    directory::{self, Names},
    endpoint_health::{self, Sum},
    endpoints,
    hand_off::{HandOff, Job},
    reference::{Owner, Reference},
    reseal,
};

pub use crate::endpoint_health::{Turn, forget_the_well};

/// How many endpoints one statement records.
const CHUNK: usize = 1_000;
/// After a silence of so long, or now and then in any case, everything is read instead of the news.
const NEWS_ARE_ENOUGH: Duration = Duration::from_secs(5);
/// How often everything is read.
const ALL: Duration = Duration::from_mins(1);

/// How many endpoints that could not be opened are looked at again at one time.
const LOOKS: usize = 50;

/// How the sends of this process went, and what all processes made of theirs.
pub struct Health {
    db: Db,
    hand_off: HandOff,
    sums: Mutex<HashMap<EndpointId, Sum>>,
    /// When news, and when everything, was last read.
    read: Mutex<Option<(Instant, Instant)>>,
    /// The last endpoint that was looked at again.
    looked_at: Mutex<Option<EndpointId>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

/// What a round brought.
#[derive(Debug, Default)]
pub struct News {
    /// What this process's report changed.
    pub turns: Vec<(Owner, EndpointId, Turn)>,
    /// The endpoints that are held from now on, whoever found out: what waits for them in memory is to be handed back.
    pub held: Vec<EndpointId>,
}

impl Health {
    /// Until the first [`Health::exchange`] nothing is handed over, since nothing is known.
    pub fn new(db: &Db, hand_off: &HandOff) -> Self {
        hand_off.gates().hear_nothing_yet();
        Self { db: db.clone(), hand_off: hand_off.clone(), sums: Mutex::default(), read: Mutex::default(), looked_at: Mutex::default() }
    }

    /// What this owner is called.
    pub fn names(&self, owner: Owner) -> Names {
        directory::names(&self.db, owner)
    }

    /// Remembers how a send went. `true`: this was one failure too many, and the endpoint is held from now on.
    pub fn note(&self, job: &Job, is_success: bool) -> bool {
        let (tail, has_success) = if is_success { (0, true) } else { (1, false) };
        let one = Sum { owner: job.owner(), has_success, tail, has_failed_probe: !is_success && job.is_probe() };
        let mut sums = self.sums.lock();
        let sum = sums.entry(job.endpoint_id).and_modify(|sum| *sum = sum.and(one)).or_insert(one);
        let is_too_much = sum.tail >= OPENS_AFTER;
        drop(sums);
        is_too_much && self.hand_off.gates().suspect(job.endpoint_id)
    }

    /// Whether a job must not be sent: its endpoint is held, and it is not the probe.
    pub fn holds(&self, job: &Job) -> bool {
        self.hand_off.gates().is_shut(job.endpoint_id) && !job.is_probe()
    }

    /// This process cannot open the endpoint's secrets or headers: its deliveries stay in the queue, due, for whoever can. `false`
    /// if that was known.
    pub fn cannot_open(&self, endpoint_id: EndpointId) -> bool {
        self.hand_off.gates().cannot_open(endpoint_id)
    }

    /// A send came to nothing by our own fault: the endpoint is left alone for a while, and what it is owed stays in the queue, due.
    pub fn put_off(&self, endpoint_id: EndpointId) {
        self.hand_off.gates().put_off.begin(endpoint_id, Instant::now());
        self.db.metrics().put_off();
    }

    /// When a send to the endpoint last came to nothing by our own fault, if none was answered since.
    pub fn put_off_since(&self, endpoint_id: EndpointId) -> Option<Instant> {
        self.hand_off.gates().put_off.since(endpoint_id)
    }

    /// What looked like our own fault is the endpoint's.
    pub fn is_its_own(&self, endpoint_id: EndpointId) {
        self.hand_off.gates().put_off.note(endpoint_id, Instant::now());
    }

    /// Our way to the endpoint is open.
    pub fn is_within_reach(&self, endpoint_id: EndpointId) {
        self.hand_off.gates().put_off.end(endpoint_id);
    }

    /// Looks at all endpoints; returns those that this process cannot open, as far as that was not known.
    pub async fn look_at_all(&self) -> Result<Vec<(EndpointId, Owner)>> {
        let unreadable = reseal::unreadable(&self.db).await?;
        Ok(unreadable.into_iter().filter(|(endpoint_id, _)| self.cannot_open(*endpoint_id)).collect())
    }

    /// What this owner is called, asked of the database if need be.
    pub async fn find_names(&self, owner: Owner) -> Result<Names> {
        directory::find(&self.db, owner.tenant_id, &Reference::Id(owner.application_id)).await?;
        Ok(self.names(owner))
    }

    /// Looks again at some of the endpoints that could not be opened, at others each time; returns those whose deliveries go on.
    pub async fn look_again(&self) -> Result<Vec<(EndpointId, Option<Owner>)>> {
        let mut unreadable = self.hand_off.gates().unreadable();
        unreadable.sort_unstable();
        let last = *self.looked_at.lock();
        let place = unreadable.partition_point(|id| last.is_some_and(|last| *id <= last));
        unreadable.rotate_left(place);
        unreadable.truncate(LOOKS);
        *self.looked_at.lock() = unreadable.last().copied();
        let readable = directory::look_again(&self.db, &unreadable).await?;
        for (endpoint_id, _) in &readable {
            self.hand_off.gates().can_open(*endpoint_id);
        }
        if !readable.is_empty() {
            self.db.wake();
        }
        Ok(readable)
    }

    /// Tells what this process saw and learns what all saw. What could not be told is told the next time.
    pub async fn exchange(&self) -> Result<News> {
        let mut sums: Vec<_> = mem::take(&mut *self.sums.lock()).into_iter().collect();
        // In the order of ids, so that two processes never wait for each other.
        sums.sort_unstable_by_key(|(id, _)| *id);
        let told: HashSet<_> = sums.iter().map(|(id, _)| *id).collect();
        let mut news = News::default();
        let mut connection = match self.db.pool().acquire().await {
            Ok(connection) => connection,
            Err(error) => {
                self.take_back(&sums);
                return Err(error.into());
            }
        };
        for (place, chunk) in sums.chunks(CHUNK).enumerate() {
            match endpoint_health::record(&mut connection, chunk).await {
                Ok(turns) => news.turns.extend(turns),
                Err(error) => {
                    self.take_back(&sums[place * CHUNK..]);
                    return Err(error);
                }
            }
        }
        news.held = self.read_news(&mut connection, &told).await?;
        drop(connection);
        let mut turns = Vec::with_capacity(news.turns.len());
        for (owner, endpoint_id, turn) in news.turns {
            if turn == Turn::Disabled
                && let Err(error) = endpoints::disable(&self.db, endpoint_id).await
            {
                let names = directory::names(&self.db, owner);
                tracing::error!(error = &error as &dyn std::error::Error, tenant = names.tenant(), application_id = %owner.application_id,
                    application_uid = names.application_uid(), %endpoint_id, "cannot disable an endpoint that has been failing for days; its next failure tries again");
                continue;
            }
            turns.push((owner, endpoint_id, turn));
        }
        Ok(News { turns, ..news })
    }

    fn take_back(&self, untold: &[(EndpointId, Sum)]) {
        let mut sums = self.sums.lock();
        for (id, earlier) in untold {
            sums.entry(*id).and_modify(|later| *later = earlier.and(*later)).or_insert(*earlier);
        }
    }

    async fn read_news(&self, connection: &mut Connection, told: &HashSet<EndpointId>) -> Result<Vec<EndpointId>> {
        let now = Instant::now();
        let read = *self.read.lock();
        let all_read = read.filter(|(news, all)| now - *news < NEWS_ARE_ENOUGH && now - *all < ALL).map(|(_, all)| all);
        let is_all = all_read.is_none();
        let rows = endpoint_health::news(connection, is_all).await?;
        *self.read.lock() = Some((now, all_read.unwrap_or(now)));
        Ok(self.hand_off.gates().learn(&rows, is_all, told))
    }
}
