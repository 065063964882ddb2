//! Snapshots of outbox relays.

use std::fmt::Debug;
use std::time::Duration;

/// A source of snapshots of an outbox relay, for a metrics or health endpoint. It outlives the relay.
///
/// ```
/// use tidings_service::telemetry::{RelaySnapshot, RelayStats};
///
/// /// A relay that has published five records.
/// #[derive(Debug)]
/// struct Five;
///
/// impl RelayStats for Five {
///     fn snapshot(&self) -> RelaySnapshot {
///         let mut snapshot = RelaySnapshot::default();
///         (snapshot.is_running, snapshot.published) = (true, 5);
///         snapshot
///     }
/// }
///
/// assert_eq!(Five.snapshot().published, 5);
/// ```
pub trait RelayStats: Debug + Send + Sync + 'static {
    /// Takes a snapshot, without waiting or I/O.
    fn snapshot(&self) -> RelaySnapshot;
}

/// The counters and the state of an outbox relay at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RelaySnapshot {
    /// Whether the relay runs: it has not ended.
    pub is_running: bool,
    /// Whether the broker or the database fails now, and is retried.
    pub is_failing: bool,
    /// The number of records in flight.
    pub in_flight: usize,
    /// Records published and removed from the outbox since the relay started.
    pub published: u64,
    /// Records that the broker refused since the relay started.
    pub refused: u64,
    /// The last measured state of the whole outbox, which all relays share; `None` before the first measurement.
    pub outbox: Option<OutboxSnapshot>,
}

/// The state of an outbox, as a relay measured it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutboxSnapshot {
    /// The number of records to be published, counted up to a bound of the store.
    pub waiting: u64,
    /// The age of the oldest of them; zero if there is none.
    pub time_lag: Duration,
    /// Records that the broker refused, and that hold back their keys.
    pub holding: u64,
    /// Records that the broker refused, and that were set aside.
    pub parked: u64,
}
