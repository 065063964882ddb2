//! Durations beyond any clock's range.
//!
//! Users write `Duration::MAX` for "no limit", and `Instant + Duration::MAX` panics. Every deadline from a user's
//! setting is computed by [`after`].

use std::time::Duration;

use tokio::time::Instant;

/// A duration longer than any process runs.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// Returns `from` plus `time`. A user's duration may exceed the clock's range: it then counts as without end.
pub(crate) fn after(from: Instant, time: Duration) -> Instant {
    from + time.min(FOR_EVER)
}
