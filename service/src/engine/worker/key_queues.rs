//! Key queues: records of one key begin in order, one at a time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::engine::keys::KeyHash;

/// The queues of the keys that have records in flight.
#[derive(Debug)]
pub(super) struct KeyQueues<T>(HashMap<KeyHash, KeyQueue<T>, BuildHasherDefault<Hashed>>);

/// A key's records. It exists only while one of them is in flight, so memory follows what is in flight.
#[derive(Debug)]
struct KeyQueue<T> {
    /// The number of records that hold the key: more than one only within one batch.
    holders: usize,
    waiting: VecDeque<T>,
}

impl<T> Default for KeyQueue<T> {
    fn default() -> Self {
        Self { holders: 0, waiting: VecDeque::new() }
    }
}

impl<T> Default for KeyQueues<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T> KeyQueues<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a record of the key is in flight.
    pub(super) fn is_busy(&self, key: KeyHash) -> bool {
        self.0.contains_key(&key)
    }

    /// Returns the number of records that hold the key.
    pub(super) fn holders(&self, key: KeyHash) -> usize {
        self.0.get(&key).map_or(0, |queue| queue.holders)
    }

    /// Returns whether a record waits for its turn.
    pub(super) fn has_waiting(&self, key: KeyHash) -> bool {
        self.0.get(&key).is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// Counts one more record that holds the key.
    pub(super) fn hold(&mut self, key: KeyHash) {
        self.0.entry(key).or_default().holders += 1;
    }

    /// Returns the records that wait for their turn.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.0.values().flat_map(|queue| &queue.waiting)
    }

    /// Queues a record behind all others of the key.
    pub(super) fn push(&mut self, key: KeyHash, record: T) {
        self.0.entry(key).or_default().waiting.push_back(record);
    }

    /// Queues records before all that wait: they were begun before them.
    pub(super) fn push_first(&mut self, key: KeyHash, record: T) {
        self.0.entry(key).or_default().waiting.push_front(record);
    }

    /// Ends one record's hold. Returns the next record, which holds the key from now on, if it is its turn.
    pub(super) fn release(&mut self, key: KeyHash) -> Option<T> {
        let queue = self.0.get_mut(&key)?;
        queue.holders = queue.holders.saturating_sub(1);
        if queue.holders > 0 {
            return None;
        }
        let next = queue.waiting.pop_front();
        if next.is_none() {
            self.0.remove(&key);
        } else {
            queue.holders = 1;
        }
        next
    }

    /// Takes the key's next record out of turn if it matches: it joins the one that holds the key.
    pub(super) fn pop_if(&mut self, key: KeyHash, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let waiting = &mut self.0.get_mut(&key)?.waiting;
        if waiting.front().is_some_and(wanted) { waiting.pop_front() } else { None }
    }

    /// Returns the records that wait behind the one that holds the key.
    pub(super) fn waiting_mut(&mut self, key: KeyHash) -> impl Iterator<Item = &mut T> {
        self.0.get_mut(&key).into_iter().flat_map(|queue| queue.waiting.iter_mut())
    }

    /// Removes all waiting records that match, in order.
    pub(super) fn take_where(&mut self, mut wanted: impl FnMut(&T) -> bool, taken: &mut Vec<T>) {
        for queue in self.0.values_mut() {
            if queue.waiting.iter().any(&mut wanted) {
                let (gone, kept): (VecDeque<T>, VecDeque<T>) =
                    std::mem::take(&mut queue.waiting).into_iter().partition(&mut wanted);
                queue.waiting = kept;
                taken.extend(gone);
            }
        }
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Strategy, prop, proptest};
    use proptest::test_runner::Config;

    use super::*;

    /// A record: its assignment, key and number.
    type Record = (u64, u64, u32);

    #[derive(Debug, Clone)]
    enum Op {
        Arrive(u64, u64),
        /// Settles the `n`th record that runs.
        Settle(usize),
        /// The `n`th record that runs waits again, at the head of its key's queue.
        Again(usize),
        Revoke(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        proptest::prop_oneof![
            4 => (0_u64..2, 0_u64..3).prop_map(|(assignment, key)| Op::Arrive(assignment, key)),
            3 => (0_usize..8).prop_map(Op::Settle),
            1 => (0_usize..8).prop_map(Op::Again),
            1 => (0_u64..2).prop_map(Op::Revoke),
        ]
    }

    fn hash((assignment, key, _): &Record) -> KeyHash {
        assignment * 100 + key
    }

    proptest! {
        #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

        /// Under any schedule: records of a key run in order and one at a time, a revocation returns exactly the
        /// assignment's records that have not begun, and nothing is lost.
        #[test]
        fn keys_run_in_order_one_at_a_time(ops in prop::collection::vec(op(), 1..80)) {
            let mut queues = KeyQueues::<Record>::default();
            let mut running: Vec<Record> = Vec::new();
            let mut expected: BTreeMap<u64, VecDeque<Record>> = BTreeMap::new();
            let mut number = 0;
            for op in ops {
                match op {
                    Op::Arrive(assignment, key) => {
                        let record = (assignment, key, number);
                        number += 1;
                        expected.entry(hash(&record)).or_default().push_back(record);
                        if queues.is_busy(hash(&record)) {
                            queues.push(hash(&record), record);
                        } else {
                            queues.hold(hash(&record));
                            running.push(record);
                        }
                    }
                    Op::Settle(n) if n < running.len() => {
                        let record = running.swap_remove(n);
                        let settled = expected.get_mut(&hash(&record)).and_then(VecDeque::pop_front);
                        assert_eq!(settled, Some(record));
                        running.extend(queues.release(hash(&record)));
                    }
                    Op::Again(n) if n < running.len() => {
                        let record = running.swap_remove(n);
                        queues.push_first(hash(&record), record);
                        running.extend(queues.release(hash(&record)));
                    }
                    Op::Revoke(assignment) => {
                        let mut revoked = Vec::new();
                        queues.take_where(|record| record.0 == assignment, &mut revoked);
                        let waits = |record: &Record| record.0 == assignment && !running.contains(record);
                        let mut wanted: Vec<Record> =
                            expected.values().flatten().copied().filter(|record| waits(record)).collect();
                        wanted.sort_unstable();
                        revoked.sort_unstable();
                        assert_eq!(revoked, wanted);
                        expected.values_mut().for_each(|records| records.retain(|record| !waits(record)));
                    }
                    Op::Settle(_) | Op::Again(_) => {}
                }
                let mut keys: Vec<_> = running.iter().map(hash).collect();
                keys.sort_unstable();
                assert!(keys.windows(2).all(|two| two[0] != two[1]), "two records of a key run: {running:?}");
                for record in &running {
                    assert_eq!(expected[&hash(record)].front(), Some(record), "a record passed its predecessor");
                }
            }
            while let Some(record) = running.pop() {
                expected.get_mut(&hash(&record)).and_then(VecDeque::pop_front);
                running.extend(queues.release(hash(&record)));
            }
            assert!(queues.is_empty() && expected.values().all(VecDeque::is_empty), "lost: {expected:?}");
        }
    }
}
