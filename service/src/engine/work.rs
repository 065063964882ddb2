//! Messages between the coordinator and the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{History, RecordBatch, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::claims::Hold;
use super::gate::Change;

/// A duration longer than any process runs.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// Returns `from` plus `time`. A user's duration may exceed the clock's range: it then counts as for ever.
pub(crate) fn after(from: Instant, time: Duration) -> Instant {
    from + time.min(FOR_EVER)
}

/// One assignment of a partition.
///
/// All in-flight work holds an `Arc` of it: when only the coordinator's is left, the partition is quiet.
#[derive(Debug)]
pub(crate) struct Assigned {
    /// Unique within the running service: reports of an older assignment match nothing.
    pub(crate) slot: u64,
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) epoch: u64,
    /// No work of this assignment may begin any more.
    stopping: AtomicBool,
    /// In-flight work is not retried either.
    cancelled: AtomicBool,
    /// Paused at a limit: no more records arrive before some of those in flight are settled.
    at_bound: AtomicBool,
}

impl Assigned {
    pub(crate) fn new(slot: u64, origin: Arc<TopicPartition>, epoch: u64) -> Self {
        let flag = || AtomicBool::new(false);
        Self { slot, origin, epoch, stopping: flag(), cancelled: flag(), at_bound: flag() }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Returns whether the value changed.
    pub(crate) fn set_at_bound(&self, at_bound: bool) -> bool {
        self.at_bound.swap(at_bound, Ordering::AcqRel) != at_bound
    }

    pub(crate) fn is_at_bound(&self) -> bool {
        self.at_bound.load(Ordering::Acquire)
    }
}

/// The places of a batch that belong to one worker.
#[derive(Debug)]
pub(crate) enum Places {
    All(u32),
    Some(Vec<u32>),
}

impl Places {
    pub(crate) fn get(&self, index: usize) -> Option<u32> {
        match self {
            Self::All(count) => u32::try_from(index).ok().filter(|place| place < count),
            Self::Some(places) => places.get(index).copied(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::All(count) => *count as usize,
            Self::Some(places) => places.len(),
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
    pub(crate) places: Places,
    /// The number of places that were begun.
    pub(crate) at: usize,
    /// Before this index no complete batch is contiguous.
    pub(crate) scattered_until: usize,
}

/// A record being processed by a worker.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) assigned: Arc<Assigned>,
    pub(crate) number: u64,
    pub(crate) place: u32,
    /// A batch of only this record.
    pub(crate) record: RecordBatch,
    pub(crate) handler: usize,
    /// The lane of its key or partition, within which order is kept. `None` has no order.
    pub(crate) lane: Option<u64>,
    /// Whether it is counted in its lane: no other item of the lane begins.
    pub(crate) entered: bool,
    pub(crate) claim: Claimed,
    pub(crate) event_id: Option<Uuid>,
    /// The number of failed attempts.
    pub(crate) failures: u32,
    /// The failed attempts already reported by releasing a claim: the next claim's history includes them.
    pub(crate) told: u32,
    /// The number of times a handler was started with it.
    pub(crate) runs: u32,
    /// The number of consecutive waits for a dependency that was down.
    pub(crate) waits: u32,
    /// It failed in a batch, and is now passed to the handler alone.
    pub(crate) single: bool,
    /// Enough leases expired while it was in flight that it is claimed and handled with nothing else in flight.
    pub(crate) suspect: bool,
    /// No other delivery runs while the item has this.
    pub(crate) alone: Option<Alone>,
    /// The dependency that is down, as reported to the coordinator.
    pub(crate) trouble: Option<Cause>,
    /// The kind and text of its last error.
    pub(crate) last_error: Option<(tidings_core::ErrorKind, String)>,
}

/// The permit to run alone, held until it is dropped: when its delivery is settled or has no claim any more. If the
/// next lone delivery began before that, it could crash the process while this one's claim exists, and this one would
/// be blamed.
#[derive(Debug)]
pub(crate) struct Alone(mpsc::UnboundedSender<Report>);

impl Alone {
    pub(crate) fn new(reports: mpsc::UnboundedSender<Report>) -> Self {
        Self(reports)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // If the coordinator is gone, no other delivery will begin.
        let _ = self.0.send(Report::LoneDone);
    }
}

/// The state of an item's claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// The service has no store.
    NoStore,
    /// The event must be claimed before the delivery begins.
    No,
    /// This service holds the claim.
    Granted(History, Hold),
}

impl Claimed {
    /// Returns the history of the claim; the claim itself is gone.
    pub(crate) fn take(&mut self) -> Self {
        match self {
            Self::NoStore => Self::NoStore,
            _ => std::mem::replace(self, Self::No),
        }
    }
}

/// A dependency that an item waits for, through no fault of its own.
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
pub(crate) enum Order {
    Work(Chunk),
    /// Return the work of this assignment that has not begun, and of all later orders for it.
    GiveBack(u64),
    /// Cancel the work that has begun, too.
    Cancel(u64),
    /// Check the gate again.
    Wake,
    /// Report when no handler runs.
    Quiesce,
    /// Run the item that waits to run alone.
    RunLone,
    /// Settle the record at this offset, whose dead letter could not be written.
    Skip {
        slot: u64,
        offset: u64,
    },
}

/// A message from a worker.
#[derive(Debug)]
pub(crate) enum Report {
    Settled(Vec<Settled>),
    /// Work of an assignment that is being revoked was dropped.
    Dropped,
    /// A dependency of an assignment's records is down, or (`raised: false`) up again.
    Trouble {
        slot: u64,
        cause: Cause,
        raised: bool,
        text: String,
    },
    /// The dead letter of a record could not be written; without an error: it was written eventually.
    Unburied {
        slot: u64,
        offset: u64,
        error: Option<String>,
    },
    /// A record was settled without its dead letter.
    Skipped {
        slot: u64,
        offset: u64,
    },
    Gate(Change),
    /// An item must run with nothing else in flight.
    WantLone {
        worker: usize,
    },
    /// No handler runs.
    Quiesced,
    LoneDone,
}

/// Settled places of a batch.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Kept so that the partition does not count as quiet before this report is read.
    pub(crate) assigned: Arc<Assigned>,
    pub(crate) number: u64,
    pub(crate) places: Vec<u32>,
}
