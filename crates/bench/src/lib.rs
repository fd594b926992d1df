//! Measures the shipped program: real processes with their defaults, on a database of their own, under a load that costs
//! little, beside a null server in the same round.
//!
//! Reading order:
//! [`scenario`] what is measured and what is to be reached · [`run`] one run · [`site`] its ground · [`servers`] its processes ·
//! [`load`] the publisher · [`template`] what it sends · [`receiver`] the customers · [`tally`] what became of each message · [`wire`] the little HTTP that
//! both speak · [`process`] what Linux says of processes · [`figures`] medians · [`verdict`] targets
//! beside them · [`report`] what is printed ·
//! [`chart`] what is drawn · [`null_server`] what HTTP alone costs.

mod chart;
mod figures;
mod load;
pub mod null_server;
mod process;
mod receiver;
mod report;
mod run;
mod scenario;
mod servers;
mod site;
mod tally;
mod template;
mod verdict;
mod wire;

use std::{collections::HashMap, fmt, io, time::Duration};

use embedded::Cluster;
use storage::bench::{Bench, Settings};
use thiserror::Error;

use crate::{
    figures::Figures,
    receiver::Receiver,
    report::Measured,
    run::Session,
    scenario::{CLEAN, Scenario, WITH_CLEAN},
};
pub use crate::{
    report::{Outcome, Report},
    scenario::names,
    servers::{Launcher, Start},
};

/// What can go wrong.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there are no figures. Each text is one sentence.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such scenario.
    #[error("there is no scenario `{0}`: choose from {all}", all = scenario::names().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))]
    UnknownScenario(String),
    /// Commits would not survive a crash: figures of such a server say nothing.
    #[error(
        "this Postgres is not durable ({0}): figures count only with `fsync`, `synchronous_commit` and `full_page_writes` on, so turn them on or use another server"
    )]
    NotDurable(String),
    /// The URL is not one.
    #[error("the database URL cannot be read: {0}")]
    Url(#[from] url::ParseError),
    /// No private Postgres.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    /// The database refused something.
    #[error("the database: {0}")]
    Storage(#[from] storage::Error),
    /// A server did not do what it was asked to; the text says what it said.
    #[error("a server of the benchmark: {0}")]
    Server(String),
    /// The system refused something.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
    /// The caller wanted no more.
    #[error("stopped")]
    Stopped,
}

/// For how long each scenario is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This long, after a warm-up.
    Time(Duration),
    /// This many messages, after a tenth as many to warm up.
    Messages(u64),
}

/// What to measure, and where.
#[derive(Debug)]
pub struct Options {
    /// The scenarios; none is all of them. Those that they are compared with are added.
    pub scenarios: Vec<String>,
    /// How often each is measured, one after the other in each round.
    pub rounds: usize,
    /// For how long.
    pub length: Length,
    /// Requests at a time.
    pub concurrency: usize,
    /// The share of the rows that a scenario puts into the database beforehand, from 0 to 1; less than 1 is for trying things out.
    pub scale: f64,
    /// A database on the server to be used, beside which others are made; none runs a private server.
    pub database_url: Option<String>,
    /// How the programs are started.
    pub launcher: Launcher,
}

/// Measures. `progress` is told what is going on; once `stop` is there, everything is cleaned up and nothing comes of it.
pub async fn run(options: &Options, progress: &dyn Fn(&dyn fmt::Display), stop: impl Future<Output = ()>) -> Result<Report> {
    let scenarios = scenario::choose(&options.scenarios).map_err(Error::UnknownScenario)?;
    let folder = tempfile::Builder::new().prefix("posthaste-bench-").tempdir();
    let folder = folder.map_err(|error| Error::Io("cannot make a temporary folder", error))?;
    let cluster = match &options.database_url {
        Some(_) => None,
        None => Some(Cluster::start(folder.path()).await?),
    };
    let database_url = match (&options.database_url, &cluster) {
        (Some(url), _) => url.parse()?,
        (None, Some(cluster)) => cluster.url("postgres").parse()?,
        (None, None) => return Err(Error::Stopped),
    };
    let mut bench = Bench::connect(url::Url::as_str(&database_url)).await?;
    let settings = bench.settings().await?;
    let machine = machine(&settings, bench.local_process().await?);
    progress(&machine);
    refuse_if_not_durable(&settings)?;
    let mut session = Session {
        options,
        receiver: Receiver::start().map_err(|error| Error::Io("cannot start the receiver", error))?,
        folder: folder.path().to_owned(),
        database_url,
        databases: Vec::new(),
        sites: HashMap::new(),
        postmaster: machine.postmaster,
    };
    let outcome = tokio::select! {
        outcome = measure_all(&mut session, &scenarios, progress) => outcome,
        () = stop => Err(Error::Stopped),
    };
    session.sites.clear();
    for name in &session.databases {
        Bench::drop_database(session.database_url.as_str(), name).await?;
    }
    if let Some(cluster) = cluster {
        cluster.stop().await;
    }
    Ok(Report::new(machine, options, &outcome?))
}

