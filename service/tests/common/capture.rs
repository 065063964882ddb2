//! Captures the log of a test process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

/// A line of the log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Line {
    pub(crate) fn message(&self) -> &str {
        self.get("message").unwrap_or_default()
    }

    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// All lines of the process: one subscriber is global, since `tracing` remembers per call whether anyone listens. The
/// tests tell their lines apart by the names of their services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<Line>>>);

impl Captured {
    /// Returns the log of the process, which is captured from the first call on.
    pub(crate) fn log() -> Self {
        static LOG: OnceLock<Captured> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let captured = Self::default();
            tracing::subscriber::set_global_default(captured.clone()).expect("the only subscriber");
            captured
        });
        log.clone()
    }

    /// Returns all lines.
    pub(crate) fn all(&self) -> Vec<Line> {
        self.0.lock().expect("no panic").clone()
    }

    /// Returns the lines of a service with this message.
    pub(crate) fn of(&self, service: &str, message: &str) -> Vec<Line> {
        let mut lines = self.all();
        lines.retain(|line| line.get("service") == Some(service) && line.message().starts_with(message));
        lines
    }

    /// Returns the only line of a service with this message.
    pub(crate) fn only(&self, service: &str, message: &str) -> Line {
        let mut lines = self.of(service, message);
        assert_eq!(lines.len(), 1, "{message:?} of {service}: {:#?}", self.of(service, ""));
        lines.remove(0)
    }
}

impl Subscriber for Captured {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tidings")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line { level: *metadata.level(), target: metadata.target(), fields: BTreeMap::new() };
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
