//! Which endpoints are held because they keep failing: what each process saw is summed in memory, and shared once a second.
//!
//! The state is a row of `endpoint_health`, moved on by `record_health_v1` alone; the claim obeys the row. [`Gates`] are what
//! this process knows of the rows: fresh deliveries of a gated endpoint are not handed over in memory.

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use domain::{
    health::{CLOSES_AT, DISABLES_AFTER, FIRST_COOL_DOWN, FIRST_SLOTS, FORGETS_AFTER, LONGEST_COOL_DOWN, OPENS_AFTER},
    id::EndpointId,
};
use parking_lot::{Mutex, RwLock};
use sqlx::types::Uuid;

use crate::{
    Db, Result,
    connection::Connection,
    directory::{self, Names, Owner},
    endpoints,
    hand_off::{HandOff, Job},
    put_off::PutOff,
    reseal,
};

/// How many endpoints one statement records.
const CHUNK: usize = 1_000;
/// News are read this far back, in seconds: longer than a round takes to commit what it changed.
const NEWS: f64 = 10.0;
/// After a silence of so long, or now and then in any case, everything is read instead of the news.
const NEWS_ARE_ENOUGH: Duration = Duration::from_secs(5);
/// How often everything is read.
const ALL: Duration = Duration::from_mins(1);

/// How many endpoints that could not be opened are looked at again at one time.
const LOOKS: usize = 50;

/// What this process knows of an endpoint that is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// This process has seen enough to hold it, and has not told anybody yet.
    Suspected,
    /// Held.
    Open,
    /// Sent to in small numbers, by the claim alone.
    Recovering,
}

impl Gate {
    fn is_shut(self) -> bool {
        self != Self::Recovering
    }
}

/// The endpoints that this process does not send to without asking the database.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    known: RwLock<HashMap<EndpointId, Gate>>,
    /// Endpoints whose secrets or headers this process cannot open: others may be able to.
    unreadable: RwLock<HashSet<EndpointId>>,
    /// Endpoints to which our own way is barred for the moment.
    pub(crate) put_off: PutOff,
    /// A worker has begun, and has not heard yet how endpoints are: any may be held.
    is_unheard: AtomicBool,
}

impl Gates {
    /// Whether the endpoint is not known to be well.
    pub(crate) fn has(&self, endpoint_id: EndpointId) -> bool {
        self.is_unheard.load(Ordering::Relaxed) || self.known.read().contains_key(&endpoint_id) || self.is_out_of_reach(endpoint_id)
    }

    /// Whether this process cannot send to the endpoint, however that is.
    fn is_out_of_reach(&self, endpoint_id: EndpointId) -> bool {
        self.unreadable.read().contains(&endpoint_id) || self.put_off.has(endpoint_id)
    }

    /// The endpoints that the database does not know to be held.
    pub(crate) fn suspected(&self) -> Vec<EndpointId> {
        let gates = self.known.read();
        let suspected = gates.iter().filter(|(_, gate)| **gate == Gate::Suspected).map(|(id, _)| *id);
        suspected.chain(self.unreadable()).chain(self.put_off.all()).collect()
    }

    /// The endpoints that this process cannot open.
    pub(crate) fn unreadable(&self) -> Vec<EndpointId> {
        self.unreadable.read().iter().copied().collect()
    }

    /// A claim found the endpoint well, or recovering: the database knows better than we, but for what it was not told yet.
    pub(crate) fn claim_passed(&self, endpoint_id: EndpointId, is_recovering: bool) {
        let known = self.known.read().get(&endpoint_id).copied();
        match (known, is_recovering) {
            (Some(Gate::Open), true) => drop(self.known.write().insert(endpoint_id, Gate::Recovering)),
            (Some(Gate::Open | Gate::Recovering), false) => drop(self.known.write().remove(&endpoint_id)),
            _ => {}
        }
    }

    /// Whether the endpoint is held.
    pub(crate) fn is_shut(&self, endpoint_id: EndpointId) -> bool {
        self.known.read().get(&endpoint_id).is_some_and(|gate| gate.is_shut()) || self.is_out_of_reach(endpoint_id)
    }

    /// Shuts the gate; `false` if it was shut.
    fn suspect(&self, endpoint_id: EndpointId) -> bool {
        let mut gates = self.known.write();
        let was_shut = gates.get(&endpoint_id).is_some_and(|gate| gate.is_shut());
        if !was_shut {
            gates.insert(endpoint_id, Gate::Suspected);
        }
        !was_shut
    }

    /// Takes over what the database says; returns the endpoints that are held from now on. Suspicions that were `told` are
    /// settled by it.
    fn learn(&self, rows: &[(EndpointId, i16)], is_all: bool, told: &HashSet<EndpointId>) -> Vec<EndpointId> {
        let mut gates = self.known.write();
        let before = mem::take(&mut *gates);
        let is_kept = |id: &EndpointId, gate: Gate| if gate == Gate::Suspected { !told.contains(id) } else { !is_all };
        gates.extend(before.iter().filter(|(id, gate)| is_kept(id, **gate)).map(|(id, gate)| (*id, *gate)));
        for (id, state) in rows {
            match state {
                1 => drop(gates.insert(*id, Gate::Open)),
                2 => drop(gates.insert(*id, Gate::Recovering)),
                _ => drop(gates.remove(id)),
            }
        }
        self.is_unheard.store(false, Ordering::Relaxed);
        let was_shut = |id: &EndpointId| before.get(id).is_some_and(|gate| gate.is_shut());
        gates.iter().filter(|(id, gate)| gate.is_shut() && !was_shut(id)).map(|(id, _)| *id).collect()
    }
}

