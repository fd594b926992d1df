//! One run: ground, servers, load, readings before and after, and what became of every message.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use storage::bench::{Bench, Counters};
use tokio::sync::oneshot;

use crate::{
    Error, Length, Options, Result,
    figures::Figures,
    load, process,
    receiver::Receiver,
    scenario::Scenario,
    servers::Server,
    site::{Application, PAYLOAD, Site},
    tally::Tally,
    template::Load,
};

/// For how many messages a second of load there is room in the book-keeping.
const FASTEST: f64 = 150_000.0;
/// Room for this many messages is always enough.
const MOST: usize = 20_000_000;
/// How long nothing may arrive before what is missing counts as lost. Retries after a failure come within it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for repeats that come late.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How often we look whether everything has arrived.
const GLANCE: Duration = Duration::from_millis(20);

/// Where everything runs.
pub(crate) struct Session<'a> {
    pub(crate) options: &'a Options,
    pub(crate) receiver: Receiver,
    /// Logs of the servers.
    pub(crate) folder: PathBuf,
    /// A URL on the server on which databases are made.
    pub(crate) database_url: url::Url,
    /// The databases that were made.
    pub(crate) databases: Vec<String>,
    pub(crate) sites: HashMap<&'static str, Site>,
    /// Postgres' first process, if it is of this machine.
    pub(crate) postmaster: Option<u32>,
}

/// What is known at one moment.
#[derive(Debug)]
struct Reading {
    at: Instant,
    accepted: u64,
    delivered: u64,
    server_cpu: Option<f64>,
    postgres_cpu: Option<f64>,
    own_cpu: Option<f64>,
    counters: Option<Counters>,
}

impl Session<'_> {
    /// Measures a scenario once.
    pub(crate) async fn measure(&mut self, scenario: &Scenario) -> Result<Figures> {
        if scenario.is_null {
            let server = self.start_null().await?;
            let application = Application::create(&server, &self.receiver, scenario).await?;
            return self.measure_with(scenario, None, &application.path, vec![server]).await;
        }
        let mut site = match self.sites.remove(scenario.name) {
            Some(site) => site,
            None => self.prepare(scenario).await?,
        };
        site.stock(scenario, self.options.scale).await?;
        let figures = self.measure_on(scenario, &mut site).await;
        self.sites.insert(scenario.name, site);
        figures
    }

    /// Measures a scenario on its ground as it is.
    pub(crate) async fn measure_on(&self, scenario: &Scenario, site: &mut Site) -> Result<Figures> {
        let mut servers = Vec::new();
        for _ in 0..scenario.servers {
            servers.push(self.start(&site.database_url).await?);
        }
        let path = site.application.path.clone();
        self.measure_with(scenario, Some(site), &path, servers).await
    }

    /// Makes the ground of a scenario, without its rows.
    pub(crate) async fn prepare(&mut self, scenario: &Scenario) -> Result<Site> {
        let name = format!("posthaste_bench_{:08x}", rand::random::<u32>());
        Bench::create_database(self.database_url.as_str(), &name).await?;
        self.databases.push(name.clone());
        let mut url = self.database_url.clone();
        url.set_path(&name);
        let server = self.start(url.as_str()).await?;
        Site::prepare(server, url.into(), &self.receiver, scenario).await
    }

    async fn start(&self, database_url: &str) -> Result<Server> {
        let launcher = &self.options.launcher;
        Server::start(|address| (launcher.serve)(database_url, address), &launcher.token, &self.folder).await
    }

    async fn start_null(&self) -> Result<Server> {
        let launcher = &self.options.launcher;
        Server::start(|address| (launcher.null_server)(address), &launcher.token, &self.folder).await
    }

    async fn measure_with(&self, scenario: &Scenario, mut site: Option<&mut Site>, path: &str, servers: Vec<Server>) -> Result<Figures> {
        let length = self.length(scenario);
        let warm_up = if let Length::Messages(messages) = length { messages / 10 } else { u64::MAX };
        let tally = Arc::new(Tally::new(capacity(length, scenario), scenario.matching, scenario.fail_every));
        self.receiver.note_in(&tally);
        let before_load = servers.iter().filter_map(Server::memory).map(|(now, _)| now).reduce(f64::max);
        let load = Load {
            servers: servers.iter().map(|server| server.address).collect(),
            path: path.to_owned(),
            token: self.options.launcher.token.clone(),
            run: rand::random(),
            payload: PAYLOAD,
            concurrency: scenario.concurrency.unwrap_or(self.options.concurrency).max(1),
            rate: scenario.rate,
            form: scenario.form,
            keys: scenario.keys,
            has_both: scenario.hanging.is_some(),
        };
        let failed = |error| Error::Io("the load failed", error);
        tally.measured_from.store(warm_up, Relaxed);
        let mut end = load::start(load, Arc::clone(&tally)).map_err(failed)?;
        wait_for_warm_up(scenario, &tally, warm_up, &mut end).await?;
        let before = self.read(&tally, &servers, site.as_deref_mut()).await?;
        if let Length::Time(time) = length {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                ended = &mut end => return Err(ended_early(ended)),
            }
            tally.is_over.store(true, Relaxed);
        }
        end.await.map_err(|_| ended_early_without_a_reason())?.map_err(failed)?;
        let after = self.read(&tally, &servers, site.as_deref_mut()).await?;
        let owed = match site.as_deref_mut() {
            Some(site) => site.owed().await?,
            None => None,
        };
        until_all_has_arrived(&tally).await;
        let mut figures = figures(&tally, &before, &after);
        figures.owed = owed;
        figures.idle_memory_mb = site.map_or(before_load, |site| site.idle_memory);
        figures.peak_memory_mb = servers.iter().filter_map(Server::memory).map(|(_, peak)| peak).reduce(|one, other| one + other);
        for server in servers {
            server.stop().await;
        }
        Ok(figures)
    }

    fn length(&self, scenario: &Scenario) -> Length {
        match (self.options.length, scenario.at_most) {
            (Length::Time(time), Some(at_most)) => Length::Time(time.min(at_most)),
            (length, _) => length,
        }
    }

    async fn read(&self, tally: &Tally, servers: &[Server], site: Option<&mut Site>) -> Result<Reading> {
        let is_posthaste = site.is_some();
        let reading = Reading {
            at: Instant::now(),
            accepted: tally.accepted.load(Relaxed),
            delivered: tally.delivered.load(Relaxed),
            server_cpu: servers.iter().map(Server::cpu).sum(),
            postgres_cpu: self.postmaster.filter(|_| is_posthaste).and_then(process::cpu_of_postgres),
            own_cpu: process::cpu(std::process::id()),
            counters: match site {
                Some(site) => Some(site.bench.counters().await?),
                None => None,
            },
        };
        Ok(reading)
    }
}

