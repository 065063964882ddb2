//! Backoff between attempts to connect.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::connection::random_byte;

/// First pause; doubled with each failure, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// A pause is shortened by up to this share, so that clients that failed at the same time retry at different times.
const JITTER_SHARE: u32 = 4;

/// Pauses that grow with each failure.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Returns the remaining time of the pause.
    pub(super) fn left(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Begins the next pause.
    pub(super) fn failed(&mut self) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        let jitter = pause / JITTER_SHARE * u32::from(random_byte()) / u32::from(u8::MAX);
        self.until = Some(Instant::now() + (pause - jitter));
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.left(), Duration::ZERO);
        let mut longest = Duration::ZERO;
        for failure in 0..50_u32 {
            backoff.failed();
            let whole = FIRST.saturating_mul(1 << failure.min(10)).min(LONGEST);
            assert!((whole * 3 / 4..=whole).contains(&backoff.left()), "{failure}: {:?}", backoff.left());
            longest = longest.max(backoff.left());
        }
        assert!(longest <= LONGEST);
        backoff.reset();
        assert_eq!(backoff.left(), Duration::ZERO);
    }
}
