//! Lanes: sequences of items that must not overtake one another. A lane exists only while one of its items is in
//! flight.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::engine::record::PendingRecord;

/// The lanes of one worker that have items in flight.
#[derive(Debug, Default)]
pub(crate) struct Busy(HashMap<u64, Lane, BuildHasherDefault<Hashed>>);

#[derive(Debug, Default)]
struct Lane {
    /// The number of items in flight: more than one only within one batch delivery.
    active: usize,
    waiting: VecDeque<PendingRecord>,
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
    pub(crate) fn next_waiting_if(
        &mut self,
        lane: u64,
        wanted: impl FnOnce(&PendingRecord) -> bool,
    ) -> Option<PendingRecord> {
        let waiting = &mut self.0.get_mut(&lane)?.waiting;
        if waiting.front().is_some_and(wanted) { waiting.pop_front() } else { None }
    }

    /// Counts one more item of the lane as in flight.
    pub(crate) fn enter(&mut self, lane: u64) {
        self.0.entry(lane).or_default().active += 1;
    }

    /// Queues an item behind those in flight.
    pub(crate) fn queue(&mut self, lane: u64, item: PendingRecord) {
        self.0.entry(lane).or_default().waiting.push_back(item);
    }

    /// Queues an item before all others that wait: it had started before them.
    pub(crate) fn queue_first(&mut self, lane: u64, item: PendingRecord) {
        self.0.entry(lane).or_default().waiting.push_front(item);
    }

    /// Ends one item of the lane. Returns the next one, if it is its turn.
    pub(crate) fn leave(&mut self, lane: u64) -> Option<PendingRecord> {
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
    pub(crate) fn waiting_mut(&mut self, lane: u64) -> impl Iterator<Item = &mut PendingRecord> {
        self.0.get_mut(&lane).into_iter().flat_map(|lane| lane.waiting.iter_mut())
    }

    /// Removes all waiting items that match, in order.
    pub(crate) fn take_waiting(&mut self, mut wanted: impl FnMut(&PendingRecord) -> bool) -> Vec<PendingRecord> {
        let mut taken = Vec::new();
        for lane in self.0.values_mut() {
            let (gone, kept) = std::mem::take(&mut lane.waiting).into_iter().partition(&mut wanted);
            lane.waiting = kept;
            let gone: VecDeque<PendingRecord> = gone;
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
