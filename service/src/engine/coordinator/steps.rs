//! Handles the group's steps: assigned, records, revoking, lost.

use std::sync::Arc;

use tidings_core::{Assignment, Fetched, Step, TopicPartition};

use super::{Coordinator, Partition};
use crate::engine::assigned::Assigned;
use crate::engine::tracker::Tracker;
use crate::status::PauseReason;

impl Coordinator {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Assigned(assignments) => {
                self.assigned_once = true;
                assignments.into_iter().for_each(|assignment| self.assigned(assignment));
            }
            Step::Records(fetched) => self.records(fetched),
            Step::Revoking(revocation) => {
                for partition in &revocation.partitions {
                    self.revoking(partition, revocation.deadline);
                }
            }
            Step::Lost(partitions) => partitions.iter().for_each(|partition| self.lost(partition)),
            Step::Unreadable(unreadable) => self.unreadable(unreadable),
            step => tracing::debug!(?step, "a step that this version does not know"),
        }
    }

    fn assigned(&mut self, assignment: Assignment) {
        if let Some(missing) = &assignment.missing {
            tracing::error!(
                topic = %assignment.partition.topic,
                partition = assignment.partition.partition,
                missing = ?missing,
                "records were deleted before they were read; going on at the oldest one left"
            );
            self.health.missing(&assignment.partition, missing.clone());
        } else if let Some(committed) = assignment.committed.filter(|committed| *committed > assignment.start_offset) {
            tracing::error!(
                topic = %assignment.partition.topic,
                partition = assignment.partition.partition,
                committed,
                start = assignment.start_offset,
                "the committed offset lies beyond the end of the log: it was truncated or made anew; reading from its oldest record, and committing anew"
            );
        }
        // The same partition again: remaining work of an earlier assignment must not run concurrently with this one's.
        if let Some(slot) = self.current.remove(&assignment.partition) {
            self.leave(slot, true, std::time::Duration::ZERO);
        }
        let older: Vec<u64> = self
            .slots
            .iter()
            .filter(|(_, p)| *p.assigned.origin == assignment.partition)
            .map(|(slot, _)| *slot)
            .collect();
        let behind = !older.is_empty();
        older.into_iter().for_each(|slot| self.hurry(slot));
        let slot = self.next_slot;
        self.next_slot += 1;
        // The new start is committed before work begins: else a crash would resume at an offset of the former log.
        let started = assignment.committed == Some(assignment.start_offset);
        let partition = Partition {
            assigned: Arc::new(Assigned::new(slot, Arc::new(assignment.partition.clone()), assignment.epoch)),
            tracker: Tracker::new(assignment.start_offset),
            committed: assignment.committed,
            started,
            fenced: false,
            behind,
            early: Vec::new(),
            end: assignment.start_offset,
            troubles: Default::default(),
            pauses: if started && !behind { Default::default() } else { [PauseReason::Starting].into() },
            held: Default::default(),
            leaving: None,
        };
        self.current.insert(assignment.partition, slot);
        self.slots.insert(slot, partition);
        self.leave_if_stopping(slot);
    }

    pub(super) fn records(&mut self, fetched: Fetched) {
        let Some(slot) = self.current.get(fetched.batch.origin().as_ref()).copied() else { return };
        let Some(partition) = self.slots.get_mut(&slot) else { return };
        if partition.assigned.epoch != fetched.epoch || partition.leaving.is_some() {
            return;
        }
        let start = first_offset(&fetched);
        if start < partition.reached() {
            self.rewound(slot, start);
            return self.records(fetched);
        }
        partition.held.read_on(fetched.next_offset);
        partition.end = partition.end.max(fetched.next_offset);
        if partition.may_begin() {
            self.dispatch(slot, fetched);
        } else {
            partition.early.push(fetched);
        }
    }

    /// Handles records below those read before: the log was truncated or recreated. The assignment ends as lost, so
    /// that none of its work settles the new records, and another begins at `start`.
    fn rewound(&mut self, slot: u64, start: u64) {
        let Some(partition) = self.slots.get(&slot) else { return };
        let (origin, epoch) = (partition.assigned.origin.as_ref().clone(), partition.assigned.epoch);
        tracing::error!(
            topic = %origin.topic,
            partition = origin.partition,
            position = partition.reached(),
            committed = partition.committed,
            start,
            "records come below those that were read: the log was truncated or made anew; committing anew from there"
        );
        // The committed offset is left out: a commit in flight may still change it.
        self.assigned(Assignment::new(origin, epoch, start));
    }

    fn revoking(&mut self, partition: &TopicPartition, deadline: std::time::Duration) {
        if let Some(slot) = self.current.get(partition).copied() {
            self.leave(slot, false, deadline);
        }
    }

    fn lost(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.current.remove(partition) {
            self.leave(slot, true, self.options.revocation_deadline);
        }
    }
}

impl Partition {
    /// Returns the offset after the last record received.
    pub(super) fn reached(&self) -> u64 {
        self.early.last().map_or(self.tracker.next(), |fetched| fetched.next_offset)
    }
}

fn first_offset(fetched: &Fetched) -> u64 {
    fetched.batch.records().first().map_or(fetched.next_offset, |record| record.offset)
}
