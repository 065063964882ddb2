//! Time as the memory backends see it.

use tidings_core::Timestamp;
use tokio::time::Instant;

/// Timestamps by tokio's clock, so that a test that pauses and advances it moves records' times too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Timestamp,
    opened: Instant,
}

impl Clock {
    /// A clock that shows `start` now; the wall clock's time, if none is given.
    pub(crate) fn new(start: Option<Timestamp>) -> Self {
        Self { start: start.unwrap_or_else(Timestamp::now), opened: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        self.start.saturating_add(instant.saturating_duration_since(self.opened))
    }
}
