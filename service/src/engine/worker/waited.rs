//! Records of retry topics: each is delivered as its original, with the attempts that it has had.

use std::collections::VecDeque;

use tidings_core::RetryRecord;
use tokio::time::Instant;

use super::parts::Parts;
use crate::engine::messages::Chunk;
use crate::engine::record::PendingRecord;
use crate::engine::routing::Verdict;
use crate::logs;
use crate::observer::RecordOutcome;

const NOT_FORWARDED: &str = "it was not forwarded by this service, and is skipped";
const WRONG_CLOCK: &str = "it is due far later than its delay, by a wrong clock, and is handled now";

impl Parts {
    /// Takes the records of a chunk of a retry topic, which are due.
    pub(super) fn take_waited(&mut self, chunk: &Chunk) {
        let mut ready = VecDeque::new();
        for index in (chunk.at..chunk.indexes.len()).filter_map(|at| chunk.indexes.get(at)) {
            match self.original(chunk, index) {
                Some(record) if record.needs_claim() => self.claimer.claim_fresh(record),
                Some(record) => ready.push_back(record),
                None => {
                    // Forwarded by another service whose retry topic has the same name, or not forwarded at all.
                    self.log_odd(chunk, index, NOT_FORWARDED);
                    let record = self.pending(chunk, index, None);
                    self.settle(record, RecordOutcome::Skipped, Some("not forwarded by this service"));
                }
            }
        }
        if !ready.is_empty() {
            self.scheduler.push_records(ready);
        }
    }

    /// Returns the original of a record; `None` if this service did not forward it to this topic.
    fn original(&self, chunk: &Chunk, index: u32) -> Option<PendingRecord> {
        let tiers = self.shared.policy.tiers.as_ref()?;
        let (topic, level) = tiers.place(&chunk.assigned.origin.topic)?;
        let retry = RetryRecord::from_record(&chunk.batch.records()[index as usize]).ok()?;
        if retry.service != self.shared.identity.service || retry.origin.topic != *topic {
            return None;
        }
        if tiers.is_beyond(retry.due, Instant::now()) {
            self.log_odd(chunk, index, WRONG_CLOCK);
        }
        let handler = match Verdict::of(&self.shared, topic, &retry.record) {
            Verdict::Handler(handler) => u32::try_from(handler).ok(),
            // It is settled without a handler when its turn has come.
            _ => None,
        };
        let key = self.shared.keys.of(chunk.assigned.id, retry.record.key.as_ref());
        let claimed = handler.is_some() && self.shared.backends.store.is_some();
        Some(PendingRecord::waited(chunk, index, *level, retry, handler, key, claimed))
    }

    /// Logs a record that is not as this service forwards it, unless one with this fault was logged not long ago.
    fn log_odd(&self, chunk: &Chunk, index: u32, fault: &'static str) {
        let Some(held_back) = self.shared.limiter.pass(("odd_retry_record", None, fault), Instant::now()) else {
            return;
        };
        let origin = &chunk.assigned.origin;
        let line = logs::OddRetryRecord {
            service: &self.shared.identity.service.as_str(),
            topic: &origin.topic.as_str(),
            partition: &origin.partition,
            offset: &chunk.batch.records()[index as usize].offset,
            fault: &fault,
            held_back: &held_back,
        };
        line.log();
    }
}
