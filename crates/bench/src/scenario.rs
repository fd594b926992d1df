//! The scenarios: what is sent in each, on what ground, and which figures are to be reached.

use std::time::Duration;

use crate::figures::Figure;

/// One situation that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whether the null server is measured instead of Posthaste.
    pub(crate) is_null: bool,
    /// Requests at a time; the caller's choice if it says nothing.
    pub(crate) concurrency: Option<usize>,
    /// Messages a second; none is as fast as they are answered.
    pub(crate) rate: Option<u64>,
    /// Endpoints whose filter matches; one more does not match.
    pub(crate) matching: usize,
    pub(crate) form: Form,
    pub(crate) keys: Keys,
    /// Every so manieth message's first delivery is answered 500; 0 for none.
    pub(crate) fail_every: u64,
    pub(crate) stock: Stock,
    /// Whether one further endpoint gets every second message and never answers, and in which state.
    pub(crate) hanging: Option<Hanging>,
    pub(crate) servers: usize,
    /// The place on a chart's axis, for one of several that make a chart.
    pub(crate) at: Option<u32>,
    /// What is sent and not counted.
    pub(crate) warm_up: Duration,
    /// The longest that it can be measured.
    pub(crate) at_most: Option<Duration>,
    pub(crate) targets: &'static [Target],
}

/// What is posted, and how it is decided whom it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A message to an application whose endpoints choose by its type.
    Message,
    /// A message to an application of [`FILTERS`] endpoints, each of which looks into the payload; one finds what it wants, each time another.
    Filtered,
    /// An event to a source that verifies its signature and reads its key from the body. Two endpoints, one of which subscribed to it.
    Event,
}

/// How many endpoints look into a payload; two digits say which of them it is for.
pub(crate) const FILTERS: u64 = 100;

/// Which keys the requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Each its own `Idempotency-Key`.
    Fresh,
    /// None.
    None,
    /// All the same one, with the same body.
    One,
    /// Each message is posted three times: twice under the same `Idempotency-Key`, and once under another one; all three carry
    /// the same message key.
    Twice,
}

/// What is in the database before the load comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stock {
    Nothing,
    /// Messages of the measured application that have been delivered.
    Delivered(i64),
    /// Deliveries that are due to the endpoint that never answers.
    Due(i64),
    /// Retries that sleep, and over how many endpoints.
    Asleep(i64, i32),
}

/// The state in which the endpoint that never answers is when the load comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hanging {
    /// Nothing is known of it: its circuit breaker is closed.
    Unknown,
    /// Its owner, or days of failure, have disabled it.
    Disabled,
    /// Its circuit breaker was open, and a probe is due.
    HalfOpen,
}

/// A figure to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) figure: Figure,
    pub(crate) bound: Bound,
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What a target is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The figure itself.
    Itself,
    /// The figure, divided by the null server's.
    Null,
    /// The figure, divided by that of [`CLEAN`].
    Clean,
    /// The figure of [`CLEAN`], divided by this one.
    CleanOverThis,
}

impl Scenario {
    /// Whether one of its targets is a comparison of this kind.
    pub(crate) fn is_compared(&self, with: &[Of]) -> bool {
        self.targets.iter().any(|target| with.contains(&target.of))
    }
}

/// Comparisons with [`CLEAN`].
pub(crate) const WITH_CLEAN: &[Of] = &[Of::Clean, Of::CleanOverThis];

use Bound::{AtLeast, AtMost};

const fn target(figure: Figure, bound: Bound, of: Of) -> Target {
    Target { figure, bound, of }
}

/// What a scenario is unless it says otherwise.
const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    is_null: false,
    concurrency: None,
    rate: None,
    matching: 1,
    form: Form::Message,
    keys: Keys::Fresh,
    fail_every: 0,
    stock: Stock::Nothing,
    hanging: None,
    servers: 1,
    at: None,
    warm_up: Duration::from_secs(2),
    at_most: None,
    targets: &[],
};

/// What shares the machine's two cores and yet leaves a healthy endpoint alone.
const UNDISTURBED: &[Target] =
    &[target(Figure::DeliveredPerSecond, AtLeast(0.9), Of::Clean), target(Figure::EndToEndP99, AtMost(2.0), Of::Clean)];
const OWED: i64 = 500_000;

const HANGING: Scenario = Scenario { stock: Stock::Due(OWED), hanging: Some(Hanging::Unknown), targets: UNDISTURBED, ..PLAIN };

