//! Batches of records, as consumers yield them.
//!
//! One fetch becomes one allocation of records that is never copied again: the engine cuts it into deliveries by
//! slices, workers share it, and it is freed with the last of them. The counts of derived ids live with the batch for
//! the same reason: all clones of a delivery must share them.

use std::sync::Arc;

use crate::publish::DerivedIds;
use crate::{StoredRecord, TopicPartition};

/// Consecutive records of one partition in offset order, shared and immutable. Clones and slices copy no record.
///
/// ```
/// use tidings_core::{RecordBatch, StoredRecord, Timestamp, TopicPartition};
///
/// let records = (10..14).map(|offset| StoredRecord::new(offset, Timestamp::now())).collect();
/// let batch = RecordBatch::new(TopicPartition::new("clicks", 0), records);
///
/// let middle = batch.slice(1, 3);
/// assert_eq!(middle.records().iter().map(|record| record.offset).collect::<Vec<_>>(), [11, 12]);
/// assert!(batch.slice(4, 9).is_empty(), "bounds are clamped");
///
/// // The records can be taken back once nothing else shares them.
/// let batch = batch.try_into_records().unwrap_err();
/// drop(middle);
/// assert_eq!(batch.try_into_records().unwrap().len(), 4);
/// ```
#[derive(Debug, Clone)]
pub struct RecordBatch {
    // One reference count for origin and records: a delivery takes a slice, and two workers share the batch.
    shared: Arc<Shared>,
    start: usize,
    end: usize,
}

/// The parts of a batch that its slices and clones share.
#[derive(Debug)]
struct Shared {
    origin: Arc<TopicPartition>,
    // Shared with other readings of the same records; see `RecordBatch::reread`.
    records: Arc<Vec<StoredRecord>>,
    derived: DerivedIds,
}

impl RecordBatch {
    /// Creates a batch of `records`, which must belong to `origin` and be in offset order.
    pub fn new(origin: impl Into<Arc<TopicPartition>>, records: Vec<StoredRecord>) -> Self {
        let end = records.len();
        let (origin, records, derived) = (origin.into(), Arc::new(records), DerivedIds::default());
        Self { shared: Arc::new(Shared { origin, records, derived }), start: 0, end }
    }

    /// Returns the same records as a separate reading, sharing their memory.
    ///
    /// For transports that yield one batch several times, to several groups or again. The ids of events that follow
    /// from a record are counted per reading, so that each derives the same ones.
    #[must_use]
    pub fn reread(&self) -> Self {
        let (origin, records) = (Arc::clone(&self.shared.origin), Arc::clone(&self.shared.records));
        let shared = Arc::new(Shared { origin, records, derived: DerivedIds::default() });
        Self { shared, start: self.start, end: self.end }
    }

    /// Returns the records `start..end` of this batch, sharing its memory. Bounds beyond the batch are clamped.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> Self {
        let end = self.start + end.min(self.len());
        let start = (self.start + start).min(end);
        Self { shared: Arc::clone(&self.shared), start, end }
    }

    /// Returns the batch's own records if no other batch shares them, for transports that reuse their memory.
    ///
    /// # Errors
    /// The batch itself, if another one shares its records.
    pub fn try_into_records(self) -> Result<Vec<StoredRecord>, Self> {
        let Self { shared, start, end } = self;
        let shared = Arc::try_unwrap(shared).map_err(|shared| Self { shared, start, end })?;
        match Arc::try_unwrap(shared.records) {
            Ok(mut records) => {
                records.truncate(end);
                records.drain(..start);
                Ok(records)
            }
            Err(records) => Err(Self { shared: Arc::new(Shared { records, ..shared }), start, end }),
        }
    }

    /// Returns the topic and partition of the records.
    pub fn origin(&self) -> &Arc<TopicPartition> {
        &self.shared.origin
    }

    /// Returns the counts of ids derived from these records, which all slices of this reading share.
    pub(crate) fn derived(&self) -> &DerivedIds {
        &self.shared.derived
    }

    /// Returns the records.
    pub fn records(&self) -> &[StoredRecord] {
        &self.shared.records[self.start..self.end]
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Returns whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns the size in bytes of all records, as counted by [`StoredRecord::size`].
    pub fn size(&self) -> usize {
        self.records().iter().map(StoredRecord::size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn slices_of_a_batch_share_its_records_and_are_cut_to_it() {
        let records: Vec<_> = (0..5).map(|n| StoredRecord::new(n, Timestamp::default())).collect();
        let batch = RecordBatch::new(TopicPartition::new("t", 0), records);
        let offsets = |b: &RecordBatch| b.records().iter().map(|r| r.offset).collect::<Vec<_>>();
        assert_eq!(offsets(&batch.slice(1, 4)), [1, 2, 3]);
        assert_eq!(offsets(&batch.slice(1, 4).slice(1, 9)), [2, 3]);
        assert!(batch.slice(7, 9).is_empty());
        assert!(std::ptr::eq(&batch.records()[1], &batch.slice(1, 2).records()[0]));
    }

    #[test]
    fn records_are_taken_out_when_nobody_shares_them() {
        let records: Vec<_> = (0..3).map(|n| StoredRecord::new(n, Timestamp::default())).collect();
        let batch = RecordBatch::new(TopicPartition::new("t", 0), records);
        let slice = batch.slice(1, 2);
        let batch = batch.try_into_records().expect_err("a slice shares them");
        drop(slice);
        let again = batch.reread();
        let batch = batch.try_into_records().expect_err("a rereading shares them");
        assert_eq!((batch.len(), batch.records()[2].offset), (3, 2));
        drop(again);
        let records = batch.slice(1, 3).try_into_records().expect_err("the whole batch shares them");
        drop(batch);
        let records = records.try_into_records().expect("the batch is the only owner");
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_rereading_shares_the_records_and_counts_derived_ids_anew() {
        let records: Vec<_> = (0..3).map(|n| StoredRecord::new(n, Timestamp::default())).collect();
        let batch = RecordBatch::new(TopicPartition::new("t", 0), records).slice(1, 3);
        let again = batch.reread();
        assert!(std::ptr::eq(batch.records(), again.records()));
        let id = batch.derived().next(uuid::Uuid::nil(), 1, 0);
        assert_ne!(id, batch.derived().next(uuid::Uuid::nil(), 1, 0));
        assert_eq!(id, again.derived().next(uuid::Uuid::nil(), 1, 0));
    }
}
