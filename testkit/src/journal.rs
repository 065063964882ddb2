//! The journal of a harness: written by the service's observer, layer, publisher and sink, read by the test.
//!
//! Four writers observe the service from different sides. The layer sees attempts, the observer
//! sees how records settle, the publisher sees what handlers publish, and the sink sees dead
//! letters. They meet in one state under one lock, keyed by the record's position, so that a test
//! reads a consistent view.
//!
//! Events that follow from another are found by the causation id that the service writes into each
//! record that a handler publishes.

use crate::Harness;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{
    BoxError, DeadLetter, LetterId, Name, Position, Record, StoredRecord, TopicPartition, codec, event_id_of, headers,
};
use tidings_service::{Observer, RecordEvent, RecordOutcome};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::fate::{Fate, Settled};
use crate::trace::{Line, RecordId, Trace};

/// A failed attempt that was followed by another.
///
/// [`Harness::retried`](crate::Harness::retried) returns them:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings_macros::Event;
/// # use tidings_service::{Router, Service};
/// # use tidings_testkit::Harness;
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(crate = "tidings_core", topic = "orders", type = "order.placed", key = "id")]
/// struct Placed { id: String }
///
/// async fn bill(_: Placed) {}
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let test = Harness::start(Service::new("billing", Router::new().on(bill))).await?;
/// test.fail_attempt("order.placed", 1, "the ledger is locked");
/// let fate = test.send(&Placed { id: "o1".into() }).await;
/// assert!(fate.is_handled());
/// assert_eq!(test.retried()[0].attempt, 1);
/// assert!(test.retried()[0].error.contains("the ledger is locked"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retried {
    /// The event's type; empty if the record has none.
    pub event_type: String,
    /// The event's id.
    pub event_id: Uuid,
    /// The number of the failed attempt, from 1.
    pub attempt: u32,
    /// The error of the attempt.
    pub error: String,
}

/// Decides whether an attempt fails, by its event type and number.
///
/// Stateful: it may fail an attempt once and let the next one pass.
type Injection = Box<dyn FnMut(&str, u32) -> Option<BoxError> + Send>;

