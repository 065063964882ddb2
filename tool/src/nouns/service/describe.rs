//! `service describe`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_ops_api::wire::{Holding, Reason, ServiceHandler, ServicePartition, ServiceState};

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::output::{Table, View, or_dash};

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name of the service
    service: String,
}

/// A running service.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DescribedService {
    /// The name.
    service: String,
    /// The consumer group.
    group: String,
    /// The transport.
    system: String,
    /// `running`, `degraded`, `draining` and so on.
    state: String,
    /// Whether its engine works.
    live: bool,
    /// Whether it takes its share of the work.
    ready: bool,
    /// The time since its start in seconds.
    uptime_seconds: f64,
    /// The number of records that are not settled.
    lag: u64,
    /// The age of the oldest of them in seconds.
    lag_seconds: f64,
    /// Why it is not as it should be, and what to do.
    reasons: Vec<ServiceReason>,
    /// The handlers.
    handlers: Vec<DescribedHandler>,
    /// The partitions.
    partitions: Vec<DescribedPartition>,
    /// Partitions that something holds.
    held: Vec<HeldPartition>,
}

/// Why a service is not as it should be.
#[derive(Debug, Serialize, JsonSchema)]
struct ServiceReason {
    /// The stable name.
    reason: String,
    /// The time since it holds in seconds.
    seconds: f64,
    /// Its meaning.
    meaning: String,
    /// The remedy.
    remedy: String,
}

/// A handler.
#[derive(Debug, Serialize, JsonSchema)]
struct DescribedHandler {
    /// The name.
    handler: String,
    /// Deliveries that were handled.
    handled: u64,
    /// Failed attempts.
    failures: u64,
    /// Deliveries that were dead-lettered.
    dead_lettered: u64,
    /// The mean duration in seconds.
    mean_seconds: Option<f64>,
}

/// A partition.
#[derive(Debug, Serialize, JsonSchema)]
struct DescribedPartition {
    /// The topic.
    topic: String,
    /// The number.
    partition: u32,
    /// `ok`, `slow`, `stalled`, `paused` and so on.
    state: String,
    /// The number of records that are not settled.
    lag: u64,
    /// The age of the oldest of them in seconds.
    lag_seconds: f64,
    /// The committed offset.
    committed: Option<u64>,
    /// The end of the log.
    end: u64,
    /// The record that it waits for.
    holding: Option<WaitingRecord>,
}

/// The record at the lowest offset that is not settled, and why it is not.
#[derive(Debug, Serialize, JsonSchema)]
struct WaitingRecord {
    /// The offset.
    offset: u64,
    /// The handler; null if none was reached.
    handler: Option<String>,
    /// The attempt that runs or comes next, from 1.
    attempt: Option<u32>,
    /// The cause, such as `retry`.
    cause: String,
    /// The kind of the last error.
    error: Option<String>,
    /// The time until the next attempt in seconds.
    due_seconds: Option<f64>,
}

impl From<Holding> for WaitingRecord {
    fn from(found: Holding) -> Self {
        let Holding { offset, handler, attempt, cause, error, due_seconds } = found;
        Self { offset, handler, attempt, cause, error, due_seconds }
    }
}

/// A partition that something holds.
#[derive(Debug, Serialize, JsonSchema)]
struct HeldPartition {
    /// The topic.
    topic: String,
    /// The number.
    partition: u32,
    /// Why.
    reason: String,
    /// The first offset that is held.
    offset: u64,
    /// The offset behind what holds it, if known: `service skip` skips to it.
    next_offset: Option<u64>,
}

