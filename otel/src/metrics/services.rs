//! Metrics that are read from the snapshots of services, when metrics are collected.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use tidings_core::{Name, TopicPartition};
use tidings_service::telemetry::{ClaimSnapshot, PartitionState, Snapshot};
use tidings_service::{ServiceStats, Totals};

use crate::conventions::{
    CONSUMED_MESSAGES, DESTINATION, GROUP, HANDLER, OPERATION_NAME, OUTCOME, PARTITION, POLL, REASON, RESULT, SERVICE,
    STATE, SYSTEM,
};

/// A metric that is read from snapshots: its name, unit, description and values.
struct Observed(&'static str, &'static str, &'static str, Values);

/// The source of a metric.
#[derive(Clone, Copy)]
enum Values {
    /// A sum since the service started.
    Counter(fn(&Snapshot, &mut Points<'_, u64>)),
    /// A current value.
    Gauge(fn(&Snapshot, &mut Points<'_, u64>)),
    /// A current time in seconds.
    Seconds(fn(&Snapshot, &mut Points<'_, f64>)),
}

/// All metrics that are read from snapshots.
static OBSERVED: [Observed; 17] = [
    Observed(CONSUMED_MESSAGES, "{message}", "Records that were fetched.", Values::Counter(consumed)),
    Observed("tidings.settled.messages", "{message}", "Settled records, by outcome.", Values::Counter(settled)),
    Observed("tidings.retries", "{attempt}", "Failed attempts that another followed.", Values::Counter(retries)),
    Observed("tidings.failures", "{attempt}", "Failed attempts.", Values::Counter(failures)),
    Observed("tidings.group.lag.messages", "{message}", "Offsets that are not settled.", Values::Gauge(lag)),
    Observed("tidings.group.lag", "s", "Age of the oldest record that is not settled.", Values::Seconds(time_lag)),
    Observed("tidings.partition.state", "1", "1 for the state of a partition, else 0.", Values::Gauge(states)),
    Observed("tidings.assigned.partitions", "{partition}", "Assigned partitions.", Values::Gauge(partitions)),
    Observed("tidings.in_flight.bytes", "By", "Bytes fetched and not settled.", Values::Gauge(in_flight)),
    Observed("tidings.circuit.openings", "{opening}", "Openings of the circuit breaker.", Values::Counter(openings)),
    Observed("tidings.claims.held", "{claim}", "Claims of events that are held.", Values::Gauge(claims_held)),
    Observed("tidings.claims", "{claim}", "Claims of events, by result.", Values::Counter(claims)),
    Observed("tidings.rebalances", "{rebalance}", "Changes of the assigned partitions.", Values::Counter(rebalances)),
    Observed("tidings.commits", "{commit}", "Committed offsets of partitions.", Values::Counter(commits)),
    Observed("tidings.commit.failures", "{commit}", "Failed commits of partitions.", Values::Counter(commit_failures)),
    Observed("tidings.fetched.bytes", "By", "Bytes of fetched records.", Values::Counter(bytes_fetched)),
    Observed("tidings.pauses", "{pause}", "Pauses of partitions, by reason.", Values::Counter(pauses)),
];

fn consumed(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.counters.records_fetched, [KeyValue::new(OPERATION_NAME, POLL)]);
}

fn settled(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    let mut add = |totals: &Totals, of: Option<&Name>| {
        let Totals { handled, duplicates, skipped, dead_lettered, forwarded, .. } = *totals;
        let outcomes = [
            ("handled", handled),
            ("duplicate", duplicates),
            ("skipped", skipped),
            ("dead_lettered", dead_lettered),
            ("forwarded", forwarded),
        ];
        for (outcome, count) in outcomes {
            points.add(count, of.map(handler).into_iter().chain([KeyValue::new(OUTCOME, outcome)]));
        }
    };
    snapshot.handlers.iter().for_each(|handler| add(&handler.totals, Some(&handler.handler)));
    add(&snapshot.unrouted, None);
}

fn retries(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    snapshot.handlers.iter().for_each(|of| points.add(of.totals.retried, [handler(&of.handler)]));
}

fn failures(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    snapshot.handlers.iter().for_each(|of| points.add(of.failures, [handler(&of.handler)]));
}

fn lag(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    snapshot.partitions.iter().for_each(|of| points.add(of.lag(), place(&of.partition)));
}

fn time_lag(snapshot: &Snapshot, points: &mut Points<'_, f64>) {
    snapshot.partitions.iter().for_each(|of| points.add(of.time_lag.as_secs_f64(), place(&of.partition)));
}

fn states(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    for of in &snapshot.partitions {
        for state in PartitionState::NAMES {
            let is_in = u64::from(of.state.as_str() == state);
            points.add(is_in, place(&of.partition).into_iter().chain([KeyValue::new(STATE, state)]));
        }
    }
}

fn partitions(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.partitions.len() as u64, []);
}

fn in_flight(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.bytes_in_flight as u64, []);
}

fn openings(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.counters.circuit_openings, []);
}

fn claims_held(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    snapshot.claims.iter().for_each(|claims| points.add(claims.held as u64, []));
}

fn claims(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    if let Some(ClaimSnapshot { granted, refused, duplicates, .. }) = &snapshot.claims {
        for (result, count) in [("granted", granted), ("refused", refused), ("duplicate", duplicates)] {
            points.add(*count, [KeyValue::new(RESULT, result)]);
        }
    }
}

fn rebalances(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.counters.rebalances, []);
}

fn commits(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.counters.commits, []);
}

fn commit_failures(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.counters.commit_failures, []);
}

