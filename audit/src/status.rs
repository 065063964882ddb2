//! The state of an auditor.

use std::time::Duration;

use tidings_core::Name;

use crate::chain::Checkpoint;

/// The state of an auditor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStatus {
    /// The chain that is being written.
    pub chain: Name,
    /// The last record that the sink has acknowledged.
    pub stored: Option<Checkpoint>,
    /// The number of records that wait for the sink.
    pub waiting: usize,
    /// The number of records that were dropped, because too many waited or the sink takes no such record.
    pub lost: u64,
    /// The number of events that wait to be recorded.
    pub waiting_events: usize,
    /// The number of events that were dropped, because too many waited.
    pub dropped_events: u64,
    /// Number of records after the last checkpoint, whose removal verification would not detect.
    pub since_checkpoint: u64,
    /// Time since the last checkpoint, or since the auditor was created.
    pub checkpoint_age: Duration,
    /// The last error of the sink; `None` while it takes records.
    pub failure: Option<String>,
}

impl AuditStatus {
    /// Returns whether the trail misses records, or may miss some if the program ended now.
    pub fn is_degraded(&self) -> bool {
        self.failure.is_some() || self.lost > 0 || self.dropped_events > 0
    }
}
