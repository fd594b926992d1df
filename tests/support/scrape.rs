//! Reads `/metrics` as strictly as Prometheus does, and says what moved between two scrapes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{Client, PATIENCE};

/// Counters and distributions that say how busy the server was rather than what it did: how many batches it took, how many
/// requests asked whether it is done.
const INCIDENTAL: [&str; 5] = [
    "posthaste_api_requests",
    "posthaste_commit_duration_seconds",
    "posthaste_batch_messages_count",
    "posthaste_batch_results_count",
    "posthaste_batches_overdue",
];

/// What one scrape showed.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// Every sample, by its name and labels as they are written.
    pub samples: BTreeMap<String, f64>,
    /// The type of every metric.
    pub types: BTreeMap<String, String>,
    /// Every label with its value.
    pub labels: BTreeSet<(String, String)>,
}

impl Scrape {
    /// Scrapes without a token, as Prometheus does.
    pub async fn of(client: &Client) -> Self {
        let answer = client.anonymous().get("/metrics").await.expect(200);
        assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
        let text = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
        Self::parse(&text).unwrap_or_else(|why| panic!("{why} in\n{text}"))
    }

    /// Reads the text format, or says what is wrong with it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut scrape = Self { samples: BTreeMap::new(), types: BTreeMap::new(), labels: BTreeSet::new() };
        let mut lines = text.strip_suffix("# EOF\n").ok_or("the end is missing")?.lines();
        let mut current = String::new();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                rest.split_once(' ').ok_or("HELP without a text")?.0.clone_into(&mut current);
                let declared = lines.next().and_then(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).ok_or("HELP without a TYPE")?;
                let is_new = scrape.types.insert(current.clone(), declared.1.to_owned()).is_none();
                if declared.0 != current || !is_new {
                    return Err(format!("a second declaration: {line}"));
                }
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').ok_or("UNIT without a unit")?;
                if name != current || !name.ends_with(&format!("_{unit}")) {
                    return Err(format!("a unit that its name does not end with: {line}"));
                }
            } else {
                scrape.sample(&current, line)?;
            }
        }
        Ok(scrape)
    }

    fn sample(&mut self, metric: &str, line: &str) -> Result<(), String> {
        let (key, value) = line.rsplit_once(' ').ok_or_else(|| format!("no sample: {line}"))?;
        let value = value.parse().map_err(|_| format!("no number: {line}"))?;
        let (name, labels) = key.split_once('{').map_or((key, ""), |(name, rest)| (name, rest));
        let suffixes: &[&str] = match self.types.get(metric).map(String::as_str) {
            Some("counter") => &["_total"],
            Some("histogram") => &["_sum", "_count", "_bucket"],
            Some("info") => &["_info"],
            Some("gauge") => &[""],
            other => return Err(format!("the type {other:?} of {line}")),
        };
        if name.strip_prefix(metric).is_none_or(|suffix| !suffixes.contains(&suffix)) {
            return Err(format!("a sample that belongs to nothing: {line}"));
        }
        for label in labels.strip_suffix('}').unwrap_or("").split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").ok_or_else(|| format!("no label: {line}"))?;
            let value = value.strip_suffix('"').ok_or_else(|| format!("no label: {line}"))?;
            self.labels.insert((label.to_owned(), value.to_owned()));
        }
        if self.samples.insert(key.to_owned(), value).is_some() {
            return Err(format!("a second sample: {line}"));
        }
        Ok(())
    }

    /// The value of a sample, if it is shown.
    pub fn get(&self, sample: &str) -> Option<f64> {
        self.samples.get(&format!("posthaste_{sample}")).copied()
    }

    /// Everything that was counted since an earlier scrape, without the prefix that all names have.
    pub fn moved_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let is_counted = |key: &str| {
            let name = key.split('{').next().unwrap_or(key);
            let is_waited = name.contains("_seconds_sum") || name.ends_with("_bucket");
            let is_gauge = self.types.get(name).is_some_and(|kind| kind == "gauge");
            !is_waited && !is_gauge && !INCIDENTAL.iter().any(|incidental| name.starts_with(incidental))
        };
        let moved = self.samples.iter().filter(|(key, _)| is_counted(key)).map(|(key, value)| {
            let was = before.samples.get(key).copied().unwrap_or(0.0);
            (key.trim_start_matches("posthaste_").to_owned(), value - was)
        });
        moved.filter(|(_, by)| *by != 0.0).collect()
    }
}

/// Waits until exactly this has been counted since an earlier scrape, and nothing else.
pub async fn counted(client: &Client, before: &Scrape, expected: &[(&str, u32)]) -> Scrape {
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, by)| ((*name).to_owned(), f64::from(*by))).collect();
    let last = Mutex::new(BTreeMap::new());
    let looking = async {
        loop {
            let scrape = Scrape::of(client).await;
            let moved = scrape.moved_since(before);
            if moved == expected {
                return scrape;
            }
            *last.lock() = moved;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("expected {expected:#?}, but counted {:#?}", last.lock()))
}
