//! Status of a relay.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidings_service::telemetry::{OutboxSnapshot, RelaySnapshot};

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

impl From<&RelayStatus> for RelaySnapshot {
    fn from(status: &RelayStatus) -> Self {
        let mut snapshot = Self::default();
        snapshot.is_running = status.state != RelayState::Stopped;
        snapshot.is_failing = status.problem.is_some();
        snapshot.in_flight = status.in_flight;
        (snapshot.published, snapshot.refused) = (status.published, status.refused);
        snapshot.outbox = status.lag.map(|lag| {
            let mut outbox = OutboxSnapshot::default();
            (outbox.waiting, outbox.time_lag) = (lag.waiting, lag.oldest.unwrap_or_default());
            (outbox.holding, outbox.parked) = (lag.holding, lag.parked);
            outbox
        });
        snapshot
    }
}

/// Where the task writes its status.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<RelayStatus>);

impl Board {
    pub(super) fn read(&self) -> RelayStatus {
        self.lock().clone()
    }

    /// Returns the status without the text of its problem.
    pub(super) fn snapshot(&self) -> RelaySnapshot {
        RelaySnapshot::from(&*self.lock())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_snapshot_has_the_counters_and_no_text() {
        let board = Board::default();
        let lag = OutboxLag { waiting: 3, oldest: Some(Duration::from_secs(9)), holding: 1, parked: 2, delayed: 4 };
        board.write(|status| {
            (status.state, status.problem) = (RelayState::Waiting, Some("s3cr3t".into()));
            (status.published, status.refused, status.lag) = (5, 1, Some(lag));
        });
        let snapshot = board.snapshot();
        assert!(snapshot.is_running && snapshot.is_failing);
        assert_eq!((snapshot.published, snapshot.refused), (5, 1));
        let outbox = snapshot.outbox.expect("it was measured");
        assert_eq!((outbox.waiting, outbox.time_lag, outbox.holding, outbox.parked), (3, Duration::from_secs(9), 1, 2));
        assert!(!format!("{snapshot:?}").contains("s3cr3t"));
        board.stopped();
        assert!(!board.snapshot().is_running);
    }
}
