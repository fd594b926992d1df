//! What the registry's own instruments lack: counters over a closed set of label values, distributions without a lock, and
//! readings that may be unknown.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// A closed set of label values, so that no label can ever hold what a user wrote.
pub(super) trait Kind: Copy + fmt::Debug + Send + Sync + 'static {
    /// The label's name.
    const LABEL: &'static str;
    /// Its values, each at its [`Kind::place`].
    const VALUES: &'static [&'static str];

    /// Which value this is.
    fn place(self) -> usize;
}

/// One counter for each value of a set, all of them there from the start.
#[derive(Debug)]
pub(super) struct CounterOf<K> {
    counts: Arc<[AtomicU64]>,
    kind: PhantomData<K>,
}

impl<K> Clone for CounterOf<K> {
    fn clone(&self) -> Self {
        Self { counts: Arc::clone(&self.counts), kind: PhantomData }
    }
}

impl<K: Kind> Default for CounterOf<K> {
    fn default() -> Self {
        Self { counts: K::VALUES.iter().map(|_| AtomicU64::new(0)).collect(), kind: PhantomData }
    }
}

impl<K: Kind> CounterOf<K> {
    pub(super) fn add(&self, kind: K, count: u64) {
        self.counts[kind.place()].fetch_add(count, Ordering::Relaxed);
    }
}

impl<K: Kind> EncodeMetric for CounterOf<K> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (value, count) in K::VALUES.iter().zip(&*self.counts) {
            let count = count.load(Ordering::Relaxed);
            encoder.encode_family(&[(K::LABEL, *value)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// How values are distributed: what [`prometheus_client`]'s histogram is, with atomics in place of its lock.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    /// The largest value of each bucket but the last, which has no limit.
    bounds: &'static [u64],
    /// How many of our units make one of those that are shown.
    scale: f64,
    counts: Arc<[AtomicU64]>,
    sum: Arc<AtomicU64>,
}

impl Distribution {
    /// A distribution with these upper bounds, shown divided by `scale`.
    pub(super) fn new(bounds: &'static [u64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, scale, counts, sum: Arc::default() }
    }

    pub(super) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum of more than 2^53 microseconds is known well enough")]
    fn shown(&self, value: u64) -> f64 {
        value as f64 / self.scale
    }
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = self.bounds.iter().map(|bound| self.shown(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.shown(self.sum.load(Ordering::Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A value that is read at each scrape; while it is unknown, it is not shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(Arc<Mutex<Option<f64>>>);

impl Reading {
    pub(super) fn set(&self, value: Option<f64>) {
        *self.0.lock() = value;
    }
}

impl EncodeMetric for Reading {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let value = *self.0.lock();
        value.map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_none()
    }
}
