//! Observers: a callback per settled record, for audits, metrics and tests.
//!
//! An observer sees what the service did, after it did it, and cannot change it. Its calls for one key are in the order
//! of the records; those of different keys come from different worker tasks, at the same time.

use std::fmt::Debug;
use std::sync::Arc;

use tidings_core::{Name, StoredRecord, TopicPartition, event_id_of};
use uuid::Uuid;

/// Receives an event for each record that a service settles, in order per key.
///
/// Called on the worker's task between two records: it must be quick and must not block.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::sync::Arc;
///
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Observer, RecordEvent, RecordOutcome, Router, Service};
///
/// /// A counter of handled bytes.
/// #[derive(Debug, Default)]
/// struct Bytes(AtomicU64);
///
/// impl Observer for Bytes {
///     fn observe(&self, event: &RecordEvent<'_>) {
///         if event.outcome == RecordOutcome::Handled {
///             let value = event.record.value.as_ref().map_or(0, |value| value.len() as u64);
///             self.0.fetch_add(value, Ordering::Relaxed);
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let (transport, bytes) = (MemoryTransport::new(), Arc::new(Bytes::default()));
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).with_observer(Arc::clone(&bytes)).start(&transport).await?;
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// assert_eq!(bytes.0.load(Ordering::Relaxed), 4);
/// # Ok(())
/// # }
/// ```
pub trait Observer: Debug + Send + Sync + 'static {
    /// Observes what happened to a record.
    fn observe(&self, event: &RecordEvent<'_>);
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &RecordEvent<'_>) {
        (**self).observe(event);
    }
}

/// Two observers, called one after the other.
#[derive(Debug)]
pub(crate) struct Both<A, B>(pub(crate) A, pub(crate) B);

impl<A: Observer, B: Observer> Observer for Both<A, B> {
    fn observe(&self, event: &RecordEvent<'_>) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

/// The kind of a record event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordOutcome {
    /// The handler completed, its events are published, and the store, if there is one, has marked the record as done.
    Handled,
    /// The record had been handled before.
    Duplicate,
    /// No handler takes the record: an unknown type, a null value, or a redrive for another service.
    Skipped,
    /// An attempt failed; another will follow.
    Retried,
    /// The record was written to the dead-letter topic.
    DeadLettered,
    /// The record was forwarded to a retry topic, where it waits for its next attempt. Its later outcomes are observed
    /// under the same origin and offset.
    Forwarded,
}

impl RecordOutcome {
    /// Returns the stable name in ledgers and metrics, such as `"dead-lettered"`.
    ///
    /// ```
    /// assert_eq!(tidings_service::RecordOutcome::DeadLettered.as_str(), "dead-lettered");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Duplicate => "duplicate",
            Self::Skipped => "skipped",
            Self::Retried => "retried",
            Self::DeadLettered => "dead-lettered",
            Self::Forwarded => "forwarded",
        }
    }
}

/// An event of a record's processing.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordEvent<'a> {
    /// The outcome.
    pub outcome: RecordOutcome,
    /// The service's name.
    pub service: &'a Name,
    /// The service's consumer group.
    pub group: &'a Name,
    /// The handler's name; `None` if no handler was called.
    pub handler: Option<&'a Name>,
    /// The record's topic, partition and offset.
    pub origin: &'a TopicPartition,
    /// The record.
    pub record: &'a StoredRecord,
    /// The [epoch](tidings_core::Assignment::epoch) of the assignment that delivered the record. In-flight work of a
    /// lost assignment may end while the partition's next assignment is already processing the same record.
    pub epoch: u64,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The reason, for every outcome but handled.
    pub reason: Option<&'a str>,
}

impl RecordEvent<'_> {
    /// Returns the event's id; for a record without one, an id derived from its position and bytes, as
    /// [`event_id_of`](tidings_core::event_id_of) does.
    pub fn event_id(&self) -> Uuid {
        event_id_of(self.origin, self.record)
    }
}
