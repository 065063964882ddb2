//! The log of one partition: its records in order, until retention drops them.
//!
//! New records are appended to a growing tail. The tail is sealed into an immutable segment when it
//! is full or a reader needs it; readers share a segment's records and never copy them. Retention
//! moves `start`, drops whole segments from the front, and leaves the first one in memory until all
//! its records are dropped.
//!
//! Transactions leave marks ([`Marks`]): readers stop before the first record of an open one, and skip aborted records
//! and the markers of ends.
//!
//! Invariants, under the lock: `counted <= start <= end`; the tail holds the last records before
//! `end`; segments are contiguous and not empty; `bytes` is the size of the records from `counted`
//! to `end`.

mod appender;
mod marks;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use tidings_core::{RecordBatch, SeekTo, StoredRecord, Timestamp, TopicPartition};

pub(crate) use self::appender::Appender;
use self::marks::Marks;
use crate::error::lock;
use crate::signal::Signal;

/// Maximum records and bytes of a segment, which bounds the memory that one slice of it can pin.
const SEGMENT_RECORDS: usize = 4_096;
/// A reader that keeps one record keeps its segment.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Maximum initial capacity of a tail, in records.
const TAIL_RECORDS: usize = 256;
/// The memory of a dropped segment is reused if its capacity is at most this multiple of the last tail's length.
const SPARE_FACTOR: usize = 8;

/// Retention of a partition.
///
/// Limits of a partition; the oldest records are dropped beyond any of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Retention {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// By the records' timestamps; `None` keeps them forever. Applied when the log is looked at,
    /// since no task runs for it.
    pub(crate) age: Option<Duration>,
}

/// A partition's records. Its lock is the last but one in the broker's order.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    origin: Arc<TopicPartition>,
    /// Copy of the end of what may be read, so that readers need no lock to see that there are no records.
    stable: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    retention: Retention,
    /// Segments in order of their offsets.
    sealed: VecDeque<Segment>,
    /// Records appended since the last seal.
    tail: Vec<StoredRecord>,
    tail_bytes: u64,
    /// Memory for the next tail, from a dropped segment.
    spare: Vec<StoredRecord>,
    /// Bytes from `counted` to `end`.
    bytes: u64,
    /// Offset up to which dropped bytes are subtracted; at most `start`. Counting a record touches its memory, which
    /// is deferred until its whole segment is dropped or the bytes are needed.
    counted: u64,
    /// Oldest offset that may be read.
    start: u64,
    end: u64,
    /// Marks of transactions, while there are any.
    marks: Option<Box<Marks>>,
    /// Consumers that read this partition now; paused and revoked ones are not woken.
    readers: Vec<Arc<Signal>>,
}

/// Immutable records, shared with all readers.
#[derive(Debug)]
struct Segment {
    /// Offset of its first record.
    base: u64,
    /// Bytes of its records, without those counted as dropped.
    bytes: u64,
    batch: RecordBatch,
}

/// Result of a read.
#[derive(Debug)]
pub(crate) enum Read {
    /// Records, and the position after them.
    Records(RecordBatch, u64),
    /// There are no records at the position yet.
    Nothing,
    /// Retention has dropped the position; the oldest record is at this offset.
    Overtaken(u64),
}

impl PartitionLog {
    pub(crate) fn new(origin: TopicPartition, retention: Retention) -> Self {
        let inner = Mutex::new(Inner { retention, ..Inner::default() });
        Self { origin: Arc::new(origin), stable: AtomicU64::new(0), inner }
    }

    pub(crate) fn origin(&self) -> &TopicPartition {
        &self.origin
    }

    /// Returns the offset of the next record that is published.
    pub(crate) fn end(&self) -> u64 {
        lock(&self.inner).end
    }

    /// Returns the end of what may be read: that of the log, or the first record of the oldest open transaction.
    pub(crate) fn stable_end(&self) -> u64 {
        // SeqCst: together with `Signal::sleep`, a reader that saw the old end is seen sleeping by the appender.
        self.stable.load(Ordering::SeqCst)
    }

