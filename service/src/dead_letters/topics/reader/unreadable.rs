//! Partitions that cannot be read to their end.

use std::collections::BTreeMap;

use tidings_core::{Error, TopicPartition, Unreadable};

use crate::logs;

/// Partitions that cannot be read beyond an offset.
#[derive(Debug, Default)]
pub(super) struct UnreadableEnds(BTreeMap<TopicPartition, Unreadable>);

impl UnreadableEnds {
    /// Logs bytes that cannot be read, and returns the offset at which reading continues: `until` if it is not known
    /// where they end, which is kept.
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
        let next = found.next_offset;
        if next.is_none() {
            self.0.entry(partition.clone()).or_insert(found);
        }
        (partition, next.map_or(until, |next| next.min(until)))
    }

    /// Returns them as errors.
    pub(super) fn errors(&self) -> Vec<Error> {
        let error = |Unreadable { partition, offset, error, .. }: &Unreadable| {
            let text = format!("read {partition}: offset {offset} cannot be read, nor those after it");
            Error::explained(error.kind(), text, &**error)
        };
        self.0.values().map(error).collect()
    }
}
