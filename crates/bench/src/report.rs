//! What is printed: a table for people, and everything as JSON.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::{
    Length, Machine, Options,
    chart::{Axis, Chart, Panel},
    figures::{Figure, Figures},
    scenario::{BY_RATE, NULL, Of, Scenario},
    verdict::{Beside, Verdict},
};

/// The runs of one scenario, and those of `clean` right before each if it is compared with that.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    pub(crate) rounds: Vec<Figures>,
    pub(crate) clean: Vec<Figures>,
}

/// All that was measured.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    length: Length,
    concurrency: usize,
    scale: f64,
    /// One per scenario, in the order in which they ran.
    pub outcomes: Vec<Outcome>,
}

/// What was measured of one scenario.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    about: &'static str,
    at: Option<u32>,
    rounds: Vec<Figures>,
    /// `clean` right before each of them, if it is compared with that.
    clean: Vec<Figures>,
    /// The medians.
    pub figures: Figures,
    /// Deliveries a second, as a share of the null server's and of `clean`'s.
    of_null: Option<f64>,
    of_clean: Option<f64>,
    /// The targets beside what was measured.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    pub(crate) fn new(machine: Machine, options: &Options, measured: &[Measured]) -> Self {
        let null = measured.iter().find(|measured| measured.scenario.name == NULL.name).map_or(&[][..], |measured| &measured.rounds);
        let outcome = |Measured { scenario, rounds, clean }: &Measured| {
            let beside = Beside { rounds, null, clean };
            let ratio = |of| crate::figures::median(beside.measured(Figure::DeliveredPerSecond, of));
            Outcome {
                name: scenario.name,
                about: scenario.about,
                rounds: rounds.clone(),
                figures: Figures::median_of(rounds),
                at: scenario.at,
                clean: clean.clone(),
                of_null: ratio(Of::Null).filter(|_| scenario.name != NULL.name),
                of_clean: ratio(Of::Clean),
                verdicts: scenario.targets.iter().map(|target| beside.judge(target)).collect(),
            }
        };
        let outcomes = measured.iter().map(outcome).collect();
        Self { machine, length: options.length, concurrency: options.concurrency, scale: options.scale, outcomes }
    }

    /// Whether every accepted message arrived where it should have, and nowhere else.
    pub fn is_sound(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.figures.lost == 0 && outcome.figures.stray == 0)
    }

    /// The chart of `by-rows` or `by-rate`, as SVG; none of other scenarios.
    pub fn chart(&self) -> Option<String> {
        let places: Option<Vec<_>> = self.outcomes.iter().map(|outcome| outcome.at.map(f64::from)).collect();
        let is_of_rates = self.outcomes.first()?.name == BY_RATE;
        let values = |of: &dyn Fn(&Figures) -> Option<f64>| self.outcomes.iter().map(|outcome| of(&outcome.figures)).collect();
        // The latency of a rate that was too high says only for how long it was offered.
        let is_kept = |outcome: &Outcome| outcome.at.is_none_or(|rate| outcome.figures.accepted_per_second >= 0.97 * f64::from(rate));
        let kept = |of: &dyn Fn(&Figures) -> f64| self.outcomes.iter().map(|one| is_kept(one).then(|| of(&one.figures))).collect();
        let cost = Panel {
            title: "Processor time a message, µs",
            lines: vec![
                ("server", values(&|figures| figures.server_cpu_us)),
                ("Postgres", values(&|figures| figures.postgres_cpu_us)),
                ("load and receiver", values(&|figures| figures.generator_cpu_us)),
            ],
        };
        let latency = Panel {
            title: "Latency, ms, where the rate was kept",
            lines: vec![
                ("API, p50", kept(&|figures| figures.api_ms[0])),
                ("delivered, p50", kept(&|figures| figures.end_to_end_ms[0])),
                ("delivered, p99", kept(&|figures| figures.end_to_end_ms[1])),
            ],
        };
        let wal = Panel { title: "Write-ahead log a message, bytes", lines: vec![("WAL", values(&|figures| figures.wal_bytes))] };
        let (title, along, axis, panels) = if is_of_rates {
            ("Latency and cost against the rate", "messages offered a second", Axis::Logarithmic, vec![latency, cost])
        } else {
            ("Cost against stored rows", "delivered messages of the same application, stored beforehand", Axis::Linear, vec![cost, wal])
        };
        Some(Chart { title, along, axis, places: places?, panels }.svg())
    }

    /// Everything.
    pub fn json(&self) -> Value {
        let scenario = |outcome: &Outcome| {
            json!({
                "name": outcome.name,
                "about": outcome.about,
                "at": outcome.at,
                "figures": outcome.figures,
                "rounds": outcome.rounds,
                "clean": outcome.clean,
                "delivered_of_null": outcome.of_null,
                "delivered_of_clean": outcome.of_clean,
                "targets": outcome.verdicts,
            })
        };
        let settings = &self.machine.settings;
        let (seconds, messages) = match self.length {
            Length::Time(time) => (Some(time.as_secs_f64()), None),
            Length::Messages(messages) => (None, Some(messages)),
        };
        json!({
            "machine": {
                "cores": self.machine.cores,
                "postgres": settings.version,
                "is_postgres_local": self.machine.postmaster.is_some(),
                "fsync": settings.fsync,
                "synchronous_commit": settings.synchronous_commit,
                "full_page_writes": settings.full_page_writes,
            },
            "seconds": seconds,
            "messages": messages,
            "concurrency": self.concurrency,
            "scale": self.scale,
            "scenarios": self.outcomes.iter().map(scenario).collect::<Vec<_>>(),
            "is_sound": self.is_sound(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for outcome in &self.outcomes {
            let place = outcome.at.map(|at| format!("{at} ")).unwrap_or_default();
            writeln!(f, "\n{}: {place}{}", outcome.name, outcome.about)?;
            writeln!(f, "  {}", line(&outcome.figures))?;
            let ratio = |of: Option<f64>, what| of.map(|of| format!("{of:.2} of {what}"));
            let ratios: Vec<_> =
                [ratio(outcome.of_null, "the null server's"), ratio(outcome.of_clean, "clean's")].into_iter().flatten().collect();
            if !ratios.is_empty() {
                writeln!(f, "  delivered/s: {}", ratios.join(", "))?;
            }
            for verdict in &outcome.verdicts {
                writeln!(f, "  {}", row(verdict))?;
            }
        }
        if self.scale < 1.0 {
            writeln!(f, "\nOnly {} of the stocked rows were there: these are no figures of record.", self.scale)?;
        }
        if !self.is_sound() {
            writeln!(f, "\nMessages were LOST, or arrived where they should not.")?;
        }
        Ok(())
    }
}

fn row(verdict: &Verdict) -> String {
    let measured = verdict.measured.map_or("not measured".to_owned(), |measured| format!("{measured:.2}"));
    let judgement = match verdict.is_reached {
        Some(true) => "reached",
        Some(false) => "MISSED",
        None => "not judged",
    };
    format!("{judgement:<10} {}: {measured}", verdict.target)
}

/// One run, or the medians of several, on a few lines.
pub(crate) fn line(figures: &Figures) -> String {
    let latency = |[p50, p99, p999]: [f64; 3]| format!("{p50:.1} / {p99:.1} / {p999:.1} ms");
    let optional = |figure: Option<f64>, unit: &str| figure.map_or("?".to_owned(), |figure| format!("{figure:.0}{unit}"));
    let mut text = format!(
        "{:.0} accepted/s, {:.0} delivered/s; API p50 / p99 / p99.9 {}, accepted to delivered {}",
        figures.accepted_per_second,
        figures.delivered_per_second,
        latency(figures.api_ms),
        latency(figures.end_to_end_ms)
    );
    let _ = write!(
        text,
        "\n  a message: server {} CPU, Postgres {}, load and receiver {}, WAL {}, {} transactions; memory {} idle, {} peak",
        optional(figures.server_cpu_us, " µs"),
        optional(figures.postgres_cpu_us, " µs"),
        optional(figures.generator_cpu_us, " µs"),
        optional(figures.wal_bytes, " B"),
        figures.transactions.map_or("?".to_owned(), |transactions| format!("{transactions:.3}")),
        optional(figures.idle_memory_mb, " MB"),
        optional(figures.peak_memory_mb, " MB"),
    );
    let _ = write!(
        text,
        "\n  {} accepted, {} delivered, {} lost, {} repeated, {} refused",
        figures.accepted, figures.delivered, figures.lost, figures.repeated, figures.refused
    );
    if figures.stray > 0 {
        let _ = write!(text, ", {} stray", figures.stray);
    }
    if let Some(owed) = figures.owed {
        let _ = write!(text, "; {owed} owed to the endpoint that never answers");
    }
    text
}
