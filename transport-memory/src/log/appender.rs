//! Appending to a log.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use tidings_core::{Record, StoredRecord, Timestamp};

use super::{Inner, PartitionLog, SEGMENT_BYTES, SEGMENT_RECORDS};

/// Appends under one lock; on drop, applies retention and wakes waiting readers.
///
/// Several records of one call thus cost one retention check and one wake-up per reader.
#[derive(Debug)]
pub(crate) struct Appender<'a> {
    pub(super) log: &'a PartitionLog,
    pub(super) inner: MutexGuard<'a, Inner>,
    pub(super) now: Timestamp,
}

impl Appender<'_> {
    /// Appends `record`, of `size` bytes; returns its offset.
    pub(crate) fn push(&mut self, record: Record, size: usize) -> u64 {
        let inner = &mut *self.inner;
        let offset = inner.end;
        inner.tail.push(StoredRecord::from_record(record, offset, self.now));
        inner.end += 1;
        inner.bytes += size as u64;
        inner.tail_bytes += size as u64;
        if inner.tail.len() >= SEGMENT_RECORDS || inner.tail_bytes >= SEGMENT_BYTES {
            inner.seal(&self.log.origin);
        }
        offset
    }

    /// Appends `record`, of `size` bytes, in an open transaction; returns its offset, and whether it is the first one
    /// of the transaction in this log.
    pub(crate) fn push_open(&mut self, record: Record, size: usize, transaction: u64) -> (u64, bool) {
        let offset = self.push(record, size);
        (offset, self.inner.marks.get_or_insert_default().enlist(transaction, offset))
    }

    /// Returns the offset of the next record.
    #[cfg(test)]
    pub(super) fn end(&self) -> u64 {
        self.inner.end
    }

    /// Ends a transaction: readers see its records, or skip them. Its marker takes an offset, as in Kafka.
    pub(crate) fn end_transaction(&mut self, transaction: u64, committed: bool) {
        let ended = self.inner.mark(|marks| marks.end(transaction, committed));
        if ended != Some(true) {
            return;
        }
        let record = Record::tombstone(self.log.origin.topic.clone());
        let size = record.size();
        let offset = self.push(record, size);
        self.inner.marks.get_or_insert_default().add_marker(offset);
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        self.inner.retain(&self.log.origin);
        self.log.stable.store(self.inner.stable(), Ordering::SeqCst);
        for reader in &self.inner.readers {
            reader.wake();
        }
    }
}
