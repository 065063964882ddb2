//! Records of retry topics: each is delivered as its original, with the attempts that it has had.

use std::collections::VecDeque;

use tidings_core::RetryRecord;

use super::parts::Parts;
use crate::engine::messages::Chunk;
use crate::engine::record::PendingRecord;
use crate::engine::routing::Verdict;
use crate::observer::RecordOutcome;

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
        let (topic, level) = self.shared.policy.tiers.as_ref()?.place(&chunk.assigned.origin.topic)?;
        let retry = RetryRecord::from_record(&chunk.batch.records()[index as usize]).ok()?;
        if retry.service != self.shared.identity.service || retry.origin.topic != *topic {
            return None;
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
}
