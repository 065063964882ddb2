//! Tracks the offset of a partition that may be committed: the lowest that is not settled.

use std::collections::VecDeque;

use tidings_core::{Fetched, RecordBatch, StoredRecord};

/// Tracks the fetched records of one assignment until they are settled.
///
/// Uses one bit per in-flight record, by fetched batch: settling out of order needs no search, and memory is bounded
/// by the records in flight. A batch is kept, and its bytes are counted, until its last record is settled.
#[derive(Debug)]
pub(crate) struct Tracker {
    batches: VecDeque<Pending>,
    /// The number of the first batch in `batches`.
    first: u64,
    /// The offset after the last fetched record.
    next: u64,
    bytes: usize,
    unsettled: usize,
}

#[derive(Debug)]
struct Pending {
    batch: RecordBatch,
    settled: Vec<u64>,
    left: usize,
    next: u64,
    bytes: usize,
}

impl Pending {
    fn lowest(&self) -> Option<&StoredRecord> {
        let place = self.settled.iter().position(|word| *word != u64::MAX).unwrap_or(0);
        let bit = self.settled.get(place).map_or(0, |word| word.trailing_ones() as usize);
        self.batch.records().get(place * 64 + bit)
    }
}

impl Tracker {
    /// Creates a tracker that starts at `start`, with nothing fetched.
    pub(crate) fn new(start: u64) -> Self {
        Self { batches: VecDeque::new(), first: 0, next: start, bytes: 0, unsettled: 0 }
    }

    /// Adds a fetched batch; returns the batch's number, by which it is settled.
    pub(crate) fn push(&mut self, fetched: Fetched) -> u64 {
        let number = self.first + self.batches.len() as u64;
        let (len, bytes) = (fetched.batch.len(), fetched.batch.size());
        let from = fetched.batch.records().first().map_or(fetched.next_offset, |record| record.offset);
        // Offsets below all earlier ones are of another log. (A new tracker is better: see `Coordinator::rewound`.)
        self.next = if from < self.next { fetched.next_offset } else { self.next.max(fetched.next_offset) };
        self.bytes += bytes;
        self.unsettled += len;
        let settled = vec![0; len.div_ceil(64)];
        self.batches.push_back(Pending { batch: fetched.batch, settled, left: len, next: self.next, bytes });
        self.drop_settled();
        number
    }

    /// Settles records of a batch by their places in it. Places that are settled already, or unknown, are ignored.
    pub(crate) fn settle(&mut self, number: u64, places: impl IntoIterator<Item = u32>) {
        let Some(index) = number.checked_sub(self.first).and_then(|i| usize::try_from(i).ok()) else { return };
        let Some(pending) = self.batches.get_mut(index) else { return };
        let mut newly = 0;
        for place in places {
            let (word, bit) = (place as usize / 64, 1_u64 << (place % 64));
            if (place as usize) < pending.batch.len() && pending.settled[word] & bit == 0 {
                pending.settled[word] |= bit;
                newly += 1;
            }
        }
        pending.left -= newly;
        self.unsettled -= newly;
        self.drop_settled();
    }

    fn drop_settled(&mut self) {
        while self.batches.front().is_some_and(|pending| pending.left == 0) {
            let done = self.batches.pop_front().expect("the front was just looked at");
            self.bytes -= done.bytes;
            self.first += 1;
        }
    }

    /// Returns the offset to commit: the lowest that is not settled, else the one after the last fetched record.
    pub(crate) fn watermark(&self) -> u64 {
        let Some(front) = self.batches.front() else { return self.next };
        front.lowest().map_or(front.next, |record| record.offset)
    }

    /// Returns the lowest unsettled record, if one is in flight.
    pub(crate) fn lowest(&self) -> Option<&StoredRecord> {
        self.batches.front()?.lowest()
    }

    /// Returns the span from the lowest unsettled record to the highest fetched.
    pub(crate) fn span(&self) -> u64 {
        if self.batches.is_empty() { 0 } else { self.next.saturating_sub(self.watermark()) }
    }

    /// Returns the bytes of the batches that are not completely settled.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of unsettled records.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Returns the offset after the last fetched record.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Strategy, any, prop, proptest};
    use proptest::test_runner::Config;
    use tidings_core::{Timestamp, TopicPartition};

    use super::*;

    fn fetched(offsets: &[u64], next: u64) -> Fetched {
        let records = offsets.iter().map(|o| StoredRecord::new(*o, Timestamp::default())).collect();
        Fetched::new(RecordBatch::new(TopicPartition::new("t", 0), records), 1, next)
    }

