//! The batches of a partition that wait to be sent: records are encoded into an open batch when they are queued.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidings_core::{Name, TopicPartition};

use super::call::{BatchCalls, BatchEnd, Queueing, Unended};
use crate::publisher::buffer_limit::BufferPermit;
use crate::wire::records::{BatchBuilder, NewRecord, RecordTooLarge};

/// Maximum size of the encoding of a header, in addition to its name and value.
const HEADER_BYTES: usize = 10;
/// Initial memory of the first batch of a partition; later batches start with the size of the last ones.
const FIRST_CAPACITY: usize = 1 << 10;
/// Number of stored batches after which the size of batches, lowered before, is doubled.
const RAISED_AFTER: usize = 1_000;

/// The waiting batches of a partition.
#[derive(Debug)]
pub(super) struct PartitionBuffer {
    pub(super) at: TopicPartition,
    /// Size at which a batch is closed, in bytes. Lowered when a broker refuses a batch as too large.
    batch_bytes: AtomicUsize,
    max_batch_bytes: usize,
    /// Number of batches that were stored since the size was last changed.
    stored: AtomicUsize,
    fill: Mutex<Fill>,
}

#[derive(Debug)]
struct Fill {
    open: Option<OpenBatch>,
    closed: VecDeque<ClosedBatch>,
    /// Whether the partition is listed with the sending task, because it has batches.
    is_listed: bool,
    capacity: usize,
}

#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    opened_at: Instant,
    end: Arc<BatchEnd>,
    calls: BatchCalls,
    permit: BufferPermit,
}

/// A batch to which no more records are appended.
#[derive(Debug)]
pub(super) struct ClosedBatch {
    pub(super) builder: BatchBuilder,
    pub(super) opened_at: Instant,
    pub(super) unended: Unended,
}

/// The work of the sending task after a record was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// Nothing.
    Nothing,
    /// Check the listed partitions, because a batch was closed.
    Closed,
    /// List the partition, because it has its first batch.
    Listed,
}

/// When the next batch may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Now.
    Now,
    /// After its linger.
    At(Instant),
    /// Its delivery timeout has passed.
    Expired,
}

