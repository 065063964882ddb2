//! Settings of one handler.
//!
//! They are set where the handler is added, by [`HandlerExt`](crate::HandlerExt), because they belong to the function:
//! a batch size depends on what it does with a batch. Settings of all handlers are those of
//! [`Service`](crate::Service).

use std::time::Duration;

use tidings_core::Name;

impl BatchOptions {
    /// The default of [`BatchOptions::size`].
    pub const DEFAULT_SIZE: usize = 128;
    /// The default of [`BatchOptions::wait`].
    pub const DEFAULT_WAIT: Duration = Duration::from_millis(20);
}

/// The size of a handler's batches, and how long an incomplete batch waits for more records.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{PublisherExt, RawBatch, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{BatchOptions, HandlerExt, Router, Service};
///
/// async fn store(batch: RawBatch) {
///     assert!(batch.0.len() <= 2);
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let (transport, wait) = (MemoryTransport::new(), Duration::from_millis(100));
/// let router = Router::new().on_topic("clicks", store.batch(BatchOptions::new(2).with_wait(wait)));
/// let service = Service::new("meter", router).start(&transport).await?;
///
/// let begun = tokio::time::Instant::now();
/// for page in ["home", "cart", "checkout"] {
///     transport.publisher().await?.publish_one(Record::new("clicks", page)).await?;
/// }
/// service.caught_up().await?;
/// assert!(begun.elapsed() >= wait, "the third waits for a fourth");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// The maximum number of records per batch, at least 1. Defaults to [`BatchOptions::DEFAULT_SIZE`].
    pub size: usize,
    /// How long an incomplete batch waits for more records. Defaults to [`BatchOptions::DEFAULT_WAIT`]; zero takes what is
    /// available.
    pub wait: Duration,
}

impl BatchOptions {
    /// Creates options for batches of at most `size` records (0 counts as 1).
    pub fn new(size: usize) -> Self {
        Self { size: size.max(1), wait: BatchOptions::DEFAULT_WAIT }
    }

    /// Sets how long an incomplete batch waits for more records.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self::new(BatchOptions::DEFAULT_SIZE)
    }
}

/// A maximum rate of deliveries, in any period of a length, not in periods of a clock.
///
/// ```
/// use std::time::Duration;
/// use tidings_service::RateLimit;
///
/// let rate = RateLimit::new(100, Duration::from_secs(1));
/// assert_eq!(rate.deliveries, 100);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// The maximum number of deliveries in any period. A batch counts as one.
    pub deliveries: usize,
    /// The period.
    pub per: Duration,
}

impl RateLimit {
    /// Allows at most `deliveries` in any period of `per`. For a value of zero the service's `start` returns an error.
    pub fn new(deliveries: usize, per: Duration) -> Self {
        Self { deliveries, per }
    }
}

/// A handler's name, batch options and limits, set by [`HandlerExt`](crate::HandlerExt).
///
/// ```
/// use std::time::Duration;
/// use tidings_core::{Delivery, RawBatch};
/// use tidings_service::{BatchOptions, Handler, HandlerExt};
///
/// async fn count(_: RawBatch) {}
///
/// let options = count.named("count").batch(BatchOptions::new(500).with_wait(Duration::ZERO)).options();
/// assert_eq!((options.name.as_deref(), options.batch.map(|batch| batch.size)), (Some("count"), Some(500)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerOptions {
    /// The stable name; `None` stands for the event's type.
    pub name: Option<Name>,
    /// The options of a batch handler.
    pub batch: Option<BatchOptions>,
    /// The maximum number of deliveries in flight; `None` for no limit but the service's.
    pub concurrency: Option<usize>,
    /// The maximum rate of deliveries; `None` for no limit.
    pub rate: Option<RateLimit>,
}