    /// Returns the oldest offset and the end of what may be read.
    ///
    /// Applies the maximum age first, so that expired records count neither as lag nor as present.
    pub(crate) fn bounds(&self, now: Timestamp) -> (u64, u64) {
        let mut inner = lock(&self.inner);
        inner.expire(&self.origin, now);
        (inner.start, inner.stable())
    }

    /// Locks the log for several appends.
    pub(crate) fn appender(&self, now: Timestamp) -> Appender<'_> {
        Appender { log: self, inner: lock(&self.inner), now }
    }

    /// Like [`appender`](Self::appender); `None` if the log is locked.
    pub(crate) fn try_appender(&self, now: Timestamp) -> Option<Appender<'_>> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Appender { log: self, inner, now })
    }

    /// Returns records of one segment from `position` on: at most `max_records` and `max_bytes`, but at least one, and
    /// none from the offset `until` on.
    ///
    /// Fewer records than allowed are returned at a segment's end and before a gap; the next read continues there. A
    /// first record beyond `max_bytes` is returned alone, lest the reader stop for ever. Without a record between
    /// `position` and the end of what may be read, an empty batch is returned with the position behind the gap.
    pub(crate) fn read(&self, position: u64, until: u64, max_records: usize, max_bytes: usize, now: Timestamp) -> Read {
        let mut inner = lock(&self.inner);
        if inner.retention.age.is_some() {
            inner.expire(&self.origin, now);
        }
        if position < inner.start {
            return Read::Overtaken(inner.start);
        }
        if position >= inner.stable() {
            return Read::Nothing;
        }
        let (first, end) = inner.visible(position);
        let end = end.min(until);
        if first >= end {
            return Read::Records(RecordBatch::new(Arc::clone(&self.origin), Vec::new()), first.min(until));
        }
        let segment = inner.segment_of(&self.origin, first);
        let from = (first - segment.base) as usize;
        let to = segment.batch.len().min(from.saturating_add(max_records.max(1)));
        let to = to.min(usize::try_from(end - segment.base).unwrap_or(usize::MAX));
        let batch = segment.batch.slice(from, to);
        let batch = if segment.bytes > max_bytes as u64 { cut(&batch, max_bytes) } else { batch };
        let next = inner.skip(first + batch.len() as u64).min(until);
        Read::Records(batch.reread(), next)
    }

    /// Returns the offset of `to` in this log.
    ///
    /// An offset outside the log becomes the nearest bound; a time becomes the first record since
    /// then, or the end.
    pub(crate) fn find(&self, to: SeekTo, now: Timestamp) -> u64 {
        let mut inner = lock(&self.inner);
        inner.expire(&self.origin, now);
        match to {
            SeekTo::Offset(offset) => offset.clamp(inner.start, inner.end),
            SeekTo::Earliest => inner.start,
            SeekTo::Time(time) => inner.first_since(&self.origin, time),
            // Latest, and unknown variants added by core.
            _ => inner.stable(),
        }
    }

    /// Replaces the retention, and applies it.
    pub(crate) fn set_retention(&self, retention: Retention) {
        let mut inner = lock(&self.inner);
        inner.retention = retention;
        inner.retain(&self.origin);
    }

    /// Returns the bytes of the records in the log.
    pub(crate) fn bytes(&self) -> u64 {
        let mut inner = lock(&self.inner);
        inner.count_dropped(&self.origin);
        inner.bytes
    }

    /// Drops the records before `offset`, as retention would.
    pub(crate) fn drop_before(&self, offset: u64) {
        let mut inner = lock(&self.inner);
        let offset = offset.min(inner.end);
        inner.drop_until(&self.origin, offset);
        self.stable.store(inner.stable(), Ordering::SeqCst);
    }

    /// Drops the records from `offset` on, as an unclean leader election or a recreated topic would.
    pub(crate) fn truncate(&self, offset: u64) {
        let mut inner = lock(&self.inner);
        inner.truncate(&self.origin, offset);
        self.stable.store(inner.stable(), Ordering::SeqCst);
    }

    /// Lets an empty log begin at `offset`; returns `false` if it holds records or has come further.
    pub(crate) fn advance(&self, offset: u64) -> bool {
        let mut inner = lock(&self.inner);
        let possible = inner.start == inner.end && inner.end <= offset;
        if possible {
            (inner.start, inner.counted, inner.end) = (offset, offset, offset);
            inner.marks = None;
            self.stable.store(offset, Ordering::SeqCst);
        }
        possible
    }

    /// Registers a consumer to be woken by each append.
    pub(crate) fn add_reader(&self, signal: &Arc<Signal>) {
        lock(&self.inner).readers.push(Arc::clone(signal));
    }

    pub(crate) fn remove_reader(&self, signal: &Arc<Signal>) {
        lock(&self.inner).readers.retain(|reader| !Arc::ptr_eq(reader, signal));
    }
}

