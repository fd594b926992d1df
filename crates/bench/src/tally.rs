//! What was sent, what was answered and what arrived: shared by the load, the receiver and whoever waits for both.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// The longest latency that is told from longer ones: ten minutes, in microseconds.
const LONGEST: u64 = 600_000_000;

/// One run's book-keeping. A message is a number from 0; its payload carries it.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Instant,
    endpoints: usize,
    /// Every so manieth delivery is answered 500 the first time; 0 for none.
    fail_every: u64,
    messages: Box<[Message]>,
    /// How often each endpoint has got each message.
    received: Box<[AtomicU8]>,
    /// The number of the next message.
    pub(crate) next: AtomicU64,
    /// Messages before this one are warm-up.
    pub(crate) measured_from: AtomicU64,
    /// Nothing more is to be sent.
    pub(crate) is_over: AtomicBool,
    /// Requests answered 2xx.
    pub(crate) accepted: AtomicU64,
    /// Requests answered otherwise, or not at all.
    pub(crate) refused: AtomicU64,
    /// First deliveries of a message to an endpoint.
    pub(crate) delivered: AtomicU64,
    /// Webhooks that nobody asked for, or without a signature.
    pub(crate) stray: AtomicU64,
    api: Mutex<Histogram<u64>>,
    end_to_end: Mutex<Histogram<u64>>,
}

#[derive(Debug, Default)]
struct Message {
    /// Microseconds since the beginning.
    sent_at: AtomicU64,
    is_accepted: AtomicBool,
    has_failed: AtomicBool,
}

/// What became of the messages, counted at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Deliveries of measured messages that arrived at least once.
    pub(crate) delivered: u64,
    /// Deliveries of accepted messages, warm-up included, that never arrived.
    pub(crate) lost: u64,
    /// Deliveries beyond the first.
    pub(crate) repeated: u64,
}

impl Tally {
    /// For at most `capacity` messages, each owed to `endpoints` endpoints.
    pub(crate) fn new(capacity: usize, endpoints: usize, fail_every: u64) -> Self {
        let histogram = || Mutex::new(Histogram::new_with_bounds(1, LONGEST, 3).expect("these bounds are valid"));
        Self {
            begun: Instant::now(),
            endpoints,
            fail_every,
            messages: std::iter::repeat_with(Message::default).take(capacity).collect(),
            received: std::iter::repeat_with(AtomicU8::default).take(capacity * endpoints).collect(),
            next: AtomicU64::new(0),
            measured_from: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            stray: AtomicU64::new(0),
            api: histogram(),
            end_to_end: histogram(),
        }
    }

