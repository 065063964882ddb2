//! The state that the engine shows to other threads. A snapshot reads it without the engine's tasks.
//!
//! The engine holds the lock only while it copies; a reader, only while it copies, too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tidings_core::{ErrorKind, Name, Timestamp, TopicPartition};
use tokio::time::Instant;

use super::assigned::AssignmentId;
use crate::status::{PauseReason, State};
use crate::telemetry::{ClockGap, HoldCause, Holding, PartitionSnapshot, PartitionState, Pause, ServiceCounters};
use crate::time::after;

/// The state that is shown, and counters of rare events.
#[derive(Debug)]
pub(crate) struct Board {
    started: Clocks,
    /// From this time on without progress, a partition is stalled.
    stall_after: Duration,
    pub(crate) counts: CoordinatorCounts,
    view: Mutex<View>,
}

/// Both clocks: tokio's can be paused in tests, and the other one cannot.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    tokio: Instant,
    real: std::time::Instant,
}

/// Counters of the coordinator, which adds to them once per batch or event.
#[derive(Debug, Default)]
pub(crate) struct CoordinatorCounts {
    pub(crate) fetches: AtomicU64,
    pub(crate) records_fetched: AtomicU64,
    pub(crate) bytes_fetched: AtomicU64,
    pub(crate) read_failures: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) commit_failures: AtomicU64,
    pub(crate) rebalances: AtomicU64,
    pub(crate) circuit_openings: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// The state of the service and its partitions.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) service: ServiceView,
    pub(crate) partitions: BTreeMap<AssignmentId, PartitionView>,
    /// Pauses that began, by their reason.
    pub(crate) pauses: BTreeMap<PauseReason, u64>,
}

/// The state of the service.
#[derive(Debug, Clone)]
pub(crate) struct ServiceView {
    pub(crate) state: State,
    pub(crate) joined: bool,
    pub(crate) members: Option<usize>,
    pub(crate) draining: Option<Instant>,
    pub(crate) reading_failed: Option<Instant>,
    pub(crate) circuit_open: Option<Instant>,
    pub(crate) bytes_in_flight: usize,
}

/// The state of an assignment.
#[derive(Debug, Clone)]
pub(crate) struct PartitionView {
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) epoch: u64,
    pub(crate) position: u64,
    pub(crate) settled: u64,
    pub(crate) committed: Option<u64>,
    pub(crate) end: u64,
    pub(crate) in_flight: usize,
    /// The number of offsets that wait until they are due.
    pub(crate) waiting: u64,
    pub(crate) is_retry: bool,
    pub(crate) bytes: usize,
    /// The timestamp of the lowest unsettled record, if one is in flight.
    pub(crate) oldest: Option<Timestamp>,
    /// Since when the lowest unsettled offset is the same; `None` if everything is settled.
    pub(crate) unmoved: Option<Instant>,
    /// Since when nothing explains that it is the same: no pause, and deliveries may start.
    pub(crate) stuck: Option<Instant>,
    /// The lag has not fallen for long.
    pub(crate) is_rising: bool,
    /// The time of this host less that of new records, if they differ.
    pub(crate) clock_gap: Option<ClockGap>,
    pub(crate) pauses: Vec<(PauseReason, Instant)>,
    pub(crate) unreadable: Option<u64>,
    pub(crate) is_rewound: bool,
    pub(crate) holding: Option<HoldingView>,
    pub(crate) leaving: bool,
}

/// The record at the lowest unsettled offset.
#[derive(Debug, Clone)]
pub(crate) struct HoldingView {
    pub(crate) offset: u64,
    pub(crate) handler: Option<usize>,
    pub(crate) attempt: Option<u32>,
    pub(crate) cause: HoldCause,
    pub(crate) error: Option<ErrorKind>,
    /// The last attempt's error, for the log only.
    pub(crate) text: Option<Arc<str>>,
    pub(crate) due: Option<Instant>,
}

impl PartitionView {
    pub(crate) fn lag(&self) -> u64 {
        self.end.max(self.position).saturating_sub(self.settled).saturating_sub(self.waiting)
    }

    /// Returns the state at `now`. While deliveries are held (`starts_held`: by the circuit breaker, or an operator), no
    /// partition is stalled.
    pub(crate) fn state(&self, now: Instant, stall_after: Duration, starts_held: bool) -> PartitionState {
        let stuck = self.stuck.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // Where nothing is in flight, the records at the bound are those of other partitions.
        let pauses = || self.pauses.iter().filter(|(reason, _)| *reason != PauseReason::Waiting);
        let is_free = pauses().all(|(reason, _)| reason.is_bound() && self.in_flight > 0);
        let waits =
            self.holding.as_ref().and_then(|holding| holding.due).is_some_and(|due| due > after(now, stall_after));
        if let Some(offset) = self.unreadable {
            PartitionState::Unreadable(offset)
        } else if stuck >= stall_after && is_free && !waits && !starts_held && !self.leaving {
            PartitionState::Stalled
        } else if let Some((reason, _)) = pauses().next() {
            PartitionState::Paused(*reason)
        } else if self.is_rewound {
            PartitionState::Rewound
        } else if self.is_rising && stuck < stall_after {
            PartitionState::Slow
        } else {
            PartitionState::Ok
        }
    }
}

