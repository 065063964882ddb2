//! The relay, which publishes an outbox.

mod config;
mod flight;
mod link;
mod listen;
mod status;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Publisher, Result, Transport};
use tidings_service::telemetry::{RelaySnapshot, RelayStats};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use self::config::{Refused, RelayConfig};
use self::listen::Listener;
use self::status::Board;
pub use self::status::{RelayState, RelayStatus};
use self::worker::{Source, Worker};
use crate::PostgresStore;

/// Publishes the records of a store's outbox. Any number of relays may run, in any number of processes: they share
/// the work.
///
/// Records of one topic and key are published in commit order, each after the previous one's answer. A record is
/// deleted once the broker holds it; if a relay crashes in between, the next one publishes it again with the same
/// event id. Records wait while the broker is unavailable; records that it refuses permanently are [kept
/// aside](Refused).
///
/// Delayed events are moved to the outbox when they are due by the server's clock: by an idle relay within
/// milliseconds, under load or without notifications within [`RelayConfig::poll_interval`].
///
/// A relay holds two connections in addition to the store's. They must go directly to the server: a transaction-level
/// pooler breaks its locks and notifications. Dropping the relay stops it at once.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings_core::Transport;
/// use tidings_postgres::{PostgresStore, Relay, RelayConfig};
///
/// # async fn example(store: PostgresStore, transport: impl Transport + Clone) -> tidings_core::Result<()> {
/// let relay = Relay::start(&store, &transport, RelayConfig::default())?;
/// assert!(relay.status().is_healthy());
/// relay.shutdown(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the relay stops it at once: keep it, and end with `shutdown`"]
pub struct Relay {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
    abort: tokio::task::AbortHandle,
    _listener: Option<Listener>,
}

/// State shared by the handle and the task.
#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// Whether a delayed event was written, which may be the next that is due.
    delayed: AtomicBool,
    /// Signals new records or the shutdown.
    wake: Notify,
    board: Board,
}

impl Relay {
    /// Starts publishing to `transport`, opening and reopening its publisher as needed. Does no I/O itself: failures
    /// are retried and reported by [`status`](Self::status). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): a setting is wrong; the message names it.
    pub fn start<T: Transport + Clone>(store: &PostgresStore, transport: &T, config: RelayConfig) -> Result<Self> {
        Self::run(store, Source::Transport(Arc::new(transport.clone())), config)
    }

    /// Like [`start`](Self::start), with a publisher that the caller closes.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(store: &PostgresStore, publisher: Arc<dyn Publisher>, config: RelayConfig) -> Result<Self> {
        Self::run(store, Source::Publisher(publisher), config)
    }

    fn run(store: &PostgresStore, source: Source, config: RelayConfig) -> Result<Self> {
        config.check()?;
        let shared = Arc::new(Shared::default());
        let listener = config.listen.then(|| Listener::start(store, Arc::clone(&shared)));
        let worker = Worker::new(store.clone(), source, config, Arc::clone(&shared), Uuid::now_v7());
        let task = tokio::spawn(worker.run());
        let abort = task.abort_handle();
        Ok(Self { shared, task: Mutex::new(Some(task)), abort, _listener: listener })
    }

    /// Returns the current status.
    pub fn status(&self) -> RelayStatus {
        self.shared.board.read()
    }

    /// Returns a source of snapshots that can be kept apart from the relay, for a metrics endpoint, and outlives it.
    pub fn stats(&self) -> Arc<dyn RelayStats> {
        Arc::new(Stats(Arc::clone(&self.shared)))
    }

    /// Polls for records now, for callers that know of new records when notifications are unavailable.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Stops fetching, waits at most `deadline` for the broker's answers, deletes the records that the broker holds,
    /// and ends. A second call waits for the same end. Cancel-safe.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate): the deadline passed. Records without an answer, or that could not
    /// be deleted, are published again by the next relay.
    pub async fn shutdown(&self, deadline: Duration) -> Result<()> {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        let mut task = self.task.lock().await;
        let Some(running) = task.as_mut() else { return Ok(()) };
        let ended = tokio::time::timeout(deadline, running).await;
        *task = None;
        if ended.is_ok() {
            return Ok(());
        }
        self.abort.abort();
        self.shared.board.stopped();
        Err(Error::new(ErrorKind::Indeterminate, "shut the relay down: records were unanswered or not deleted in time"))
    }
}

impl From<&Relay> for Arc<dyn RelayStats> {
    fn from(relay: &Relay) -> Self {
        relay.stats()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// The relay as a metrics endpoint keeps it.
#[derive(Debug)]
struct Stats(Arc<Shared>);

impl RelayStats for Stats {
    fn snapshot(&self) -> RelaySnapshot {
        self.0.board.snapshot()
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
