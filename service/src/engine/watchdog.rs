//! Worker heartbeats, by which a blocked thread is detected.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The time at which a worker's task last got its thread, and the handler it runs.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    /// Milliseconds since the first beat of the process, plus one; 0 while the worker is idle.
    since: AtomicU64,
    handler: AtomicUsize,
}

/// Uses the real clock: threads block in real time, also where tokio's clock is paused.
fn millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Heartbeat {
    pub(crate) fn work(&self) {
        self.since.store(millis() + 1, Ordering::Relaxed);
    }

    pub(crate) fn rest(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn runs(&self, handler: usize) {
        self.handler.store(handler, Ordering::Relaxed);
    }

    /// Returns the handler and how long it has been running, if that is at least `limit`.
    pub(crate) fn blocked_for(&self, limit: Duration) -> Option<(usize, Duration)> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        let time = Duration::from_millis(millis().saturating_sub(since));
        (time >= limit).then(|| (self.handler.load(Ordering::Relaxed), time))
    }
}
