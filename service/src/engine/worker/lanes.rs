//! Lanes: what must not overtake one another. A lane exists only while something of it is under way.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use bytes::Bytes;

use crate::engine::work::Item;
use crate::service::DeliveryOrder;

/// Draws lanes from keys, with a seed of its own, so that nobody can send keys that all meet in one lane.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    order: DeliveryOrder,
    hasher: foldhash::fast::FixedState,
}

impl Lanes {
    /// Lanes of the service whose random numbers come from `seed`: the same ones again, where a user gives one.
    pub(crate) fn new(order: DeliveryOrder, seed: u64) -> Self {
        Self { order, hasher: foldhash::fast::FixedState::with_seed(seed) }
    }

    /// The lane of a record of the assignment `slot`. Two keys may share a lane, which only costs them time.
    pub(crate) fn of(&self, slot: u64, key: Option<&Bytes>) -> Option<u64> {
        match (self.order, key) {
            (DeliveryOrder::Key, Some(key)) => Some(self.hasher.hash_one((slot, &key[..]))),
            (DeliveryOrder::Partition, _) => Some(self.hasher.hash_one(slot)),
            _ => None,
        }
    }
}

/// The lanes of one worker in which something is under way.
#[derive(Debug, Default)]
pub(crate) struct Busy(HashMap<u64, Lane, BuildHasherDefault<Hashed>>);

#[derive(Debug, Default)]
struct Lane {
    /// How many items are under way: several only within one batch delivery.
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

    /// How many items of the lane are under way.
    pub(crate) fn active(&self, lane: u64) -> usize {
        self.0.get(&lane).map_or(0, |lane| lane.active)
    }

    /// Whether something of the lane waits.
    pub(crate) fn waits(&self, lane: u64) -> bool {
        self.0.get(&lane).is_some_and(|lane| !lane.waiting.is_empty())
    }

    /// Takes the lane's next waiting item out of turn, if it is wanted: it goes with the one under way.
    pub(crate) fn next_waiting_if(&mut self, lane: u64, wanted: impl FnOnce(&Item) -> bool) -> Option<Item> {
        let waiting = &mut self.0.get_mut(&lane)?.waiting;
        if waiting.front().is_some_and(wanted) { waiting.pop_front() } else { None }
    }

    /// One more item of the lane is under way.
    pub(crate) fn enter(&mut self, lane: u64) {
        self.0.entry(lane).or_default().active += 1;
    }

    /// Queues an item behind what is under way.
    pub(crate) fn queue(&mut self, lane: u64, item: Item) {
        self.0.entry(lane).or_default().waiting.push_back(item);
    }

    /// Queues an item before all others that wait: it had begun before them.
    pub(crate) fn queue_first(&mut self, lane: u64, item: Item) {
        self.0.entry(lane).or_default().waiting.push_front(item);
    }

    /// One item of the lane is over. Returns the next one, if it is its turn.
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
            // The next one holds the lane from now on, wherever it waits to be begun.
            entry.active = 1;
        }
        next
    }

    /// What waits in a lane.
    pub(crate) fn waiting_mut(&mut self, lane: u64) -> impl Iterator<Item = &mut Item> {
        self.0.get_mut(&lane).into_iter().flat_map(|lane| lane.waiting.iter_mut())
    }

    /// Takes out all waiting items that are wanted, in order.
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
