//! Commands of operators to the assignments: pauses, skips of holds, and seeks.

use tidings_core::{ErrorKind, TopicPartition};
use tokio::time::Instant;

use super::Assignments;
use crate::engine::assigned::AssignmentId;
use crate::engine::commands::{Seek, Skip};
use crate::engine::coordinator::revocation::Leave;
use crate::engine::coordinator::seeks::Moved;
use crate::engine::coordinator::skips::Sought;
use crate::engine::messages::WorkerCommand;

/// The consumer's answer to an operator's command.
#[derive(Debug)]
pub(crate) enum Answer {
    Skip(Sought),
    Seek(Moved),
}

impl Assignments {
    /// Pauses partitions for an operator, or resumes them.
    pub(crate) fn pause(&mut self, partitions: Option<Vec<TopicPartition>>, paused: bool) {
        match partitions {
            None => self.pauses.set_service(paused),
            Some(partitions) => self.pauses.set_partitions(partitions, paused),
        }
    }

    /// Skips a partition's hold, if the range matches it exactly.
    pub(crate) fn skip(&mut self, skip: Skip) {
        match self.partitions.hold_at(&skip.partition, skip.offsets.start) {
            Err(unheld) => {
                let (kind, why) = unheld.reason();
                skip.refuse(kind, why);
            }
            Ok((id, hold)) => {
                if let Some(offset) = self.skips.begin(id, hold, skip, &self.consumer) {
                    self.workers.send_all(|| WorkerCommand::Skip { assignment: id, offset });
                }
            }
        }
    }

    /// Waits for the consumer's answer to an operator's skip or seek, if there is one. Cancel-safe.
    pub(crate) async fn answered(&mut self) -> Answer {
        tokio::select! {
            biased;
            sought = self.skips.sought() => Answer::Skip(sought),
            moved = self.seeks.moved() => Answer::Seek(moved),
        }
    }

    /// Takes the consumer's answer to an operator's skip or seek.
    pub(crate) fn take_answer(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Skip(sought) => self.skipped(sought, now),
            Answer::Seek(moved) => self.take_move(moved, now),
        }
    }

    /// Ends a skip: counts the range as read.
    fn skipped(&mut self, sought: Sought, now: Instant) {
        let partition = sought.id().and_then(|id| self.partitions.get_mut(id)).filter(|p| !p.is_leaving());
        let reached = sought.answer(&self.shared.identity.service, partition.is_some());
        let passed = partition.zip(reached).and_then(|(partition, reached)| partition.pass_over(reached));
        if let Some(nothing) = passed {
            self.records(nothing, now);
        }
    }

    /// Moves the position of a partition: its assignment ends first.
    pub(crate) fn seek(&mut self, seek: Seek, now: Instant) {
        let current = self.partitions.current(&seek.partition);
        match current.map(|(id, partition)| (id, partition.is_seeking(), partition.is_leaving())) {
            Some((_, true, _)) => seek.refuse(ErrorKind::Conflict, "another seek of the partition is under way"),
            Some((id, false, false)) => {
                self.leave(Some(id), Leave::Seeking(seek.deadline), now);
                self.seeks.begin(id, seek);
            }
            _ => seek.refuse(ErrorKind::NotFound, "the partition is not assigned to this instance"),
        }
    }

    /// Moves the positions of assignments that have ended for that. No commit may be in flight: it could be accepted
    /// after the move, in place of the one that may go back.
    pub(crate) fn begin_moves(&mut self, moves: Vec<AssignmentId>) {
        for id in moves {
            if let Some(partition) = self.partitions.get_mut(id) {
                self.seeks.ended(id, partition.begin_move(), &self.consumer, &self.shared.identity.service);
            }
        }
    }

    /// Begins a new assignment where the consumer reads on, unless the partition was revoked meanwhile.
    fn take_move(&mut self, moved: Moved, now: Instant) {
        let partition = self.partitions.get_mut(moved.id).filter(|partition| partition.is_moving());
        if let Some(assignment) = partition.zip(moved.start).map(|(partition, start)| partition.rewound(start)) {
            self.assigned(assignment, now);
        }
        self.seeks.call_next(&self.consumer, &self.shared.identity.service);
    }
}
