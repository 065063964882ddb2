//! The status of a running service, for health endpoints and operators.
//!
//! A [`Status`] is a snapshot by the coordinator. Its state says whether the service works; its problems say, one line
//! each, what an operator should look at; the partitions say where. Counters restart with the service.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use tidings_core::{Name, TopicPartition};

/// The status of a running service.
///
/// ```
/// use tidings_core::Delivery;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service, ServiceState};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&MemoryTransport::new()).await?;
///
/// let status = service.status().await;
/// assert!(status.is_healthy() && status.problems.is_empty());
///
/// service.pause()?;
/// let status = service.status().await;
/// assert_eq!(status.state, ServiceState::Paused);
/// assert!(!status.is_healthy(), "a paused service does not handle records");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The state of the service.
    pub state: State,
    /// The current problems, one line each; empty if there are none.
    pub problems: Vec<String>,
    /// The assigned partitions, sorted.
    pub partitions: Vec<PartitionStatus>,
    /// The counters since the service started.
    pub totals: Totals,
    /// The same by handler, in the order in which the router has them. Records without a handler are in `totals` only.
    pub handlers: Vec<HandlerTotals>,
    /// Bytes fetched and not settled.
    pub bytes_in_flight: usize,
}

impl Status {
    /// Returns whether there are no problems.
    pub fn is_healthy(&self) -> bool {
        matches!(self.state, State::Starting | State::Running) && self.problems.is_empty()
    }

    /// Returns the lag over all partitions: the number of offsets that are not settled.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionStatus::lag).sum()
    }
}

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// No partition was assigned yet.
    Starting,
    /// The service handles records.
    Running,
    /// A dependency is down, or most deliveries fail: the service waits, and recovers by itself.
    Degraded,
    /// Paused by an operator.
    Paused,
    /// The service is shutting down.
    Stopping,
    /// The service has stopped.
    Stopped,
    /// The service has stopped because of an error that is not transient.
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

/// The status of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The topic and partition.
    pub partition: TopicPartition,
    /// The assignment's epoch.
    pub epoch: u64,
    /// The offset after the last fetched record.
    pub position: u64,
    /// The lowest offset that is not settled.
    pub settled: u64,
    /// The committed offset, as far as it is known here.
    pub committed: Option<u64>,
    /// The end of the log, as of the last query.
    pub end: u64,
    /// The number of records that are fetched and not settled.
    pub in_flight: usize,
    /// The number of offsets of a retry topic that wait until they are due; they are not part of the lag.
    pub waiting: u64,
    /// The reasons why the partition is paused; empty if it is not.
    pub paused: Vec<PauseReason>,
    /// The holds that block the partition until they are resolved or [skipped](crate::ServiceHandle::skip), by offset;
    /// empty if there are none.
    pub held: Vec<Hold>,
}

/// A hold of a partition: records that cannot be read, or a record whose dead letter cannot be written.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{Delivery, PublisherExt, Record, TopicPartition, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{PauseReason, Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let (transport, partition) = (MemoryTransport::new(), TopicPartition::new("clicks", 0));
/// for page in ["home", "cart", "checkout"] {
///     transport.publisher().await?.publish_one(Record::new("clicks", page)).await?;
/// }
/// transport.faults().unreadable(&partition, 1..2);
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&transport).await?;
///
/// let held = async {
///     loop {
///         if let Some(hold) = service.status().await.partitions.first().and_then(|p| p.held.first().cloned()) {
///             break hold;
///         }
///         tokio::time::sleep(Duration::from_millis(1)).await;
///     }
/// };
/// let hold = tokio::time::timeout(Duration::from_secs(5), held).await.expect("the partition is held");
/// assert_eq!((hold.reason, hold.offset, hold.next_offset), (PauseReason::Unreadable, 1, Some(2)));
///
/// // An operator gives the record up.
/// let skipped = service.skip(&partition, 1..2).await?;
/// assert_eq!(skipped.offsets, 1..2);
/// service.caught_up().await?;
/// assert_eq!(service.status().await.totals.handled, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// [`Unreadable`](PauseReason::Unreadable) or [`DeadLetters`](PauseReason::DeadLetters).
    pub reason: PauseReason,
    /// The first offset. Records before it are settled and committed as usual.
    pub offset: u64,
    /// The offset after the range; `None` if the reader does not know where the next readable record is.
    pub next_offset: Option<u64>,
    /// The error.
    pub cause: String,
}

/// The result of [`ServiceHandle::skip`](crate::ServiceHandle::skip).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The partition.
    pub partition: TopicPartition,
    /// The offsets that were not handled.
    pub offsets: Range<u64>,
    /// The reason why they held the partition.
    pub cause: String,
}

/// The result of [`ServiceHandle::seek`](crate::ServiceHandle::seek).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sought {
    /// The partition.
    pub partition: TopicPartition,
    /// The lowest offset that was not settled before.
    pub from: u64,
    /// The offset at which reading goes on.
    pub to: u64,
}

impl PartitionStatus {
    /// Returns the lag: the number of offsets that are not settled.
    pub fn lag(&self) -> u64 {
        self.end.max(self.position).saturating_sub(self.settled).saturating_sub(self.waiting)
    }
}

