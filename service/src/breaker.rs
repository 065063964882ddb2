//! The policy of the circuit breaker.
//!
//! Retries protect against a record that fails; the breaker protects against a service that fails at every record, for
//! example because its configuration is wrong after a deployment. Without it, such a service would dead-letter a whole
//! topic.

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
///
/// ```
/// use std::time::Duration;
/// use tidings_core::Delivery;
/// use tidings_service::{Breaker, Router, Service};
///
/// assert_eq!(Breaker::default().base, Breaker::DEFAULT_BASE);
///
/// let router = || Router::new().on_topic("clicks", async |_: Delivery| {});
/// let patient = Breaker::new(Duration::from_secs(10), Duration::from_secs(300));
/// let service = Service::new("meter", router()).with_breaker(patient);
/// let without = Service::new("meter", router()).with_breaker(None);
/// # let _ = (service, without);
/// ```
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
