//! Batches for batch handlers: gathered per assignment and handler, and delivered when full, due or needed.

use std::sync::Arc;

use tokio::time::Instant;

use super::timers::Timers;
use crate::engine::assigned::{Assigned, AssignmentId};
use crate::engine::record::{PendingRecord, Stage};
use crate::options::BatchOptions;
use crate::time::after;

/// The most records for which room is made at first.
const FIRST_ROOM: usize = 64;

#[derive(Debug)]
pub(super) struct Batcher {
    batches: Vec<Batch>,
    /// When incomplete batches are due, by number.
    timers: Timers<u64>,
    next_number: u64,
}

/// Records of one assignment and handler that are delivered together.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    assigned: Arc<Assigned>,
    handler: u32,
    records: Vec<PendingRecord>,
    size: usize,
    /// An incomplete batch waits for more records.
    waits: bool,
    /// Full or due: delivered as soon as it may start.
    due: bool,
}

impl Batch {
    fn is_of(&self, record: &PendingRecord) -> bool {
        Some(self.handler) == record.handler && self.assigned.id == record.assignment()
    }

    pub(super) fn handler(&self) -> usize {
        self.handler as usize
    }

    pub(super) fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    pub(super) fn records(&self) -> &[PendingRecord] {
        &self.records
    }

    pub(super) fn into_records(self) -> Vec<PendingRecord> {
        self.records
    }
}

impl Batcher {
    pub(super) fn new() -> Self {
        Self { batches: Vec::new(), timers: Timers::new(), next_number: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns whether the record may join an open batch that contains its key's predecessor: a batch keeps its order.
    pub(super) fn takes(&self, record: &PendingRecord) -> bool {
        let takes = |batch: &Batch| {
            let key = record.key.hash();
            batch.is_of(record) && !batch.due && batch.records.iter().any(|other| other.key.hash() == key)
        };
        !record.is_single() && self.batches.iter().any(takes)
    }

    /// Adds a record, which holds its key, to the batch of its handler.
    pub(super) fn add(&mut self, mut record: PendingRecord, options: BatchOptions, now: Instant) {
        record.advance(Stage::Batching);
        if record.is_single() {
            self.push(vec![record]);
            return;
        }
        let at = self.batches.iter().position(|batch| batch.is_of(&record) && !batch.due);
        let at = at.unwrap_or_else(|| {
            self.open(&record, options, now);
            self.batches.len() - 1
        });
        let batch = &mut self.batches[at];
        batch.records.push(record);
        batch.due |= batch.records.len() >= batch.size;
    }

    fn open(&mut self, first: &PendingRecord, options: BatchOptions, now: Instant) {
        self.next_number += 1;
        let (number, waits) = (self.next_number, !options.wait.is_zero());
        if waits {
            self.timers.set(after(now, options.wait), number);
        }
        self.batches.push(Batch {
            number,
            assigned: first.id.assigned.clone(),
            handler: first.handler.unwrap_or(u32::MAX),
            records: Vec::with_capacity(options.size.min(FIRST_ROOM)),
            size: options.size.max(1),
            waits,
            due: false,
        });
    }

    /// Makes records a batch again that were delivered together. They are not mixed with others: split over two
    /// batches, records of one key could overtake each other.
    pub(super) fn again(&mut self, mut records: Vec<PendingRecord>) {
        records.iter_mut().for_each(|record| record.advance(Stage::Batching));
        self.push(records);
    }

    fn push(&mut self, records: Vec<PendingRecord>) {
        let Some(first) = records.first() else { return };
        let (assigned, handler, size) = (first.id.assigned.clone(), first.handler.unwrap_or(u32::MAX), records.len());
        self.batches.push(Batch { number: 0, assigned, handler, records, size, waits: false, due: true });
    }

    /// Puts the records of a batch back whose handler is not ready: before the others.
    pub(super) fn put_back(&mut self, records: Vec<PendingRecord>) {
        self.push(records);
        self.batches.rotate_right(1);
    }

    /// Returns the number of batches that are full or due, and whose handler is open.
    pub(super) fn due_count(&self, open: impl Fn(usize) -> bool) -> usize {
        self.batches.iter().filter(|batch| batch.due && open(batch.handler())).count()
    }

    /// Returns the records of all batches.
    pub(super) fn records(&self) -> impl Iterator<Item = &PendingRecord> {
        self.batches.iter().flat_map(|batch| &batch.records)
    }

    /// Returns whether a batch waits for this handler to be ready.
    pub(super) fn is_throttled(&self, handler: usize) -> bool {
        self.batches.iter().any(|batch| batch.due && batch.handler() == handler)
    }

    /// Returns when the next incomplete batch is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timers.due()
    }

    /// Marks the incomplete batches whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(number) = self.timers.pop_due(now) {
            if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
                batch.due = true;
            }
        }
    }

    /// Returns the place of the next batch that may start: full, due, or of a handler that does not wait.
    pub(super) fn next(&self, open: impl Fn(usize) -> bool) -> Option<usize> {
        // At a limit no records arrive to fill a batch, and waiting would keep the limit reached.
        let starts =
            |batch: &Batch| (batch.due || !batch.waits || batch.assigned.is_at_bound()) && open(batch.handler());
        self.batches.iter().position(starts)
    }

    /// Takes the batch at a place returned by [`next`](Self::next).
    pub(super) fn take(&mut self, at: usize) -> Batch {
        self.batches.remove(at)
    }

    /// Removes the batches of a revoked assignment.
    pub(super) fn revoke(&mut self, assignment: AssignmentId, out: &mut Vec<PendingRecord>) {
        let gone = self.batches.extract_if(.., |batch| batch.assigned.id == assignment);
        out.extend(gone.flat_map(|batch| batch.records));
    }
}
