//! `posthaste bench`: measures this very program, and says how it did.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bench::{Launcher, Length, Options};

use crate::{
    DEFAULT_TENANT,
    config::{self, Settings},
    mint_token, say, secrets,
    serve::Signals,
};

/// What may be called: the receiver on this machine.
const LOOPBACK: &str = "127.0.0.0/8";

/// Which scenarios, and how long.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = after_help())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// The scenarios [default: all]; what they are compared with runs beside them
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Measure this many messages instead of a time
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    messages: Option<u64>,
    /// How long each scenario is measured, in seconds, after a warm-up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How often each scenario is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// The share of the rows that a scenario stocks beforehand, to try things out
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    scale: f64,
    /// Draw the chart of `by-rows` or `by-rate` as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Part {
    /// Runs the server that the others are compared with
    #[command(hide = true)]
    NullServer,
}

fn after_help() -> String {
    let list: Vec<_> = bench::names().iter().map(|(name, about)| format!("  {name:<18} {about}")).collect();
    format!("Scenarios:\n{}", list.join("\n"))
}

/// Measures what was asked for. Fails if anything was lost.
pub(crate) async fn run(settings: &Settings, arguments: Arguments) -> Result<()> {
    if let Some(Part::NullServer) = arguments.part {
        return bench::null_server::run(settings.listen()?).await.context("the null server cannot go on");
    }
    if !(0.0..=1.0).contains(&arguments.scale) {
        bail!("--scale is {}, but must be from 0 to 1", arguments.scale);
    }
    let makes_a_chart = matches!(arguments.scenarios.as_slice(), [name] if name.starts_with("by-"));
    if arguments.chart.is_some() && !makes_a_chart {
        bail!("--chart draws `by-rows` or `by-rate`: name one of them, alone");
    }
    let mut signals = Signals::listen()?;
    let options = Options {
        scenarios: arguments.scenarios,
        rounds: arguments.rounds.into(),
        length: arguments.messages.map_or(Length::Time(Duration::from_secs(arguments.seconds)), Length::Messages),
        concurrency: arguments.concurrency.into(),
        scale: arguments.scale,
        database_url: settings.database_url.clone().filter(|url| !url.is_empty()),
        launcher: launcher(std::env::current_exe().context("cannot find this program's own file")?),
    };
    let progress = |text: &dyn std::fmt::Display| {
        // Nobody has to watch.
        let _ = writeln!(std::io::stderr(), "{text}");
    };
    let report = bench::run(&options, &progress, async {
        let _ = signals.next().await;
    })
    .await?;
    if let (Some(file), Some(chart)) = (arguments.chart, report.chart()) {
        std::fs::write(&file, chart).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.json {
        say(&format!("{:#}", report.json()))?;
    } else {
        say(report.to_string().trim_end())?;
    }
    if report.is_sound() { Ok(()) } else { bail!("messages were lost, or arrived where they should not") }
}

/// How the servers are started: this program, with its defaults and none of the caller's settings.
fn launcher(program: PathBuf) -> Launcher {
    let (jwt, main) = (secrets::random(), secrets::random());
    let token = mint_token(&jwt, DEFAULT_TENANT);
    let null = program.clone();
    Launcher {
        serve: Box::new(move |database_url, address| {
            let mut command = plain(&program, address);
            command.args(["serve", "--migrate"]).env("POSTHASTE_DATABASE_URL", database_url).env("POSTHASTE_EGRESS_ALLOW", LOOPBACK);
            command.env("POSTHASTE_JWT_SECRET", &jwt).env("POSTHASTE_MAIN_SECRET", &main);
            command
        }),
        null_server: Box::new(move |address| {
            let mut command = plain(&null, address);
            command.args(["bench", "null-server"]);
            command
        }),
        token,
    }
}

fn plain(program: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    for name in config::set_variables() {
        command.env_remove(name);
    }
    command.env("POSTHASTE_LISTEN", address.to_string());
    command
}