impl From<ServiceState> for DescribedService {
    fn from(found: ServiceState) -> Self {
        let reason =
            |Reason { reason, seconds, meaning, remedy, .. }| ServiceReason { reason, seconds, meaning, remedy };
        let handler = |found: ServiceHandler| DescribedHandler {
            handler: found.handler,
            handled: found.totals.handled,
            failures: found.failures,
            dead_lettered: found.totals.dead_lettered,
            mean_seconds: found.mean_seconds,
        };
        let partition = |found: ServicePartition| {
            let ServicePartition { topic, partition, state, lag, lag_seconds, committed, end, holding, .. } = found;
            let holding = holding.map(WaitingRecord::from);
            DescribedPartition { topic, partition, state, lag, lag_seconds, committed, end, holding }
        };
        let held = |found: tidings_ops_api::wire::Held| HeldPartition {
            topic: found.at.topic,
            partition: found.at.partition,
            reason: found.reason,
            offset: found.offset,
            next_offset: found.next_offset,
        };
        Self {
            reasons: found.reasons.into_iter().map(reason).collect(),
            handlers: found.handlers.into_iter().map(handler).collect(),
            partitions: found.partitions.into_iter().map(partition).collect(),
            held: found.held.into_iter().map(held).collect(),
            service: found.service,
            group: found.group,
            system: found.system,
            state: found.state,
            live: found.live,
            ready: found.ready,
            uptime_seconds: found.uptime_seconds,
            lag: found.lag,
            lag_seconds: found.lag_seconds,
        }
    }
}

impl Query for Describe {
    type View = DescribedService;

    async fn run(&self, cx: &Context) -> Result<DescribedService, Failure> {
        Ok(cx.remote_services().await?.describe(&self.service).await?.into())
    }
}

impl DescribedService {
    /// Returns the table of the records that partitions wait for; `None` if there are none.
    fn waiting(&self) -> Option<Table> {
        let row = |p: &DescribedPartition| {
            let record = p.holding.as_ref()?;
            let place = format!("{}/{}", p.topic, p.partition);
            let due = record.due_seconds.map(|seconds| format!("{seconds:.0} s"));
            let texts = [&record.handler, &record.error].map(|text| or_dash(text.as_ref()));
            let [handler, error] = texts;
            let cells = [place, record.offset.to_string(), record.cause.clone(), handler, or_dash(record.attempt)];
            Some(cells.into_iter().chain([error, or_dash(due)]).collect())
        };
        let rows: Vec<Vec<String>> = self.partitions.iter().filter_map(row).collect();
        let columns = ["WAITS", ">OFFSET", "CAUSE", "HANDLER", ">ATTEMPT", "LAST ERROR", ">NEXT IN"];
        (!rows.is_empty()).then(|| Table::new(&columns).with_rows(rows))
    }
}

impl View for DescribedService {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let title = format!("{} ({}, group {}): {}", self.service, self.system, self.group, self.state);
        let mut all = Vec::new();
        let reasons = Table::new(&["REASON", "MEANING", "REMEDY"])
            .with_rows(self.reasons.iter().map(|r| vec![r.reason.clone(), r.meaning.clone(), r.remedy.clone()]));
        all.extend((!self.reasons.is_empty()).then_some(reasons));
        let handler = |h: &DescribedHandler| {
            let counts = [h.handled, h.failures, h.dead_lettered].map(|count| count.to_string());
            let mean = or_dash(h.mean_seconds.map(|seconds| format!("{:.1} ms", seconds * 1_000.0)));
            std::iter::once(h.handler.clone()).chain(counts).chain([mean]).collect()
        };
        let columns = ["HANDLER", ">HANDLED", ">FAILURES", ">DEAD LETTERS", ">MEAN"];
        all.push(Table::new(&columns).with_rows(self.handlers.iter().map(handler)));
        let partition = |p: &DescribedPartition| {
            let place = format!("{}/{}", p.topic, p.partition);
            let numbers =
                [or_dash(p.committed), p.end.to_string(), p.lag.to_string(), format!("{:.0} s", p.lag_seconds)];
            [place, p.state.clone()].into_iter().chain(numbers).collect()
        };
        let columns = ["PARTITION", "STATE", ">COMMITTED", ">END", ">LAG", ">OLDEST"];
        all.push(Table::new(&columns).with_rows(self.partitions.iter().map(partition)));
        all.extend(self.waiting());
        let held = |h: &HeldPartition| {
            let offsets = h.next_offset.map_or_else(|| h.offset.to_string(), |next| format!("{}..{next}", h.offset));
            vec![format!("{}/{}", h.topic, h.partition), offsets, h.reason.clone()]
        };
        let table = Table::new(&["HELD", ">OFFSETS", "REASON"]).with_rows(self.held.iter().map(held));
        all.extend((!self.held.is_empty()).then_some(table));
        if let Some(first) = all.first_mut() {
            *first = first.clone().with_title(title);
        }
        all
    }
}
