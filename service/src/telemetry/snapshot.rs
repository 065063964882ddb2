//! Snapshots of services.

use std::time::Duration;

use tidings_core::{ErrorKind, Name};

use super::histogram::Histogram;
use super::partition::PartitionSnapshot;
use super::publishing::PublisherSnapshot;
use crate::status::{PauseReason, State, Totals};

/// The counters and states of a running service at one time.
///
/// Taken by [`ServiceHandle::snapshot`](crate::ServiceHandle::snapshot) or
/// [`ServiceStats::snapshot`](crate::ServiceStats::snapshot) in microseconds, from any thread, without I/O and without
/// the service's tasks. Contains no keys, no event ids and no texts of errors. Counters begin at zero when the service
/// starts.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::telemetry::PartitionState;
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&transport).await?;
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
///
/// let snapshot = service.snapshot();
/// let handler = &snapshot.handlers[0];
/// assert_eq!((handler.totals.handled, handler.attempts(), handler.failures), (1, 1, 0));
/// let partition = &snapshot.partitions[0];
/// assert_eq!((partition.state, partition.lag()), (PartitionState::Ok, 0));
/// assert_eq!(partition.time_lag, Duration::ZERO);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The service's name.
    pub service: Name,
    /// The consumer group.
    pub group: Name,
    /// The messaging system, as traces name it, such as `kafka`.
    pub system: &'static str,
    /// The state of the service.
    pub state: State,
    /// The time since the service started.
    pub uptime: Duration,
    /// Whether the service has joined its group at least once. A member without partitions has joined, too.
    pub joined: bool,
    /// The number of the group's members, if known: it is queried while this instance has no partition.
    pub members: Option<usize>,
    /// How long the shutdown has lasted; `None` if it has not begun.
    pub draining: Option<Duration>,
    /// How long reading from the group has failed; `None` if it works.
    pub reading_failed: Option<Duration>,
    /// The assigned partitions, sorted.
    pub partitions: Vec<PartitionSnapshot>,
    /// The handlers, in the order in which the router has them.
    pub handlers: Vec<HandlerSnapshot>,
    /// The outcomes of records without a handler.
    pub unrouted: Totals,
    /// The counters of the service as a whole.
    pub counters: ServiceCounters,
    /// The claims of events; `None` without an idempotency store.
    pub claims: Option<ClaimSnapshot>,
    /// The events that handlers returned.
    pub published: PublisherSnapshot,
    /// The circuit breaker.
    pub circuit: CircuitSnapshot,
    /// The tasks of the service.
    pub tasks: TaskSnapshot,
    /// The bytes fetched and not settled.
    pub bytes_in_flight: usize,
}

impl Snapshot {
    /// Returns the outcomes of all records.
    pub fn totals(&self) -> Totals {
        let mut totals = self.unrouted;
        self.handlers.iter().for_each(|handler| totals.add(&handler.totals));
        totals
    }

    /// Returns the lag over all partitions: the number of offsets that are not settled.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionSnapshot::lag).sum()
    }

    /// Returns the number of records that wait in retry topics until they are due.
    pub fn waiting(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.waiting).sum()
    }

    /// Returns the number of records in retry topics that are due and not settled. They are part of the lag.
    pub fn due(&self) -> u64 {
        self.partitions.iter().filter(|partition| partition.is_retry).map(PartitionSnapshot::lag).sum()
    }

    /// Returns the largest time lag of the partitions.
    pub fn time_lag(&self) -> Duration {
        self.partitions.iter().map(|partition| partition.time_lag).max().unwrap_or_default()
    }
}

/// The counters of a handler.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HandlerSnapshot {
    /// The handler's name.
    pub handler: Name,
    /// The outcomes of its records.
    pub totals: Totals,
    /// Deliveries that failed, whatever followed.
    pub failures: u64,
    /// Its dead letters by the kind of error, of the kinds that occurred.
    pub dead_letters: Vec<(ErrorKind, u64)>,
    /// The durations of its deliveries, of one or more records each.
    ///
    /// The clock is not read for each delivery. Deliveries that are done at their first poll share the time between two
    /// readings in equal parts; there is at least one reading for 1,024 records. A delivery that waits is measured from
    /// its part of that time until the worker takes its result.
    pub durations: Histogram,
}

impl HandlerSnapshot {
    /// Returns the number of deliveries that ended: handled, or failed.
    pub fn attempts(&self) -> u64 {
        self.durations.count()
    }
}

/// The counters of a service as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServiceCounters {
    /// Batches that were fetched.
    pub fetches: u64,
    /// Records that were fetched.
    pub records_fetched: u64,
    /// Bytes of the records that were fetched.
    pub bytes_fetched: u64,
    /// Failures of reading from the group.
    pub read_failures: u64,
    /// Offsets of partitions that were committed.
    pub commits: u64,
    /// Offsets of partitions whose commit failed.
    pub commit_failures: u64,
    /// Changes of the assigned partitions: assignments, revocations and losses, of any number of partitions each.
    pub rebalances: u64,
    /// Pauses of partitions that began, by their reason.
    pub pauses: Vec<(PauseReason, u64)>,
    /// Openings of the circuit breaker.
    pub circuit_openings: u64,
}

/// The claims of events in the idempotency store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClaimSnapshot {
    /// The claims that exist now, including those being requested or released.
    pub held: usize,
    /// Claims that were granted.
    pub granted: u64,
    /// Claims that were refused because another lease had the event.
    pub refused: u64,
    /// Claims of events that were done already.
    pub duplicates: u64,
}

/// The circuit breaker of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// How long it has been open or half-open; `None` if it is closed, and deliveries start freely.
    pub open: Option<Duration>,
}

/// The tasks of a service. They distinguish a dead engine from a thread that a handler blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TaskSnapshot {
    /// How long the coordinator's task has not run by its own fault: its poll does not return, or it waits for something
    /// although the runtime works. It runs at least once a second, unless it is dead.
    pub coordinator: Duration,
    /// How long the coordinator's task has waited for a thread: handlers of this or another service, or other tasks,
    /// block the runtime's threads.
    pub starved: Duration,
    /// The workers that are running now: each has not yielded its thread for some time.
    pub workers: Vec<BusyWorker>,
}

/// A worker that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusyWorker {
    /// The handler that has its thread; `None` if the worker itself has it.
    pub handler: Option<Name>,
    /// How long it has not yielded its thread.
    pub busy: Duration,
}

impl BusyWorker {
    pub(crate) fn new(handler: Option<Name>, busy: Duration) -> Self {
        Self { handler, busy }
    }
}
