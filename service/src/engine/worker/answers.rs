//! The answers of stores, sinks and publishers, as the next steps of their records.

use super::claimer::{Claimed, ClaimedBy};
use super::delivery_error::DeliveryError;
use super::parts::Parts;
use super::records::Records;
use super::scheduler::Wait;
use super::settler::Done;
use crate::engine::messages::{Cause, WorkerEvent};
use crate::engine::record::PendingRecord;
use crate::observer::RecordOutcome;

impl Parts {
    /// Goes on with what the settler has done.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Published { records, completed } => self.handled(records, completed),
            Done::Refused(records, error) => self.failed(records, &DeliveryError::refused(&error)),
            Done::Completed(record) => self.settle(record, RecordOutcome::Handled, None),
            Done::LeaseLost(records) => self.all_held(records),
            Done::Buried(record, kind, text) => {
                if let Some(handler) = record.handler {
                    self.shared.counters.dead_lettered(handler as usize, kind);
                }
                self.settle_buried(record, RecordOutcome::DeadLettered, &text);
            }
            Done::Forwarded(record) => self.forwarded(record),
            Done::NotForwarded(mut record, error) => {
                let (kind, text) = record.take_error().unwrap_or((error.kind(), String::new()));
                self.bury(record, kind, format!("{text}; it cannot wait in its retry topic: {}", error.report()));
            }
            Done::Skipped(record) => self.skipped(record),
            Done::Cancelled(records) => records.into_vec().into_iter().for_each(|record| self.release(record)),
        }
    }

    /// Settles a record that was forwarded. Its claim is released first: the next attempt claims the event again.
    fn forwarded(&mut self, mut record: PendingRecord) {
        if let Some((guard, attempts)) = record.take_claim_with_attempts() {
            self.claimer.release(guard, attempts);
        }
        let reason = record.take_error().map(|(_, text)| text);
        self.settle(record, RecordOutcome::Forwarded, reason.as_deref());
    }

    /// Settles a record that is not handled. The attempts are not reported: a redriven letter starts anew.
    fn settle_buried(&mut self, mut record: PendingRecord, outcome: RecordOutcome, reason: &str) {
        self.claimer.disclaim(&mut record);
        self.settle(record, outcome, Some(reason));
    }

    /// Settles a record without its dead letter, as an operator has requested.
    pub(super) fn skipped(&mut self, record: PendingRecord) {
        let (assignment, offset) = (record.assignment(), record.offset());
        let reason = "skipped by an operator: its dead letter cannot be written";
        self.settle_buried(record, RecordOutcome::Skipped, reason);
        self.send(WorkerEvent::Skipped { assignment, offset });
    }

    /// Goes on with the answers to a claim.
    pub(super) fn claimed(&mut self, answers: ClaimedBy) {
        match answers {
            ClaimedBy::Chunk(claimed) => {
                let ready = claimed.into_iter().filter_map(|(record, claimed)| self.record_claimed(record, claimed));
                let ready = ready.collect();
                self.scheduler.push_records(ready);
            }
            ClaimedBy::Head(claimed) => {
                for (record, claimed) in claimed {
                    if let Some(record) = self.record_claimed(record, claimed) {
                        self.scheduler.put(record, Wait::Nothing);
                    }
                }
            }
            ClaimedBy::Isolated(record, claimed) => {
                if let Some(record) = self.record_claimed(record, claimed) {
                    self.start_isolated(record);
                }
            }
        }
    }

    /// Returns the record if its turn may come.
    fn record_claimed(&mut self, record: PendingRecord, claimed: Claimed) -> Option<PendingRecord> {
        match claimed {
            Claimed::Ready => return Some(record),
            Claimed::Duplicate => self.settle(record, RecordOutcome::Duplicate, None),
            Claimed::Held(at_most) => self.held(record, at_most),
            Claimed::Outage(text) => self.wait_for(record, Cause::Store, &text),
            Claimed::Crashed(crashes) => self.bury_crashed(record, crashes),
            Claimed::Revoked => self.release(record),
        }
        None
    }

    /// Starts the record that runs isolated, or lets it wait for its handler: nothing else begins meanwhile.
    fn start_isolated(&mut self, record: PendingRecord) {
        let Some(handler) = record.handler else { return };
        if let Some(Records::One(record)) = self.start(Records::One(record), handler as usize, false) {
            self.scheduler.put(record, Wait::Handler);
        }
    }
}
