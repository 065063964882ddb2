//! Waits between requests to a dependency that is down.

use std::time::Duration;

/// The longest wait before the first retry; doubled each time.
pub(super) const BASE: Duration = Duration::from_millis(100);
/// The longest wait before any retry.
const CAP: Duration = Duration::from_secs(10);

/// Returns the wait after the `n`th consecutive failure, from 1.
pub(super) fn backoff(n: u32, random: &mut fastrand::Rng) -> Duration {
    let longest = BASE.saturating_mul(1 << n.clamp(1, 16).saturating_sub(1)).min(CAP);
    // At least half of it: a dependency that is down must not be called in a tight loop.
    longest.mul_f64(0.5 + random.f64() / 2.0)
}
