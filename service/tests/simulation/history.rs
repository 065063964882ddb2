//! What happened in a run, in order: written by everything around the engine, read by the checker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{Header, TopicPartition};
use tidings_service::RecordOutcome;
use tokio::time::Instant;
use uuid::Uuid;

/// A running service; a restart is another one.
pub(crate) type Process = u32;

/// Where a record lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) origin: TopicPartition,
    pub(crate) offset: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happened {
    Started {
        process: Process,
    },
    /// It is gone from one moment to the next.
    Crashed {
        process: Process,
    },
    /// It was told to stop; `Stopped` follows.
    Stopping {
        process: Process,
        within: Duration,
    },
    Stopped {
        process: Process,
        ok: bool,
    },
    /// Something was broken; `excuses` that events are handled a second time.
    Fault {
        what: String,
        excuses: bool,
    },
    /// All faults are over.
    Healed,
    /// A step was handed out.
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
    /// The engine gave it up.
    Released {
        process: Process,
        origin: TopicPartition,
    },
    Closed {
        process: Process,
    },
    /// The engine asked to commit.
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
    /// A handler was begun with these, which are of one partition.
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
    /// The service published an event that follows from `cause`.
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
    Completed {
        process: Process,
        id: Uuid,
    },
    /// What the observer was told.
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
    /// By a panic, a timeout, or because it was cancelled.
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
    /// What is to become of it.
    pub(crate) kind: Kind,
    /// How many events its handler returns.
    pub(crate) returns: usize,
}

/// A dead letter: the record's place, and what the letter says that it was.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) place: Place,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// What is to become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Handled, at the latest by its last attempt.
    Good,
    /// No attempt will ever succeed.
    Poison,
    /// It can't be read.
    Garbage,
    /// Nobody takes it.
    Foreign,
}

/// What the service promises in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Key,
    Partition,
    None,
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) order: Order,
    pub(crate) store: bool,
    /// How far a partition may be read beyond its lowest unsettled record.
    pub(crate) max_span: u64,
    /// How long what is under way may take when its partition is revoked; the commit's time is in it.
    pub(crate) revocation: Duration,
    pub(crate) entries: Vec<Entry>,
    /// The service's topics.
    pub(crate) log: BTreeMap<Place, Held>,
    /// What the group has committed at the end.
    pub(crate) committed: BTreeMap<TopicPartition, u64>,
    /// What is in the dead-letter topics.
    pub(crate) letters: Vec<Letter>,
    /// The ids of the returned events that the broker holds, by the event they follow from.
    pub(crate) returned: BTreeMap<Uuid, Vec<Uuid>>,
    /// Why the service had not caught up a long time after all faults were over.
    pub(crate) stalled: Option<String>,
}

/// Writes the history.
#[derive(Debug)]
pub(crate) struct Log {
    started: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), entries: Mutex::default() })
    }

    pub(crate) fn add(&self, what: Happened) {
        let entry = Entry { at: self.started.elapsed(), what };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
