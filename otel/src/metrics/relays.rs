//! Metrics that are read from the snapshots of outbox relays, when metrics are collected.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use tidings_service::telemetry::{OutboxSnapshot, RelaySnapshot, RelayStats};

use crate::conventions::RELAY;

/// A metric that is read from snapshots: its name, unit, description and value.
struct Observed(&'static str, &'static str, &'static str, Value);

/// The source of a metric. An outbox has no values before it was measured.
#[derive(Clone, Copy)]
enum Value {
    /// A sum since the relay started.
    Counter(fn(&RelaySnapshot) -> u64),
    /// A current value.
    Gauge(fn(&RelaySnapshot) -> u64),
    /// A current value of the whole outbox.
    Outbox(fn(&OutboxSnapshot) -> u64),
    /// A current time of the whole outbox, in seconds.
    Seconds(fn(&OutboxSnapshot) -> f64),
}

/// All metrics that are read from snapshots.
static OBSERVED: [Observed; 9] = [
    Observed(
        "tidings.relay.running",
        "1",
        "1 while the relay runs, else 0.",
        Value::Gauge(|r| u64::from(r.is_running)),
    ),
    Observed(
        "tidings.relay.failing",
        "1",
        "1 while the broker or the database fails, else 0.",
        Value::Gauge(|r| u64::from(r.is_failing)),
    ),
    Observed(
        "tidings.relay.in_flight.messages",
        "{message}",
        "Records in flight.",
        Value::Gauge(|r| r.in_flight as u64),
    ),
    Observed(
        "tidings.relay.published.messages",
        "{message}",
        "Records that the relay published.",
        Value::Counter(|r| r.published),
    ),
    Observed(
        "tidings.relay.refused.messages",
        "{message}",
        "Records that the broker refused.",
        Value::Counter(|r| r.refused),
    ),
    Observed("tidings.outbox.waiting.messages", "{message}", "Records to be published.", Value::Outbox(|o| o.waiting)),
    Observed(
        "tidings.outbox.holding.messages",
        "{message}",
        "Refused records that hold back their keys.",
        Value::Outbox(|o| o.holding),
    ),
    Observed(
        "tidings.outbox.parked.messages",
        "{message}",
        "Refused records that were set aside.",
        Value::Outbox(|o| o.parked),
    ),
    Observed(
        "tidings.outbox.lag",
        "s",
        "Age of the oldest record to be published.",
        Value::Seconds(|o| o.time_lag.as_secs_f64()),
    ),
];

/// Registers all instruments, which read `relays`.
pub(super) fn register(meter: &Meter, relays: &Arc<Relays>) {
    for Observed(name, unit, description, value) in &OBSERVED {
        let relays = relays.clone();
        let gauge = || meter.u64_observable_gauge(*name).with_unit(*unit).with_description(*description);
        match *value {
            Value::Counter(read) => {
                let counter = meter.u64_observable_counter(*name).with_unit(*unit).with_description(*description);
                counter.with_callback(move |to| relays.read(|of, name| to.observe(read(of), name))).build();
            }
            Value::Gauge(read) => {
                gauge().with_callback(move |to| relays.read(|of, name| to.observe(read(of), name))).build();
            }
            Value::Outbox(read) => {
                let each = move |of: &RelaySnapshot| of.outbox.as_ref().map(read);
                let callback = move |to: &dyn AsyncInstrument<u64>| {
                    relays.read(|of, name| each(of).into_iter().for_each(|value| to.observe(value, name)));
                };
                gauge().with_callback(callback).build();
            }
            Value::Seconds(read) => {
                let seconds = meter.f64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                let callback = move |to: &dyn AsyncInstrument<f64>| {
                    relays.read(|of, name| of.outbox.iter().for_each(|outbox| to.observe(read(outbox), name)));
                };
                seconds.with_callback(callback).build();
            }
        }
    }
}

/// The relays that are read when metrics are collected, by their names.
#[derive(Default)]
pub(super) struct Relays(Mutex<Vec<(KeyValue, Arc<dyn RelayStats>)>>);

impl Relays {
    fn lock(&self) -> MutexGuard<'_, Vec<(KeyValue, Arc<dyn RelayStats>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, name: String, relay: Arc<dyn RelayStats>) {
        let (name, mut relays) = (KeyValue::new(RELAY, name), self.lock());
        relays.retain(|(known, _)| *known != name);
        relays.push((name, relay));
    }

    /// Passes a snapshot of each relay to `read`, with its name.
    fn read(&self, read: impl Fn(&RelaySnapshot, &[KeyValue])) {
        let relays = self.lock().clone();
        relays.iter().for_each(|(name, relay)| read(&relay.snapshot(), std::slice::from_ref(name)));
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.lock().iter().map(|(name, _)| name.value.to_string()).collect();
        f.debug_tuple("Relays").field(&names).finish()
    }
}
