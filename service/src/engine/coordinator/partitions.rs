//! The assignments of this service: at most one per partition that is current, and others that are ending.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidings_core::{Assignment, Commit, ErrorKind, Progress, TopicPartition};
use tokio::time::Instant;

use super::partition::{Dispatch, Partition};
use super::revocation::{Leave, LeaveStep};
use crate::engine::assigned::AssignmentId;
use crate::engine::tiers::Level;
use crate::status::{Hold, PartitionStatus, ReturnedPartition};

/// All assignments, by their ids.
#[derive(Debug)]
pub(super) struct Partitions {
    all: BTreeMap<AssignmentId, Partition>,
    /// The current assignment of each partition.
    current: HashMap<TopicPartition, AssignmentId>,
    next_id: AssignmentId,
    /// How long deliveries may go on when their partition is revoked.
    limit: Duration,
}

/// The progress of all assignments that end.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// Work in flight that must be cancelled.
    pub(super) cancel: Vec<AssignmentId>,
    /// Something is settled and not committed.
    pub(super) commit: bool,
    /// Assignments whose partition the group has taken.
    pub(super) forget: Vec<AssignmentId>,
    /// Assignments whose position may be moved.
    pub(super) moves: Vec<AssignmentId>,
}

/// An assignment that was removed.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) bytes: usize,
    pub(super) returned: Option<ReturnedPartition>,
    /// Batches that a later assignment of the partition may dispatch now.
    pub(super) begun: Vec<(AssignmentId, Vec<Dispatch>)>,
}

impl Partitions {
    pub(super) fn new(limit: Duration) -> Self {
        Self { all: BTreeMap::new(), current: HashMap::new(), next_id: 1, limit }
    }

