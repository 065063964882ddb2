//! How a running service is: for health endpoints and operators.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use tidings_core::TopicPartition;

/// How a running service is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// What is wrong, a line each; empty if nothing is.
    pub problems: Vec<String>,
    /// Its partitions, sorted.
    pub partitions: Vec<PartitionStatus>,
    /// What it has done since it started.
    pub totals: Totals,
    /// Bytes fetched and not settled.
    pub bytes_in_flight: usize,
}

impl Status {
    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        matches!(self.state, State::Starting | State::Running) && self.problems.is_empty()
    }

    /// Offsets still to be settled, over all partitions.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionStatus::lag).sum()
    }
}

/// What a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It has not been assigned anything yet.
    Starting,
    /// It handles records.
    Running,
    /// Something that it needs is down, or most deliveries fail: it waits, and recovers by itself.
    Degraded,
    /// An operator has paused it.
    Paused,
    /// It is shutting down.
    Stopping,
    /// It has ended.
    Stopped,
    /// It has ended because of an error that no waiting mends.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// How a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The partition.
    pub partition: TopicPartition,
    /// The assignment's epoch.
    pub epoch: u64,
    /// The offset after all that was fetched.
    pub position: u64,
    /// The lowest offset that is not settled.
    pub settled: u64,
    /// What is committed, as far as it is known here.
    pub committed: Option<u64>,
    /// The end of the log, when it was last asked for.
    pub end: u64,
    /// Records fetched and not settled.
    pub in_flight: usize,
    /// Why it is paused; empty if it is not.
    pub paused: Vec<PauseReason>,
    /// What holds it until it is mended or [skipped](crate::ServiceHandle::skip), by offset; empty if nothing does.
    pub held: Vec<Hold>,
}

/// What holds a partition: records that cannot be read, or one whose dead letter cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// [`Unreadable`](PauseReason::Unreadable) or [`DeadLetters`](PauseReason::DeadLetters).
    pub reason: PauseReason,
    /// The first offset. Records before it are settled and committed as anywhere else.
    pub offset: u64,
    /// The offset after the range; `None` where the reader does not know where readable records go on.
    pub next_offset: Option<u64>,
    /// The error.
    pub cause: String,
}

/// What [`ServiceHandle::skip`](crate::ServiceHandle::skip) has skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The partition.
    pub partition: TopicPartition,
    /// The offsets that were not handled.
    pub offsets: Range<u64>,
    /// Why they held the partition.
    pub cause: String,
}

impl PartitionStatus {
    /// Offsets still to be settled.
    pub fn lag(&self) -> u64 {
        self.end.max(self.position).saturating_sub(self.settled)
    }
}

/// Why a partition is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PauseReason {
    /// Its start is not yet committed.
    Starting,
    /// An operator asked for it.
    Operator,
    /// As many bytes are in flight as may be.
    Bytes,
    /// The span between the lowest unsettled and the highest given out is as large as it may be.
    Span,
    /// A handler says that something it needs is down.
    Handler,
    /// The idempotency store is down.
    Store,
    /// A dead letter could not be written.
    DeadLetters,
    /// A returned event could not be published.
    Publisher,
    /// Its next records cannot be read: see [`PartitionStatus::held`].
    Unreadable,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "its start is being committed",
            Self::Operator => "paused by an operator",
            Self::Bytes => "as many bytes are in flight as may be",
            Self::Span => "an old record is not settled yet",
            Self::Handler => "a handler says that something it needs is unavailable",
            Self::Store => "the idempotency store is unavailable",
            Self::DeadLetters => "a dead letter could not be written",
            Self::Publisher => "a returned event could not be published",
            Self::Unreadable => "its next records cannot be read",
        })
    }
}

/// What a service has done since it started, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Handled.
    pub handled: u64,
    /// Handled before, and not again.
    pub duplicates: u64,
    /// Taken by nobody.
    pub skipped: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Dead-lettered.
    pub dead_lettered: u64,
}

/// A service makes no progress though there is lag for so long before it is called stalled: [`Status::problems`] and a
/// log line say so.
pub const STALL_AFTER: Duration = Duration::from_secs(60);
