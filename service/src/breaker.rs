//! The policy of the circuit breaker.

use std::time::Duration;

impl Breaker {
    /// The default of [`Breaker::base`].
    pub const DEFAULT_BASE: Duration = Duration::from_secs(1);

    /// The default of [`Breaker::cap`].
    pub const DEFAULT_CAP: Duration = Duration::from_secs(60);

    /// The number of most recent deliveries that the breaker evaluates.
    pub const WINDOW: usize = 100;
}

/// A circuit breaker, which opens when more than half of the last [`Breaker::WINDOW`] deliveries failed.
///
/// It keeps a failing service from draining its topics into the dead-letter topics. Half-open, it tries one delivery
/// at a time, with backoff, until one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// The wait before the first probe, doubled after each failed probe. Defaults to [`Breaker::DEFAULT_BASE`].
    pub base: Duration,
    /// The longest wait between probes. Defaults to [`Breaker::DEFAULT_CAP`].
    pub cap: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { base: Breaker::DEFAULT_BASE, cap: Breaker::DEFAULT_CAP }
    }
}

impl Breaker {
    /// Creates a breaker that probes after `base`, twice that and so on, at most `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }
}
