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

    /// Returns the epoch of the last batch, if the leader has changed since it was read.
    pub(super) fn to_check(&self, leader: Leader) -> Option<i32> {
        self.read_epoch.filter(|read| *read < leader.epoch && self.checked_epoch != Some(leader.epoch))
    }
}