fn bytes_fetched(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    points.add(snapshot.counters.bytes_fetched, []);
}

fn pauses(snapshot: &Snapshot, points: &mut Points<'_, u64>) {
    for (reason, count) in &snapshot.counters.pauses {
        points.add(*count, [KeyValue::new(REASON, reason.as_str())]);
    }
}

fn handler(name: &Name) -> KeyValue {
    KeyValue::new(HANDLER, name.to_string())
}

fn place(partition: &TopicPartition) -> [KeyValue; 2] {
    [KeyValue::new(DESTINATION, partition.topic.to_string()), KeyValue::new(PARTITION, partition.partition.to_string())]
}

/// Receives the values of one service.
struct Points<'a, T> {
    instrument: &'a dyn AsyncInstrument<T>,
    /// The attributes of all values, then those of one.
    attributes: Vec<KeyValue>,
    common: usize,
}

impl<'a, T> Points<'a, T> {
    fn new(instrument: &'a dyn AsyncInstrument<T>, snapshot: &Snapshot) -> Self {
        // Services that share a group have the same topics and handlers, or partitions that they pass to each other.
        let attributes = vec![
            KeyValue::new(SYSTEM, snapshot.system),
            KeyValue::new(GROUP, snapshot.group.to_string()),
            KeyValue::new(SERVICE, snapshot.service.to_string()),
        ];
        Self { instrument, common: attributes.len(), attributes }
    }

    fn add(&mut self, value: T, own: impl IntoIterator<Item = KeyValue>) {
        self.attributes.truncate(self.common);
        self.attributes.extend(own);
        self.instrument.observe(value, &self.attributes);
    }
}

/// Registers all instruments, which read `services`.
pub(super) fn register(meter: &Meter, services: &Arc<Services>) {
    for (number, Observed(name, unit, description, values)) in OBSERVED.iter().enumerate() {
        let services = services.clone();
        match *values {
            Values::Counter(read) => {
                let builder = meter.u64_observable_counter(*name).with_unit(*unit).with_description(*description);
                builder.with_callback(move |to| services.read(number, |of| read(of, &mut Points::new(to, of)))).build();
            }
            Values::Gauge(read) => {
                let builder = meter.u64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                builder.with_callback(move |to| services.read(number, |of| read(of, &mut Points::new(to, of)))).build();
            }
            Values::Seconds(read) => {
                let builder = meter.f64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                builder.with_callback(move |to| services.read(number, |of| read(of, &mut Points::new(to, of)))).build();
            }
        }
    }
}

/// The services that are read when metrics are collected.
#[derive(Default)]
pub(super) struct Services(Mutex<Collected>);

/// The services, and their snapshots for one collection.
#[derive(Default)]
struct Collected {
    services: Vec<ServiceStats>,
    snapshots: Arc<[Snapshot]>,
    /// The instruments that have read the snapshots.
    read: u64,
}

impl Services {
    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, service: &ServiceStats) {
        let (mut collected, added) = (self.lock(), service.snapshot());
        let of = |stats: &ServiceStats| {
            let snapshot = stats.snapshot();
            (snapshot.service, snapshot.group)
        };
        collected.services.retain(|known| of(known) != (added.service.clone(), added.group.clone()));
        collected.services.push(service.clone());
        collected.read = u64::MAX;
    }

    /// Passes a snapshot of each service to `read`. All instruments of a collection share the snapshots: an instrument
    /// that comes again begins another one.
    fn read(&self, instrument: usize, read: impl Fn(&Snapshot)) {
        let snapshots = {
            let mut collected = self.lock();
            if collected.read & (1 << instrument) != 0 || collected.snapshots.len() != collected.services.len() {
                collected.snapshots = collected.services.iter().map(ServiceStats::snapshot).collect();
                collected.read = 0;
            }
            collected.read |= 1 << instrument;
            collected.snapshots.clone()
        };
        snapshots.iter().for_each(read);
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.lock().services.iter().map(|service| service.name().clone()).collect();
        f.debug_tuple("Services").field(&names).finish()
    }
}

const _: () = assert!(OBSERVED.len() < 64, "one bit per instrument");
