//! Messages between the coordinator and the workers.

use std::sync::Arc;

use tidings_core::{ErrorKind, RecordBatch};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::assigned::{Assigned, AssignmentId};
use super::circuit_breaker::Change;
use crate::telemetry::HoldCause;

/// Sends a worker's events to the coordinator.
pub(crate) type Events = mpsc::UnboundedSender<WorkerEvent>;

/// The records of a batch that belong to one worker, by their indexes in the batch.
#[derive(Debug)]
pub(crate) enum Indexes {
    All(u32),
    Some(Vec<u32>),
}

impl Indexes {
    /// Returns the index of the `n`th of these records.
    pub(crate) fn get(&self, n: usize) -> Option<u32> {
        match self {
            Self::All(count) => u32::try_from(n).ok().filter(|index| index < count),
            Self::Some(indexes) => indexes.get(n).copied(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::All(count) => *count as usize,
            Self::Some(indexes) => indexes.len(),
        }
    }
}

/// One worker's share of a fetched batch.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) assigned: Arc<Assigned>,
    /// The batch's number in its tracker.
    pub(crate) number: u64,
    pub(crate) batch: RecordBatch,
    pub(crate) indexes: Indexes,
    /// The number of these records that were begun.
    pub(crate) at: usize,
    /// Before this position no complete batch is contiguous.
    pub(crate) scattered_until: usize,
}

impl Chunk {
    pub(crate) fn new(assigned: Arc<Assigned>, number: u64, batch: RecordBatch, indexes: Indexes) -> Self {
        Self { assigned, number, batch, indexes, at: 0, scattered_until: 0 }
    }
}

/// A dependency that a record waits for, through no fault of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The handler reported that a dependency is down.
    Handler,
    /// The idempotency store.
    Store,
    /// The dead-letter sink.
    DeadLetters,
    /// The publisher of returned events.
    Publisher,
}

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum WorkerCommand {
    Work(Chunk),
    /// Return the work of this assignment that has not begun, and of all later commands for it.
    Revoke(AssignmentId),
    /// Cancel the work that has begun, too.
    Cancel(AssignmentId),
    /// Check again whether deliveries may start.
    Wake,
    /// Report when no handler runs.
    Quiesce,
    /// Run the record that waits to run isolated.
    RunIsolated,
    /// Report what the records at these offsets wait for.
    Locate(Vec<(AssignmentId, u64)>),
    /// Settle the record at this offset, whose dead letter could not be written.
    Skip {
        assignment: AssignmentId,
        offset: u64,
    },
}

/// A message from a worker.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    Settled(Vec<Settled>),
    /// Work of an assignment that is being revoked was released.
    Released,
    /// A dependency of an assignment's records is down, or (`raised: false`) up again.
    Trouble {
        assignment: AssignmentId,
        cause: Cause,
        raised: bool,
        text: String,
    },
    /// The dead letter of a record could not be written; without an error: it was written eventually.
    Unburied {
        assignment: AssignmentId,
        offset: u64,
        error: Option<String>,
    },
    /// A record was settled without its dead letter.
    Skipped {
        assignment: AssignmentId,
        offset: u64,
    },
    /// A record that was asked for is in this worker, or may be.
    Located {
        assignment: AssignmentId,
        located: Located,
    },
    Breaker(Change),
    /// A record must run with nothing else in flight.
    WantIsolated {
        worker: usize,
    },
    /// No handler runs.
    Quiesced,
    IsolatedDone,
}

/// A record that has not been settled for long, and what it waits for.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) offset: u64,
    pub(crate) handler: Option<usize>,
    /// The number of the current or next attempt.
    pub(crate) attempt: Option<u32>,
    pub(crate) cause: HoldCause,
    /// The kind and text of the last attempt's error.
    pub(crate) error: Option<(ErrorKind, String)>,
    /// When its next attempt is due.
    pub(crate) due: Option<Instant>,
    /// Whether the record is in this worker; otherwise it may be in a request that is in flight.
    pub(crate) is_certain: bool,
}

/// Settled records of a batch, by their indexes in it.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Kept so that the partition does not count as quiet before this event is read.
    pub(crate) assigned: Arc<Assigned>,
    pub(crate) number: u64,
    pub(crate) indexes: Vec<u32>,
}

/// The permit to run isolated, held until it is dropped: when its delivery is settled or has no claim any more. If the
/// next isolated delivery began before that, it could crash the process while this one's claim exists, and this one
/// would be blamed.
#[derive(Debug)]
pub(crate) struct IsolationPermit(Events);

impl IsolationPermit {
    pub(crate) fn new(events: Events) -> Self {
        Self(events)
    }
}

impl Drop for IsolationPermit {
    fn drop(&mut self) {
        // If the coordinator is gone, no other delivery will begin.
        let _ = self.0.send(WorkerEvent::IsolatedDone);
    }
}