/// Observations of one service, from the start of its harness.
pub(crate) struct Journal {
    /// Beginning of the trace, by tokio's clock.
    started: Instant,
    state: Mutex<State>,
    /// Notified when a record was settled.
    pub(crate) settled: Notify,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

#[derive(Default)]
struct State {
    /// Each record that the service has processed, or that was published to it.
    records: HashMap<RecordId, Seen>,
    /// The records that the service published, by the id of the event that caused them.
    caused: HashMap<Uuid, Vec<RecordId>>,
    /// The records that the service published, in order.
    published: Vec<(RecordId, StoredRecord)>,
    /// Handled records, in the order of completion; a redelivery is listed again.
    handled: Vec<StoredRecord>,
    retried: Vec<Retried>,
    /// Dead letters without repetitions: writing one again after a lost answer is no second letter.
    letters: Vec<DeadLetter>,
    /// Asked in order; the first that returns an error decides.
    injections: Vec<Injection>,
    trace: Trace,
}

/// Observations about one record.
#[derive(Debug, Default)]
struct Seen {
    event_type: String,
    event_id: Uuid,
    /// The first settlement and its reason, `None` while the record is open. The outcome of the next attempt replaces
    /// that of a record that waits.
    settled: Option<(Settled, Option<String>)>,
    /// Handlers started, including attempts that an injection ended before the handler ran.
    attempts: u32,
    errors: Vec<String>,
}

impl Journal {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), state: Mutex::default(), settled: Notify::new() })
    }

    /// Locks the state, ignoring poisoning: a panicking test still wants its trace.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> Duration {
        self.started.elapsed()
    }

    /// Adds a line of the test itself to the trace.
    pub(crate) fn note(&self, note: impl Into<String>) {
        self.state().trace.push(self.at(), None, Line::Note(note.into()));
    }

    pub(crate) fn inject(&self, injection: Injection) {
        self.state().injections.push(injection);
    }

    /// Adds a record that was sent, and returns its position.
    pub(crate) fn sent(&self, record: &Record, position: &Position) -> RecordId {
        let record_id = RecordId::new(&TopicPartition::new(record.topic.clone(), position.partition), position.offset);
        let stored = stored(record, position);
        let mut state = self.state();
        state.know(&record_id, &stored);
        state.trace.push(self.at(), Some(record_id.clone()), Line::Sent);
        record_id
    }

    /// Adds a `record` that the service published.
    pub(crate) fn published(&self, by: &Name, record: &Record, position: &Position) {
        let record_id = RecordId::new(&TopicPartition::new(record.topic.clone(), position.partition), position.offset);
        let stored = stored(record, position);
        let cause = record_header(record, headers::CAUSATION_ID).and_then(|id| id.parse::<Uuid>().ok());
        let mut state = self.state();
        state.trace.name(&record_id, &stored);
        if let Some(cause) = cause {
            // Records with equal event ids share the events that follow from any of them.
            state.caused.entry(cause).or_default().push(record_id.clone());
        }
        state.trace.push(self.at(), Some(record_id.clone()), Line::Published { by: by.clone() });
        state.published.push((record_id, stored));
    }

    #[cfg(test)]
    pub(crate) fn published_count(&self) -> usize {
        self.state().published.len()
    }

    /// Adds a record that the service forwarded to a retry topic: to the trace only, since it is the same event.
    pub(crate) fn forwarded(&self, record: &Record, position: &Position) {
        let what = record_header(record, headers::EVENT_TYPE).unwrap_or("a record").to_owned();
        let place = format!("{}/{}@{}", record.topic, position.partition, position.offset);
        self.note(format!("{what} waits in {place}"));
    }

    /// Adds a refused publish: to the trace only, since the record has no position.
    pub(crate) fn not_published(&self, record: &Record, error: String) {
        let what = record_header(record, headers::EVENT_TYPE).unwrap_or_default().to_owned();
        let what = format!("{what} to {}", record.topic);
        self.state().trace.push(self.at(), None, Line::NotPublished { what, error });
    }

    /// Adds the start of a handler; returns the error to inject, if the attempt is to fail.
    pub(crate) fn begun<'a>(
        &self,
        handler: &Name,
        origin: &TopicPartition,
        attempt: u32,
        records: impl Iterator<Item = &'a StoredRecord>,
    ) -> Option<BoxError> {
        let mut state = self.state();
        let mut failure = None;
        for record in records {
            let record_id = RecordId::new(origin, record.offset);
            let seen = state.know(&record_id, record);
            seen.attempts += 1;
            seen.settled.take_if(|(settled, _)| *settled == Settled::Waiting);
            let event_type = seen.event_type.clone();
            state.trace.push(self.at(), Some(record_id), Line::Attempt { number: attempt, handler: handler.clone() });
            failure = failure.or_else(|| state.injections.iter_mut().find_map(|inject| inject(&event_type, attempt)));
        }
        failure
    }

    /// Adds the error of an attempt to each of its records: a batch fails as a whole.
    pub(crate) fn failed(&self, record_ids: &[RecordId], attempt: u32, error: &str) {
        let mut state = self.state();
        for record_id in record_ids {
            if let Some(seen) = state.records.get_mut(record_id) {
                seen.errors.push(error.to_owned());
            }
            let line = Line::Failed { number: attempt, error: error.to_owned() };
            state.trace.push(self.at(), Some(record_id.clone()), line);
        }
    }

    /// Adds a dead letter that the sink has accepted.
    pub(crate) fn buried(&self, letter: &DeadLetter) {
        let record_id = RecordId::new(&letter.origin, letter.record.offset);
        let mut state = self.state();
        let (error, attempts) = (letter.error.clone(), letter.attempts);
        state.trace.push(self.at(), Some(record_id), Line::Buried { error, attempts });
        // A letter written again after a lost answer counts once.
        let id: LetterId = letter.id();
        state.letters.retain(|other| other.id() != id);
        state.letters.push(letter.clone());
    }

    /// Adds a refused dead letter; its record stays open.
    pub(crate) fn not_buried(&self, letter: &DeadLetter, error: String) {
        let record_id = RecordId::new(&letter.origin, letter.record.offset);
        self.state().trace.push(self.at(), Some(record_id), Line::NotBuried { error });
    }

    /// Returns the fate of the record of `record_id` and of all records that follow from it within `topics`; `None` if
    /// one of them is not settled yet. Counts the records it visits; stops beyond [`Harness::MAX_FOLLOWING`].
    pub(crate) fn fate(&self, record_id: &RecordId, topics: &[Name], looked_at: &mut usize) -> Option<Fate> {
        self.state().fate(record_id, topics, looked_at, &mut Vec::new())
    }

    /// Returns the records sent or published to `topics` that are not settled.
    pub(crate) fn unsettled(&self, topics: &[Name]) -> Vec<String> {
        let state = self.state();
        let published =
            state.published.iter().map(|(record_id, _)| record_id).filter(|p| topics.contains(&p.origin.topic));
        let known = state.records.keys();
        let open = |record_id: &&RecordId| state.records.get(record_id).is_none_or(|seen| seen.settled.is_none());
        let mut open: Vec<_> = published.chain(known).filter(open).map(ToString::to_string).collect();
        open.sort();
        open.dedup();
        open
    }

    /// Decodes records in order and leaves out those of other types.
    pub(crate) fn read<T>(&self, what: Read, decode: impl Fn(&StoredRecord) -> Option<T>) -> Vec<T> {
        let state = self.state();
        match what {
            Read::Published => state.published.iter().filter_map(|(_, record)| decode(record)).collect(),
            Read::Handled => state.handled.iter().filter_map(decode).collect(),
        }
    }

    pub(crate) fn retried(&self) -> Vec<Retried> {
        self.state().retried.clone()
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        self.state().letters.clone()
    }

    pub(crate) fn trace(&self) -> String {
        self.state().trace.render()
    }
}

