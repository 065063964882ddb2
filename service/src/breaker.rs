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
/// It keeps a failing service from draining its topics into the dead-letter topics. Half-open, it tries one delivery at
/// a time, with backoff, until one succeeds.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{Delivery, Publisher, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Breaker, Retry, Router, Service, ServiceState};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let router = Router::new().on_topic("clicks", async |_: Delivery| Err::<(), _>("wrong password"));
/// let service = Service::new("meter", router)
///     .with_retry(Retry::never())
///     .with_breaker(Breaker::new(Duration::from_secs(10), Duration::from_secs(300)))
///     .start(&transport)
///     .await?;
///
/// let clicks = (0..1_000).map(|_| Record::new("clicks", "home")).collect();
/// transport.publisher().await?.publish(clicks).await;
/// let degraded = async {
///     while service.status().await.state != ServiceState::Degraded {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///     }
/// };
/// tokio::time::timeout(Duration::from_secs(5), degraded).await.expect("the breaker opens");
/// assert!(service.status().await.totals.dead_lettered < 1_000, "the others wait");
/// # Ok(())
/// # }
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
