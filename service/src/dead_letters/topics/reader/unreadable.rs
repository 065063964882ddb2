//! Records that cannot be read.

use std::collections::BTreeMap;

use tidings_core::{Error, TopicPartition, Unreadable};

use crate::logs;

/// Maximum number of ranges that are kept with their causes; further ones are only counted.
const MAX_RANGES: usize = 100;

/// Ranges of partitions that cannot be read.
#[derive(Debug, Default)]
pub(super) struct UnreadableRanges {
    /// By first offset, so that a range that is read again is kept once.
    ranges: BTreeMap<TopicPartition, BTreeMap<u64, Unreadable>>,
    /// The end of the last counted range of each partition.
    counted: BTreeMap<TopicPartition, u64>,
    records: u64,
}

impl UnreadableRanges {
    /// Logs and keeps bytes that cannot be read, and returns the offset at which reading continues: `until` if it is
    /// not known where they end.
    pub(super) fn skip(&mut self, found: Unreadable, until: u64) -> (TopicPartition, u64) {
        let line = logs::LettersUnreadable {
            topic: &found.partition.topic.as_str(),
            partition: &found.partition.partition,
            offset: &found.offset,
            next_offset: &found.next_offset,
            error: &found.error.report(),
        };
        line.log();
        let partition = found.partition.clone();
        let next = found.next_offset.map_or(until, |next| next.min(until));
        self.count(&partition, found.offset, next);
        let kept: usize = self.ranges.values().map(BTreeMap::len).sum();
        if kept < MAX_RANGES {
            self.ranges.entry(partition.clone()).or_default().entry(found.offset).or_insert(found);
        }
        (partition, next)
    }

    /// Counts the offsets that were not counted before. Partitions are first read in the order of their offsets.
    fn count(&mut self, partition: &TopicPartition, offset: u64, next: u64) {
        let counted = self.counted.entry(partition.clone()).or_default();
        self.records += next.saturating_sub(offset.max(*counted));
        *counted = next.max(*counted);
    }

    /// Returns the number of offsets that cannot be read.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Returns the kept ranges as errors.
    pub(super) fn errors(&self) -> Vec<Error> {
        let error = |Unreadable { partition, offset, next_offset, error, .. }: &Unreadable| {
            let text = match next_offset.map(|next| next.saturating_sub(1)) {
                Some(last) if last > *offset => format!("read {partition}: offsets {offset} to {last} cannot be read"),
                Some(_) => format!("read {partition}: offset {offset} cannot be read"),
                None => format!("read {partition}: offset {offset} cannot be read, nor those after it"),
            };
            Error::explained(error.kind(), text, &**error)
        };
        self.ranges.values().flat_map(BTreeMap::values).map(error).collect()
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::ErrorKind;

    use super::*;

    #[test]
    fn each_range_is_named_and_counted_once() {
        let at = TopicPartition::new("t-dlq", 0);
        let mut ranges = UnreadableRanges::default();
        let found = |offset| Unreadable::new(at.clone(), 0, offset, Error::new(ErrorKind::Undecodable, "bad bytes"));
        for _ in 0..2 {
            assert_eq!(ranges.skip(found(3).with_next_offset(4), 100).1, 4);
            assert_eq!(ranges.skip(found(7).with_next_offset(12), 100).1, 12);
            assert_eq!(ranges.skip(found(90), 100).1, 100);
        }
        assert_eq!(ranges.records(), 1 + 5 + 10);
        let texts: Vec<String> = ranges.errors().iter().map(Error::report).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[0].contains("t-dlq[0]: offset 3 cannot be read: bad bytes"), "{texts:?}");
        assert!(texts[1].contains("offsets 7 to 11 cannot be read: bad bytes"), "{texts:?}");
        assert!(texts[2].contains("offset 90 cannot be read, nor those after it"), "{texts:?}");
    }

    #[test]
    fn very_many_ranges_are_counted_and_the_first_ones_named() {
        let at = TopicPartition::new("t-dlq", 0);
        let mut ranges = UnreadableRanges::default();
        for offset in (0..1_000).step_by(2) {
            let found = Unreadable::new(at.clone(), 0, offset, Error::new(ErrorKind::Undecodable, "bad bytes"));
            ranges.skip(found.with_next_offset(offset + 1), 1_000);
        }
        assert_eq!((ranges.records(), ranges.errors().len()), (500, MAX_RANGES));
    }
}
