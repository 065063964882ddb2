//! State of a partition in a native reader.

use std::time::Duration;

use tokio::time::Instant;

use super::super::fetch_buffer::FetchTarget;
use crate::wire::cluster::Leader;

/// State of a partition in a native reader.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) target: FetchTarget,
    /// Offset of the next fetch.
    pub(super) next: u64,
    /// Epoch of the leader that appended the last batch.
    pub(super) read_epoch: Option<i32>,
    /// Epoch of the leader whose log was found to contain the records read.
    pub(super) checked_epoch: Option<i32>,
    /// Consecutive refusals.
    pub(super) refused: u32,
    /// Not fetched before this time.
    pub(super) paused: Option<Instant>,
    /// Not fetched until the reading ends: its next batch cannot be read.
    pub(super) stopped: bool,
}

impl Reading {
    pub(super) fn new(target: FetchTarget) -> Self {
        Self {
            next: target.from,
            read_epoch: target.leader_epoch,
            checked_epoch: None,
            refused: 0,
            paused: None,
            stopped: false,
            target,
        }
    }

    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        !self.target.held && !self.stopped && self.paused.is_none_or(|until| until <= now)
    }

    /// Pauses fetching.
    pub(super) fn pause(&mut self, pause: Duration) {
        self.paused = Some(Instant::now() + pause);
    }

    /// Returns the epoch of the last batch, if the leader has changed since it was read, and is the `broker` read from:
    /// a replica refuses the check.
    pub(super) fn to_check(&self, leader: Leader, broker: i32) -> Option<i32> {
        if leader.broker != broker {
            return None;
        }
        self.read_epoch.filter(|read| *read < leader.epoch && self.checked_epoch != Some(leader.epoch))
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::TopicPartition;

    use super::*;

    /// Otherwise reading from a replica would not continue after an election: it answers that it does not lead.
    #[test]
    fn the_epoch_is_checked_at_the_leader_only() {
        let partition = TopicPartition::new("t", 0);
        let target = FetchTarget { partition, ticket: 1, from: 5, leader_epoch: Some(5), held: false };
        let mut reading = Reading::new(target);
        let leader = Leader { broker: 1, epoch: 9 };
        assert_eq!(reading.to_check(leader, 1), Some(5));
        assert_eq!(reading.to_check(leader, 2), None, "a replica");
        reading.checked_epoch = Some(9);
        assert_eq!(reading.to_check(leader, 1), None);
    }
}