/// The records that are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Read {
    Published,
    Handled,
}

fn record_header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.headers.get_str(name)
}

/// Returns the record as a reader would get it, without fetching it.
fn stored(record: &Record, position: &Position) -> StoredRecord {
    StoredRecord::from_record(record.clone(), position.offset, record.timestamp.unwrap_or_default())
}

impl State {
    /// Returns the entry of a record, creating it: the first of four writers to see it decides.
    fn know(&mut self, record_id: &RecordId, record: &StoredRecord) -> &mut Seen {
        self.trace.name(record_id, record);
        self.records.entry(record_id.clone()).or_insert_with(|| Seen {
            event_type: codec::peek(record).map(|head| head.event_type.into_owned()).unwrap_or_default(),
            event_id: event_id_of(&record_id.origin, record),
            ..Seen::default()
        })
    }

    /// `path` holds the records on the way here. One that causes itself, directly or not, is not
    /// followed again: equal event ids share what they caused.
    fn fate(
        &self,
        record_id: &RecordId,
        topics: &[Name],
        looked_at: &mut usize,
        path: &mut Vec<RecordId>,
    ) -> Option<Fate> {
        *looked_at += 1;
        if *looked_at > Harness::MAX_FOLLOWING {
            return None;
        }
        let seen = self.records.get(record_id)?;
        let (settled, reason) = seen.settled.clone()?;
        path.push(record_id.clone());
        let mut following = Vec::new();
        let caused = self.caused.get(&seen.event_id).into_iter().flatten();
        for caused in caused.filter(|caused| topics.contains(&caused.origin.topic)) {
            if !path.contains(caused) {
                following.push(self.fate(caused, topics, looked_at, path)?);
            }
        }
        path.pop();
        Some(Fate {
            event_type: seen.event_type.clone(),
            event_id: seen.event_id,
            origin: record_id.origin.clone(),
            offset: record_id.offset,
            settled,
            errors: seen.errors.clone(),
            reason,
            following,
            attempts: seen.attempts,
        })
    }
}

impl Observer for Journal {
    fn observe(&self, event: &RecordEvent<'_>) {
        let record_id = RecordId::new(event.origin, event.record.offset);
        let reason = event.reason.map(str::to_owned);
        let mut state = self.state();
        let seen = state.know(&record_id, event.record);
        let (event_type, event_id) = (seen.event_type.clone(), seen.event_id);
        if let Some(settled) = Settled::of(event.outcome) {
            // A redelivery settles it again: the first settlement counts.
            seen.settled.get_or_insert((settled, reason.clone()));
            let line = Line::Settled { how: event.outcome.as_str(), reason };
            state.trace.push(self.at(), Some(record_id), line);
            if settled == Settled::Handled {
                state.handled.push(event.record.clone());
            }
            drop(state);
            self.settled.notify_waiters();
        } else if event.outcome == RecordOutcome::Retried {
            let error = reason.unwrap_or_default();
            state.retried.push(Retried { event_type, event_id, attempt: event.attempt, error });
        }
    }
}
