//! What is measured in one run, and what is made of several.

use serde::Serialize;

/// The figures of one run. Times of the processor and bytes are per accepted request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Measured requests answered 2xx.
    pub accepted: u64,
    /// Requests answered otherwise or not at all, warm-up included.
    pub refused: u64,
    /// Measured deliveries that arrived.
    pub delivered: u64,
    /// Deliveries of accepted messages that never arrived, warm-up included.
    pub lost: u64,
    /// Deliveries beyond the first, warm-up included.
    pub repeated: u64,
    /// Webhooks that no endpoint of the run should have got, or without a signature.
    pub stray: u64,
    /// Requests answered 2xx a second, while there was load.
    pub accepted_per_second: f64,
    /// First deliveries a second, while there was load.
    pub delivered_per_second: f64,
    /// Milliseconds from request to answer: p50, p99, p99.9.
    pub api_ms: [f64; 3],
    /// Milliseconds from request to webhook: p50, p99, p99.9.
    pub end_to_end_ms: [f64; 3],
    /// Microseconds of processor time of all servers.
    pub server_cpu_us: Option<f64>,
    /// The same of Postgres; none if it is elsewhere.
    pub postgres_cpu_us: Option<f64>,
    /// The same of the load and the receiver.
    pub generator_cpu_us: Option<f64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: Option<f64>,
    /// Transactions.
    pub transactions: Option<f64>,
    /// Megabytes of resident memory of a server before its first message.
    pub idle_memory_mb: Option<f64>,
    /// The most megabytes of all servers.
    pub peak_memory_mb: Option<f64>,
    /// Deliveries owed at the end of the load to the endpoint that never answers.
    pub owed: Option<i64>,
}

/// A figure that can be a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    AcceptedPerSecond,
    DeliveredPerSecond,
    ApiP50,
    EndToEndP50,
    EndToEndP99,
    PostgresCpu,
    Wal,
    IdleMemory,
    PeakMemory,
}

impl Figure {
    pub(crate) fn of(self, figures: &Figures) -> Option<f64> {
        match self {
            Self::AcceptedPerSecond => Some(figures.accepted_per_second),
            Self::DeliveredPerSecond => Some(figures.delivered_per_second),
            Self::ApiP50 => Some(figures.api_ms[0]),
            Self::EndToEndP50 => Some(figures.end_to_end_ms[0]),
            Self::EndToEndP99 => Some(figures.end_to_end_ms[1]),
            Self::PostgresCpu => figures.postgres_cpu_us,
            Self::Wal => figures.wal_bytes,
            Self::IdleMemory => figures.idle_memory_mb,
            Self::PeakMemory => figures.peak_memory_mb,
        }
    }

    /// Its name and its unit.
    pub(crate) fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::AcceptedPerSecond => ("accepted/s", ""),
            Self::DeliveredPerSecond => ("delivered/s", ""),
            Self::ApiP50 => ("API p50", " ms"),
            Self::EndToEndP50 => ("accepted to delivered p50", " ms"),
            Self::EndToEndP99 => ("accepted to delivered p99", " ms"),
            Self::PostgresCpu => ("CPU of Postgres a message", " µs"),
            Self::Wal => ("WAL a message", " B"),
            Self::IdleMemory => ("memory, idle", " MB"),
            Self::PeakMemory => ("memory, peak", " MB"),
        }
    }
}

/// The middle one; the mean of the two middle ones if there are as many above as below.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(upper), 0) => Some(f64::midpoint(values[middle - 1], *upper)),
        (found, _) => found.copied(),
    }
}

impl Figures {
    /// The median of each figure over the rounds, but the sum of what must not happen.
    pub(crate) fn median_of(rounds: &[Self]) -> Self {
        let of = |figure: &dyn Fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        let rate = |figure: &dyn Fn(&Self) -> f64| of(&|round| Some(figure(round))).unwrap_or(0.0);
        let sum = |count: &dyn Fn(&Self) -> u64| rounds.iter().map(count).sum();
        Self {
            accepted: sum(&|round| round.accepted),
            refused: sum(&|round| round.refused),
            delivered: sum(&|round| round.delivered),
            lost: sum(&|round| round.lost),
            repeated: sum(&|round| round.repeated),
            stray: sum(&|round| round.stray),
            accepted_per_second: rate(&|round| round.accepted_per_second),
            delivered_per_second: rate(&|round| round.delivered_per_second),
            api_ms: [0, 1, 2].map(|at: usize| rate(&|round| round.api_ms[at])),
            end_to_end_ms: [0, 1, 2].map(|at: usize| rate(&|round| round.end_to_end_ms[at])),
            server_cpu_us: of(&|round| round.server_cpu_us),
            postgres_cpu_us: of(&|round| round.postgres_cpu_us),
            generator_cpu_us: of(&|round| round.generator_cpu_us),
            wal_bytes: of(&|round| round.wal_bytes),
            transactions: of(&|round| round.transactions),
            idle_memory_mb: of(&|round| round.idle_memory_mb),
            peak_memory_mb: of(&|round| round.peak_memory_mb),
            owed: rounds.iter().filter_map(|round| round.owed).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(delivered_per_second: &[f64]) -> Vec<Figures> {
        delivered_per_second.iter().map(|rate| Figures { delivered_per_second: *rate, lost: 1, ..Figures::default() }).collect()
    }

    #[test]
    fn medians_do_not_follow_one_bad_round_but_losses_add_up() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 100.0]), Some(3.0));
        let all = Figures::median_of(&rounds(&[10.0, 12.0, 1.0]));
        assert!((all.delivered_per_second - 10.0).abs() < 1e-9);
        assert_eq!(all.lost, 3);
    }
}
