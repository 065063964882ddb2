//! Retry policy: when a failed delivery is retried, and when it is dead-lettered.
//!
//! Retries happen in place: the record keeps its position, later records of its key wait, and other keys go on. A
//! record that still fails can wait in [retry topics](Retry::then_topics), where it holds back nothing. Only a failure
//! of the record counts; an error of the infrastructure ([`unavailable`](tidings_core::unavailable)) is repeated
//! without limit and uses up no retry.

use std::time::Duration;

use crate::time::FOR_EVER;

impl Retry {
    /// The default of [`Retry::base`].
    pub const DEFAULT_BASE: Duration = Duration::from_millis(100);

    /// The default of [`Retry::cap`].
    pub const DEFAULT_CAP: Duration = Duration::from_secs(30);

    /// The default of [`Retry::max_retries`].
    pub const DEFAULT_MAX_RETRIES: u32 = 3;

    /// The maximum number of [retry topics](Retry::then_topics) of each topic, with the
    /// [former ones](Retry::with_former_topics).
    pub const MAX_TOPICS: usize = 16;
}

/// Exponential backoff with full jitter: retry `n` waits a random time between 0 and `base * 2^(n-1)`, capped at `cap`.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
///
/// ```
/// use std::time::Duration;
///
/// use tidings_core::{BoxError, Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Retry, Router, Service};
///
/// async fn third_time_lucky(delivery: Delivery) -> Result<(), BoxError> {
///     if delivery.attempt() < 3 { Err("not yet".into()) } else { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let (transport, begun) = (MemoryTransport::new(), tokio::time::Instant::now());
/// let retry = Retry::exponential(Duration::from_millis(100)).with_max_retries(5).without_jitter();
/// let router = Router::new().on_topic("clicks", third_time_lucky);
/// let service = Service::new("meter", router).with_retry(retry).start(&transport).await?;
///
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// let totals = service.status().await.totals;
/// assert_eq!((totals.retried, totals.handled), (2, 1));
/// assert!(begun.elapsed() >= Duration::from_millis(100 + 200));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// The longest wait before the first retry. Defaults to [`Retry::DEFAULT_BASE`].
    pub base: Duration,
    /// The longest wait before any retry. Defaults to [`Retry::DEFAULT_CAP`].
    pub cap: Duration,
    /// The number of retries before a record is forwarded or dead-lettered. Defaults to [`Retry::DEFAULT_MAX_RETRIES`].
    pub max_retries: u32,
    /// Whether the wait is random; without jitter it is the longest one, so that tests can rely on it.
    pub jitter: bool,
    /// The delays of the retry topics, in their order; see [`then_topics`](Retry::then_topics). Defaults to none.
    pub topics: Vec<Duration>,
    /// The delays of retry topics that are only read; see [`with_former_topics`](Retry::with_former_topics). Defaults to
    /// none.
    pub former_topics: Vec<Duration>,
    /// The maximum difference between the clocks of the hosts: records wait that much longer in retry topics. Defaults
    /// to zero.
    pub max_clock_skew: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self::exponential(Retry::DEFAULT_BASE)
    }
}

impl Retry {
    /// Creates a policy with waits of up to `base`, twice that, four times that and so on.
    pub const fn exponential(base: Duration) -> Self {
        Self {
            base,
            cap: Retry::DEFAULT_CAP,
            max_retries: Retry::DEFAULT_MAX_RETRIES,
            jitter: true,
            topics: Vec::new(),
            former_topics: Vec::new(),
            max_clock_skew: Duration::ZERO,
        }
    }

    /// Creates a policy without retries: the first failure is final.
    pub const fn never() -> Self {
        Self::exponential(Retry::DEFAULT_BASE).with_max_retries(0)
    }