    #[test]
    fn commits_the_lowest_unsettled_offset_and_not_the_highest_settled() {
        let mut tracker = Tracker::new(10);
        let number = tracker.push(fetched(&[10, 11, 12], 13));
        tracker.settle(number, [2, 1]);
        assert_eq!(tracker.watermark(), 10);
        tracker.settle(number, [0]);
        assert_eq!(tracker.watermark(), 13);
    }

    #[test]
    fn gaps_in_the_log_do_not_hold_the_watermark_back() {
        let mut tracker = Tracker::new(0);
        let first = tracker.push(fetched(&[3, 7], 9));
        let empty = tracker.push(fetched(&[], 20));
        assert_eq!(tracker.watermark(), 3);
        tracker.settle(first, [0]);
        assert_eq!(tracker.watermark(), 7);
        tracker.settle(first, [1]);
        assert_eq!(tracker.watermark(), 20);
        assert_eq!(empty, 1);
    }

    #[test]
    fn the_watermark_follows_a_log_that_went_back() {
        let mut tracker = Tracker::new(20);
        let number = tracker.push(fetched(&[0, 1, 2, 3], 4));
        assert_eq!(tracker.watermark(), 0);
        tracker.settle(number, [0, 1, 2]);
        assert_eq!((tracker.watermark(), tracker.next()), (3, 4));
        tracker.settle(number, [3]);
        assert_eq!(tracker.watermark(), 4);
    }

    #[test]
    fn a_batch_counts_until_its_last_record_is_settled() {
        let mut tracker = Tracker::new(0);
        let number = tracker.push(fetched(&[0, 1], 2));
        let bytes = tracker.bytes();
        assert!(bytes > 0);
        tracker.settle(number, [0, 0]);
        assert_eq!((tracker.bytes(), tracker.unsettled()), (bytes, 1));
        tracker.settle(number, [1, 99]);
        assert_eq!((tracker.bytes(), tracker.unsettled(), tracker.span()), (0, 0, 0));
    }

    /// A reference model of the tracker, as simple as possible.
    #[derive(Default)]
    struct Model {
        unsettled: BTreeSet<u64>,
        next: u64,
    }

    impl Model {
        fn watermark(&self) -> u64 {
            self.unsettled.first().copied().unwrap_or(self.next)
        }
    }

    fn check(batches: &[(Vec<bool>, u8)], order: &[usize]) {
        let (mut model, mut tracker) = (Model::default(), Tracker::new(0));
        let mut open = Vec::new();
        for (present, gap) in batches {
            let start = model.next;
            let offsets: Vec<u64> =
                present.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| start + i as u64).collect();
            model.next = start + present.len() as u64 + u64::from(*gap);
            model.unsettled.extend(&offsets);
            let number = tracker.push(fetched(&offsets, model.next));
            open.extend(offsets.iter().enumerate().map(|(place, offset)| (number, place as u32, *offset)));
            assert_eq!(tracker.watermark(), model.watermark());
        }
        for pick in order {
            if open.is_empty() {
                break;
            }
            let (number, place, offset) = open.swap_remove(pick % open.len());
            tracker.settle(number, [place]);
            model.unsettled.remove(&offset);
            assert_eq!(tracker.watermark(), model.watermark());
            assert_eq!(tracker.unsettled(), model.unsettled.len());
        }
        assert_eq!(tracker.bytes() == 0, model.unsettled.is_empty());
    }

    /// A schedule: batches, the records present in them, the gap behind each, and the order of settling.
    fn schedules() -> impl Strategy<Value = (Vec<(Vec<bool>, u8)>, Vec<usize>)> {
        let batches = prop::collection::vec((prop::collection::vec(any::<bool>(), 0..150), 0_u8..4), 1..5);
        (batches, prop::collection::vec(any::<usize>(), 0..300))
    }

    proptest! {
        #![proptest_config(Config { cases: 10_000, ..Default::default() })]
        #[test]
        fn agrees_with_the_model((batches, order) in schedules()) {
            check(&batches, &order);
        }
    }

    proptest! {
        #![proptest_config(Config { cases: 1_000_000, ..Default::default() })]
        #[test]
        #[ignore = "soak"]
        fn soak_a_million_schedules_agree_with_the_model((batches, order) in schedules()) {
            check(&batches, &order);
        }
    }
}