impl PartitionBuffer {
    pub(super) fn new(topic: Name, partition: u32, batch_bytes: usize) -> Self {
        let fill = Fill { open: None, closed: VecDeque::new(), is_listed: false, capacity: FIRST_CAPACITY };
        Self {
            at: TopicPartition::new(topic, partition),
            batch_bytes: AtomicUsize::new(batch_bytes),
            max_batch_bytes: batch_bytes,
            stored: AtomicUsize::new(0),
            fill: Mutex::new(fill),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fill> {
        self.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lowers the size of batches after a broker refused one of `refused` bytes.
    pub(super) fn lower_batch_bytes(&self, refused: usize) {
        self.batch_bytes.fetch_min((refused / 2).max(1), Ordering::Relaxed);
        self.stored.store(0, Ordering::Relaxed);
    }

    /// Counts a stored batch. After many of them, the size of batches is doubled again: the limit of the topic may have
    /// been raised, or a single record may have been too large. Called by the sending task only.
    pub(super) fn note_stored(&self) {
        let batch_bytes = self.batch_bytes.load(Ordering::Relaxed);
        if batch_bytes < self.max_batch_bytes && self.stored.fetch_add(1, Ordering::Relaxed) + 1 >= RAISED_AFTER {
            self.batch_bytes.store(batch_bytes.saturating_mul(2).min(self.max_batch_bytes), Ordering::Relaxed);
            self.stored.store(0, Ordering::Relaxed);
        }
    }

    /// Appends a record of this [size](tidings_core::Record::size), and takes its share of `permit`.
    ///
    /// # Errors
    /// If no batch can contain the record.
    #[inline]
    pub(super) fn append(
        &self,
        record: &NewRecord<'_>,
        size: usize,
        now: Instant,
        permit: &mut BufferPermit,
        queueing: &mut Queueing<'_>,
    ) -> Result<Appended, RecordTooLarge> {
        // The size includes an allowance that exceeds the encoding of a record without headers.
        let most = size + record.headers.len() * HEADER_BYTES;
        let batch_bytes = self.batch_bytes.load(Ordering::Relaxed);
        let mut fill = self.lock();
        let fill = &mut *fill;
        let mut appended = Appended::Nothing;
        if fill.open.as_ref().is_some_and(|open| open.builder.size().saturating_add(most) > batch_bytes) {
            fill.close();
            appended = Appended::Closed;
        }
        let capacity = fill.capacity;
        let open = fill.open.get_or_insert_with(|| OpenBatch {
            builder: BatchBuilder::new(capacity.max(most)),
            opened_at: now,
            end: Arc::new(BatchEnd::new(self.at.topic.clone(), self.at.partition)),
            calls: BatchCalls::default(),
            permit: permit.empty(),
        });
        let position = match open.builder.append(record) {
            Ok(position) => position,
            Err(error) => {
                if open.builder.is_empty() {
                    fill.open = None;
                }
                return Err(error);
            }
        };
        permit.transfer(&mut open.permit, size);
        queueing.add(&mut open.calls, &open.end, position);
        if open.builder.size() >= batch_bytes {
            fill.close();
            appended = Appended::Closed;
        }
        if !std::mem::replace(&mut fill.is_listed, true) {
            appended = Appended::Listed;
        }
        Ok(appended)
    }

    /// Returns when the next batch may be sent, and when it expires; `None` if there is none: the next record then
    /// lists the partition again.
    pub(super) fn due(&self, now: Instant, linger: Duration, timeout: Duration) -> Option<(Due, Instant)> {
        let mut fill = self.lock();
        let (opened_at, ready_at) = match (fill.closed.front(), &fill.open) {
            (Some(closed), _) => (closed.opened_at, now),
            (None, Some(open)) => (open.opened_at, open.opened_at + linger),
            (None, None) => {
                fill.is_listed = false;
                return None;
            }
        };
        let expires = opened_at + timeout;
        let due = match () {
            () if expires <= now => Due::Expired,
            () if ready_at <= now => Due::Now,
            () => Due::At(ready_at),
        };
        Some((due, expires))
    }

    /// Takes all batches. The next record lists the partition again.
    pub(super) fn take_all(&self) -> VecDeque<ClosedBatch> {
        let mut fill = self.lock();
        fill.close();
        fill.is_listed = false;
        std::mem::take(&mut fill.closed)
    }

    /// Takes the oldest batch.
    pub(super) fn take(&self) -> Option<ClosedBatch> {
        let mut fill = self.lock();
        if fill.closed.is_empty() {
            fill.close();
        }
        fill.closed.pop_front()
    }
}

impl Fill {
    fn close(&mut self) {
        let Some(OpenBatch { builder, opened_at, end, calls, permit }) = self.open.take() else { return };
        // After a burst, it falls with each batch.
        self.capacity = builder.size().max(self.capacity.midpoint(builder.size())).max(FIRST_CAPACITY);
        let unended = Unended::new(end, builder.count(), calls, permit);
        self.closed.push_back(ClosedBatch { builder, opened_at, unended });
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // Ends the records of an open batch, too.
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(buffer: &PartitionBuffer) -> usize {
        buffer.batch_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn the_size_of_batches_is_raised_again_after_many_were_stored() {
        let buffer = PartitionBuffer::new("t".into(), 0, 1_500);
        buffer.lower_batch_bytes(1_000);
        assert_eq!(size(&buffer), 500);
        (1..RAISED_AFTER).for_each(|_| buffer.note_stored());
        assert_eq!(size(&buffer), 500);
        buffer.note_stored();
        assert_eq!(size(&buffer), 1_000);
        (0..RAISED_AFTER * 3).for_each(|_| buffer.note_stored());
        assert_eq!(size(&buffer), 1_500, "as configured");
    }
}
