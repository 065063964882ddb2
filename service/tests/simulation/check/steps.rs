//! Checks each step of a consumer, and each answer to a commit and a completion.

use tidings_core::TopicPartition;
use uuid::Uuid;

use super::super::history::Process;
use super::waits::is_retry;
use super::{Assigned, Checker, Run};

impl Checker<'_> {
    pub(super) fn assign(&mut self, process: Process, origin: &TopicPartition, epoch: u64, start: u64) {
        let others = self.assigned.iter_mut().filter(|((p, o), a)| *p != process && o == origin && a.epoch < epoch);
        others.for_each(|(_, other)| other.taken = true);
        let assigned = Assigned { start, epoch, ..Assigned::default() };
        self.assigned.insert((process, origin.clone()), assigned);
    }

    /// Checks that the work that began before a seek has ended: it would settle, or overtake, what comes after.
    pub(super) fn seeking(&mut self, process: Process, origin: &TopicPartition) {
        let epoch = self.assigned.get(&(process, origin.clone())).map(|assigned| assigned.epoch);
        let of_it = |run: &&Run| run.process == process && run.from == *origin && Some(run.epoch) == epoch;
        if let Some(offsets) = self.runs.values().find(of_it).map(|run| run.offsets.clone()) {
            let text = format!("process {process} moves its position in {origin} while a handler has {offsets:?}");
            self.found("handled during a seek", text);
        }
    }

    /// After a seek all from there on is given, and has to be settled, again.
    pub(super) fn sought(&mut self, process: Process, origin: &TopicPartition, start: u64) {
        if let Some(assigned) = self.assigned.get_mut(&(process, origin.clone())) {
            let Assigned { epoch, revoking, over_at, taken, .. } = *assigned;
            *assigned = Assigned { start, epoch, revoking, over_at, taken, ..Assigned::default() };
        }
    }

    pub(super) fn given(&mut self, process: Process, origin: &TopicPartition, epoch: u64, offsets: &[u64]) {
        let max_span = self.history.max_span;
        let Some(assigned) = self.assigned.get_mut(&(process, origin.clone())).filter(|a| a.epoch == epoch) else {
            return self.found("memory: records without an assignment", format!("{origin} {offsets:?} to {process}"));
        };
        let lowest = assigned.given.difference(&assigned.settled).next();
        let span = lowest.zip(assigned.given.last()).map_or(0, |(lowest, highest)| highest + 1 - lowest);
        assigned.given.extend(offsets);
        // Records that wait in a retry topic are in flight only when they are due.
        if span >= max_span && !is_retry(origin) {
            let text = format!("process {process} reads on in {origin}: {span} are open, {max_span} may be");
            self.found("unbounded", text);
        }
    }

    pub(super) fn committed(&mut self, process: Process, origin: &TopicPartition, next: u64, ok: bool) {
        let Some(assigned) = self.assigned.get_mut(&(process, origin.clone())) else { return };
        assigned.commit_failed = !ok;
        if ok {
            assigned.committed = Some(next);
        }
    }

    pub(super) fn completed(&mut self, process: Process, id: Uuid) {
        self.completed.insert(id);
        let is_its = |place| self.history.log.get(place).is_some_and(|held| held.id == Some(id));
        if !self.ran.keys().any(is_its) {
            self.found("completed before it was handled", format!("{id} by process {process}"));
        }
    }
}