    /// Sets the number of retries after the first attempt.
    #[must_use]
    pub const fn with_max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// Caps each wait at `cap`.
    #[must_use]
    pub const fn with_cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Disables jitter: each wait is the longest one.
    #[must_use]
    pub const fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// Adds retry topics: a record that has used up its retries waits in each of them in turn, with one more attempt
    /// after each delay. After the last attempt it is dead-lettered.
    ///
    /// Meanwhile the record holds back neither its key nor the committed offset: later records of its key are handled
    /// before it, so the order of a failing key is given up. The topic of a delay is `<topic>-retry-<service>-<delay>`,
    /// such as `orders-retry-billing-30s`; [`Service::retry_topics`](crate::Service::retry_topics) returns all of them.
    /// The service creates them by its [`TopicPolicy::Create`](crate::TopicPolicy::Create).
    ///
    /// An attempt starts when the clock of the service that reads the record has passed the due time and
    /// [`max_clock_skew`](Self::with_max_clock_skew) in addition, and at the latest a minute after the delay and that time
    /// have passed since it was fetched, in case the clock of the service that forwarded it was wrong. A record that is
    /// [rejected](tidings_core::reject), or that cannot be decoded, is dead-lettered at once.
    ///
    /// `start` refuses a delay below 1 ms, equal delays, more than [`Retry::MAX_TOPICS`], and impossible names.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use tidings_core::{BoxError, Delivery, PublisherExt, Record, Transport};
    /// # use tidings_memory::MemoryTransport;
    /// use tidings_service::{Retry, Router, Service};
    /// async fn bill(delivery: Delivery) -> Result<(), BoxError> {
    ///     if delivery.attempt() < 3 { Err("the ledger is closed".into()) } else { Ok(()) }
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let retry = Retry::exponential(Duration::ZERO).with_max_retries(1).then_topics([Duration::from_secs(30)]);
    /// let transport = MemoryTransport::new();
    /// let router = Router::new().on_topic("orders", bill);
    /// let service = Service::new("billing", router).with_retry(retry).start(&transport).await?;
    ///
    /// transport.publisher().await?.publish_one(Record::new("orders", "o1")).await?;
    /// service.caught_up().await?;
    /// assert_eq!(service.snapshot().waiting(), 1);
    /// tokio::time::sleep(Duration::from_secs(30)).await;
    /// service.caught_up().await?;
    /// assert_eq!((service.snapshot().waiting(), service.snapshot().totals().handled), (0, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn then_topics(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.topics = delays.into_iter().collect();
        self
    }

    /// Reads the retry topics of delays that were removed from [`then_topics`](Self::then_topics), and puts no records in
    /// them: what waits there is tried once more, and then waits for the next longer delay, or is dead-lettered.
    ///
    /// Without this nothing reads what waits in the topics of a removed delay, and it is lost when their retention ends.
    /// Remove the delay here when all instances run this policy and the topics are empty. The constraints are those of
    /// `then_topics`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tidings_service::Retry;
    ///
    /// let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    /// // It was `then_topics([minutes(1), minutes(5), minutes(60)])`.
    /// let retry = Retry::default().then_topics([minutes(1), minutes(60)]).with_former_topics([minutes(5)]);
    /// assert_eq!(retry.former_topics, [minutes(5)]);
    /// ```
    #[must_use]
    pub fn with_former_topics(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.former_topics = delays.into_iter().collect();
        self
    }

    /// Sets the maximum difference between the clocks of the hosts: records wait that much longer in retry topics.
    #[must_use]
    pub const fn with_max_clock_skew(mut self, skew: Duration) -> Self {
        self.max_clock_skew = skew;
        self
    }

    /// Returns the longest wait before retry `n`, from 1.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings_service::Retry;
    ///
    /// let retry = Retry::exponential(Duration::from_millis(100)).with_cap(Duration::from_millis(300));
    /// assert_eq!([1, 2, 3, 4].map(|n| retry.longest_wait(n).as_millis()), [100, 200, 300, 300]);
    /// ```
    pub fn longest_wait(&self, n: u32) -> Duration {
        let factor = 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// Returns the wait before retry `n`, where `random` is uniform between 0 and 1.
    pub(crate) fn wait(&self, n: u32, random: f64) -> Duration {
        // For durations beyond any clock a product would overflow.
        let longest = self.longest_wait(n).min(FOR_EVER);
        if self.jitter { longest.mul_f64(random.clamp(0.0, 1.0)) } else { longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let retry = Retry::exponential(Duration::from_millis(100)).with_cap(Duration::from_secs(1)).without_jitter();
        let waits: Vec<_> = (1..=6).map(|n| retry.wait(n, 0.3).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(retry.longest_wait(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn waits_beyond_all_clocks_are_for_ever() {
        let retry = Retry::exponential(Duration::MAX).with_cap(Duration::MAX);
        assert_eq!(retry.wait(1, 1.0), FOR_EVER);
        assert_eq!(retry.wait(u32::MAX, 0.0), Duration::ZERO);
    }

    #[test]
    fn jitter_is_drawn_from_the_whole_wait() {
        let retry = Retry::exponential(Duration::from_millis(100));
        assert_eq!(retry.wait(2, 0.0), Duration::ZERO);
        assert_eq!(retry.wait(2, 0.5), Duration::from_millis(100));
        assert_eq!(retry.wait(2, 1.0), Duration::from_millis(200));
    }
}
