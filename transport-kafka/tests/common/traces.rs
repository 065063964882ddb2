//! Captures all trace output as text, without a third-party subscriber that would filter or format it.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Passes each line to `T`.
pub(crate) struct Traces<T> {
    to: T,
    spans: AtomicU64,
}

impl<T: Fn(&str) + Send + Sync + 'static> Traces<T> {
    /// Installs the process's subscriber, for all targets at every level.
    pub(crate) fn install(to: T) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
        tracing::subscriber::set_global_default(Self { to, spans: AtomicU64::new(1) })
    }

    fn line(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut Text)) {
        let mut text = Text(format!("{} {}:", metadata.level(), metadata.target()));
        record(&mut text);
        (self.to)(&text.0);
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _never_fails = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<T: Fn(&str) + Send + Sync + 'static> Subscriber for Traces<T> {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.line(span.metadata(), |text| span.record(text));
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        let mut text = Text(String::new());
        values.record(&mut text);
        (self.to)(&text.0);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.line(event.metadata(), |text| event.record(text));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