impl Board {
    pub(crate) fn new(stall_after: Duration) -> Self {
        let service = ServiceView {
            state: State::Starting,
            joined: false,
            members: None,
            draining: None,
            reading_failed: None,
            circuit_open: None,
            bytes_in_flight: 0,
        };
        Self {
            started: Clocks { tokio: Instant::now(), real: std::time::Instant::now() },
            stall_after,
            counts: CoordinatorCounts::default(),
            view: Mutex::new(View { service, partitions: BTreeMap::new(), pauses: BTreeMap::new() }),
        }
    }

    pub(crate) fn stall_after(&self) -> Duration {
        self.stall_after
    }

    /// Returns the time since the start.
    pub(crate) fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started.tokio)
    }

    /// Locks the view: only for copying.
    pub(crate) fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the service's state and the snapshots of its partitions, without the names of handlers, which
    /// `handler` knows.
    pub(crate) fn read(
        &self,
        now: Instant,
        handler: impl Fn(usize) -> Option<Name>,
    ) -> (ServiceView, Vec<PartitionSnapshot>, ServiceCounters) {
        let (service, views, pauses) = {
            let view = self.lock();
            let pauses = view.pauses.iter().map(|(reason, count)| (*reason, *count)).collect();
            (view.service.clone(), view.partitions.values().cloned().collect::<Vec<_>>(), pauses)
        };
        let starts_held = service.circuit_open.is_some() || service.state == State::Paused;
        let wall = self.wall(now);
        let mut partitions = BTreeMap::new();
        // By their ids: a later assignment of the same partition replaces an earlier one.
        for view in &views {
            let state = view.state(now, self.stall_after, starts_held);
            partitions.insert(view.origin.clone(), snapshot(view, state, now, wall, &handler));
        }
        (service, partitions.into_values().collect(), self.counts.read(pauses))
    }

    /// Returns the age of a record by its timestamp, as a snapshot would report it.
    pub(crate) fn age(&self, oldest: Option<Timestamp>, now: Instant) -> Duration {
        age(oldest, self.wall(now))
    }

    /// Returns the wall clock's time, moved by as much as tokio's clock was moved in a test.
    pub(crate) fn wall(&self, now: Instant) -> Timestamp {
        let (moved, passed) = (self.uptime(now), self.started.real.elapsed());
        let wall = Timestamp::from(SystemTime::now());
        wall.saturating_add(moved.saturating_sub(passed)).saturating_sub(passed.saturating_sub(moved))
    }
}

impl CoordinatorCounts {
    fn read(&self, pauses: Vec<(PauseReason, u64)>) -> ServiceCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServiceCounters {
            fetches: load(&self.fetches),
            records_fetched: load(&self.records_fetched),
            bytes_fetched: load(&self.bytes_fetched),
            read_failures: load(&self.read_failures),
            commits: load(&self.commits),
            commit_failures: load(&self.commit_failures),
            rebalances: load(&self.rebalances),
            circuit_openings: load(&self.circuit_openings),
            pauses,
        }
    }
}

fn snapshot(
    view: &PartitionView,
    state: PartitionState,
    now: Instant,
    wall: Timestamp,
    handler: &impl Fn(usize) -> Option<Name>,
) -> PartitionSnapshot {
    let since = |at: Instant| now.saturating_duration_since(at);
    let unmoved = view.unmoved.map_or(Duration::ZERO, since);
    PartitionSnapshot {
        partition: view.origin.as_ref().clone(),
        state,
        epoch: view.epoch,
        position: view.position,
        settled: view.settled,
        committed: view.committed,
        end: view.end,
        in_flight: view.in_flight,
        waiting: view.waiting,
        is_retry: view.is_retry,
        bytes_in_flight: view.bytes,
        time_lag: if view.lag() == 0 { Duration::ZERO } else { age(view.oldest, wall).max(unmoved) },
        unmoved,
        clock_gap: view.clock_gap,
        pauses: view.pauses.iter().map(|(reason, at)| Pause::new(*reason, since(*at))).collect(),
        holding: view.holding.as_ref().map(|holding| Holding {
            offset: holding.offset,
            handler: holding.handler.and_then(handler),
            attempt: holding.attempt,
            cause: holding.cause,
            error: holding.error,
            due: holding.due.map(|due| due.saturating_duration_since(now)),
        }),
        leaving: view.leaving,
    }
}

/// Returns the age of a record; zero if its timestamp lies in the future, or is none.
fn age(oldest: Option<Timestamp>, wall: Timestamp) -> Duration {
    let oldest = oldest.filter(|timestamp| timestamp.millis() > 0);
    let millis = oldest.map_or(0, |oldest| wall.millis().saturating_sub(oldest.millis()));
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
