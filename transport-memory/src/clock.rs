//! Clock of the memory backends.

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

    pub(crate) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// Returns the clock's time at `instant`; one before the clock's creation counts as its
    /// creation.
    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        self.start.saturating_add(instant.saturating_duration_since(self.opened))
    }
}