/// What a process saw of an endpoint since it last told.
#[derive(Clone, Copy, Debug)]
struct Sum {
    owner: Owner,
    has_success: bool,
    /// Failures after the last success.
    tail: u32,
    has_failed_probe: bool,
}

impl Sum {
    /// This, and then `later`.
    fn and(self, later: Self) -> Self {
        Self {
            owner: self.owner,
            has_success: self.has_success || later.has_success,
            tail: if later.has_success { later.tail } else { self.tail.saturating_add(later.tail) },
            has_failed_probe: self.has_failed_probe || later.has_failed_probe,
        }
    }
}

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

/// What became of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its deliveries are held.
    Held,
    /// A send succeeded: it is sent to in growing numbers.
    Recovering,
    /// It is well.
    Well,
    /// It has been failing for days, and was disabled.
    Disabled,
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
        hand_off.gates().is_unheard.store(true, Ordering::Relaxed);
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
        self.hand_off.gates().unreadable.write().insert(endpoint_id)
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
    pub async fn look_at_all(&self) -> Result<Vec<EndpointId>> {
        let unreadable = reseal::unreadable(&self.db).await?;
        Ok(unreadable.into_iter().filter(|endpoint_id| self.cannot_open(*endpoint_id)).collect())
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
        if !readable.is_empty() {
            self.hand_off.gates().unreadable.write().retain(|id| !readable.iter().any(|(readable, _)| readable == id));
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
            match record(&mut connection, chunk).await {
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
        let rows = sqlx::query!(
            "select endpoint_id, state from endpoint_health where ($1 and state <> 0) or changed_at > now() - make_interval(secs => $2)",
            is_all,
            NEWS,
        )
        .fetch_all(connection)
        .await?;
        *self.read.lock() = Some((now, all_read.unwrap_or(now)));
        let rows: Vec<_> = rows.into_iter().map(|row| (row.endpoint_id.into(), row.state)).collect();
        Ok(self.hand_off.gates().learn(&rows, is_all, told))
    }
}

/// Tells the database of some sums, which are in the order of their ids.
async fn record(connection: &mut Connection, sums: &[(EndpointId, Sum)]) -> Result<Vec<(Owner, EndpointId, Turn)>> {
    let as_i32 = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let rows = sqlx::query!(
        r#"select endpoint_id as "endpoint_id!", state as "state!", has_changed as "has_changed!", is_given_up as "is_given_up!"
             from record_health_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"#,
        &sums.iter().map(|(id, _)| Uuid::from(*id)).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| Uuid::from(sum.owner.tenant_id)).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| sum.has_success).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| as_i32(sum.tail)).collect::<Vec<_>>(),
        &sums.iter().map(|(_, sum)| sum.has_failed_probe).collect::<Vec<_>>(),
        as_i32(OPENS_AFTER),
        FIRST_COOL_DOWN.as_secs_f64(),
        LONGEST_COOL_DOWN.as_secs_f64(),
        as_i32(FIRST_SLOTS),
        as_i32(CLOSES_AT),
        FORGETS_AFTER.as_secs_f64(),
        DISABLES_AFTER.as_secs_f64(),
    )
    .fetch_all(connection)
    .await?;
    let mut turns = Vec::new();
    for row in rows {
        let turn = match row.state {
            1 => Turn::Held,
            2 => Turn::Recovering,
            _ => Turn::Well,
        };
        let endpoint_id = EndpointId::from(row.endpoint_id);
        let Ok(place) = sums.binary_search_by_key(&endpoint_id, |(id, _)| *id) else { continue };
        let owner = sums[place].1.owner;
        turns.extend(row.has_changed.then_some((owner, endpoint_id, turn)));
        turns.extend(row.is_given_up.then_some((owner, endpoint_id, Turn::Disabled)));
    }
    Ok(turns)
}

/// Begins anew with an endpoint: it has another URL, or was switched on or off, or deleted. What is owed to it is claimed again.
pub(crate) async fn reset(tx: &mut Connection, endpoint_id: Uuid) -> Result<()> {
    sqlx::query!(
        "update endpoint_health set failures = 0, failing_since = null, state = 0, slots = 0, probe_at = null, cool_down_seconds = $2,
             changed_at = case when state = 0 then changed_at else now() end
           where endpoint_id = $1",
        endpoint_id,
        FIRST_COOL_DOWN.as_secs_f64(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Drops the rows of endpoints that have been well for an hour, and of those that are gone; one that has been recovering for an
/// hour, for want of messages, is well.
pub async fn forget_the_well(db: &Db) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    sqlx::query!(
        "update endpoint_health set state = 0, slots = 0, changed_at = now() where endpoint_id in
             (select endpoint_id from endpoint_health where state = 2 and changed_at < now() - interval '1 hour' order by endpoint_id for update skip locked)"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from endpoint_health where endpoint_id in
             (select h.endpoint_id from endpoint_health h left join endpoint e on e.id = h.endpoint_id
               where h.state = 0 and h.changed_at < now() - interval '1 hour' and (h.failures = 0 or e.id is null or e.deleted_at is not null)
               order by h.endpoint_id for update of h skip locked)"
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}