    /// How many messages there can be.
    pub(crate) fn capacity(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Whether this is not warm-up any more.
    pub(crate) fn is_measured(&self, number: u64) -> bool {
        number >= self.measured_from.load(Relaxed)
    }

    /// Notes that a message is about to be sent. Only the first time counts: a repeat does not make it younger.
    pub(crate) fn sending(&self, number: u64, at: Instant) {
        let _ = self.message(number).sent_at.compare_exchange(0, self.micros(at).max(1), Relaxed, Relaxed);
    }

    /// Notes the answer to a request.
    pub(crate) fn answered(&self, number: u64, is_accepted: bool, is_measured: bool, sent_at: Instant) {
        if !is_accepted {
            self.refused.fetch_add(1, Relaxed);
            return;
        }
        self.message(number).is_accepted.store(true, Relaxed);
        self.accepted.fetch_add(1, Relaxed);
        if is_measured {
            self.api.lock().saturating_record(as_micros(sent_at.elapsed()));
        }
    }

    /// Notes a webhook; returns whether it is taken: if not, the receiver answers 500.
    pub(crate) fn arrived(&self, number: u64, endpoint: usize) -> bool {
        let Some(message) = usize::try_from(number).ok().and_then(|number| self.messages.get(number)) else {
            self.stray.fetch_add(1, Relaxed);
            return true;
        };
        let Some(times) = Some(endpoint).filter(|endpoint| *endpoint < self.endpoints).map(|endpoint| self.times(number, endpoint)) else {
            self.stray.fetch_add(1, Relaxed);
            return true;
        };
        if self.fail_every > 0 && number.is_multiple_of(self.fail_every) && !message.has_failed.swap(true, Relaxed) {
            return false;
        }
        if times.fetch_add(1, Relaxed) == 0 {
            self.delivered.fetch_add(1, Relaxed);
            if self.is_measured(number) {
                let waited = self.micros(Instant::now()).saturating_sub(message.sent_at.load(Relaxed));
                self.end_to_end.lock().saturating_record(waited.max(1));
            }
        }
        true
    }

    /// What became of everything so far.
    pub(crate) fn account(&self) -> Account {
        let sent = self.next.load(Relaxed).min(self.capacity());
        let measured_from = self.measured_from.load(Relaxed);
        let mut account = Account::default();
        for number in 0..sent {
            let is_accepted = self.message(number).is_accepted.load(Relaxed);
            let is_measured = number >= measured_from;
            for endpoint in 0..self.endpoints {
                let times = u64::from(self.times(number, endpoint).load(Relaxed));
                account.delivered += u64::from(times > 0 && is_measured);
                account.lost += u64::from(times == 0 && is_accepted);
                account.repeated += times.saturating_sub(1);
            }
        }
        account
    }

    /// Measured requests that were accepted.
    pub(crate) fn measured_accepted(&self) -> u64 {
        self.api.lock().len()
    }

    /// Milliseconds within which half, 99 % and 99.9 % of the measured requests were answered.
    pub(crate) fn api_latency(&self) -> [f64; 3] {
        percentiles(&self.api.lock())
    }

    /// Milliseconds from request to webhook, likewise.
    pub(crate) fn end_to_end_latency(&self) -> [f64; 3] {
        percentiles(&self.end_to_end.lock())
    }

    fn message(&self, number: u64) -> &Message {
        &self.messages[usize::try_from(number).unwrap_or(usize::MAX)]
    }

    fn times(&self, number: u64, endpoint: usize) -> &AtomicU8 {
        &self.received[usize::try_from(number).unwrap_or(usize::MAX) * self.endpoints + endpoint]
    }

    fn micros(&self, at: Instant) -> u64 {
        as_micros(at.saturating_duration_since(self.begun))
    }
}

fn as_micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of at most ten minutes are exact in an f64")]
fn percentiles(histogram: &Histogram<u64>) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_is_repeated_is_counted_per_delivery() {
        let tally = Tally::new(3, 2, 0);
        let now = Instant::now();
        tally.measured_from.store(1, Relaxed);
        for number in 0..3 {
            tally.next.fetch_add(1, Relaxed);
            tally.sending(number, now);
            tally.answered(number, true, tally.is_measured(number), now);
        }
        for (number, endpoint) in [(0, 0), (0, 1), (1, 0), (1, 0), (2, 0), (2, 1)] {
            assert!(tally.arrived(number, endpoint));
        }
        assert_eq!(tally.account(), Account { delivered: 3, lost: 1, repeated: 1 });
        assert_eq!(tally.measured_accepted(), 2);
        assert_eq!(tally.delivered.load(Relaxed), 5);
        tally.arrived(7, 0);
        tally.arrived(0, 2);
        assert_eq!(tally.stray.load(Relaxed), 2);
    }

    #[test]
    fn a_refused_message_is_not_lost() {
        let tally = Tally::new(1, 1, 0);
        tally.next.fetch_add(1, Relaxed);
        tally.answered(0, false, true, Instant::now());
        assert_eq!(tally.account(), Account::default());
    }

    #[test]
    fn a_first_try_in_so_many_is_refused_and_the_second_taken() {
        let tally = Tally::new(20, 1, 10);
        let refused = (0..20).filter(|number| !tally.arrived(*number, 0)).collect::<Vec<_>>();
        assert_eq!(refused, [0, 10]);
        assert!(tally.arrived(10, 0));
        assert_eq!(tally.delivered.load(Relaxed), 19);
    }

    #[test]
    fn percentiles_are_milliseconds() {
        let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3).expect("valid");
        for micros in 1..=1000_u64 {
            histogram.record(micros * 1000).expect("in bounds");
        }
        for (found, wanted) in percentiles(&histogram).into_iter().zip([500.0, 990.0, 999.0]) {
            assert!((found - wanted).abs() < wanted * 0.002, "{found} instead of {wanted}");
        }
    }
}
