//! Checks the attempts of records that waited in retry topics. They get the originals, so their place and order are
//! those of the first read; only their epoch is that of the retry topic's assignment.

use std::time::Duration;

use tidings_core::TopicPartition;

use super::super::history::{Place, Process};
use super::{Checker, Run};

/// The difference between the start of a run and that of the wall clock's reading.
const TOLERANCE: Duration = Duration::from_millis(100);

/// Returns whether a partition is of a retry topic.
pub(super) fn is_retry(partition: &TopicPartition) -> bool {
    partition.topic.contains("-retry-sim-")
}

impl Checker<'_> {
    /// Returns the partition of a retry topic that the process reads in this epoch.
    pub(super) fn waited(&self, process: Process, origin: &TopicPartition, epoch: u64) -> Option<TopicPartition> {
        let of_it = |(of, from): &&(Process, TopicPartition)| *of == process && is_retry(from);
        let mut assigned = self.assigned.iter().filter(|(key, assigned)| of_it(key) && assigned.epoch == epoch);
        let (_, from) = assigned.next()?.0;
        from.topic.starts_with(&*origin.topic).then(|| from.clone())
    }

    pub(super) fn began_again(
        &mut self,
        process: Process,
        run: u64,
        (origin, from): (&TopicPartition, TopicPartition),
        epoch: u64,
        offsets: &[u64],
    ) {
        let revoking = self.assigned.get(&(process, from.clone())).is_some_and(|assigned| assigned.revoking);
        if revoking && !self.crashed.contains(&process) {
            let text = format!("process {process} begins {origin} {offsets:?} of {from}, which is revoked");
            self.found("delivered after revocation", text);
        }
        for offset in offsets {
            let place = Place { origin: origin.clone(), offset: *offset };
            let id = self.history.log.get(&place).and_then(|held| held.id);
            if id.is_some_and(|id| self.history.store && self.completed.contains(&id)) {
                self.found("handled again after it was completed", format!("{origin} {offset} by process {process}"));
            }
            match self.due.get(&(from.topic.clone(), place)) {
                Some(due) if self.now + TOLERANCE < *due => {
                    let text = format!("{origin} {offset} of {from} runs at {:?}, and is due at {due:?}", self.now);
                    self.found("early", text);
                }
                Some(_) => {}
                None => self.found("forwarded to nowhere", format!("{origin} {offset} comes from {from}")),
            }
        }
        let (origin, offsets) = (origin.clone(), offsets.to_vec());
        self.runs.insert(run, Run { process, origin, epoch, offsets, from });
    }
}
