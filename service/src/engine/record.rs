//! A record that waits in a worker.

use std::sync::Arc;

use tidings_core::{History, RecordBatch};
use uuid::Uuid;

use super::assigned::Assigned;
use super::claims::Hold;
use super::messages::{Cause, IsolationPermit};

/// A record being processed by a worker.
#[derive(Debug)]
pub(crate) struct PendingRecord {
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
    pub(crate) alone: Option<IsolationPermit>,
    /// The dependency that is down, as reported to the coordinator.
    pub(crate) trouble: Option<Cause>,
    /// The kind and text of its last error.
    pub(crate) last_error: Option<(tidings_core::ErrorKind, String)>,
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
