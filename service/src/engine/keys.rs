//! Hashes of keys: records of one hash must not overtake one another.

use std::hash::BuildHasher;

use bytes::Bytes;

use super::assigned::AssignmentId;
use crate::settings::DeliveryOrder;

/// The hash of a key of one assignment, or of the whole assignment.
pub(crate) type KeyHash = u64;

/// Hashes keys with a random seed, so that no producer can choose keys that all share one queue.
#[derive(Debug, Clone)]
pub(crate) struct KeyHasher {
    order: DeliveryOrder,
    hasher: foldhash::fast::FixedState,
}

impl KeyHasher {
    /// Creates a hasher from the service's `seed`: a user's seed gives the same hashes each time.
    pub(crate) fn new(order: DeliveryOrder, seed: u64) -> Self {
        Self { order, hasher: foldhash::fast::FixedState::with_seed(seed) }
    }

    /// Returns the hash within which a record is ordered; `None` if it has no order. Two keys may share a hash, which
    /// only costs concurrency.
    pub(crate) fn of(&self, assignment: AssignmentId, key: Option<&Bytes>) -> Option<KeyHash> {
        match (self.order, key) {
            (DeliveryOrder::Key, Some(key)) => Some(self.hasher.hash_one((assignment, &key[..]))),
            (DeliveryOrder::Partition, _) => Some(self.hasher.hash_one(assignment)),
            _ => None,
        }
    }
}