/// Rounds are interleaved: a machine that changes its pace does so for all scenarios alike. It does so within a round, too, so
/// what is compared with `clean` has a run of that right before it. But the places of a chart come one after the other, because what
/// is stored only grows.
async fn measure_all(session: &mut Session<'_>, scenarios: &[Scenario], progress: &dyn Fn(&dyn fmt::Display)) -> Result<Vec<Measured>> {
    let rounds = 1..=session.options.rounds.max(1);
    let mut order: Vec<_> = rounds.flat_map(|round| (0..scenarios.len()).map(move |at| (round, at))).collect();
    if scenarios.iter().all(|scenario| scenario.at.is_some()) {
        order.sort_by_key(|(round, at)| (*at, *round));
    }
    let measured = scenarios.iter().map(|scenario| Measured { scenario: *scenario, rounds: Vec::new(), clean: Vec::new() });
    let mut measured: Vec<_> = measured.collect();
    let mut neighbour: Option<Figures> = None;
    for (round, at) in order {
        let Measured { scenario, rounds, clean } = &mut measured[at];
        if scenario.is_compared(WITH_CLEAN) {
            let beside = match neighbour.take() {
                Some(figures) => figures,
                None => run_once(session, &CLEAN, &format_args!("round {round}, beside {}", scenario.name), progress).await?,
            };
            clean.push(beside);
        }
        let figures = run_once(session, scenario, &format_args!("round {round}"), progress).await?;
        neighbour = (scenario.name == CLEAN.name).then(|| figures.clone());
        rounds.push(figures);
    }
    Ok(measured)
}

async fn run_once(
    session: &mut Session<'_>,
    scenario: &Scenario,
    when: &fmt::Arguments<'_>,
    progress: &dyn Fn(&dyn fmt::Display),
) -> Result<Figures> {
    let place = scenario.at.map(|at| format!("{at} ")).unwrap_or_default();
    progress(&format_args!("{when}: {}, {place}{}", scenario.name, scenario.about));
    let figures = session.measure(scenario).await?;
    progress(&format_args!("  {}", report::line(&figures)));
    Ok(figures)
}

/// Where the figures were taken.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The database's settings.
    pub settings: Settings,
    /// Processors that we may use.
    pub cores: usize,
    postmaster: Option<u32>,
}

fn machine(settings: &Settings, session: Option<u32>) -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Machine { settings: settings.clone(), cores, postmaster: session.and_then(process::postmaster_of) }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { version, fsync, synchronous_commit, full_page_writes } = &self.settings;
        let place = if self.postmaster.is_some() { "on this machine" } else { "elsewhere, so its CPU is not counted" };
        write!(
            f,
            "Postgres {version} ({place}): fsync {fsync}, synchronous_commit {synchronous_commit}, full_page_writes {full_page_writes}; {} cores",
            self.cores
        )
    }
}

fn refuse_if_not_durable(settings: &Settings) -> Result<()> {
    let needed = [
        ("fsync", &settings.fsync),
        ("synchronous_commit", &settings.synchronous_commit),
        ("full_page_writes", &settings.full_page_writes),
    ];
    let missing: Vec<_> = needed.iter().filter(|(_, value)| *value != "on").map(|(name, value)| format!("{name} is {value}")).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::NotDurable(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_can_lose_commits_is_refused_by_the_name_of_what_is_off() {
        let on = || "on".to_owned();
        let mut settings = Settings { version: "17".to_owned(), fsync: on(), synchronous_commit: on(), full_page_writes: on() };
        assert!(refuse_if_not_durable(&settings).is_ok());
        settings.full_page_writes = "off".to_owned();
        let refusal = refuse_if_not_durable(&settings).expect_err("not durable").to_string();
        assert!(refusal.contains("full_page_writes is off") && !refusal.contains("fsync is"), "{refusal}");
    }
}