type End = oneshot::Receiver<std::io::Result<Instant>>;

/// Waits until what is sent counts. A number of messages warms up with messages, a time with time.
async fn wait_for_warm_up(scenario: &Scenario, tally: &Tally, warm_up: u64, end: &mut End) -> Result<()> {
    if warm_up < u64::MAX {
        while tally.next.load(Relaxed) < warm_up && end.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(scenario.warm_up) => {}
        ended = end => return Err(ended_early(ended)),
    }
    tally.measured_from.store(tally.next.load(Relaxed), Relaxed);
    Ok(())
}

fn ended_early(ended: std::result::Result<std::io::Result<Instant>, oneshot::error::RecvError>) -> Error {
    match ended {
        Ok(Err(error)) => Error::Io("the load failed", error),
        _ => ended_early_without_a_reason(),
    }
}

fn ended_early_without_a_reason() -> Error {
    Error::Server("the load ended before its time".to_owned())
}

async fn until_all_has_arrived(tally: &Tally) {
    let mut progress = (0, Instant::now());
    while tally.account().lost > 0 && progress.1.elapsed() < PATIENCE {
        tokio::time::sleep(GLANCE).await;
        let delivered = tally.delivered.load(Relaxed);
        if delivered != progress.0 {
            progress = (delivered, Instant::now());
        }
    }
    tokio::time::sleep(STRAGGLERS).await;
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number of seconds makes a bounded number of messages"
)]
fn capacity(length: Length, scenario: &Scenario) -> usize {
    match length {
        Length::Messages(messages) => usize::try_from(messages + messages / 10).unwrap_or(MOST).min(MOST),
        Length::Time(time) => (((time + scenario.warm_up).as_secs_f64() * FASTEST) as usize).min(MOST),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^52")]
fn figures(tally: &Tally, before: &Reading, after: &Reading) -> Figures {
    let seconds = (after.at - before.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let accepted = (after.accepted - before.accepted) as f64;
    let each = |spent: f64| spent / accepted.max(1.0);
    let cpu = |of: fn(&Reading) -> Option<f64>| Some(each((of(after)? - of(before)?) * 1e6));
    let counted = |of: fn(&Counters) -> i64| Some(each((of(after.counters.as_ref()?) - of(before.counters.as_ref()?)) as f64));
    let account = tally.account();
    Figures {
        accepted: tally.measured_accepted(),
        refused: tally.refused.load(Relaxed),
        delivered: account.delivered,
        lost: account.lost,
        repeated: account.repeated,
        stray: tally.stray.load(Relaxed),
        accepted_per_second: accepted / seconds,
        delivered_per_second: (after.delivered - before.delivered) as f64 / seconds,
        api_ms: tally.api_latency(),
        end_to_end_ms: tally.end_to_end_latency(),
        server_cpu_us: cpu(|reading| reading.server_cpu),
        postgres_cpu_us: cpu(|reading| reading.postgres_cpu),
        generator_cpu_us: cpu(|reading| reading.own_cpu),
        wal_bytes: counted(|counters| counters.wal),
        transactions: counted(|counters| counters.commits),
        ..Figures::default()
    }
}
