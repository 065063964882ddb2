//! Reports a publisher that the brokers throttle.

use std::time::{Duration, Instant};

use tracing::warn;

/// Shorter delays are not reported.
const THROTTLED: Duration = Duration::from_millis(100);
/// Minimum time between two reports.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// When a throttled publisher was last reported.
#[derive(Debug, Default)]
pub(super) struct Throttle(Option<Instant>);

impl Throttle {
    /// Reports a delay that a broker announced, unless one was reported recently.
    pub(super) fn note(&mut self, throttled: Duration, now: Instant) {
        let is_due = self.0.is_none_or(|at| now.saturating_duration_since(at) >= LOGGED_EVERY);
        if throttled < THROTTLED || !is_due {
            return;
        }
        self.0 = Some(now);
        warn!(
            ?throttled,
            "the brokers throttle this publisher: its user or client id exceeds a quota, and records wait; raise the quota (producer_byte_rate, request_percentage), or publish less"
        );
    }
}
