//! Configuration of a relay.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result};

impl RelayConfig {
    /// Default of [`RelayConfig::batch_records`].
    pub const DEFAULT_BATCH_RECORDS: usize = 1_000;

    /// Default of [`RelayConfig::batch_bytes`].
    pub const DEFAULT_BATCH_BYTES: usize = 8 << 20;

    /// Default of [`RelayConfig::records_per_key`].
    pub const DEFAULT_RECORDS_PER_KEY: usize = 1;

    /// Default of [`RelayConfig::poll_interval`].
    pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);

    /// Default of [`RelayConfig::lag_interval`].
    pub const DEFAULT_LAG_INTERVAL: Duration = Duration::from_secs(10);

    /// Default of [`RelayConfig::retry_base`].
    pub const DEFAULT_RETRY_BASE: Duration = Duration::from_millis(100);

    /// Default of [`RelayConfig::retry_cap`].
    pub const DEFAULT_RETRY_CAP: Duration = Duration::from_secs(10);

    /// Upper limit of a relay's intervals.
    pub const MAX_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3_600);

    /// A relay that does not contact the server for this long (frozen, cut off) loses its share of the outbox to other
    /// relays. Servers before version 14 detect only a closed connection.
    pub const LEASE: Duration = Duration::from_secs(30);
}

/// Policy for records that the broker refuses permanently: too large, denied, no such topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Refused {
    /// The record holds back the later records of its key until an operator [retries](crate::Outbox::retry) or
    /// [discards](crate::Outbox::discard) it. Other keys go on.
    #[default]
    HoldKey,
    /// The record is parked, and the later records of its key are published without it.
    Park,
}

/// Settings of a [`Relay`](crate::Relay).
///
/// ```
/// use std::time::Duration;
/// use tidings_postgres::{Refused, RelayConfig};
///
/// let config = RelayConfig::default().with_refused(Refused::Park).with_poll_interval(Duration::from_secs(5));
/// assert_eq!(config.refused, Refused::Park);
/// assert_eq!(config.records_per_key, RelayConfig::DEFAULT_RECORDS_PER_KEY); // one: strict order
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// Maximum number of records in memory: [`RelayConfig::DEFAULT_BATCH_RECORDS`].
    pub batch_records: usize,
    /// Maximum number of bytes in memory, exceeded by at most one record: [`RelayConfig::DEFAULT_BATCH_BYTES`].
    pub batch_bytes: usize,
    /// Maximum number of records of one key in flight: [`RelayConfig::DEFAULT_RECORDS_PER_KEY`]. More than one raises
    /// a key's throughput, but if the broker fails one of them, later ones may be published before it.
    pub records_per_key: usize,
    /// Interval of polling for records: [`RelayConfig::DEFAULT_POLL_INTERVAL`].
    pub poll_interval: Duration,
    /// Whether the relay also listens for notifications, which takes a connection; `true` by default.
    pub listen: bool,
    /// Interval of measuring the lag: [`RelayConfig::DEFAULT_LAG_INTERVAL`].
    pub lag_interval: Duration,
    /// Maximum backoff after a first failure of the broker or the database: [`RelayConfig::DEFAULT_RETRY_BASE`]. It
    /// doubles with each further failure; the actual backoff is drawn at random up to it.
    pub retry_base: Duration,
    /// Maximum backoff after any failure: [`RelayConfig::DEFAULT_RETRY_CAP`].
    pub retry_cap: Duration,
    /// Policy for records that the broker refuses permanently.
    pub refused: Refused,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch_records: RelayConfig::DEFAULT_BATCH_RECORDS,
            batch_bytes: RelayConfig::DEFAULT_BATCH_BYTES,
            records_per_key: RelayConfig::DEFAULT_RECORDS_PER_KEY,
            poll_interval: RelayConfig::DEFAULT_POLL_INTERVAL,
            listen: true,
            lag_interval: RelayConfig::DEFAULT_LAG_INTERVAL,
            retry_base: RelayConfig::DEFAULT_RETRY_BASE,
            retry_cap: RelayConfig::DEFAULT_RETRY_CAP,
            refused: Refused::default(),
        }
    }
}

