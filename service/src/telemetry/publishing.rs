//! Counters of publishers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidings_core::{Name, Result};

/// The counters of a publisher, for a metrics or health endpoint. Clones share them, and they outlive the publisher.
///
/// ```
/// use tidings_memory::MemoryTransport;
/// use tidings_service::EventPublisher;
/// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
/// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
/// # struct UserRegistered { user_id: String }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let events = EventPublisher::new(&MemoryTransport::new(), "api-gateway");
/// let stats = events.stats();
/// events.publish(&UserRegistered { user_id: "u1".into() }).await?;
///
/// let snapshot = stats.snapshot();
/// assert_eq!((snapshot.name.as_str(), snapshot.published, snapshot.failed), ("api-gateway", 1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PublisherStats {
    name: Name,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    failed: AtomicU64,
    calls: AtomicU64,
}

/// The counters of a publisher at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherSnapshot {
    /// The name of the service that publishes.
    pub name: Name,
    /// Records that the broker acknowledged.
    pub published: u64,
    /// Records that were not acknowledged; some may be stored nevertheless.
    pub failed: u64,
    /// Calls, of one or more records each. One that was dropped before its answer is not counted.
    pub calls: u64,
}

impl PublisherStats {
    pub(crate) fn new(name: Name) -> Self {
        Self { name, counters: Arc::default() }
    }

    /// Returns the current counters, without waiting or I/O.
    pub fn snapshot(&self) -> PublisherSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { published, failed, calls } = &*self.counters;
        PublisherSnapshot {
            name: self.name.clone(),
            published: load(published),
            failed: load(failed),
            calls: load(calls),
        }
    }

    /// Counts the answers of one call. A delayed event counts when the broker has accepted it.
    pub(crate) fn count<T>(&self, answers: &[Result<T>]) {
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        let add = |counter: &AtomicU64, count: usize| {
            if count > 0 {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        };
        let Counters { published, failed: unpublished, calls } = &*self.counters;
        add(published, answers.len() - failed);
        add(unpublished, failed);
        add(calls, 1);
    }
}
