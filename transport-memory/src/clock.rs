//! Clock of the memory backends.

use std::time::Duration;

use tidings_core::Timestamp;
use tokio::time::Instant;

/// Timestamps by tokio's clock, so that a test that pauses and advances it moves records' times too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Time shown when the clock was created.
    start: Timestamp,
    /// Reading of tokio's clock at that moment.
    opened: Instant,
}

impl Clock {
    /// Creates a clock that shows `start` now, or the wall clock's time if `None`.
    pub(crate) fn new(start: Option<Timestamp>) -> Self {
        Self { start: start.unwrap_or_else(Timestamp::now), opened: Instant::now() }
    }

    /// Returns the instant at which the clock shows `time`: its creation for an earlier time, `None` for a time that
    /// tokio's clock cannot represent.
    pub(crate) fn instant(&self, time: Timestamp) -> Option<Instant> {
        let passed = time.millis().saturating_sub(self.start.millis());
        self.opened.checked_add(Duration::from_millis(u64::try_from(passed).unwrap_or(0)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// Returns the clock's time at `instant`; one before the clock's creation counts as its
    /// creation.
    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        self.start.saturating_add(instant.saturating_duration_since(self.opened))
    }
}
