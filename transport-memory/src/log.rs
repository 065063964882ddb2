//! The log of one partition: what is published, in order, until retention drops it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_core::{Record, RecordBatch, SeekTo, StoredRecord, Timestamp, TopicPartition};

use crate::error::lock;
use crate::signal::Signal;

/// A segment is sealed at so many records or bytes at the latest: what one slice of it can pin is bounded by that.
const SEGMENT_RECORDS: usize = 4_096;
const SEGMENT_BYTES: u64 = 1 << 20;

/// What a partition keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) age: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct PartitionLog {
    origin: Arc<TopicPartition>,
    retention: Retention,
    /// The log's end as it stands in `inner`, so that readers need no lock to see that there is nothing.
    end: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sealed: VecDeque<Segment>,
    tail: Vec<StoredRecord>,
    tail_bytes: u64,
    /// Bytes from `start` to `end`.
    bytes: u64,
    start: u64,
    end: u64,
    readers: Vec<Arc<Signal>>,
}

/// Records that are never changed again, and so shared with all who read them.
#[derive(Debug)]
struct Segment {
    base: u64,
    bytes: u64,
    batch: RecordBatch,
}

/// What a read found.
#[derive(Debug)]
pub(crate) enum Read {
    Records(RecordBatch, u64),
    Nothing,
    /// Retention has dropped the position; the oldest record is at this offset.
    Overtaken(u64),
}

impl PartitionLog {
    pub(crate) fn new(origin: TopicPartition, retention: Retention) -> Self {
        Self { origin: Arc::new(origin), retention, end: AtomicU64::new(0), inner: Mutex::default() }
    }

    pub(crate) fn origin(&self) -> &TopicPartition {
        &self.origin
    }

    /// The offset of the next record.
    pub(crate) fn end(&self) -> u64 {
        // SeqCst: together with `Signal::sleep`, a reader that saw the old end is seen sleeping by the appender.
        self.end.load(Ordering::SeqCst)
    }

    /// The oldest offset and the next one.
    pub(crate) fn bounds(&self, now: Timestamp) -> (u64, u64) {
        let mut inner = lock(&self.inner);
        inner.expire(&self.origin, self.retention, now);
        (inner.start, inner.end)
    }

    pub(crate) fn appender(&self, now: Timestamp) -> Appender<'_> {
        Appender { log: self, inner: lock(&self.inner), now }
    }

    /// Records from `position` on, of one segment: at most `max_records` and `max_bytes`, but one at least.
    pub(crate) fn read(&self, position: u64, max_records: usize, max_bytes: usize, now: Timestamp) -> Read {
        let mut inner = lock(&self.inner);
        if self.retention.age.is_some() {
            inner.expire(&self.origin, self.retention, now);
        }
        if position < inner.start {
            return Read::Overtaken(inner.start);
        }
        if position >= inner.end {
            return Read::Nothing;
        }
        let segment = inner.segment_of(&self.origin, position);
        let from = (position - segment.base) as usize;
        let to = (segment.batch.len()).min(from.saturating_add(max_records.max(1)));
        let batch = segment.batch.slice(from, to);
        let batch = if segment.bytes > max_bytes as u64 { cut(&batch, max_bytes) } else { batch };
        let next = position + batch.len() as u64;
        Read::Records(batch.reread(), next)
    }

    /// The offset that `to` means here.
    pub(crate) fn find(&self, to: SeekTo, now: Timestamp) -> u64 {
        let mut inner = lock(&self.inner);
        inner.expire(&self.origin, self.retention, now);
        match to {
            SeekTo::Offset(offset) => offset.clamp(inner.start, inner.end),
            SeekTo::Earliest => inner.start,
            SeekTo::Time(time) => inner.first_since(&self.origin, time),
            // Latest, and whatever core adds that is not known here yet.
            _ => inner.end,
        }
    }

    /// Drops the records before `offset`, as retention would.
    pub(crate) fn drop_before(&self, offset: u64) {
        let mut inner = lock(&self.inner);
        while inner.start < offset.min(inner.end) {
            inner.drop_first(&self.origin);
        }
    }

    pub(crate) fn add_reader(&self, signal: &Arc<Signal>) {
        lock(&self.inner).readers.push(Arc::clone(signal));
    }

    pub(crate) fn remove_reader(&self, signal: &Arc<Signal>) {
        lock(&self.inner).readers.retain(|reader| !Arc::ptr_eq(reader, signal));
    }
}

/// The first records of `batch` that together have at most `max_bytes`; one, if it alone has more.
fn cut(batch: &RecordBatch, max_bytes: usize) -> RecordBatch {
    let mut bytes = 0;
    let fit = batch.records().iter().take_while(|record| {
        bytes += record.size();
        bytes <= max_bytes
    });
    let fit = fit.count();
    batch.slice(0, fit.max(1))
}

impl Inner {
    fn seal(&mut self, origin: &Arc<TopicPartition>) {
        if !self.tail.is_empty() {
            let base = self.end - self.tail.len() as u64;
            let batch = RecordBatch::new(Arc::clone(origin), std::mem::take(&mut self.tail));
            self.sealed.push_back(Segment { base, bytes: std::mem::take(&mut self.tail_bytes), batch });
        }
    }

    /// The segment that holds `position`, which is in the log.
    fn segment_of(&mut self, origin: &Arc<TopicPartition>, position: u64) -> &Segment {
        if position >= self.end - self.tail.len() as u64 {
            self.seal(origin);
        }
        let at = self.sealed.partition_point(|segment| segment.base <= position);
        &self.sealed[at - 1]
    }

    /// Drops what retention does not keep. The newest record stays, whatever its size, but not beyond its age.
    fn retain(&mut self, origin: &Arc<TopicPartition>, retention: Retention) {
        while self.end - self.start > retention.records || self.bytes > retention.bytes && self.end - self.start > 1 {
            self.drop_first(origin);
        }
    }

    fn expire(&mut self, origin: &Arc<TopicPartition>, retention: Retention, now: Timestamp) {
        let Some(age) = retention.age else { return };
        let oldest = now.saturating_sub(age);
        while self.start < self.end && self.first(origin).timestamp < oldest {
            self.drop_first(origin);
        }
    }

    fn first(&mut self, origin: &Arc<TopicPartition>) -> &StoredRecord {
        let start = self.start;
        let segment = self.segment_of(origin, start);
        &segment.batch.records()[(start - segment.base) as usize]
    }

    fn drop_first(&mut self, origin: &Arc<TopicPartition>) {
        self.bytes -= self.first(origin).size() as u64;
        self.start += 1;
        if self.sealed.front().is_some_and(|segment| segment.base + segment.batch.len() as u64 <= self.start) {
            self.sealed.pop_front();
        }
    }

    fn first_since(&mut self, origin: &Arc<TopicPartition>, time: Timestamp) -> u64 {
        self.seal(origin);
        let records = self.sealed.iter().flat_map(|segment| segment.batch.records());
        let mut found = records.filter(|record| record.offset >= self.start && record.timestamp >= time);
        found.next().map_or(self.end, |record| record.offset)
    }
}

/// Appends under one lock; dropped, it applies retention and wakes who waits for records.
#[derive(Debug)]
pub(crate) struct Appender<'a> {
    log: &'a PartitionLog,
    inner: MutexGuard<'a, Inner>,
    now: Timestamp,
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
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        self.inner.retain(&self.log.origin, self.log.retention);
        self.log.end.store(self.inner.end, Ordering::SeqCst);
        for reader in &self.inner.readers {
            reader.wake();
        }
    }
}