/// The same HTTP without a database.
pub(crate) const NULL: Scenario =
    Scenario { name: "null", about: "the null server: the same HTTP, answered and forwarded from memory", is_null: true, ..PLAIN };

/// The ordinary case, with which most others are compared.
pub(crate) const CLEAN: Scenario = Scenario {
    name: "clean",
    about: "one endpoint that answers, every create keyed",
    targets: &[
        target(Figure::DeliveredPerSecond, AtLeast(0.5), Of::Null),
        target(Figure::EndToEndP99, AtMost(25.0), Of::Itself),
        target(Figure::PostgresCpu, AtMost(80.0), Of::Itself),
        target(Figure::Wal, AtMost(2200.0), Of::Itself),
    ],
    ..PLAIN
};

/// All of them, in the order in which they run.
pub(crate) const ALL: [Scenario; 17] = [
    CLEAN,
    Scenario {
        name: "clean8",
        about: "8 requests at a time",
        concurrency: Some(8),
        targets: &[target(Figure::ApiP50, AtMost(2.0), Of::Itself)],
        ..PLAIN
    },
    Scenario {
        name: "idle",
        about: "100 messages a second",
        rate: Some(100),
        targets: &[target(Figure::EndToEndP50, AtMost(4.0), Of::Itself), target(Figure::EndToEndP99, AtMost(15.0), Of::Itself)],
        ..PLAIN
    },
    Scenario {
        name: "fanout5",
        about: "five endpoints that match",
        matching: 5,
        targets: &[target(Figure::DeliveredPerSecond, AtLeast(1.5), Of::Clean)],
        ..PLAIN
    },
    Scenario {
        name: "failing10",
        about: "a tenth of the first deliveries is answered 500 and retried",
        fail_every: 10,
        // The first retries fall due after 5 s, give or take: from then on it is a steady state.
        warm_up: Duration::from_secs(8),
        targets: &[target(Figure::DeliveredPerSecond, AtLeast(0.75), Of::Clean)],
        ..PLAIN
    },
    Scenario {
        name: "hanging",
        about: "500 k rows and half of the new messages are due to an endpoint that never answers, too; its breaker is closed",
        // The breaker cannot open before the first deadline, 15 s after the start, has passed.
        at_most: Some(Duration::from_secs(10)),
        ..HANGING
    },
    Scenario { name: "hanging-disabled", about: "the same, and that endpoint is disabled", hanging: Some(Hanging::Disabled), ..HANGING },
    Scenario {
        name: "hanging-half-open",
        about: "the same, and its breaker is half-open",
        hanging: Some(Hanging::HalfOpen),
        at_most: Some(Duration::from_secs(10)),
        ..HANGING
    },
    Scenario {
        name: "sleeping",
        about: "a million retries asleep over 10,000 endpoints of other applications",
        stock: Stock::Asleep(1_000_000, 10_000),
        targets: UNDISTURBED,
        ..PLAIN
    },
    Scenario {
        name: "duplicates",
        about: "each message three times: a repeat of its request, and a repeat of its message key",
        keys: Keys::Twice,
        ..PLAIN
    },
    Scenario {
        name: "unkeyed",
        about: "no Idempotency-Key",
        keys: Keys::None,
        targets: &[target(Figure::AcceptedPerSecond, AtLeast(0.85), Of::CleanOverThis)],
        ..PLAIN
    },
    Scenario {
        name: "replay",
        about: "one request over and over, under one key",
        keys: Keys::One,
        targets: &[target(Figure::AcceptedPerSecond, AtLeast(1.5), Of::Clean), target(Figure::Wal, AtMost(1.0), Of::Itself)],
        ..PLAIN
    },
    Scenario {
        name: "stored",
        about: "two million delivered messages of the same application in the current partitions",
        stock: Stock::Delivered(2_000_000),
        targets: &[target(Figure::DeliveredPerSecond, AtLeast(0.9), Of::Clean)],
        ..PLAIN
    },
    Scenario {
        name: "two-processes",
        about: "two servers on one Postgres, the load split between them",
        servers: 2,
        targets: &[target(Figure::DeliveredPerSecond, AtLeast(0.9), Of::Clean)],
        ..PLAIN
    },
    Scenario {
        name: "ingest",
        about: "signed events to a source that reads their key from the body",
        form: Form::Event,
        targets: &[target(Figure::AcceptedPerSecond, AtLeast(0.8), Of::Clean), target(Figure::DeliveredPerSecond, AtLeast(0.8), Of::Clean)],
        ..PLAIN
    },
    Scenario {
        name: "filters",
        about: "100 endpoints with a body filter each, of which one matches",
        form: Form::Filtered,
        targets: &[target(Figure::AcceptedPerSecond, AtLeast(0.5), Of::Clean)],
        ..PLAIN
    },
    Scenario {
        name: "memory",
        about: "memory of an idle server, and at full load with 500 k rows owed",
        at_most: Some(Duration::from_secs(10)),
        targets: &[target(Figure::IdleMemory, AtMost(40.0), Of::Itself), target(Figure::PeakMemory, AtMost(150.0), Of::Itself)],
        ..HANGING
    },
];

