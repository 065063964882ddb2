//! `/status`: the readings as JSON, for operators and their tools. The fields are described in `docs/status.md`.

use std::cmp::Reverse;
use std::time::Duration;

use serde::Serialize;
use tidings_ops_api::wire;
use tidings_service::telemetry::{
    ClaimSnapshot, ClockGap, Finding, HandlerSnapshot, Health, Holding, PartitionSnapshot, PartitionState,
    PublisherSnapshot, RelaySnapshot, Snapshot,
};
use tidings_service::{PauseReason, Totals};

use crate::advice::{Note, advice, notes};
use crate::probes::JsonReason;
use crate::sources::{Reading, ServiceReading};

/// The partitions of a service that are listed; those that need attention come first.
pub(crate) const MAX_PARTITIONS: usize = 500;

#[derive(Debug, Serialize)]
struct Status<'a> {
    version: &'static str,
    services: Vec<Service<'a>>,
    publishers: Vec<Publisher<'a>>,
    relays: Vec<Relay>,
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    service: &'a str,
    group: &'a str,
    system: &'static str,
    state: String,
    live: bool,
    ready: bool,
    standby: bool,
    reasons: Vec<Reason>,
    notes: Vec<Note>,
    uptime_seconds: f64,
    joined: bool,
    group_members: Option<usize>,
    draining_seconds: Option<f64>,
    reading_failed_seconds: Option<f64>,
    circuit_open_seconds: Option<f64>,
    lag: u64,
    lag_seconds: f64,
    in_flight_bytes: usize,
    totals: Outcomes,
    counters: Counters,
    claims: Option<Claims>,
    blocked: Vec<Blocked<'a>>,
    handlers: Vec<Handler<'a>>,
    partitions: Vec<Partition<'a>>,
    partitions_left_out: usize,
}

#[derive(Debug, Serialize)]
struct Reason {
    #[serde(flatten)]
    reason: JsonReason,
    meaning: &'static str,
    remedy: &'static str,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    handled: u64,
    duplicates: u64,
    skipped: u64,
    retried: u64,
    dead_lettered: u64,
}

#[derive(Debug, Serialize)]
struct Counters {
    fetched_batches: u64,
    fetched_messages: u64,
    fetched_bytes: u64,
    read_failures: u64,
    commits: u64,
    commit_failures: u64,
    rebalances: u64,
    circuit_openings: u64,
    returned_messages: u64,
    return_failures: u64,
    pauses: Vec<PauseCount>,
}

#[derive(Debug, Serialize)]
struct PauseCount {
    reason: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Claims {
    held: usize,
    granted: u64,
    refused: u64,
    duplicates: u64,
}

#[derive(Debug, Serialize)]
struct Blocked<'a> {
    handler: Option<&'a str>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Handler<'a> {
    handler: &'a str,
    #[serde(flatten)]
    outcomes: Outcomes,
    failures: u64,
    deliveries: u64,
    mean_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Partition<'a> {
    topic: &'a str,
    partition: u32,
    state: &'static str,
    unreadable_from: Option<u64>,
    pauses: Vec<Pause>,
    lag: u64,
    lag_seconds: f64,
    unmoved_seconds: f64,
    clock_ahead_seconds: Option<f64>,
    position: u64,
    settled: u64,
    committed: Option<u64>,
    end: u64,
    in_flight_messages: usize,
    in_flight_bytes: usize,
    leaving: bool,
    holding: Option<Held<'a>>,
}

#[derive(Debug, Serialize)]
struct Pause {
    reason: &'static str,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Held<'a> {
    offset: u64,
    handler: Option<&'a str>,
    attempt: Option<u32>,
    cause: &'static str,
    error: Option<&'static str>,
    due_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Publisher<'a> {
    publisher: &'a str,
    published: u64,
    failed: u64,
    calls: u64,
}

#[derive(Debug, Serialize)]
struct Relay {
    relay: usize,
    running: bool,
    failing: bool,
    in_flight: usize,
    published: u64,
    refused: u64,
    outbox: Option<Outbox>,
}

#[derive(Debug, Serialize)]
struct Outbox {
    waiting: u64,
    lag_seconds: f64,
    holding: u64,
    parked: u64,
}

/// Returns the status as JSON.
pub(crate) fn json(reading: &Reading) -> String {
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        services: reading.services.iter().map(service).collect(),
        publishers: reading.publishers.iter().map(|(name, publisher)| of_publisher(name, publisher)).collect(),
        relays: reading.relays.iter().enumerate().map(|(number, relay)| of_relay(number + 1, relay)).collect(),
    };
    // Texts and finite numbers can always be written.
    serde_json::to_string_pretty(&status).unwrap_or_default() + "\n"
}

/// A service in an answer of the API.
#[derive(Debug, Serialize)]
pub(crate) struct Described<'a> {
    #[serde(flatten)]
    service: Service<'a>,
    controlled: bool,
    held: Vec<wire::Held>,
}

