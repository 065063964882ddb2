//! Events that wait to be recorded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidings_core::Name;
use tidings_core::audit::{AuditOutcome, AuditPhase, AuditRecord, AuditedEvent, Principal};

use super::EventPolicy;
use crate::cloud_event::MAX_EVENTS;

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

/// Events that wait to be recorded. Adding takes one lock per call, and does not format text.
#[derive(Debug)]
pub(crate) struct Events {
    policy: EventPolicy,
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    groups: Vec<Group>,
    /// The number of marks: events behind a mark go to groups of their own, which are taken later.
    marks: u64,
    len: usize,
    dropped: u64,
    /// Dropped events that no record states yet.
    unstated: u64,
}

/// Events of one operation by one principal on one topic, in portions of a record's size: a record takes over a portion
/// without copying it.
#[derive(Debug)]
struct Group {
    mark: u64,
    operation: Operation,
    by: Name,
    topic: Name,
    portions: VecDeque<Vec<AuditedEvent>>,
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
        let mut events = events.into_iter();
        let Some(first) = events.next() else { return false };
        let mut waiting = self.waiting();
        let (before, room) = (waiting.len, self.max.saturating_sub(waiting.len));
        if room > 0 {
            let added = waiting.group(operation, by, topic).add(first, events.by_ref().take(room - 1));
            waiting.len += added;
        }
        if waiting.len >= self.max {
            let dropped = events.count() as u64 + u64::from(room == 0);
            waiting.drop_events(dropped, topic);
        }
        before == 0 && waiting.len > 0
    }

    /// Returns how many events wait. They are taken before those that come later.
    pub(crate) fn mark(&self) -> usize {
        let mut waiting = self.waiting();
        waiting.marks += 1;
        waiting.len
    }

    /// Takes events as at most `limit` records.
    pub(crate) fn take(&self, limit: usize) -> Vec<AuditRecord> {
        let mut waiting = self.waiting();
        let mut portions = Vec::new();
        while portions.len() < limit
            && let Some(group) = waiting.groups.first_mut()
        {
            match group.portions.pop_front() {
                Some(events) => {
                    let portion = (group.operation, group.by.clone(), group.topic.clone(), events);
                    waiting.len -= portion.3.len();
                    portions.push(portion);
                }
                None => drop(waiting.groups.remove(0)),
            }
        }
        let dropped = if portions.is_empty() { 0 } else { std::mem::take(&mut waiting.unstated) };
        // Records are made without the lock: workers must not wait for that.
        drop(waiting);
        let mut dropped = Some(dropped).filter(|dropped| *dropped > 0);
        let record = |(operation, by, topic, events): (Operation, Name, Name, Vec<AuditedEvent>)| {
            record(operation, &by, &topic, events, dropped.take())
        };
        portions.into_iter().map(record).collect()
    }

    /// Returns how many events wait, and how many were dropped.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let waiting = self.waiting();
        (waiting.len, waiting.dropped)
    }
}

impl Waiting {
    fn group(&mut self, operation: Operation, by: &Name, topic: &Name) -> &mut Group {
        let mark = self.marks;
        let is_it = |group: &Group| {
            group.mark == mark && group.operation == operation && group.topic == *topic && group.by == *by
        };
        let at = self.groups.iter().position(is_it).unwrap_or_else(|| {
            self.groups.push(Group {
                mark,
                operation,
                by: by.clone(),
                topic: topic.clone(),
                portions: VecDeque::new(),
            });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    fn drop_events(&mut self, dropped: u64, topic: &Name) {
        if dropped > 0 && self.unstated == 0 {
            let error = "events are missing from the audit trail: too many wait for the sink";
            tracing::error!(target: "tidings::audit", %topic, "{error}");
        }
        self.dropped += dropped;
        self.unstated += dropped;
    }
}

impl Group {
    /// Returns how many events were added.
    fn add(&mut self, first: AuditedEvent, rest: impl Iterator<Item = AuditedEvent>) -> usize {
        let mut events = std::iter::once(first).chain(rest).peekable();
        let mut added = 0;
        while events.peek().is_some() {
            if self.portions.back().is_none_or(|portion| portion.len() >= MAX_EVENTS) {
                // After a full portion the next one will be full soon, too.
                let capacity = if self.portions.is_empty() { 0 } else { MAX_EVENTS };
                self.portions.push_back(Vec::with_capacity(capacity));
            }
            if let Some(portion) = self.portions.back_mut() {
                let before = portion.len();
                portion.extend(events.by_ref().take(MAX_EVENTS - before));
                added += portion.len() - before;
            }
        }
        added
    }
}

fn record(
    operation: Operation,
    by: &Name,
    topic: &Name,
    events: Vec<AuditedEvent>,
    dropped: Option<u64>,
) -> AuditRecord {
    let mut record = AuditRecord::intent(Principal::new(by.as_str()), operation.verb());
    record.phase = AuditPhase::Result { intent: None, outcome: AuditOutcome::Ok };
    record.resources = vec![format!("topic:{topic}")];
    record.counts = BTreeMap::from([("events".to_owned(), events.len() as u64)]);
    if let Some(dropped) = dropped {
        record.counts.insert("dropped".to_owned(), dropped);
    }
    record.events = events;
    record
}
