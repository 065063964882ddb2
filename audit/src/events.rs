//! Audit of event operations: which events were published, handled and dead-lettered, by position and id.
//!
//! Off by default and chosen per topic. Events are collected and recorded in groups, so that an event costs no record of
//! its own; nothing waits for the sink.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidings_core::audit::{AuditOutcome, AuditPhase, AuditRecord, AuditedEvent, Principal};
use tidings_core::{Name, StoredRecord, codec};
use tidings_service::{Observer, RecordEvent, RecordOutcome};
use uuid::Uuid;

use crate::auditor::Auditor;
use crate::cloud_event::MAX_EVENTS;

/// The operations on a topic's events that are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EventOperations {
    /// Publishing, through a transport that is [`Audited`](crate::Audited).
    pub publish: bool,
    /// Handling, by a service with an [`observer`](Auditor::observer).
    pub handle: bool,
    /// Dead-lettering, by such a service.
    pub dead_letter: bool,
}

impl EventOperations {
    /// Selects all operations.
    pub const fn all() -> Self {
        Self { publish: true, handle: true, dead_letter: true }
    }

    /// Selects publishing.
    #[must_use]
    pub const fn with_publish(mut self) -> Self {
        self.publish = true;
        self
    }

    /// Selects handling.
    #[must_use]
    pub const fn with_handle(mut self) -> Self {
        self.handle = true;
        self
    }

    /// Selects dead-lettering.
    #[must_use]
    pub const fn with_dead_letter(mut self) -> Self {
        self.dead_letter = true;
        self
    }
}

/// The event operations that are recorded, by topic. The default records none.
///
/// ```
/// use tidings_audit::{EventOperations, EventPolicy};
///
/// let policy = EventPolicy::default()
///     .with_topic("payments", EventOperations::all())
///     .with_topic("orders", EventOperations::default().with_dead_letter());
/// assert!(policy.of("payments").publish && !policy.of("orders").publish && !policy.of("clicks").handle);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPolicy(HashMap<Name, EventOperations>);

impl EventPolicy {
    /// Sets the operations on a topic's events that are recorded.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>, operations: EventOperations) -> Self {
        self.0.insert(topic.into(), operations);
        self
    }

    /// Returns the operations on a topic's events that are recorded.
    pub fn of(&self, topic: &str) -> EventOperations {
        self.0.get(topic).copied().unwrap_or_default()
    }

    /// Returns whether the publishing to any topic is recorded.
    pub(crate) fn records_publishing(&self) -> bool {
        self.0.values().any(|operations| operations.publish)
    }
}

/// An operation on an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Publish,
    Handle,
    DeadLetter,
}

impl Operation {
    const fn verb(self) -> Name {
        Name::from_static(match self {
            Self::Publish => "event.publish",
            Self::Handle => "event.handle",
            Self::DeadLetter => "event.dead-letter",
        })
    }
}

/// Events that wait to be recorded.
#[derive(Debug)]
pub(crate) struct Events {
    policy: EventPolicy,
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    groups: Vec<Group>,
    len: usize,
    dropped: u64,
    /// Those that no record states yet.
    unstated: u64,
}

/// The events of one operation by one principal on one topic.
#[derive(Debug)]
struct Group {
    operation: Operation,
    by: Name,
    topic: Name,
    events: VecDeque<AuditedEvent>,
}

impl Events {
    pub(crate) fn new(policy: EventPolicy, max: usize) -> Self {
        Self { policy, max, waiting: Mutex::default() }
    }

