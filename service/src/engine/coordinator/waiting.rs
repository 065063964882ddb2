//! The records of a retry topic's partition that are fetched and not due yet.
//!
//! Those of one topic have one delay, so the first that is not due holds back only records that are not due either. A due
//! time is what another host wrote by its clock: no record waits much longer than the delay after it was fetched.

use std::collections::VecDeque;

use tidings_core::{Fetched, RetryRecord, StoredRecord, Timestamp};
use tokio::time::Instant;

/// Fetched records in order, and when the first of them may run.
///
/// Holds at most what the consumer had fetched when the partition was paused: it stays paused while any are held.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// With the time of the fetch.
    held: VecDeque<(Fetched, Instant)>,
    /// When the first record may run, as of the last look.
    head: Option<Instant>,
    /// Whether the first record was not due at the last look.
    is_waiting: bool,
    /// The offset of the first record that was not due at the last look.
    first_waiting: Option<u64>,
}

impl Waiting {
    /// Adds records that were fetched.
    pub(super) fn push(&mut self, fetched: Fetched, now: Instant) {
        self.held.push_back((fetched, now));
    }

    /// Checks which records are due; `may_run` returns when a record may run that is due at a time and was fetched at
    /// another.
    pub(super) fn look(&mut self, now: Instant, may_run: impl Fn(Timestamp, Instant) -> Instant) {
        let head = self.held.front();
        let due =
            head.map(|(f, at)| f.batch.records().first().map_or(now, |record| due_at(record, now, *at, &may_run)));
        (self.head, self.is_waiting) = (due, due.is_some_and(|due| due > now));
        let mut all = self.held.iter().flat_map(|(fetched, at)| fetched.batch.records().iter().map(move |r| (r, *at)));
        self.first_waiting = all.find(|(r, at)| due_at(r, now, *at, &may_run) > now).map(|(r, _)| r.offset);
    }

    /// Takes the records that are due, up to the end of the first batch.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        may_run: impl Fn(Timestamp, Instant) -> Instant,
    ) -> Option<Fetched> {
        let (fetched, fetched_at) = self.held.pop_front()?;
        let records = fetched.batch.records();
        let count = records.iter().take_while(|record| due_at(record, now, fetched_at, &may_run) <= now).count();
        let Some(first_left) = records.get(count).map(|record| record.offset) else { return Some(fetched) };
        let (batch, epoch) = (fetched.batch.clone(), fetched.epoch);
        let left = Fetched::new(batch.slice(count, batch.len()), epoch, fetched.next_offset);
        self.held.push_front((left, fetched_at));
        (count > 0).then(|| Fetched::new(batch.slice(0, count), epoch, first_left))
    }

    /// Returns whether the first record is not due, as of the last look.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Returns the offset of the first record that is not due, as of the last look.
    pub(super) fn first_waiting(&self) -> Option<u64> {
        self.first_waiting
    }

    /// Returns whether no record is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns when the first record may run: a time that has passed if it is due.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.held.front().map(|_| self.head.unwrap_or(now))
    }

    /// Returns the offset after the last record that is held.
    pub(super) fn reached(&self) -> Option<u64> {
        self.held.back().map(|(fetched, _)| fetched.next_offset)
    }

    /// Drops all records: the assignment ends, and the next owner reads them again.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }
}

/// Returns when a record may run. One without a due time was not forwarded by this service, and does not wait.
fn due_at(
    record: &StoredRecord,
    now: Instant,
    fetched: Instant,
    may_run: impl Fn(Timestamp, Instant) -> Instant,
) -> Instant {
    RetryRecord::due_of(record).map_or(now, |due| may_run(due, fetched))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_core::{Headers, RecordBatch, TopicPartition, headers};

    use super::*;

    fn fetched(from: u64, dues: &[i64]) -> Fetched {
        let record = |(offset, due): (u64, &i64)| {
            let headers = Headers::new().with(headers::RETRY_DUE, due.to_string());
            StoredRecord::new(offset, Timestamp::from_millis(0)).with_headers(headers)
        };
        let records = (from..).zip(dues).map(record).collect();
        Fetched::new(RecordBatch::new(TopicPartition::new("t-retry-s-1s", 0), records), 1, from + dues.len() as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_cut_at_the_first_record_that_is_not_due() {
        let start = Instant::now();
        let may_run = move |due: Timestamp, _| start + Duration::from_millis(due.millis() as u64);
        let mut waiting = Waiting::default();
        waiting.push(fetched(4, &[5, 7, 9]), start);
        waiting.push(fetched(7, &[10]), start);
        waiting.look(start, may_run);
        assert!(waiting.is_waiting() && waiting.take_due(start, may_run).is_none());
        assert_eq!((waiting.due(start), waiting.reached()), (Some(may_run(Timestamp::from_millis(5), start)), Some(8)));

        let later = start + Duration::from_millis(7);
        waiting.look(later, may_run);
        assert_eq!((waiting.is_waiting(), waiting.first_waiting()), (false, Some(6)));
        let due = waiting.take_due(later, may_run).unwrap();
        assert_eq!((due.batch.len(), due.next_offset), (2, 6), "the next offset is that of the first one left");
        waiting.look(later, may_run);
        assert!(waiting.is_waiting() && waiting.take_due(later, may_run).is_none());

        let end = start + Duration::from_millis(10);
        assert_eq!(waiting.take_due(end, may_run).map(|due| due.next_offset), Some(7));
        assert_eq!(waiting.take_due(end, may_run).map(|due| due.next_offset), Some(8));
        assert!(waiting.take_due(end, may_run).is_none() && waiting.due(end).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_and_a_foreign_record_wait_for_nothing() {
        let now = Instant::now();
        let never = |_: Timestamp, _| now + Duration::from_secs(1);
        let mut waiting = Waiting::default();
        waiting.push(fetched(3, &[]), now);
        let foreign = StoredRecord::new(3, Timestamp::from_millis(0));
        waiting.push(Fetched::new(RecordBatch::new(TopicPartition::new("t", 0), vec![foreign]), 1, 4), now);
        waiting.look(now, never);
        assert!(!waiting.is_waiting());
        assert_eq!(waiting.take_due(now, never).map(|due| due.next_offset), Some(3));
        assert_eq!(waiting.take_due(now, never).map(|due| due.next_offset), Some(4));
    }
}
