//! What the coordinator and the workers hand one another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{History, RecordBatch, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::claims::Hold;
use super::gate::Change;

/// What is further away than any process lives.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// `time` after `from`. What users give may be beyond all clocks: that is for ever.
pub(crate) fn after(from: Instant, time: Duration) -> Instant {
    from + time.min(FOR_EVER)
}

/// One assignment of a partition.
///
/// All work under way holds an `Arc` of it: when only the coordinator's is left, the partition is quiet.
#[derive(Debug)]
pub(crate) struct Assigned {
    /// Unique within the running service: reports of an older assignment find nothing.
    pub(crate) slot: u64,
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) epoch: u64,
    /// Nothing of it may begin any more.
    stopping: AtomicBool,
    /// What it has under way is not tried again either.
    cancelled: AtomicBool,
    /// Paused for a bound: no more records come before some of those in flight are settled.
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

    /// Returns whether that is new.
    pub(crate) fn set_at_bound(&self, at_bound: bool) -> bool {
        self.at_bound.swap(at_bound, Ordering::AcqRel) != at_bound
    }

    pub(crate) fn is_at_bound(&self) -> bool {
        self.at_bound.load(Ordering::Acquire)
    }
}

/// The places of a batch that are one worker's.
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
    /// How many of the places were begun.
    pub(crate) at: usize,
    /// Up to here no whole batch lies in one piece.
    pub(crate) scattered_until: usize,
}

/// One record on its way through a worker.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) assigned: Arc<Assigned>,
    pub(crate) number: u64,
    pub(crate) place: u32,
    /// The record alone.
    pub(crate) record: RecordBatch,
    pub(crate) handler: usize,
    /// What it must not overtake: its key's or its partition's lane. `None` is ordered with nothing.
    pub(crate) lane: Option<u64>,
    /// It is counted in its lane: nothing else of the lane begins.
    pub(crate) entered: bool,
    pub(crate) claim: Claimed,
    pub(crate) event_id: Option<Uuid>,
    /// Failed attempts so far.
    pub(crate) failures: u32,
    /// Of these, so many were given back with a claim: the history of the next one counts them.
    pub(crate) told: u32,
    /// How often a handler was started with it.
    pub(crate) runs: u32,
    /// How often in a row it had to wait for something that was down.
    pub(crate) waits: u32,
    /// It failed in a batch, and is now given to the handler alone.
    pub(crate) single: bool,
    /// So many leases expired with it that it is claimed and handled with nothing else in flight.
    pub(crate) suspect: bool,
    /// Nothing else runs while it has this.
    pub(crate) alone: Option<Alone>,
    /// What is down, as told to the coordinator.
    pub(crate) trouble: Option<Cause>,
    /// Why it was last tried without success.
    pub(crate) last_error: Option<(tidings_core::ErrorKind, String)>,
}

/// That nothing else runs: until it is dropped, which is when its delivery is settled or has no claim any more. Were the
/// next one of its kind begun before that, it could kill this one's claim with itself, and have it blamed.
#[derive(Debug)]
pub(crate) struct Alone(mpsc::UnboundedSender<Report>);

impl Alone {
    pub(crate) fn new(reports: mpsc::UnboundedSender<Report>) -> Self {
        Self(reports)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // A coordinator that is gone has nobody else to begin.
        let _ = self.0.send(Report::LoneDone);
    }
}

/// What is known of an item's claim.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// There is no store.
    NoStore,
    /// It must be claimed before it begins.
    No,
    /// It is this service's to handle.
    Granted(History, Hold),
}

impl Claimed {
    /// What there was; a claim is not there any more.
    pub(crate) fn take(&mut self) -> Self {
        match self {
            Self::NoStore => Self::NoStore,
            _ => std::mem::replace(self, Self::No),
        }
    }
}

/// What an item is waiting for that is not its own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The handler said that something it needs is down.
    Handler,
    /// The idempotency store.
    Store,
    /// The dead-letter sink.
    DeadLetters,
    /// The publisher of returned events.
    Publisher,
}

/// To a worker.
#[derive(Debug)]
pub(crate) enum Order {
    Work(Chunk),
    /// Give back what has not begun of this assignment, and of all later orders of it.
    GiveBack(u64),
    /// Stop what has begun, too.
    Cancel(u64),
    /// Look at the gate again.
    Wake,
    /// Say when no handler runs.
    Quiesce,
    /// Run the item that waits to be alone.
    RunLone,
    /// Settle the record at this offset, whose dead letter could not be written.
    Skip {
        slot: u64,
        offset: u64,
    },
}

/// From a worker.
#[derive(Debug)]
pub(crate) enum Report {
    Settled(Vec<Settled>),
    /// Something of an assignment that is being given up was dropped.
    Dropped,
    /// Something that an assignment's records need is down, or (`raised: false`) is up again.
    Trouble {
        slot: u64,
        cause: Cause,
        raised: bool,
        text: String,
    },
    /// The dead letter of a record could not be written; without an error: it was, after all.
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

/// Places of a batch that are settled.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Held, so that the partition is not taken for quiet before this was read.
    pub(crate) assigned: Arc<Assigned>,
    pub(crate) number: u64,
    pub(crate) places: Vec<u32>,
}
