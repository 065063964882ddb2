//! Snapshots of a running service, taken by any thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{ErrorKind, Name};
use tokio::sync::watch;
use tokio::time::Instant;

use super::counters::Counts;
use super::shared::Shared;
use crate::status::{ShutdownReport, State, Status};
use crate::telemetry::{BusyWorker, CircuitSnapshot, HandlerSnapshot, Snapshot, TaskSnapshot};

/// A worker that yields its thread sooner is not listed as busy.
const BUSY: Duration = Duration::from_millis(100);

/// Takes snapshots of a service, for a metrics or health endpoint.
///
/// Clones are cheap. It outlives the service: dropping it stops nothing, and after the service has stopped, its
/// snapshots say so. A snapshot needs neither the service's tasks nor I/O, so that an endpoint on a thread of its own
/// answers while all handlers block their threads.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::Delivery;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service, ServiceState};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).start(&MemoryTransport::new()).await?;
/// let stats = service.stats();
/// std::thread::spawn({
///     let stats = stats.clone();
///     move || println!("lag {}", stats.snapshot().lag())
/// });
///
/// service.shutdown(Duration::from_secs(10)).await?;
/// assert_eq!(stats.snapshot().state, ServiceState::Stopped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceStats {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<Ended>>,
}

/// The result of a service that stopped.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) status: Option<Status>,
    pub(super) shutdown: ShutdownReport,
    pub(super) error: Option<(ErrorKind, String)>,
}

impl fmt::Debug for ServiceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceStats").field("service", self.name()).finish_non_exhaustive()
    }
}

impl ServiceStats {
    pub(super) fn new(shared: Arc<Shared>, ended: watch::Receiver<Option<Ended>>) -> Self {
        Self { shared, ended }
    }

    /// Returns whether they are of this running service.
    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Returns the service's name.
    pub fn name(&self) -> &Name {
        &self.shared.identity.service
    }

    /// Waits until the service has ended, by itself or by a shutdown. Cancel-safe.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the handle and its watcher are gone.
        let _ended = ended.wait_for(Option::is_some).await.map(drop);
    }

    /// Takes a snapshot, without waiting or I/O.
    pub fn snapshot(&self) -> Snapshot {
        let (shared, now) = (&self.shared, Instant::now());
        let (view, mut partitions, counters) = shared.board.read(now, |number| self.handler(number));
        let since = |at: Instant| now.saturating_duration_since(at);
        let ended = self.ended.borrow().as_ref().map(|ended| match ended.error {
            Some(_) => State::Failed,
            None => State::Stopped,
        });
        if ended.is_some() {
            partitions.clear();
        }
        let mut handlers = self.handlers();
        let unrouted = handlers.pop().map(|handler| handler.totals).unwrap_or_default();
        Snapshot {
            service: shared.identity.service.clone(),
            group: shared.identity.group.clone(),
            system: shared.identity.system,
            state: ended.unwrap_or(view.state),
            uptime: shared.board.uptime(now),
            joined: view.joined,
            members: view.members,
            draining: view.draining.map(since),
            reading_failed: view.reading_failed.map(since).filter(|_| ended.is_none()),
            partitions,
            handlers,
            unrouted,
            counters,
            claims: shared.backends.store.as_ref().map(|claims| claims.snapshot()),
            published: shared.backends.published.snapshot(),
            circuit: CircuitSnapshot { open: view.circuit_open.map(since) },
            tasks: self.tasks(ended.is_some()),
            bytes_in_flight: if ended.is_some() { 0 } else { view.bytes_in_flight },
        }
    }

    fn handler(&self, number: usize) -> Option<Name> {
        (number < self.shared.table.len()).then(|| self.shared.table.info(number).name.clone())
    }

    /// Returns the counters by handler; the last ones are those of records without a handler.
    fn handlers(&self) -> Vec<HandlerSnapshot> {
        let of_handler = |(number, counts): (usize, Counts)| HandlerSnapshot {
            handler: self.handler(number).unwrap_or_default(),
            totals: counts.totals,
            failures: counts.failures,
            dead_letters: self.shared.counters.dead_letters(number),
            durations: counts.durations,
        };
        self.shared.counters.snapshot().into_iter().enumerate().map(of_handler).collect()
    }

    fn tasks(&self, ended: bool) -> TaskSnapshot {
        if ended {
            return TaskSnapshot::default();
        }
        let busy = self.shared.heartbeats.iter().filter_map(|beat| beat.blocked_for(BUSY));
        let workers =
            busy.map(|(handler, time)| BusyWorker::new(handler.and_then(|handler| self.handler(handler)), time));
        let pulse = &self.shared.pulse;
        TaskSnapshot { coordinator: pulse.dead_for(), starved: pulse.starved_for(), workers: workers.collect() }
    }
}
