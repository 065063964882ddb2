//! An assignment as it is shown: in the status, in snapshots, and in reports of what was not settled.

use std::time::Duration;

use tidings_core::{RetryRecord, StoredRecord, Timestamp};
use tokio::time::Instant;

use super::Partition;
use crate::engine::board::PartitionView;
use crate::engine::coordinator::troubles::reason;
use crate::engine::coordinator::watch::Change;
use crate::status::{PartitionStatus, PauseReason, ReturnedPartition};
use crate::telemetry::ClockGap;

impl Partition {
    /// Returns the lag: the number of offsets that are not settled.
    fn lag(&self) -> u64 {
        self.due_end().saturating_sub(self.tracker.watermark())
    }

    /// Returns the number of offsets of a retry topic that wait until they are due.
    fn waiting(&self) -> u64 {
        self.end.max(self.tracker.next()).saturating_sub(self.due_end())
    }

    /// Returns the time from which the age of the lowest unsettled record counts: its timestamp, or its due time.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let lowest = self.lowest()?;
        let due = self.assigned.tier.and_then(|_| RetryRecord::due_of(lowest));
        Some(due.unwrap_or(lowest.timestamp))
    }

    /// Returns the lowest unsettled record, if one is in flight.
    pub(crate) fn lowest(&self) -> Option<&StoredRecord> {
        self.tracker.lowest()
    }

    /// Looks at the present state, and returns what has changed since the last call.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<Change> {
        let lowest = (self.lag() > 0).then(|| self.tracker.watermark());
        let mut changes = self.watch.paused(&self.pauses, now);
        changes.extend(self.watch.moved(lowest, now));
        changes
    }

    /// Returns the state to show, as of the last look.
    pub(crate) fn view(&mut self) -> PartitionView {
        let (settled, lag) = (self.tracker.watermark(), self.lag());
        PartitionView {
            origin: self.assigned.origin.clone(),
            epoch: self.epoch(),
            position: self.tracker.next(),
            settled,
            committed: self.committed,
            end: self.end,
            in_flight: self.tracker.unsettled(),
            waiting: self.waiting(),
            is_retry: self.assigned.tier.is_some(),
            bytes: self.tracker.bytes(),
            oldest: self.oldest(),
            unmoved: self.watch.unmoved(),
            stuck: self.watch.stuck(),
            is_rising: self.watch.is_rising(),
            clock_gap: self.watch.clock.gap(),
            pauses: self.watch.pauses().to_vec(),
            unreadable: self.held.unreadable_from(),
            is_rewound: self.watch.is_rewound(settled, lag == 0),
            holding: self.watch.holding().cloned(),
            leaving: self.is_leaving(),
        }
    }

    /// Returns the text of the cause of a pause.
    pub(crate) fn pause_text(&self, reason: PauseReason) -> Option<&str> {
        self.troubles.text(reason)
    }

    /// Returns the number of records in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.tracker.unsettled() + self.start.early.iter().map(|fetched| fetched.batch.len()).sum::<usize>()
    }

    /// Returns the committed offset, as far as it is known here.
    pub(crate) fn committed_offset(&self) -> Option<u64> {
        self.committed
    }

    /// Takes a sample of the lag. A lag whose oldest record is not old counts as none.
    pub(crate) fn sample(&mut self, is_old: bool, window: Duration, now: Instant) {
        let lag = if is_old { self.lag() } else { 0 };
        self.watch.sample(lag, window, now);
        self.watch.touch();
    }

    /// Compares the timestamps of new records with the time of this host. `is_read`: the log is read as far as it is known.
    pub(crate) fn check_clock(&mut self, wall: Timestamp, is_read: bool) {
        let is_at_end = is_read && self.pauses.is_empty() && self.tracker.next() >= self.end;
        self.watch.clock.check(wall, is_at_end);
    }

    /// Returns by how much the clock of this host is ahead: records look older than they are.
    pub(crate) fn clock_ahead(&self) -> Duration {
        match self.watch.clock.gap() {
            Some(ClockGap::Ahead(time)) => time,
            _ => Duration::ZERO,
        }
    }

    /// Returns whether it is not paused, except at a bound, or because its next record is not due, while earlier ones
    /// are in flight: then it is expected to make progress.
    pub(crate) fn is_free(&self) -> bool {
        self.pauses.iter().all(|reason| reason.is_bound() || *reason == PauseReason::Waiting)
            && !self.held.is_unreadable()
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        let unreadable = self.held.is_unreadable().then_some(PauseReason::Unreadable);
        PartitionStatus {
            partition: self.origin().clone(),
            epoch: self.epoch(),
            position: self.tracker.next(),
            settled: self.tracker.watermark(),
            committed: self.committed,
            end: self.end,
            in_flight: self.tracker.unsettled(),
            waiting: self.waiting(),
            paused: self.pauses.iter().copied().chain(unreadable).collect(),
            held: self.held.all(),
        }
    }

    /// Returns what of it is not settled, if anything.
    pub(crate) fn returned(&self) -> Option<ReturnedPartition> {
        let records = self.tracker.unsettled() + self.start.dropped;
        (records > 0).then(|| ReturnedPartition {
            partition: self.origin().clone(),
            committed: self.committed,
            records,
            cancelled: self.assigned.is_cancelled(),
        })
    }

    /// Returns whether it waits for a dependency, or cannot be read on.
    pub(crate) fn is_troubled(&self) -> bool {
        !self.troubles.is_empty() || self.held.is_unreadable()
    }

    /// Returns its problems, one line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let origin = self.origin();
        let troubles = self.troubles.iter().map(|(cause, text)| format!("{origin}: {}: {text}", reason(cause)));
        troubles.chain(self.held.problem().map(|text| format!("{origin}: {text}"))).collect()
    }
}
