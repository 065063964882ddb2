//! Reading from a replica instead of the leader (KIP-392), and positions that are no longer in the log: records were
//! deleted, or an election truncated it (KIP-320).

use std::ops::RangeInclusive;
use std::time::Duration;

use tidings_core::TopicPartition;
use tokio::time::Instant;

use super::assigned::{AssignedPartition, Stage};
use super::state::State;

/// Time after which the leader is asked again for the nearest replica, as in Java's client.
const REPLICA_AGE: Duration = Duration::from_secs(300);

/// Position of a partition before it was reset to its oldest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreviousPosition {
    /// The offset that would have been fetched next.
    pub(super) next: u64,
    pub(super) committed: Option<u64>,
}

impl State {
    /// Selects a replica of a partition, or its leader again, if this reading is still current.
    pub(super) fn read_from(&mut self, partition: &TopicPartition, ticket: u64, replica: Option<i32>) {
        let current = |assigned: &&mut AssignedPartition| assigned.ticket == ticket && ticket != 0;
        let Some(assigned) = self.assigned.get_mut(partition).filter(current) else { return };
        let replica = replica.filter(|replica| Some(*replica) != assigned.leader);
        if assigned.replica.map(|(replica, _)| replica) != replica {
            assigned.replica = replica.map(|replica| (replica, Instant::now() + REPLICA_AGE));
            self.tickets += 1;
            assigned.ticket = self.tickets;
            self.plan += 1;
        }
    }

    /// Returns the partitions of a replica to their leaders.
    pub(super) fn leave_replica(&mut self, replica: i32) {
        self.leave_replicas(|read, _| read == replica);
    }

    /// Returns partitions to their leaders after [`REPLICA_AGE`].
    pub(super) fn leave_old_replicas(&mut self) {
        let now = Instant::now();
        self.leave_replicas(|_, until| until <= now);
    }

    fn leave_replicas(&mut self, leaves: impl Fn(i32, Instant) -> bool) {
        for assigned in self.assigned.values_mut() {
            if assigned.replica.is_some_and(|(replica, until)| leaves(replica, until)) {
                assigned.replica = None;
                if assigned.ticket != 0 {
                    self.tickets += 1;
                    assigned.ticket = self.tickets;
                }
                self.plan += 1;
            }
        }
    }

    /// Continues at the oldest record, if this reading is still current: a later move takes precedence. If it is
    /// `doubted` that the next offset is out of the log, and the offset is within it, the position stays. Returns the
    /// previous position.
    pub(super) fn restart(
        &mut self,
        partition: &TopicPartition,
        ticket: u64,
        log: RangeInclusive<u64>,
        doubted: bool,
    ) -> Option<PreviousPosition> {
        let assigned = self.assigned.get(partition).filter(|assigned| assigned.ticket == ticket && ticket != 0)?;
        if doubted && log.contains(&assigned.fetched) {
            return None;
        }
        let left = PreviousPosition { next: assigned.fetched, committed: assigned.committed };
        self.move_to(partition, *log.start(), false).ok()?;
        let assigned = self.assigned.get_mut(partition)?;
        // As at an assignment: a commit beyond the log belongs to another log.
        assigned.committed = assigned.committed.filter(|committed| committed <= log.end());
        Some(left)
    }

    /// Continues where a truncated log ends, if this reading is still current. Returns the offset that would have been
    /// fetched next, if it is gone.
    ///
    /// Records before the end that are not handed out yet, and batches that are not unpacked yet, are read again.
    pub(super) fn truncate(&mut self, partition: &TopicPartition, ticket: u64, end: u64) -> Option<u64> {
        let assigned = self.assigned.get(partition).filter(|assigned| assigned.ticket == ticket && ticket != 0)?;
        if assigned.stage != Stage::Reading {
            return None;
        }
        let (next, position) = (assigned.fetched, assigned.position);
        if next <= end {
            // At most batches that the fetcher has yet to unpack are gone.
            self.read_again(partition, ticket);
            return None;
        }
        self.move_to(partition, position.min(end), false).ok()?;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::assigned::Chunk;
    use super::*;

    const LEADER: i32 = 1;
    const REPLICA: i32 = 2;

    /// A partition that is read from offset 5 on, of which 5 to 9 are fetched.
    fn reading() -> (State, TopicPartition) {
        let (mut state, at) = (State::new(1 << 20, Duration::from_secs(10)), TopicPartition::new("t", 0));
        let mut assigned = AssignedPartition::new(at.clone(), 1);
        assigned.stage = Stage::Reading;
        (assigned.ticket, assigned.position, assigned.fetched) = (1, 5, 5);
        assigned.leader = Some(LEADER);
        state.tickets = 1;
        state.assigned.insert(at.clone(), assigned);
        state.accept(&at, 1, Chunk { leader_epoch: Some(3), ..Chunk::gap(10) });
        (state, at)
    }

    fn read_by(state: &State) -> Vec<i32> {
        state.fetchers().into_iter().map(|fetcher| fetcher.broker).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_read_until_it_fails_or_is_old() {
        let (mut state, at) = reading();
        state.read_from(&at, 1, Some(REPLICA));
        assert_eq!(read_by(&state), [REPLICA]);
        state.read_from(&at, 1, None);
        assert_eq!(read_by(&state), [REPLICA], "the reading has ended");
        state.leave_replica(LEADER);
        state.leave_old_replicas();
        assert_eq!(read_by(&state), [REPLICA]);
        state.leave_replica(REPLICA);
        assert_eq!(read_by(&state), [LEADER]);
        let ticket = state.tickets;
        state.read_from(&at, ticket, Some(REPLICA));
        tokio::time::advance(REPLICA_AGE).await;
        state.leave_old_replicas();
        assert_eq!(read_by(&state), [LEADER]);
        assert!(state.tickets > ticket + 1, "what is in flight is dropped");
    }

    #[test]
    fn a_truncated_log_is_read_on_from_its_end() {
        let (mut state, at) = reading();
        assert_eq!(state.truncate(&at, 2, 7), None, "another reading");
        assert_eq!(state.assigned[&at].ticket, 1);
        // Records 5 and 6 are still there, and not handed out yet.
        assert_eq!(state.truncate(&at, 1, 7), Some(10));
        let read = &state.assigned[&at];
        assert_eq!((read.position, read.fetched, read.leader_epoch), (5, 5, None));
        let (mut state, at) = reading();
        assert_eq!(state.truncate(&at, 1, 2), Some(10));
        assert_eq!(state.assigned[&at].position, 2);
    }

    /// Otherwise its fetcher, which stops there, would not continue.
    #[test]
    fn batches_that_are_not_accepted_are_read_again_after_a_truncation() {
        let (mut state, at) = reading();
        let plan = state.plan;
        assert_eq!(state.truncate(&at, 1, 10), None, "nothing accepted is gone");
        let read = &state.assigned[&at];
        assert_eq!((read.position, read.fetched, read.leader_epoch), (5, 10, Some(3)));
        assert!(read.ticket > 1 && state.plan > plan);
    }
}
