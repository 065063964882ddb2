//! A steady rate.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Waits are no shorter than this: what is due within it is done at once.
const GRAIN: Duration = Duration::from_millis(10);
/// Delays longer than this are not made up for.
const LATE: Duration = Duration::from_secs(1);

/// When events are due.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.get(), next: Instant::now() }
    }

    /// Returns how long to wait before the next event, if that is worth it.
    pub(crate) fn wait(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.next = self.next.max(now.checked_sub(LATE).unwrap_or(now)) + self.interval;
        let ahead = self.next.saturating_duration_since(now);
        (ahead >= GRAIN).then_some(ahead)
    }
}
