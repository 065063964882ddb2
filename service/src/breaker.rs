//! The policy of the circuit breaker.

use std::time::Duration;

/// The default of [`Breaker::base`].
pub const DEFAULT_BREAKER_BASE: Duration = Duration::from_secs(1);
/// The default of [`Breaker::cap`].
pub const DEFAULT_BREAKER_CAP: Duration = Duration::from_secs(60);
/// The number of most recent deliveries that the breaker evaluates.
pub const BREAKER_WINDOW: usize = 100;

/// A circuit breaker, which opens when more than half of the last [`BREAKER_WINDOW`] deliveries failed.
///
/// It keeps a failing service from draining its topics into the dead-letter topics. Half-open, it tries one delivery
/// at a time, with backoff, until one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// The wait before the first probe, doubled after each failed probe. Defaults to [`DEFAULT_BREAKER_BASE`].
    pub base: Duration,
    /// The longest wait between probes. Defaults to [`DEFAULT_BREAKER_CAP`].
    pub cap: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { base: DEFAULT_BREAKER_BASE, cap: DEFAULT_BREAKER_CAP }
    }
}

impl Breaker {
    /// Creates a breaker that probes after `base`, twice that and so on, at most `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }
}
