//! An assignment of a retry topic: its records are dispatched when they are due.

use std::time::Duration;

use tokio::time::Instant;

use super::{Dispatch, Partition};
use crate::engine::tiers::Tiers;
use crate::status::PauseReason;

/// Due times and timers are rounded up to milliseconds. A caller that waits for a delay and then for the service to
/// catch up, as tests do, also waits for records that are due within this time.
const SOON: Duration = Duration::from_millis(10);

impl Partition {
    /// Takes the records of a retry topic that are due, if there is room for them and the partition is not paused for
    /// another reason. Pauses the partition if its next record is not due.
    pub(crate) fn take_due(&mut self, has_room: bool, now: Instant, tiers: &Tiers) -> Option<Dispatch> {
        if self.is_leaving() {
            // It holds no records any more: the last look is what is shown until it is released.
            return None;
        }
        let may_take = has_room && self.may_take_due();
        let level = self.assigned.tier?;
        let may_run = |due, fetched| tiers.may_run(level, due, fetched);
        let waiting = self.waiting.as_mut()?;
        let due = if may_take { waiting.take_due(now, may_run) } else { None };
        waiting.look(now, may_run);
        let is_waiting = waiting.is_waiting();
        self.pause(PauseReason::Waiting, is_waiting);
        due.map(|fetched| self.dispatch(fetched))
    }

    fn may_take_due(&self) -> bool {
        self.may_begin() && !self.is_leaving() && self.pauses.iter().all(|reason| *reason == PauseReason::Waiting)
    }

    /// Returns the end of what may run now: records of a retry topic that are not due are not part of the lag.
    pub(super) fn due_end(&self) -> u64 {
        let (next, end) = (self.tracker.next(), self.end.max(self.tracker.next()));
        match &self.waiting {
            Some(waiting) if waiting.is_waiting() => next,
            Some(waiting) => waiting.first_waiting().map_or(end, |first| first.max(next)),
            None => end,
        }
    }

    /// Returns whether fetched records are held. More would add to them, whatever the bounds of what is in flight.
    pub(super) fn holds_records(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.is_empty())
    }

    /// Returns whether a record that is held may be dispatched now, or within [`SOON`].
    pub(super) fn is_due_soon(&self) -> bool {
        self.next_due().is_some_and(|due| due <= Instant::now() + SOON)
    }

    /// Returns when a record that is held may be dispatched.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref()?;
        let now = Instant::now();
        waiting.due(now).filter(|_| waiting.is_waiting() || self.may_take_due())
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::{
        Assignment, Fetched, Headers, RecordBatch, StoredRecord, Timestamp, TopicPartition, headers::RETRY_DUE,
    };

    use super::*;
    use crate::Retry;
    use crate::engine::coordinator::partition::Admitted;

    #[tokio::test(start_paused = true)]
    async fn no_more_is_fetched_while_records_are_held() {
        let retry = Retry::never().then_topics([Duration::from_secs(2)]);
        let tiers = Tiers::new("s", &["t".into()], &retry).unwrap().unwrap();
        let at = TopicPartition::new("t-retry-s-2s", 0);
        let mut assignment = Assignment::new(at.clone(), 1, 0);
        assignment.committed = Some(0);
        let mut partition = Partition::new(1, &assignment, false, Some(0));
        let (_, due) = tiers.forwarded(Duration::from_secs(1));
        let record = |offset, due: i64| {
            let headers = Headers::new().with(RETRY_DUE, due.to_string());
            StoredRecord::new(offset, Timestamp::from_millis(0)).with_headers(headers)
        };
        let records = vec![record(0, due.millis()), record(1, due.millis() + 500)];
        let fetched = Fetched::new(RecordBatch::new(at, records), 1, 2);
        assert!(matches!(partition.admit(fetched), Admitted::Waiting));
        assert!(partition.take_due(true, Instant::now(), &tiers).is_none());
        partition.pause(PauseReason::Bytes, true);
        tokio::time::advance(Duration::from_millis(1_002)).await;
        assert!(partition.take_due(false, Instant::now(), &tiers).is_none(), "there is no room");
        assert!(!partition.is_paused_by(PauseReason::Waiting));
        assert_eq!(partition.due_end(), 1, "the second one is not due");
        partition.pause(PauseReason::Bytes, false);
        assert!(partition.wants_pause(), "records are held");
        assert_eq!(partition.take_due(true, Instant::now(), &tiers).map(|due| due.batch.len()), Some(1));
        assert!(partition.take_due(true, Instant::now(), &tiers).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(partition.take_due(true, Instant::now(), &tiers).map(|due| due.batch.len()), Some(1));
        assert!(!partition.wants_pause(), "nothing is held");
    }
}
