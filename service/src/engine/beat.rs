//! Whether a worker comes back from its handlers: one that does not has had its thread blocked.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// When a worker's task was last given its thread, and what it runs there.
#[derive(Debug, Default)]
pub(crate) struct Beat {
    /// Milliseconds after the first beat of all, plus one; 0 while the worker rests.
    since: AtomicU64,
    handler: AtomicUsize,
}

/// The real clock: a thread is blocked in real time, also where tokio's clock is paused.
fn millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Beat {
    pub(crate) fn work(&self) {
        self.since.store(millis() + 1, Ordering::Relaxed);
    }

    pub(crate) fn rest(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn runs(&self, handler: usize) {
        self.handler.store(handler, Ordering::Relaxed);
    }

    /// The handler, and for how long, if it is longer than `limit`.
    pub(crate) fn blocked_for(&self, limit: Duration) -> Option<(usize, Duration)> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        let time = Duration::from_millis(millis().saturating_sub(since));
        (time >= limit).then(|| (self.handler.load(Ordering::Relaxed), time))
    }
}