/// Returns the state of a service, for the API.
pub(crate) fn described(reading: &ServiceReading, controlled: bool, held: Vec<wire::Held>) -> Described<'_> {
    Described { service: service(reading), controlled, held }
}

fn service(reading: &ServiceReading) -> Service<'_> {
    let ServiceReading { label, snapshot, health } = reading;
    let Health { live, ready, standby, findings, .. } = health;
    let (partitions, partitions_left_out) = partitions(&snapshot.partitions);
    Service {
        service: label,
        group: &snapshot.group,
        system: snapshot.system,
        state: snapshot.state.to_string(),
        live: *live,
        ready: *ready,
        standby: *standby,
        reasons: findings.iter().map(reason).collect(),
        notes: notes(snapshot, *standby),
        uptime_seconds: snapshot.uptime.as_secs_f64(),
        joined: snapshot.joined,
        group_members: snapshot.members,
        draining_seconds: seconds(snapshot.draining),
        reading_failed_seconds: seconds(snapshot.reading_failed),
        circuit_open_seconds: seconds(snapshot.circuit.open),
        lag: snapshot.lag(),
        lag_seconds: snapshot.time_lag().as_secs_f64(),
        in_flight_bytes: snapshot.bytes_in_flight,
        totals: outcomes(&snapshot.totals()),
        counters: counters(snapshot),
        claims: snapshot.claims.as_ref().map(claims),
        blocked: blocked(snapshot),
        handlers: snapshot.handlers.iter().map(handler).collect(),
        partitions,
        partitions_left_out,
    }
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn reason(finding: &Finding) -> Reason {
    let (meaning, remedy) = advice(finding.reason);
    Reason { reason: finding.into(), meaning, remedy }
}

fn outcomes(totals: &Totals) -> Outcomes {
    let Totals { handled, duplicates, skipped, retried, dead_lettered, .. } = *totals;
    Outcomes { handled, duplicates, skipped, retried, dead_lettered }
}

fn counters(snapshot: &Snapshot) -> Counters {
    let counters = &snapshot.counters;
    let pauses = counters.pauses.iter();
    Counters {
        fetched_batches: counters.fetches,
        fetched_messages: counters.records_fetched,
        fetched_bytes: counters.bytes_fetched,
        read_failures: counters.read_failures,
        commits: counters.commits,
        commit_failures: counters.commit_failures,
        rebalances: counters.rebalances,
        circuit_openings: counters.circuit_openings,
        returned_messages: snapshot.published.published,
        return_failures: snapshot.published.failed,
        pauses: pauses.map(|(reason, count)| PauseCount { reason: reason.as_str(), count: *count }).collect(),
    }
}

fn claims(claims: &ClaimSnapshot) -> Claims {
    let ClaimSnapshot { held, granted, refused, duplicates, .. } = *claims;
    Claims { held, granted, refused, duplicates }
}

fn blocked(snapshot: &Snapshot) -> Vec<Blocked<'_>> {
    let workers = snapshot.tasks.workers.iter();
    workers.map(|worker| Blocked { handler: worker.handler.as_deref(), seconds: worker.busy.as_secs_f64() }).collect()
}

