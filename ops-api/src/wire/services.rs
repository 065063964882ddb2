//! Running services: their state, and commands to them.

use serde::{Deserialize, Serialize};

use super::{At, Place};

/// The services of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Services {
    /// The services.
    pub services: Vec<ServiceSummary>,
}

/// A service, in a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// The name, made unique within the endpoint.
    pub service: String,
    /// The group.
    pub group: String,
    /// The messaging system.
    pub system: String,
    /// The state, such as `running`.
    pub state: String,
    /// Whether the liveness probe passes.
    pub live: bool,
    /// Whether the readiness probe passes.
    pub ready: bool,
    /// The codes of what is wrong.
    pub reasons: Vec<String>,
    /// The number of assigned partitions.
    pub partitions: usize,
    /// The lag, in offsets.
    pub lag: u64,
    /// Whether the endpoint may control it.
    pub controlled: bool,
}

/// The state of a service, as in `/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ServiceState {
    /// The name, made unique within the endpoint.
    pub service: String,
    /// The group.
    pub group: String,
    /// The messaging system.
    pub system: String,
    /// The state, such as `running`.
    pub state: String,
    /// Whether the liveness probe passes.
    pub live: bool,
    /// Whether the readiness probe passes.
    pub ready: bool,
    /// Whether other members have all partitions.
    pub standby: bool,
    /// What is wrong, with the remedy.
    pub reasons: Vec<Reason>,
    /// The time since the start, in seconds.
    pub uptime_seconds: f64,
    /// Whether it has joined its group.
    pub joined: bool,
    /// The lag, in offsets.
    pub lag: u64,
    /// The age of the oldest record that is not settled.
    pub lag_seconds: f64,
    /// The bytes fetched and not settled.
    pub in_flight_bytes: usize,
    /// The counters since the start.
    pub totals: Totals,
    /// The counters of each handler.
    pub handlers: Vec<ServiceHandler>,
    /// The assigned partitions.
    pub partitions: Vec<ServicePartition>,
    /// The number of partitions that are not listed.
    pub partitions_left_out: usize,
    /// Whether the endpoint may control it.
    pub controlled: bool,
    /// What holds partitions until it is skipped; known of controlled services.
    pub held: Vec<Held>,
}

/// A reason why a service is not well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reason {
    /// The code, such as `partition_stalled`.
    pub reason: String,
    /// `not_live`, `not_ready` or `degraded`.
    pub severity: String,
    /// Since when.
    pub seconds: f64,
    /// The meaning.
    pub meaning: String,
    /// The remedy.
    pub remedy: String,
}

/// Counters of deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Handled.
    pub handled: u64,
    /// Known already.
    pub duplicates: u64,
    /// Skipped by policy.
    pub skipped: u64,
    /// Tried again.
    pub retried: u64,
    /// Dead-lettered.
    pub dead_lettered: u64,
}

/// A handler of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceHandler {
    /// The name.
    pub handler: String,
    /// The counters since the start.
    #[serde(flatten)]
    pub totals: Totals,
    /// Failed attempts.
    pub failures: u64,
    /// All attempts.
    pub deliveries: u64,
    /// The mean time of an attempt.
    pub mean_seconds: Option<f64>,
}

/// An assigned partition of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServicePartition {
    /// The topic.
    pub topic: String,
    /// The number.
    pub partition: u32,
    /// The state, such as `running` or `stalled`.
    pub state: String,
    /// The lag, in offsets.
    pub lag: u64,
    /// The age of the oldest record that is not settled.
    pub lag_seconds: f64,
    /// The offset after the last fetched record.
    pub position: u64,
    /// The lowest offset that is not settled.
    pub settled: u64,
    /// The committed offset.
    pub committed: Option<u64>,
    /// The end of the log.
    pub end: u64,
    /// The records fetched and not settled.
    pub in_flight_messages: usize,
    /// Whether it is being given back.
    pub leaving: bool,
    /// The record that it waits for.
    pub holding: Option<Holding>,
}

/// The record at the lowest offset that is not settled, and why it is not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holding {
    /// The offset.
    pub offset: u64,
    /// The handler; `None` if none was reached.
    pub handler: Option<String>,
    /// The attempt that runs or comes next, from 1.
    pub attempt: Option<u32>,
    /// The cause, such as `retry`.
    pub cause: String,
    /// The kind of the last error.
    pub error: Option<String>,
    /// The time until the next attempt, in seconds.
    pub due_seconds: Option<f64>,
}

/// The range that holds a partition, until it is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Held {
    /// The partition.
    #[serde(flatten)]
    pub at: At,
    /// The reason, as of pauses.
    pub reason: String,
    /// The first offset.
    pub offset: u64,
    /// The offset after it, if it is known.
    pub next_offset: Option<u64>,
}

impl Held {
    /// Creates the hold of a partition by the offsets from `offset` on.
    pub fn new(at: At, reason: &str, offset: u64, next_offset: Option<u64>) -> Self {
        Self { at, reason: reason.to_owned(), offset, next_offset }
    }
}

/// A request to pause or resume a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The service.
    pub service: String,
    /// Only these partitions; by default the whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<At>>,
}

/// A request to drain a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The service.
    pub service: String,
    /// How long deliveries that have begun may take; then they are cancelled.
    pub deadline_ms: u64,
}

/// The answer to a request that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Accepted {
    /// The service.
    pub service: String,
    /// The state of the service when the answer was made.
    pub state: String,
}

impl Accepted {
    /// Creates the answer about a service in this state.
    pub fn new(service: impl Into<String>, state: impl Into<String>) -> Self {
        Self { service: service.into(), state: state.into() }
    }
}

/// A request to move the position of a partition of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seek {
    /// The service.
    pub service: String,
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// Where to.
    pub to: Place,
    /// How long deliveries that have begun may take; then they are cancelled.
    pub deadline_ms: u64,
}

/// The result of a seek.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The lowest offset that was not settled.
    pub from: u64,
    /// The offset at which reading goes on.
    pub to: u64,
}

/// A request to skip what holds a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The service.
    pub service: String,
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset after the last one.
    pub to: u64,
}

/// The result of a skip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The first offset that is not handled.
    pub from: u64,
    /// The offset after the last one.
    pub to: u64,
    /// Why it held the partition.
    pub cause: String,
}