/// The reason why a partition is paused.
///
/// Several reasons may hold at once; the partition is read again when the last one is gone. `Operator` ends by
/// [`ServiceHandle::resume_partitions`](crate::ServiceHandle::resume_partitions), `Unreadable` by
/// [`ServiceHandle::skip`](crate::ServiceHandle::skip); the others end with their cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PauseReason {
    /// The start of the partition is not committed yet.
    Starting,
    /// An operator paused the partition.
    Operator,
    /// The limit of bytes in flight is reached.
    Bytes,
    /// The limit of the span between the lowest unsettled and the highest dispatched offset is reached.
    Span,
    /// A handler reported that a dependency is down.
    Handler,
    /// The idempotency store is down.
    Store,
    /// A dead letter could not be written.
    DeadLetters,
    /// A returned event, or a record for a retry topic, could not be published.
    Publisher,
    /// The next records cannot be read: see [`PartitionStatus::held`].
    Unreadable,
    /// The next record of a retry topic is not due yet.
    Waiting,
}

impl PauseReason {
    /// Returns the stable name in logs and metrics, such as `"dead-letters"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Operator => "operator",
            Self::Bytes => "bytes",
            Self::Span => "span",
            Self::Handler => "handler",
            Self::Store => "store",
            Self::DeadLetters => "dead-letters",
            Self::Publisher => "publisher",
            Self::Unreadable => "unreadable",
            Self::Waiting => "waiting",
        }
    }

    /// Returns whether it is part of the normal flow, and no trouble.
    pub(crate) fn is_flow_control(self) -> bool {
        matches!(self, Self::Bytes | Self::Span | Self::Starting | Self::Waiting)
    }

    /// Returns whether a bound of what is in flight is reached.
    pub(crate) fn is_bound(self) -> bool {
        matches!(self, Self::Bytes | Self::Span)
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "its start offset is being committed",
            Self::Operator => "paused by an operator",
            Self::Bytes => "the limit of bytes in flight is reached",
            Self::Span => "the limit of the offset span is reached: an old record is not settled",
            Self::Handler => "a handler reported that a dependency is unavailable",
            Self::Store => "the idempotency store is unavailable",
            Self::DeadLetters => "a dead letter could not be written",
            Self::Publisher => "a returned event, or a record for a retry topic, could not be published",
            Self::Unreadable => "its next records cannot be read",
            Self::Waiting => "its next record is not due yet",
        })
    }
}

/// The records processed since the service started, by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Handled records.
    pub handled: u64,
    /// Records that had been handled before and were not handled again.
    pub duplicates: u64,
    /// Records without a handler.
    pub skipped: u64,
    /// Failed attempts that were followed by another.
    pub retried: u64,
    /// Dead-lettered records.
    pub dead_lettered: u64,
    /// Records forwarded to a retry topic; a record counts each time.
    pub forwarded: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.handled += other.handled;
        self.duplicates += other.duplicates;
        self.skipped += other.skipped;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.forwarded += other.forwarded;
    }
}

/// The records of one handler, by outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerTotals {
    /// The handler's name.
    pub handler: Name,
    /// Its counters since the service started.
    pub totals: Totals,
}

/// The result of [`ServiceHandle::shutdown`](crate::ServiceHandle::shutdown): the fetched records that it did not
/// settle.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery| std::future::pending::<()>().await);
/// let service = Service::new("meter", router).start(&transport).await?;
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// let delivered = async {
///     while service.status().await.bytes_in_flight == 0 {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///     }
/// };
/// tokio::time::timeout(Duration::from_secs(5), delivered).await.expect("the record is delivered");
///
/// let report = service.shutdown(Duration::from_millis(100)).await?;
/// assert_eq!(report.records(), 1, "it will be delivered again");
/// assert!(report.is_cancelled());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The partitions with such records, sorted; empty if everything that was fetched is settled.
    pub returned: Vec<ReturnedPartition>,
}

impl ShutdownReport {
    /// Returns the number of records that were fetched and not settled. They are delivered again.
    pub fn records(&self) -> usize {
        self.returned.iter().map(|partition| partition.records).sum()
    }

    /// Returns whether deliveries were cancelled at the deadline.
    pub fn is_cancelled(&self) -> bool {
        self.returned.iter().any(|partition| partition.cancelled)
    }
}

/// A partition that was given back with unsettled records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ReturnedPartition {
    /// The topic and partition.
    pub partition: TopicPartition,
    /// The committed offset, as far as it is known here: the next owner resumes there.
    pub committed: Option<u64>,
    /// The number of records that were fetched and not settled.
    pub records: usize,
    /// Whether deliveries were cancelled at the deadline. Otherwise none of the records had been started, or their
    /// handlers had failed and were waiting for the next attempt.
    pub cancelled: bool,
}

impl Status {
    /// A service with lag that commits nothing for this long says so in [`Status::problems`]. For single partitions see
    /// [`Service::with_stall_after`](crate::Service::with_stall_after).
    pub const STALL_AFTER: Duration = Duration::from_secs(60);
}
