//! The history of a run, in order: written by everything around the engine, read by the checker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{Header, Name, Timestamp, TopicPartition};
use tidings_service::RecordOutcome;
use tokio::time::Instant;
use uuid::Uuid;

/// A running service; a restart is another process.
pub(crate) type Process = u32;

/// The position of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) origin: TopicPartition,
    pub(crate) offset: u64,
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happened {
    Started {
        process: Process,
    },
    /// The process crashed.
    Crashed {
        process: Process,
    },
    /// The process was told to shut down; `Stopped` follows.
    Stopping {
        process: Process,
        within: Duration,
    },
    Stopped {
        process: Process,
        ok: bool,
    },
    /// A fault was injected; `excuses`: events may be handled a second time.
    Fault {
        what: String,
        excuses: bool,
    },
    /// All faults are over.
    Healed,
    /// A step was delivered to the consumer.
    Assigned {
        process: Process,
        origin: TopicPartition,
        epoch: u64,
        start: u64,
    },
    Given {
        process: Process,
        origin: TopicPartition,
        epoch: u64,
        offsets: Vec<u64>,
    },
    Revoking {
        process: Process,
        origin: TopicPartition,
    },
    Lost {
        process: Process,
        origin: TopicPartition,
    },
    /// The engine released a partition.
    Released {
        process: Process,
        origin: TopicPartition,
    },
    Closed {
        process: Process,
    },
    /// The engine moves the position of a partition, for an operator.
    Seeking {
        process: Process,
        origin: TopicPartition,
    },
    /// Reading goes on there.
    Sought {
        process: Process,
        origin: TopicPartition,
        start: u64,
    },
    /// The engine requested a commit.
    Committing {
        process: Process,
        origin: TopicPartition,
        epoch: u64,
        next: u64,
    },
    Committed {
        process: Process,
        origin: TopicPartition,
        next: u64,
        ok: bool,
    },
    /// A handler was started with these records, which are of one partition.
    Began {
        process: Process,
        run: u64,
        origin: TopicPartition,
        epoch: u64,
        offsets: Vec<u64>,
    },
    Ended {
        process: Process,
        run: u64,
        how: How,
    },
    /// The service published an event caused by `cause`.
    Published {
        process: Process,
        cause: Uuid,
        id: Uuid,
    },
    Buried {
        process: Process,
        place: Place,
        ok: bool,
    },
    /// The service forwards a record to a retry topic, where it is due at this time of the run.
    Forwarding {
        topic: Name,
        place: Place,
        due: Duration,
    },
    Completed {
        process: Process,
        id: Uuid,
    },
    /// The event that the observer received.
    Observed {
        process: Process,
        what: RecordOutcome,
        place: Place,
        epoch: u64,
    },
}

/// How a run of a handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    Ok,
    Failed,
    /// A batch, of which these were handled.
    Partly(Vec<u64>),
    /// A panic, a timeout, or a cancellation.
    Dropped,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Duration,
    pub(crate) what: Happened,
}

/// A record as the broker holds it at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: Option<Uuid>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    /// The expected outcome.
    pub(crate) kind: Kind,
    /// The number of events that its handler returns.
    pub(crate) returns: usize,
}

/// A dead letter: the record's position, and the fields that describe its record.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) place: Place,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// The expected outcome of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Handled, at the latest by its last attempt.
    Good,
    /// Dead-lettered: no attempt ever succeeds.
    Poison,
    /// Unreadable.
    Garbage,
    /// Without a handler.
    Foreign,
}

/// The ordering that the service promises in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Key,
    Partition,
    None,
}

/// A complete run.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) order: Order,
    pub(crate) store: bool,
    /// How far a partition may be read beyond its lowest unsettled record.
    pub(crate) max_span: u64,
    /// The time limit of in-flight work when its partition is revoked, including the commit.
    pub(crate) revocation: Duration,
    pub(crate) entries: Vec<Entry>,
    /// The service's topics.
    pub(crate) log: BTreeMap<Place, Held>,
    /// The committed offsets at the end.
    pub(crate) committed: BTreeMap<TopicPartition, u64>,
    /// The contents of the dead-letter topics.
    pub(crate) letters: Vec<Letter>,
    /// The ids of the returned events that the broker holds, by the event they follow from.
    pub(crate) returned: BTreeMap<Uuid, Vec<Uuid>>,
    /// The reason why the service had not caught up a long time after all faults were over.
    pub(crate) stalled: Option<String>,
}

/// Writes the history.
#[derive(Debug)]
pub(crate) struct Log {
    started: Instant,
    /// The wall clock's time then.
    wall: Timestamp,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), wall: Timestamp::now(), entries: Mutex::default() })
    }

    pub(crate) fn add(&self, what: Happened) {
        let entry = Entry { at: self.started.elapsed(), what };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Returns a time of the wall clock as one of the run.
    pub(crate) fn time_of(&self, wall: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(wall.millis() - self.wall.millis()).unwrap_or(0))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
