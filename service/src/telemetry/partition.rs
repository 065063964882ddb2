//! Snapshots of partitions.

use std::fmt;
use std::time::Duration;

use tidings_core::{ErrorKind, Name, TopicPartition};

use crate::status::PauseReason;

/// A partition of a [`Snapshot`](super::Snapshot).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionSnapshot {
    /// The topic and partition.
    pub partition: TopicPartition,
    /// The state, by the service's [`with_stall_after`](crate::Service::with_stall_after).
    pub state: PartitionState,
    /// The assignment's epoch.
    pub epoch: u64,
    /// The offset after the last fetched record.
    pub position: u64,
    /// The lowest offset that is not settled.
    pub settled: u64,
    /// The committed offset, as far as it is known here.
    pub committed: Option<u64>,
    /// The end of the log, as of the last query, at most some seconds ago; not below the position.
    pub end: u64,
    /// The number of records that are fetched and not settled.
    pub in_flight: usize,
    /// The number of offsets of a retry topic that wait until they are due; they are not part of the lag.
    pub waiting: u64,
    /// Whether the partition is of a retry topic: its lag counts only the records that are due.
    pub is_retry: bool,
    /// The bytes of the fetched batches that are not completely settled.
    pub bytes_in_flight: usize,
    /// The time lag: the age of the oldest unsettled record, by its timestamp; exactly zero if there is none. Of
    /// records that are not fetched, the time since their offsets were known.
    pub time_lag: Duration,
    /// How long the lowest unsettled offset has been the same; zero if everything is settled.
    pub unmoved: Duration,
    /// The difference between the clock of this host and the timestamps of new records, if it exceeds
    /// [`ClockGap::TOLERANCE`]: [`time_lag`](Self::time_lag) is wrong by as much.
    pub clock_gap: Option<ClockGap>,
    /// The current pauses of fetching.
    pub pauses: Vec<Pause>,
    /// The record that holds the lowest unsettled offset, once it has not moved for some seconds.
    pub holding: Option<Holding>,
    /// Whether the partition is being given back: nothing more is fetched.
    pub leaving: bool,
}

impl PartitionSnapshot {
    /// Returns the lag: the number of offsets that are not settled.
    pub fn lag(&self) -> u64 {
        self.end.max(self.position).saturating_sub(self.settled).saturating_sub(self.waiting)
    }
}

/// The state of a partition.
///
/// The first that applies, in the order unreadable, stalled, paused, rewound, slow, ok.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionState {
    /// The partition is read, and its lag falls or is small.
    Ok,
    /// Offsets advance, but the lag has not fallen for [`stall_after`](crate::Service::with_stall_after), and the
    /// oldest unsettled record is older than that.
    Slow,
    /// There is unsettled work, and the lowest unsettled offset has been the same for
    /// [`stall_after`](crate::Service::with_stall_after), although the partition is not paused, no record waits longer
    /// than that for its next attempt, and deliveries may start. [`PartitionSnapshot::holding`] has the record.
    ///
    /// A pause because a bound is reached ([`Bytes`](PauseReason::Bytes), [`Span`](PauseReason::Span)) does not
    /// prevent this state: most often the stalled record is its cause.
    Stalled,
    /// The log was truncated or recreated, and the former position is not reached again.
    Rewound,
    /// Fetching is paused, for this reason and possibly others.
    Paused(PauseReason),
    /// The records from this offset on cannot be read.
    Unreadable(u64),
}

impl PartitionState {
    /// All names, as returned by [`as_str`](Self::as_str).
    pub const NAMES: [&str; 6] = ["ok", "slow", "stalled", "rewound", "paused", "unreadable"];

    /// Returns the stable name in metrics and logs, such as `"stalled"`.
    ///
    /// ```
    /// use tidings_service::telemetry::PartitionState;
    ///
    /// assert_eq!(PartitionState::Unreadable(41).as_str(), "unreadable");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Rewound => "rewound",
            Self::Paused(_) => "paused",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused(reason) => write!(f, "paused: {reason}"),
            Self::Unreadable(offset) => write!(f, "unreadable from offset {offset} on"),
            state => f.write_str(state.as_str()),
        }
    }
}

/// A difference between the clock of this host and the timestamps of records that have just been appended.
///
/// Timestamps are those of the producers, or of the broker if the topic says so. Producers that set timestamps of their own,
/// such as the time of a past event, have the same effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockGap {
    /// The clock of this host is ahead: time lags are too large.
    Ahead(Duration),
    /// The clock of this host is behind: time lags are too small.
    Behind(Duration),
}

impl ClockGap {
    /// The largest difference that is not reported.
    pub const TOLERANCE: Duration = Duration::from_secs(300);
}

/// A pause of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// The reason.
    pub reason: PauseReason,
    /// How long the pause has lasted.
    pub lasted: Duration,
}

impl Pause {
    pub(crate) fn new(reason: PauseReason, lasted: Duration) -> Self {
        Self { reason, lasted }
    }
}

/// The record at a partition's lowest unsettled offset, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The offset.
    pub offset: u64,
    /// The record's handler, if it has one and is known.
    pub handler: Option<Name>,
    /// The number of the current or next attempt, from 1, if known.
    pub attempt: Option<u32>,
    /// The cause of the wait.
    pub cause: HoldCause,
    /// The kind of the last attempt's error, if one failed.
    pub error: Option<ErrorKind>,
    /// The time until the next attempt, if one is due later.
    pub due: Option<Duration>,
}

/// The cause for which a record waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HoldCause {
    /// Its handler has not returned.
    Handler,
    /// Its handler blocks its thread.
    Blocked,
    /// Its handler failed; the next attempt is due later.
    Retry,
    /// Its handler's layers are not ready: a limit is reached.
    Throttled,
    /// Its batch is incomplete.
    Batching,
    /// Other records go first, or deliveries may not start.
    Queued,
    /// It crashed processes, and runs when nothing else is in flight.
    Isolated,
    /// The idempotency store.
    Store,
    /// The dead-letter sink.
    DeadLetters,
    /// The publisher of returned events.
    Publisher,
    /// It is not fetched yet.
    Fetch,
    /// Not known.
    Unknown,
}

impl HoldCause {
    /// Returns the stable name in logs and metrics, such as `"dead-letters"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Blocked => "blocked",
            Self::Retry => "retry",
            Self::Throttled => "throttled",
            Self::Batching => "batch",
            Self::Queued => "queued",
            Self::Isolated => "isolated",
            Self::Store => "store",
            Self::DeadLetters => "dead-letters",
            Self::Publisher => "publisher",
            Self::Fetch => "fetch",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for HoldCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