fn handler(handler: &HandlerSnapshot) -> Handler<'_> {
    let deliveries = handler.attempts();
    let mean = (deliveries > 0).then(|| handler.durations.sum().as_secs_f64() / deliveries as f64);
    Handler {
        handler: &handler.handler,
        outcomes: outcomes(&handler.totals),
        failures: handler.failures,
        deliveries,
        mean_seconds: mean,
    }
}

/// Returns the partitions that are listed, and the number of the others.
fn partitions(all: &[PartitionSnapshot]) -> (Vec<Partition<'_>>, usize) {
    let mut listed: Vec<&PartitionSnapshot> = all.iter().collect();
    if listed.len() > MAX_PARTITIONS {
        listed.sort_by_key(|partition| (urgency(partition.state), Reverse(partition.lag())));
        listed.truncate(MAX_PARTITIONS);
    }
    let left_out = all.len() - listed.len();
    (listed.into_iter().map(partition).collect(), left_out)
}

/// Returns the rank of a state: the lower, the more it needs an operator.
const fn urgency(state: PartitionState) -> u8 {
    match state {
        PartitionState::Unreadable(_) | PartitionState::Stalled => 0,
        PartitionState::Paused(PauseReason::Bytes | PauseReason::Span | PauseReason::Starting) => 2,
        PartitionState::Paused(_) => 1,
        PartitionState::Rewound | PartitionState::Slow => 2,
        _ => 3,
    }
}

fn partition(partition: &PartitionSnapshot) -> Partition<'_> {
    let pauses = partition.pauses.iter();
    Partition {
        topic: &partition.partition.topic,
        partition: partition.partition.partition,
        state: partition.state.as_str(),
        unreadable_from: match partition.state {
            PartitionState::Unreadable(offset) => Some(offset),
            _ => None,
        },
        pauses: pauses
            .map(|pause| Pause { reason: pause.reason.as_str(), seconds: pause.lasted.as_secs_f64() })
            .collect(),
        lag: partition.lag(),
        lag_seconds: partition.time_lag.as_secs_f64(),
        unmoved_seconds: partition.unmoved.as_secs_f64(),
        clock_ahead_seconds: partition.clock_gap.and_then(clock_ahead),
        position: partition.position,
        settled: partition.settled,
        committed: partition.committed,
        end: partition.end,
        in_flight_messages: partition.in_flight,
        in_flight_bytes: partition.bytes_in_flight,
        leaving: partition.leaving,
        holding: partition.holding.as_ref().map(held),
    }
}

/// Returns how far the clock of this host is ahead; negative if it is behind.
fn clock_ahead(gap: ClockGap) -> Option<f64> {
    match gap {
        ClockGap::Ahead(time) => Some(time.as_secs_f64()),
        ClockGap::Behind(time) => Some(-time.as_secs_f64()),
        _ => None,
    }
}

fn held(holding: &Holding) -> Held<'_> {
    Held {
        offset: holding.offset,
        handler: holding.handler.as_deref(),
        attempt: holding.attempt,
        cause: holding.cause.as_str(),
        error: holding.error.map(|kind| kind.as_str()),
        due_seconds: seconds(holding.due),
    }
}

fn of_publisher<'a>(name: &'a str, publisher: &PublisherSnapshot) -> Publisher<'a> {
    Publisher { publisher: name, published: publisher.published, failed: publisher.failed, calls: publisher.calls }
}

fn of_relay(number: usize, relay: &RelaySnapshot) -> Relay {
    Relay {
        relay: number,
        running: relay.is_running,
        failing: relay.is_failing,
        in_flight: relay.in_flight,
        published: relay.published,
        refused: relay.refused,
        outbox: relay.outbox.as_ref().map(|outbox| Outbox {
            waiting: outbox.waiting,
            lag_seconds: outbox.time_lag.as_secs_f64(),
            holding: outbox.holding,
            parked: outbox.parked,
        }),
    }
}
