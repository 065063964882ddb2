//! Records that wait for a time: for their next attempt, a dependency that is down, or another lease.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{BASE, backoff};
use super::parts::Parts;
use super::scheduler::Wait;
use crate::engine::messages::Cause;
use crate::engine::record::PendingRecord;
use crate::time::after;

impl Parts {
    /// Makes a record wait for a dependency that is down.
    pub(super) fn wait_for(&mut self, mut record: PendingRecord, cause: Cause, text: &str) {
        record.raise_trouble(&self.events, cause, text);
        let wait = self.next_wait(&mut record);
        self.delay(record, wait);
    }

    /// Makes a record wait, which holds its key. One of an assignment that is being revoked is released at once: its
    /// partition waits only for work that runs.
    pub(super) fn delay(&mut self, mut record: PendingRecord, wait: Duration) {
        if record.id.assigned.is_stopping() {
            self.scheduler.hold(&mut record);
            self.release(record);
            return;
        }
        if record.is_isolated() {
            // While it waits, others may run isolated.
            if let Some((guard, attempts)) = record.take_claim_with_attempts() {
                self.claimer.release(guard, attempts);
            }
            record.drop_permit();
        }
        self.scheduler.put(record, Wait::Until(after(Instant::now(), wait)));
    }

    fn next_wait(&mut self, record: &mut PendingRecord) -> Duration {
        record.waits = record.waits.saturating_add(1);
        backoff(record.waits, &mut self.random)
    }

    /// Makes a record wait whose event another lease has, or may have: it is claimed again later, and its key waits.
    pub(super) fn held(&mut self, mut record: PendingRecord, at_most: Option<Duration>) {
        // Without its claim, which has ended.
        drop(record.take_claim());
        record.drop_permit();
        self.scheduler.hold(&mut record);
        if let Some(key) = record.key.hash().filter(|_| !record.id.assigned.is_stopping()) {
            // One behind it may be a repeat of its event, or two services could wait for each other.
            for guard in self.scheduler.take_claims_behind(key) {
                self.claimer.release(guard, 0);
            }
        }
        let wait = self.next_wait(&mut record);
        let wait = at_most.map_or(wait, |at_most| wait.min(at_most.max(BASE)));
        self.delay(record, wait);
    }

    /// Makes records wait that were handled together and whose claims another lease has: the first of each key is
    /// claimed first.
    pub(super) fn all_held(&mut self, mut records: Vec<PendingRecord>) {
        records.iter_mut().for_each(|record| drop(record.take_claim()));
        for record in self.scheduler.first_of_keys(records) {
            self.held(record, None);
        }
    }
}