    pub(crate) fn policy(&self) -> &EventPolicy {
        &self.policy
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events up to the bound, and counts the others. Returns whether they are the first that wait.
    pub(crate) fn add(
        &self,
        operation: Operation,
        by: &Name,
        topic: &Name,
        events: impl IntoIterator<Item = AuditedEvent>,
    ) -> bool {
        let mut waiting = self.waiting();
        let was_empty = waiting.len == 0;
        let room = self.max.saturating_sub(waiting.len);
        let group = waiting.group(operation, by, topic);
        let (before, mut events) = (group.events.len(), events.into_iter());
        group.events.extend(events.by_ref().take(room));
        let added = group.events.len() - before;
        waiting.len += added;
        let dropped = if added < room { 0 } else { events.count() as u64 };
        if dropped > 0 {
            if waiting.unstated == 0 {
                let error = "events are missing from the audit trail: too many wait for the sink";
                tracing::error!(target: "tidings::audit", %topic, "{error}");
            }
            waiting.dropped += dropped;
            waiting.unstated += dropped;
        }
        was_empty && waiting.len > 0
    }

    /// Takes events as at most `limit` records.
    pub(crate) fn take(&self, limit: usize) -> Vec<AuditRecord> {
        let mut waiting = self.waiting();
        let mut records = Vec::new();
        while records.len() < limit {
            let Some(group) = waiting.groups.first_mut() else { break };
            let count = group.events.len().min(MAX_EVENTS);
            let events: Vec<_> = group.events.drain(..count).collect();
            let (operation, by, topic) = (group.operation, group.by.clone(), group.topic.clone());
            if group.events.is_empty() {
                waiting.groups.remove(0);
            }
            if events.is_empty() {
                continue;
            }
            waiting.len -= events.len();
            let dropped = std::mem::take(&mut waiting.unstated);
            records.push(record(operation, &by, &topic, events, dropped));
        }
        records
    }

    /// Returns how many events wait, and how many were dropped.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let waiting = self.waiting();
        (waiting.len, waiting.dropped)
    }
}

impl Waiting {
    fn group(&mut self, operation: Operation, by: &Name, topic: &Name) -> &mut Group {
        let is_it = |group: &Group| group.operation == operation && group.topic == *topic && group.by == *by;
        let at = self.groups.iter().position(is_it).unwrap_or_else(|| {
            self.groups.push(Group { operation, by: by.clone(), topic: topic.clone(), events: VecDeque::new() });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }
}

fn record(operation: Operation, by: &Name, topic: &Name, events: Vec<AuditedEvent>, dropped: u64) -> AuditRecord {
    let mut record = AuditRecord::intent(Principal::new(by.as_str()), operation.verb());
    record.phase = AuditPhase::Result { intent: None, outcome: AuditOutcome::Ok };
    record.resources = vec![format!("topic:{topic}")];
    record.counts = BTreeMap::from([("events".to_owned(), events.len() as u64)]);
    if dropped > 0 {
        record.counts.insert("dropped".to_owned(), dropped);
    }
    record.events = events;
    record
}

/// Returns the id of an event, if it has one.
pub(crate) fn id_of(record: &StoredRecord) -> Option<Uuid> {
    codec::peek(record).ok().map(|head| head.id)
}

/// Records the event operations of a service. Created by [`Auditor::observer`].
#[derive(Debug, Clone)]
pub struct AuditObserver {
    auditor: Auditor,
}

impl AuditObserver {
    pub(crate) fn new(auditor: Auditor) -> Self {
        Self { auditor }
    }
}

impl Observer for AuditObserver {
    fn observe(&self, event: &RecordEvent<'_>) {
        let operation = match event.outcome {
            RecordOutcome::Handled => Operation::Handle,
            RecordOutcome::DeadLettered => Operation::DeadLetter,
            _ => return,
        };
        let topic = &event.origin.topic;
        let wanted = self.auditor.events().policy().of(topic);
        let is_wanted = match operation {
            Operation::DeadLetter => wanted.dead_letter,
            _ => wanted.handle,
        };
        if is_wanted {
            let audited = AuditedEvent::new(event.origin.partition, event.record.offset, id_of(event.record));
            self.auditor.note(operation, event.service, topic, [audited]);
        }
    }
}