/// Cost against rows that are stored already.
pub(crate) const BY_ROWS: &str = "by-rows";
/// Latency and cost against the rate of messages.
pub(crate) const BY_RATE: &str = "by-rate";

const fn with_rows(rows: u32) -> Scenario {
    Scenario { name: BY_ROWS, about: "delivered messages stored beforehand", stock: Stock::Delivered(rows as i64), at: Some(rows), ..PLAIN }
}

const fn at_rate(rate: u32) -> Scenario {
    Scenario { name: BY_RATE, about: "messages a second", rate: Some(rate as u64), at: Some(rate), ..PLAIN }
}

/// What makes up each chart, from left to right.
const CHARTS: [(&str, &[Scenario]); 2] = [
    (BY_ROWS, &[with_rows(0), with_rows(250_000), with_rows(500_000), with_rows(1_000_000), with_rows(2_000_000)]),
    (BY_RATE, &[at_rate(100), at_rate(250), at_rate(500), at_rate(1000), at_rate(2000), at_rate(4000), at_rate(8000)]),
];

/// The scenarios of these names and those that they are compared with, in the order in which a round runs them; none is all.
/// Fails with the first unknown name.
pub(crate) fn choose(names: &[String]) -> Result<Vec<Scenario>, String> {
    if let [name] = names
        && let Some((_, places)) = CHARTS.iter().find(|(chart, _)| chart == name)
    {
        return Ok(places.to_vec());
    }
    let is_meant = |scenario: &Scenario, name: &str| scenario.name == name || (name == "hanging" && scenario.name.starts_with("hanging-"));
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|scenario| is_meant(scenario, name))) {
        return Err(unknown.clone());
    }
    let mut chosen: Vec<_> =
        ALL.into_iter().filter(|scenario| names.is_empty() || names.iter().any(|name| is_meant(scenario, name))).collect();
    let needs = |chosen: &[Scenario], of: &[Of]| chosen.iter().any(|scenario| scenario.is_compared(of));
    if needs(&chosen, WITH_CLEAN) && !chosen.iter().any(|scenario| scenario.name == CLEAN.name) {
        chosen.insert(0, CLEAN);
    }
    if needs(&chosen, &[Of::Null]) {
        chosen.insert(0, NULL);
    }
    Ok(chosen)
}

/// The names that can be asked for, with what they are. The last two make a chart each, and run alone.
pub fn names() -> Vec<(&'static str, &'static str)> {
    let charts = [(BY_ROWS, "a chart: cost against stored rows, alone"), (BY_RATE, "a chart: latency and cost against the rate, alone")];
    ALL.iter().map(|scenario| (scenario.name, scenario.about)).chain(charts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Vec<&'static str> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&names).expect("known names").iter().map(|scenario| scenario.name).collect()
    }

    #[test]
    fn what_a_scenario_is_compared_with_runs_in_the_same_round() {
        assert_eq!(chosen(&["clean"]), ["null", "clean"]);
        assert_eq!(chosen(&["fanout5"]), ["null", "clean", "fanout5"]);
        assert_eq!(chosen(&["idle"]), ["idle"]);
        assert_eq!(chosen(&["hanging"]), ["null", "clean", "hanging", "hanging-disabled", "hanging-half-open"]);
        assert_eq!(chosen(&[]).len(), ALL.len() + 1);
    }

    #[test]
    fn the_places_of_a_chart_run_from_left_to_right() {
        for (name, _) in CHARTS {
            let places: Vec<_> = choose(&[name.to_owned()]).expect("a chart").iter().map(|scenario| scenario.at).collect();
            assert!(places.len() > 3 && places.is_sorted() && places.iter().all(Option::is_some), "{name}: {places:?}");
            choose(&[name.to_owned(), "clean".to_owned()]).expect_err("a chart runs alone");
        }
    }

    #[test]
    fn an_unknown_name_is_named() {
        assert_eq!(choose(&["clean".to_owned(), "nonsense".to_owned()]).expect_err("unknown"), "nonsense");
    }
}