impl RelayConfig {
    /// Sets the maximum number of records in memory.
    #[must_use]
    pub fn with_batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// Sets the maximum number of bytes in memory, exceeded by at most one record.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets the maximum number of records of one key in flight.
    #[must_use]
    pub fn with_records_per_key(mut self, records: usize) -> Self {
        self.records_per_key = records;
        self
    }

    /// Sets the polling interval.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets whether the relay listens for notifications.
    #[must_use]
    pub fn with_listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// Sets the interval of measuring the lag.
    #[must_use]
    pub fn with_lag_interval(mut self, interval: Duration) -> Self {
        self.lag_interval = interval;
        self
    }

    /// Sets the backoff: up to `base` after a first failure, doubled with each further one, and at most `cap`.
    #[must_use]
    pub fn with_retry(mut self, base: Duration, cap: Duration) -> Self {
        (self.retry_base, self.retry_cap) = (base, cap);
        self
    }

    /// Sets the policy for records that the broker refuses permanently.
    #[must_use]
    pub fn with_refused(mut self, refused: Refused) -> Self {
        self.refused = refused;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let positive = [
            ("batch_records", self.batch_records > 0),
            ("batch_bytes", self.batch_bytes > 0),
            ("records_per_key", self.records_per_key > 0),
            ("poll_interval", !self.poll_interval.is_zero()),
            ("lag_interval", !self.lag_interval.is_zero()),
            ("retry_base", !self.retry_base.is_zero()),
            ("retry_cap", self.retry_cap >= self.retry_base),
        ];
        let longest =
            [("poll_interval", self.poll_interval), ("lag_interval", self.lag_interval), ("retry_cap", self.retry_cap)];
        if let Some((name, _)) = positive.into_iter().find(|(_, good)| !good) {
            return Err(Error::new(ErrorKind::Invalid, format!("start a relay: {name} is too small")));
        }
        match longest.into_iter().find(|(_, time)| *time > RelayConfig::MAX_INTERVAL) {
            Some((name, _)) => Err(Error::new(
                ErrorKind::Invalid,
                format!("start a relay: {name} is above {:?}", RelayConfig::MAX_INTERVAL),
            )),
            None => Ok(()),
        }
    }

    /// Returns the backoff after failure `n`, from 1.
    pub(super) fn backoff(&self, n: u32) -> Duration {
        let factor = 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        self.retry_base.saturating_mul(factor).min(self.retry_cap).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let zero = RelayConfig::default().with_batch_records(0);
        assert!(zero.check().unwrap_err().to_string().contains("batch_records"));
        RelayConfig::default().check().unwrap();
    }

    #[test]
    fn a_time_that_the_clock_can_not_add_is_named() {
        let config = RelayConfig::default;
        let long = RelayConfig::MAX_INTERVAL + Duration::from_nanos(1);
        for (wrong, name) in [
            (config().with_poll_interval(long), "poll_interval"),
            (config().with_lag_interval(Duration::MAX), "lag_interval"),
            (config().with_retry(RelayConfig::DEFAULT_RETRY_BASE, long), "retry_cap"),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(name), "{error}");
        }
        config()
            .with_poll_interval(RelayConfig::MAX_INTERVAL)
            .with_lag_interval(RelayConfig::MAX_INTERVAL)
            .check()
            .unwrap();
    }

    #[test]
    fn waits_are_drawn_from_zero_to_a_bound_that_doubles_up_to_the_cap() {
        let config = RelayConfig::default().with_retry(Duration::from_millis(100), Duration::from_millis(500));
        for (n, bound) in [(1, 100), (2, 200), (3, 400), (4, 500), (u32::MAX, 500)] {
            let waits: Vec<Duration> = (0..200).map(|_| config.backoff(n)).collect();
            assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(bound)));
            assert!(waits.iter().any(|wait| *wait < Duration::from_millis(bound / 2)));
        }
    }
}
