//! Lanes: sequences of items that must not overtake one another. A lane exists only while one of its items is in
//! flight.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use bytes::Bytes;

use crate::engine::work::Item;
use crate::service::DeliveryOrder;

/// Maps keys to lanes, with a random seed, so that no producer can choose keys that all share one lane.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    order: DeliveryOrder,
    hasher: foldhash::fast::FixedState,
}

impl Lanes {
    /// Creates lanes from the service's `seed`: a user's seed gives the same lanes each time.
    pub(crate) fn new(order: DeliveryOrder, seed: u64) -> Self {
        Self { order, hasher: foldhash::fast::FixedState::with_seed(seed) }
    }

    /// Returns the lane of a record of the assignment `slot`. Two keys may share a lane, which only costs concurrency.
    pub(crate) fn of(&self, slot: u64, key: Option<&Bytes>) -> Option<u64> {
        match (self.order, key) {
            (DeliveryOrder::Key, Some(key)) => Some(self.hasher.hash_one((slot, &key[..]))),
            (DeliveryOrder::Partition, _) => Some(self.hasher.hash_one(slot)),
            _ => None,
        }
    }
}

/// The lanes of one worker that have items in flight.
#[derive(Debug, Default)]
pub(crate) struct Busy(HashMap<u64, Lane, BuildHasherDefault<Hashed>>);

#[derive(Debug, Default)]
struct Lane {
    /// The number of items in flight: more than one only within one batch delivery.
    active: usize,
    waiting: VecDeque<Item>,
}

impl Busy {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, lane: u64) -> bool {
        self.0.contains_key(&lane)
    }

    /// Returns the number of items of the lane in flight.
    pub(crate) fn active(&self, lane: u64) -> usize {
        self.0.get(&lane).map_or(0, |lane| lane.active)
    }

    /// Returns whether an item of the lane waits.
    pub(crate) fn waits(&self, lane: u64) -> bool {
        self.0.get(&lane).is_some_and(|lane| !lane.waiting.is_empty())
    }

    /// Takes the lane's next waiting item out of turn if it matches: it joins the one in flight.
    pub(crate) fn next_waiting_if(&mut self, lane: u64, wanted: impl FnOnce(&Item) -> bool) -> Option<Item> {
        let waiting = &mut self.0.get_mut(&lane)?.waiting;
        if waiting.front().is_some_and(wanted) { waiting.pop_front() } else { None }
    }

    /// Counts one more item of the lane as in flight.
    pub(crate) fn enter(&mut self, lane: u64) {
        self.0.entry(lane).or_default().active += 1;
    }

    /// Queues an item behind those in flight.
    pub(crate) fn queue(&mut self, lane: u64, item: Item) {
        self.0.entry(lane).or_default().waiting.push_back(item);
    }

    /// Queues an item before all others that wait: it had started before them.
    pub(crate) fn queue_first(&mut self, lane: u64, item: Item) {
        self.0.entry(lane).or_default().waiting.push_front(item);
    }

    /// Ends one item of the lane. Returns the next one, if it is its turn.
    pub(crate) fn leave(&mut self, lane: u64) -> Option<Item> {
        let entry = self.0.get_mut(&lane)?;
        entry.active = entry.active.saturating_sub(1);
        if entry.active > 0 {
            return None;
        }
        let next = entry.waiting.pop_front();
        if next.is_none() {
            self.0.remove(&lane);
        } else {
            // The next item holds the lane from now on, wherever it waits to start.
            entry.active = 1;
        }
        next
    }

    /// Returns the waiting items of a lane.
    pub(crate) fn waiting_mut(&mut self, lane: u64) -> impl Iterator<Item = &mut Item> {
        self.0.get_mut(&lane).into_iter().flat_map(|lane| lane.waiting.iter_mut())
    }

    /// Removes all waiting items that match, in order.
    pub(crate) fn take_waiting(&mut self, mut wanted: impl FnMut(&Item) -> bool) -> Vec<Item> {
        let mut taken = Vec::new();
        for lane in self.0.values_mut() {
            let (gone, kept) = std::mem::take(&mut lane.waiting).into_iter().partition(&mut wanted);
            lane.waiting = kept;
            let gone: VecDeque<Item> = gone;
            taken.extend(gone);
        }
        taken
    }
}

/// Lanes are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("lanes are numbers")
    }

    fn write_u64(&mut self, lane: u64) {
        self.0 = lane;
    }
}