    /// Returns an assignment to change it.
    pub(super) fn get_mut(&mut self, id: AssignmentId) -> Option<&mut Partition> {
        let partition = self.all.get_mut(&id)?;
        partition.watch.touch();
        Some(partition)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.all.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (AssignmentId, &mut Partition)> {
        self.all.iter_mut().map(|(id, partition)| (*id, partition))
    }

    /// Returns the current assignment of a partition, to change it.
    pub(super) fn current(&mut self, partition: &TopicPartition) -> Option<(AssignmentId, &mut Partition)> {
        let id = *self.current.get(partition)?;
        Some((id, self.get_mut(id)?))
    }

    pub(super) fn ids(&self) -> Vec<AssignmentId> {
        self.all.keys().copied().collect()
    }

    /// Adds an assignment; returns its id, and the earlier ones of the partition whose end begins with it. Work that is
    /// left of earlier ones must end before the new one begins.
    pub(super) fn assign(
        &mut self,
        assignment: Assignment,
        tier: Option<Level>,
        now: Instant,
    ) -> (AssignmentId, Vec<AssignmentId>) {
        let mut replaced = Vec::new();
        self.current.remove(&assignment.partition);
        let mut behind = false;
        for (id, older) in self.all.iter_mut().filter(|(_, p)| *p.origin() == assignment.partition) {
            behind = true;
            if older.leave(Leave::Replaced, self.limit, now) {
                replaced.push(*id);
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        self.all.insert(id, Partition::new(id, &assignment, behind, tier));
        self.current.insert(assignment.partition, id);
        (id, replaced)
    }

    /// Begins the end of an assignment; returns whether it had not begun before.
    pub(super) fn leave(&mut self, id: AssignmentId, leave: Leave, now: Instant) -> bool {
        let limit = self.limit;
        self.get_mut(id).is_some_and(|partition| partition.leave(leave, limit, now))
    }

    /// Ends that a partition has a current assignment: another member may own it already.
    pub(super) fn lose(&mut self, partition: &TopicPartition) -> Option<AssignmentId> {
        self.current.remove(partition)
    }

    /// Advances each assignment that ends as far as possible.
    pub(super) fn advance(&mut self, now: Instant) -> Endings {
        let mut endings = Endings::default();
        for (id, partition) in &mut self.all {
            match partition.poll_leave(now) {
                None | Some(LeaveStep::Wait | LeaveStep::Release) => {}
                Some(LeaveStep::Cancel) => endings.cancel.push(*id),
                Some(LeaveStep::Commit) => endings.commit = true,
                Some(LeaveStep::Forget) => endings.forget.push(*id),
                Some(LeaveStep::Move) => endings.moves.push(*id),
            }
        }
        endings
    }

    /// Returns the assignments of which only the release is left.
    pub(super) fn ended(&self) -> (Vec<AssignmentId>, Vec<TopicPartition>) {
        let ended = self.all.iter().filter(|(_, partition)| partition.has_ended());
        ended.map(|(id, partition)| (*id, partition.origin().clone())).unzip()
    }

    /// Removes an assignment that has ended.
    pub(super) fn remove(&mut self, id: AssignmentId) -> Option<Removed> {
        let partition = self.all.remove(&id)?;
        let origin = partition.origin();
        if self.current.get(origin) == Some(&id) {
            self.current.remove(origin);
        }
        let removed = Removed { bytes: partition.bytes(), returned: partition.returned(), begun: Vec::new() };
        Some(Removed { begun: self.earlier_ended(origin), ..removed })
    }

    fn earlier_ended(&mut self, origin: &TopicPartition) -> Vec<(AssignmentId, Vec<Dispatch>)> {
        let Some(later) = self.current.get(origin).copied() else { return Vec::new() };
        let has_others = self.all.iter().any(|(id, p)| *id != later && p.origin() == origin);
        let later =
            self.all.get_mut(&later).filter(|_| !has_others).map(|partition| (later, partition.earlier_ended()));
        later.into_iter().collect()
    }

    /// Returns the commits of all positions that have changed, which are attempted now.
    pub(super) fn next_commits(&mut self) -> Vec<(AssignmentId, Commit)> {
        self.all.iter_mut().filter_map(|(id, partition)| Some((*id, partition.next_commit()?))).collect()
    }

    /// Returns the hold that `offset` of `partition` begins.
    pub(super) fn hold_at(&self, partition: &TopicPartition, offset: u64) -> Result<(AssignmentId, Hold), Unheld> {
        let current = self.current.get(partition).and_then(|id| Some((*id, self.all.get(id)?)));
        let (id, partition) = current.filter(|(_, partition)| !partition.is_leaving()).ok_or(Unheld::NotAssigned)?;
        let hold = partition.holds().into_iter().find(|hold| hold.offset == offset).ok_or(Unheld::NotHeld)?;
        Ok((id, hold))
    }

    /// Updates the ends of logs; returns whether all partitions are known and committed up to their ends.
    pub(super) fn progressed(&mut self, progress: &[Progress]) -> bool {
        for Progress { partition, end, .. } in progress {
            if let Some((_, partition)) = self.current(partition) {
                partition.set_end(*end);
            }
        }
        self.current.len() == progress.len() && self.iter().all(Partition::is_at_end)
    }

    /// Returns the assignments that have a step or a record that is due.
    pub(super) fn due_now(&self, now: Instant) -> Vec<AssignmentId> {
        let is_due = |partition: &Partition| partition.due().is_some_and(|due| due <= now);
        self.all.iter().filter(|(_, partition)| is_due(partition)).map(|(id, _)| *id).collect()
    }

    /// Returns when the next step of an assignment that ends, or a record of a retry topic, is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.iter().filter_map(Partition::due).min()
    }

    /// Returns the status of each partition that is not being given back, sorted.
    pub(super) fn status(&self) -> Vec<PartitionStatus> {
        let mut partitions: Vec<_> = self.iter().filter(|p| !p.is_leaving()).map(Partition::status).collect();
        partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
        partitions
    }
}

/// The reason why there is no hold at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unheld {
    NotAssigned,
    NotHeld,
}

impl Unheld {
    pub(super) fn reason(self) -> (ErrorKind, &'static str) {
        match self {
            Self::NotAssigned => (ErrorKind::NotFound, "the partition is not assigned to this instance"),
            Self::NotHeld => (ErrorKind::Conflict, "the partition is not held there"),
        }
    }
}
