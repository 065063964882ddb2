//! Letters that cannot be written: reporting and skipping them.

use super::{Burying, Due, Worker};
use crate::engine::messages::WorkerEvent;
use crate::observer::RecordOutcome;

impl Worker {
    /// Settles the record at `offset` without its dead letter, if it is this worker's and the letter could not be
    /// written.
    pub(super) fn skip(&mut self, slot: u64, offset: u64) {
        let is_it = |burying: &Burying| burying.attempts > 0 && burying.is_at(slot, offset);
        let waiting = |due: &Due| matches!(due, Due::Bury(letters) if letters.iter().any(is_it));
        let mut letters = std::mem::take(&mut self.to_bury);
        for due in self.timers.take_where(waiting) {
            // The other letters of its call are retried at once.
            if let Due::Bury(again) = due {
                letters.extend(again);
            }
        }
        let (skipped, kept): (Vec<_>, Vec<_>) = letters.into_iter().partition(is_it);
        self.to_bury = kept;
        if skipped.is_empty() && self.calls.burying {
            self.to_skip.push((slot, offset));
        }
        skipped.into_iter().for_each(|burying| self.skip_letter(burying));
    }

    /// Returns whether an operator has requested to skip the letter, after another failed write.
    pub(super) fn is_to_skip(&self, burying: &Burying) -> bool {
        self.to_skip.iter().any(|(slot, offset)| burying.is_at(*slot, *offset))
    }

    pub(super) fn skip_letter(&mut self, mut burying: Burying) {
        let (slot, offset) = (burying.item.assigned.id, burying.letter.record.offset);
        burying.item.told = burying.item.failures;
        self.give_claim_back(&mut burying.item);
        self.settle_item(
            burying.item,
            RecordOutcome::Skipped,
            Some("skipped by an operator: its dead letter cannot be written"),
        );
        self.send(WorkerEvent::Skipped { assignment: slot, offset });
    }

    /// Reports that a letter could not be written, or was written after earlier failures.
    pub(super) fn tell_unburied(&self, burying: &Burying, error: Option<&str>) {
        if burying.attempts > 0 {
            let (slot, offset) = (burying.item.assigned.id, burying.letter.record.offset);
            self.send(WorkerEvent::Unburied { assignment: slot, offset, error: error.map(str::to_owned) });
        }
    }
}

impl Burying {
    fn is_at(&self, slot: u64, offset: u64) -> bool {
        self.item.assigned.id == slot && self.letter.record.offset == offset
    }
}
