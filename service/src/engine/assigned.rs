//! One assignment of a partition, as all work of it sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_core::TopicPartition;

use super::tiers::Level;

/// The number of an assignment, unique within the running service.
pub(crate) type AssignmentId = u64;

/// One assignment of a partition.
///
/// All in-flight work holds an `Arc` of it: when only the coordinator's is left, the partition is quiet.
#[derive(Debug)]
pub(crate) struct Assigned {
    /// Events of workers that name an older assignment match nothing.
    pub(crate) id: AssignmentId,
    pub(crate) origin: Arc<TopicPartition>,
    pub(crate) epoch: u64,
    /// The level of a retry topic: its records are delivered as their originals.
    pub(crate) tier: Option<Level>,
    /// No work of this assignment may begin any more.
    stopping: AtomicBool,
    /// In-flight work is not retried either.
    cancelled: AtomicBool,
    /// Paused at a limit: no more records arrive before some of those in flight are settled.
    at_bound: AtomicBool,
}

impl Assigned {
    pub(crate) fn new(id: AssignmentId, origin: Arc<TopicPartition>, epoch: u64, tier: Option<Level>) -> Self {
        let flag = || AtomicBool::new(false);
        Self { id, origin, epoch, tier, stopping: flag(), cancelled: flag(), at_bound: flag() }
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
