//! Status of a relay.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::outbox::OutboxLag;

/// State of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RelayState {
    /// The relay is not connected yet.
    #[default]
    Starting,
    /// The relay publishes records.
    Publishing,
    /// The relay's share of the outbox is empty.
    Idle,
    /// The broker or the database fails and is retried: see [`RelayStatus::problem`].
    Waiting,
    /// The relay has ended.
    Stopped,
}

/// A snapshot of a relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStatus {
    /// Current state.
    pub state: RelayState,
    /// The current failure.
    pub problem: Option<String>,
    /// Number of the outbox's 64 shards that the relay owns.
    pub shards: usize,
    /// Number of records in flight.
    pub in_flight: usize,
    /// Number of records published and deleted since the relay started.
    pub published: u64,
    /// Number of records that the broker refused since the relay started.
    pub refused: u64,
    /// Last measured lag of the whole outbox.
    pub lag: Option<OutboxLag>,
}

impl RelayStatus {
    /// Returns `false` if something fails or refused records hold back their keys.
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