/// Returns the first records of `batch` with at most `max_bytes` in total, but at least one.
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
    /// Turns the tail into a segment, and starts the next tail in memory of a dropped segment.
    fn seal(&mut self, origin: &Arc<TopicPartition>) {
        if !self.tail.is_empty() {
            let base = self.end - self.tail.len() as u64;
            let spare = std::mem::take(&mut self.spare);
            // The memory of a past burst is not kept forever.
            let mut next = if spare.capacity() <= SPARE_FACTOR * self.tail.len() { spare } else { Vec::new() };
            // The next segment will most likely be as long: it need not grow step by step.
            next.reserve(self.tail.len().min(TAIL_RECORDS));
            let batch = RecordBatch::new(Arc::clone(origin), std::mem::replace(&mut self.tail, next));
            self.sealed.push_back(Segment { base, bytes: std::mem::take(&mut self.tail_bytes), batch });
        }
    }

    /// Returns the segment that contains `position`, which is in the log.
    fn segment_of(&mut self, origin: &Arc<TopicPartition>, position: u64) -> &Segment {
        if position >= self.end - self.tail.len() as u64 {
            self.seal(origin);
        }
        let at = self.sealed.partition_point(|segment| segment.base <= position);
        &self.sealed[at - 1]
    }

    /// Applies retention. The newest record stays regardless of its size, but not beyond its age.
    fn retain(&mut self, origin: &Arc<TopicPartition>) {
        let retention = self.retention;
        while self.records() > retention.records {
            // Markers are not counted, so that a record outlives the end of its own transaction.
            self.drop_until(origin, self.end.saturating_sub(retention.records.saturating_add(self.markers())));
        }
        if self.bytes > retention.bytes {
            self.count_dropped(origin);
        }
        while self.bytes > retention.bytes && self.records() > 1 {
            self.drop_until(origin, self.start + 1);
            self.count_dropped(origin);
        }
    }

    /// Drops the records older than the maximum age. It stops at the first younger one, so a record
    /// with a future timestamp keeps those behind it.
    fn expire(&mut self, origin: &Arc<TopicPartition>, now: Timestamp) {
        let Some(age) = self.retention.age else { return };
        let oldest = now.saturating_sub(age);
        while self.start < self.end && self.first(origin).timestamp < oldest {
            self.drop_until(origin, self.start + 1);
        }
    }

    fn first(&mut self, origin: &Arc<TopicPartition>) -> &StoredRecord {
        let start = self.start;
        let segment = self.segment_of(origin, start);
        &segment.batch.records()[(start - segment.base) as usize]
    }

    /// Drops the records before `offset`, which is at most the end.
    fn drop_until(&mut self, origin: &Arc<TopicPartition>, offset: u64) {
        if offset <= self.start {
            return;
        }
        self.start = offset;
        self.mark(|marks| marks.drop_before(offset));
        if self.start > self.end - self.tail.len() as u64 {
            self.seal(origin);
        }
        while let Some(front) = self.sealed.front()
            && front.base + front.batch.len() as u64 <= self.start
        {
            self.bytes -= front.bytes;
            self.counted = front.base + front.batch.len() as u64;
            let front = self.sealed.pop_front();
            if let Some(Ok(mut records)) = front.map(|front| front.batch.try_into_records())
                && (self.spare.capacity()..=2 * TAIL_RECORDS).contains(&records.capacity())
            {
                records.clear();
                self.spare = records;
            }
        }
    }

    /// Subtracts the bytes of dropped records.
    ///
    /// Called only when the exact size matters, since it visits each dropped record.
    fn count_dropped(&mut self, origin: &Arc<TopicPartition>) {
        if self.counted == self.start {
            return;
        }
        // Dropped records still in memory belong to the first segment: `drop_until` drops whole segments, and seals
        // the tail.
        let (from, to) = (self.counted, self.start);
        self.segment_of(origin, from);
        if let Some(front) = self.sealed.front_mut() {
            let dropped = front.batch.slice((from - front.base) as usize, (to - front.base) as usize).size() as u64;
            front.bytes -= dropped;
            self.bytes -= dropped;
        }
        self.counted = to;
    }

    /// Drops the records from `offset` on, and recomputes the sizes.
    fn truncate(&mut self, origin: &Arc<TopicPartition>, offset: u64) {
        if offset >= self.end {
            return;
        }
        self.seal(origin);
        self.count_dropped(origin);
        while let Some(mut last) = self.sealed.pop_back() {
            if last.base >= offset {
                continue;
            }
            let kept = (offset - last.base).min(last.batch.len() as u64) as usize;
            let from = (self.start.clamp(last.base, last.base + kept as u64) - last.base) as usize;
            last.bytes = last.batch.slice(from, kept).size() as u64;
            last.batch = last.batch.slice(0, kept);
            self.sealed.push_back(last);
            break;
        }
        self.bytes = self.sealed.iter().map(|segment| segment.bytes).sum();
        (self.start, self.end) = (self.start.min(offset), offset);
        self.counted = self.start;
        self.mark(|marks| marks.truncate(offset));
    }

    /// Scans from the start: timestamps are the publishers' and need not be in order.
    fn first_since(&mut self, origin: &Arc<TopicPartition>, time: Timestamp) -> u64 {
        self.seal(origin);
        let records = self.sealed.iter().flat_map(|segment| segment.batch.records());
        let mut found = records.filter(|record| record.offset >= self.start && record.timestamp >= time);
        // A gap is skipped: a marker is no record.
        let found = found.find(|record| self.skip(record.offset) == record.offset);
        found.map_or(self.end, |record| record.offset).min(self.stable())
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::Record;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kept {
        Seen,
        Open(u64),
        Gap,
    }

    /// Reads a log from its start to the end of what may be read; returns the offsets, and where reading ends.
    fn read_all(log: &PartitionLog, most: usize) -> (Vec<u64>, u64) {
        let (mut next, end) = log.bounds(Timestamp::default());
        let mut seen = Vec::new();
        while next < end {
            match log.read(next, u64::MAX, most, 1 << 20, Timestamp::default()) {
                Read::Records(batch, after) => {
                    assert!(after > next, "progress");
                    seen.extend(batch.records().iter().map(|record| record.offset));
                    next = after;
                }
                other => panic!("{other:?} at {next} before {end}"),
            }
        }
        (seen, next)
    }

    /// Compares a log with a naive list of what became of each offset.
    #[test]
    fn shows_of_transactions_what_a_plain_list_shows() {
        let retention = Retention { records: 1_000, bytes: 1 << 30, age: None };
        let log = PartitionLog::new(TopicPartition::new("t", 0), retention);
        let (mut all, mut start) = (Vec::new(), 0_usize);
        let record = || Record::new("t", "x");
        let mut random = 11_u64;
        let mut below = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % most
        };
        for _ in 0..20_000 {
            let transaction = below(3);
            let mut appender = log.appender(Timestamp::default());
            match below(12) {
                0..=2 => {
                    appender.push(record(), record().size());
                    all.push(Kept::Seen);
                }
                3..=7 => {
                    appender.push_open(record(), record().size(), transaction);
                    all.push(Kept::Open(transaction));
                }
                8 | 9 => {
                    let committed = below(2) == 0;
                    appender.end_transaction(transaction, committed);
                    let had = log_has(&mut all[start..], transaction, committed);
                    if appender.end() > all.len() as u64 {
                        all.push(Kept::Gap);
                    } else {
                        assert!(!had, "no marker of a transaction with records");
                    }
                }
                10 if below(4) == 0 => {
                    drop(appender);
                    start += below((all.len() - start) as u64 / 4 + 1) as usize;
                    log.drop_before(start as u64);
                    continue;
                }
                _ if below(8) == 0 => {
                    drop(appender);
                    let end = all.len() - below(4).min((all.len() - start) as u64) as usize;
                    log.truncate(end as u64);
                    all.truncate(end);
                    continue;
                }
                _ => {}
            }
            drop(appender);
            let stable = all[start..].iter().position(|kept| matches!(kept, Kept::Open(_)));
            let stable = stable.map_or(all.len(), |at| start + at);
            let seen: Vec<u64> = (start..stable).filter(|at| all[*at] == Kept::Seen).map(|at| at as u64).collect();
            assert_eq!(read_all(&log, 1 + below(9) as usize), (seen, stable as u64));
            assert_eq!(log.stable_end(), stable as u64);
            if all.len() - start > 300 {
                start = all.len() - 100;
                log.drop_before(start as u64);
            }
        }
    }

    /// Ends a transaction of the naive list; returns whether it had records.
    fn log_has(all: &mut [Kept], transaction: u64, committed: bool) -> bool {
        let mut of = all.iter_mut().filter(|kept| **kept == Kept::Open(transaction)).peekable();
        let had = of.peek().is_some();
        of.for_each(|kept| *kept = if committed { Kept::Seen } else { Kept::Gap });
        had
    }

    /// Compares a log with a naive list, which counts each record at once.
    #[test]
    fn keeps_what_a_plain_list_keeps_whatever_was_read_and_dropped_between() {
        let retention = Retention { records: 40, bytes: 3_000, age: None };
        let log = PartitionLog::new(TopicPartition::new("t", 0), retention);
        let (mut kept, mut end) = (VecDeque::new(), 0_u64);
        let mut random = 7_u64;
        let mut below = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % most
        };
        for _ in 0..20_000 {
            let start = end - kept.len() as u64;
            match below(8) {
                0 => match log.read(
                    start + below(kept.len() as u64 + 1),
                    u64::MAX,
                    1 + below(9) as usize,
                    400,
                    Timestamp::default(),
                ) {
                    Read::Records(batch, next) => assert_eq!(batch.records().last().map(|r| r.offset + 1), Some(next)),
                    Read::Nothing => {}
                    Read::Overtaken(oldest) => panic!("{start} is there, not only {oldest}"),
                },
                1 if below(4) == 0 => {
                    let offset = start + below(kept.len() as u64 + 1);
                    log.drop_before(offset);
                    kept.drain(..(offset - start) as usize);
                }
                2 if below(16) == 0 => {
                    end = (start + below(kept.len() as u64 + 3)).saturating_sub(2).min(end);
                    log.truncate(end);
                    kept.truncate(end.saturating_sub(start) as usize);
                }
                _ => {
                    let mut appender = log.appender(Timestamp::default());
                    for _ in 0..1 + below(5) {
                        let most = if below(50) == 0 { 4_000 } else { 150 };
                        let record = Record::new("t", vec![0; below(most) as usize]);
                        kept.push_back(record.size());
                        appender.push(record, kept[kept.len() - 1]);
                        end += 1;
                    }
                    drop(appender);
                    while kept.len() > 40 || kept.len() > 1 && kept.iter().sum::<usize>() > 3_000 {
                        kept.pop_front();
                    }
                }
            }
            assert_eq!(log.bounds(Timestamp::default()), (end - kept.len() as u64, end));
        }
    }
}
