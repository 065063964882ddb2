//! Watching a service: what happens to each record, for audits, metrics and tests.

use std::fmt::Debug;
use std::sync::Arc;

use tidings_core::{Name, StoredRecord, TopicPartition, event_id_of};
use uuid::Uuid;

/// Is told what happens to each record that a service settles, in the order of happening per key.
///
/// Called on the worker's task between two records: it must be quick and must not block.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Something happened to a record.
    fn observe(&self, event: &RecordEvent<'_>);
}

/// Two observers, told one after the other.
#[derive(Debug)]
pub(crate) struct Both(pub(crate) Arc<dyn Observer>, pub(crate) Arc<dyn Observer>);

impl Observer for Both {
    fn observe(&self, event: &RecordEvent<'_>) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordOutcome {
    /// Its handler was done with it, its events are published, and it is completed in the store, if there is one.
    Handled,
    /// It had been handled before.
    Duplicate,
    /// Nobody takes it: an unknown type, a null value, a redrive for another service.
    Skipped,
    /// An attempt failed; there will be another.
    Retried,
    /// It is in the dead letters.
    DeadLettered,
}

impl RecordOutcome {
    /// Its stable name in ledgers and metrics: `"dead-lettered"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Duplicate => "duplicate",
            Self::Skipped => "skipped",
            Self::Retried => "retried",
            Self::DeadLettered => "dead-lettered",
        }
    }
}

/// Something that happened to a record.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordEvent<'a> {
    /// What it was.
    pub outcome: RecordOutcome,
    /// The service.
    pub service: &'a Name,
    /// Its consumer group.
    pub group: &'a Name,
    /// The handler; `None` where it came to none.
    pub handler: Option<&'a Name>,
    /// Where the record lies.
    pub origin: &'a TopicPartition,
    /// The record.
    pub record: &'a StoredRecord,
    /// The [epoch](tidings_core::Assignment::epoch) of the assignment that it was given out by. What an assignment has
    /// under way when it is lost may end while the partition's next one already has the same record in hand.
    pub epoch: u64,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// Why, for anything but handled.
    pub reason: Option<&'a str>,
}

impl RecordEvent<'_> {
    /// The event's id; of a record without one, derived from its place.
    pub fn event_id(&self) -> Uuid {
        event_id_of(self.origin, self.record)
    }
}
