//! What a relay tells of itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::outbox::OutboxLag;

/// What a relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RelayState {
    /// It is not connected yet.
    #[default]
    Starting,
    /// It publishes.
    Publishing,
    /// There is nothing to publish in its share.
    Idle,
    /// The broker or the database fails, and is tried again: see [`RelayStatus::problem`].
    Waiting,
    /// It has ended.
    Stopped,
}

/// A relay at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStatus {
    /// What it is doing.
    pub state: RelayState,
    /// What fails now.
    pub problem: Option<String>,
    /// How many of the outbox's 64 shards are its own.
    pub shards: usize,
    /// Records that are with the publisher.
    pub in_flight: usize,
    /// Records that were published and deleted since it began.
    pub published: u64,
    /// Records that the broker refused since it began.
    pub refused: u64,
    /// The lag when it was last measured, of the whole outbox.
    pub lag: Option<OutboxLag>,
}

impl RelayStatus {
    /// Whether somebody should look: something fails, or refused records hold back their keys.
    pub fn is_healthy(&self) -> bool {
        self.problem.is_none() && self.lag.is_none_or(|lag| lag.holding == 0)
    }
}

/// Where the task writes its status.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<RelayStatus>);

impl Board {
    pub(super) fn read(&self) -> RelayStatus {
        self.lock().clone()
    }

    pub(super) fn write(&self, change: impl FnOnce(&mut RelayStatus)) {
        change(&mut self.lock());
    }

    pub(super) fn stopped(&self) {
        self.write(|status| {
            (status.state, status.shards, status.in_flight) = (RelayState::Stopped, 0, 0);
        });
    }

    fn lock(&self) -> MutexGuard<'_, RelayStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
