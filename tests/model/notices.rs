//! Hears where a session stops: it says so in a notice, and sqlx passes notices on to nobody but its log.

use std::{
    collections::HashMap,
    fmt,
    sync::{LazyLock, Once},
};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use crate::process::Point;

/// Who wants to hear of which process.
static LISTENERS: LazyLock<Mutex<HashMap<i32, UnboundedSender<Point>>>> = LazyLock::new(Mutex::default);
static INSTALL: Once = Once::new();

/// Where process number `process` stops, from here on.
pub(crate) fn of(process: i32) -> UnboundedReceiver<Point> {
    INSTALL.call_once(|| tracing::subscriber::set_global_default(Ear).expect("this program has no other subscriber"));
    let (sender, receiver) = mpsc::unbounded_channel();
    LISTENERS.lock().insert(process, sender);
    receiver
}

/// A subscriber that hears nothing but notices.
struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice"
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Words);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Reads "model PROCESS POINT".
struct Words;

impl Visit for Words {
    fn record_str(&mut self, _: &Field, value: &str) {
        let mut words = value.split(' ');
        if words.next() != Some("model") {
            return;
        }
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a notice of the model has two numbers");
        let (process, point) = (number(), Point::from_number(number()));
        if let Some(listener) = LISTENERS.lock().get(&process) {
            // Whoever has stopped listening does not mind.
            let _ = listener.send(point);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
