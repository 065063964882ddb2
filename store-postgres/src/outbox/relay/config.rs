//! How a relay works.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result};

/// The default of [`RelayConfig::batch_records`].
pub const DEFAULT_BATCH_RECORDS: usize = 1_000;
/// The default of [`RelayConfig::batch_bytes`].
pub const DEFAULT_BATCH_BYTES: usize = 8 << 20;
/// The default of [`RelayConfig::records_per_key`].
pub const DEFAULT_RECORDS_PER_KEY: usize = 1;
/// The default of [`RelayConfig::poll_interval`].
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The default of [`RelayConfig::lag_interval`].
pub const DEFAULT_LAG_INTERVAL: Duration = Duration::from_secs(10);
/// The default of [`RelayConfig::retry_base`].
pub const DEFAULT_RELAY_RETRY_BASE: Duration = Duration::from_millis(100);
/// The default of [`RelayConfig::retry_cap`].
pub const DEFAULT_RELAY_RETRY_CAP: Duration = Duration::from_secs(10);
/// The longest of a relay's times.
pub const MAX_RELAY_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A relay that has said nothing to the server for so long (frozen, cut off) loses its share of the outbox to others.
/// Servers before version 14 notice only that its connection is gone.
pub const RELAY_LEASE: Duration = Duration::from_secs(30);

/// What becomes of a record that the broker refuses for good: too large, denied, no such topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Refused {
    /// It holds back the later records of its key until an operator [retries](crate::Outbox::retry) or
    /// [discards](crate::Outbox::discard) it. Other keys go on.
    #[default]
    HoldKey,
    /// It is put aside, and the later records of its key go on without it.
    Park,
}

/// Settings of a [`Relay`](crate::Relay).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// How many records it has in memory at most: [`DEFAULT_BATCH_RECORDS`].
    pub batch_records: usize,
    /// How many bytes it has in memory at most, one record aside: [`DEFAULT_BATCH_BYTES`].
    pub batch_bytes: usize,
    /// How many records of one key are given to the publisher at once: [`DEFAULT_RECORDS_PER_KEY`]. With more than one, a
    /// key's records come through faster, and where the broker fails one of them, later ones may be there before it.
    pub records_per_key: usize,
    /// How often it looks for records without being told: [`DEFAULT_POLL_INTERVAL`].
    pub poll_interval: Duration,
    /// Whether it waits for notifications too, which takes a connection; by default it does.
    pub listen: bool,
    /// How often it measures the lag: [`DEFAULT_LAG_INTERVAL`].
    pub lag_interval: Duration,
    /// The longest wait after a first failure of the broker or the database: [`DEFAULT_RELAY_RETRY_BASE`]. It doubles with
    /// each further one, and the wait is drawn at random up to it.
    pub retry_base: Duration,
    /// The longest wait after any failure: [`DEFAULT_RELAY_RETRY_CAP`].
    pub retry_cap: Duration,
    /// What becomes of records that the broker refuses for good.
    pub refused: Refused,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch_records: DEFAULT_BATCH_RECORDS,
            batch_bytes: DEFAULT_BATCH_BYTES,
            records_per_key: DEFAULT_RECORDS_PER_KEY,
            poll_interval: DEFAULT_POLL_INTERVAL,
            listen: true,
            lag_interval: DEFAULT_LAG_INTERVAL,
            retry_base: DEFAULT_RELAY_RETRY_BASE,
            retry_cap: DEFAULT_RELAY_RETRY_CAP,
            refused: Refused::default(),
        }
    }
}

impl RelayConfig {
    /// Has at most so many records in memory.
    #[must_use]
    pub fn with_batch_records(mut self, records: usize) -> Self {
        self.batch_records = records;
        self
    }

    /// Has at most so many bytes in memory, one record aside.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Gives so many records of one key to the publisher at once.
    #[must_use]
    pub fn with_records_per_key(mut self, records: usize) -> Self {
        self.records_per_key = records;
        self
    }

    /// Looks for records this often without being told.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Waits for notifications, or does not.
    #[must_use]
    pub fn with_listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// Measures the lag this often.
    #[must_use]
    pub fn with_lag_interval(mut self, interval: Duration) -> Self {
        self.lag_interval = interval;
        self
    }

    /// Waits up to `base` after a first failure, twice that after the next and so on, and at most `cap`.
    #[must_use]
    pub fn with_retry(mut self, base: Duration, cap: Duration) -> Self {
        (self.retry_base, self.retry_cap) = (base, cap);
        self
    }

    /// Does this with records that the broker refuses for good.
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
        match longest.into_iter().find(|(_, time)| *time > MAX_RELAY_INTERVAL) {
            Some((name, _)) => {
                Err(Error::new(ErrorKind::Invalid, format!("start a relay: {name} is above {MAX_RELAY_INTERVAL:?}")))
            }
            None => Ok(()),
        }
    }

    /// How long to wait after failure `n`, from 1.
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
        let long = MAX_RELAY_INTERVAL + Duration::from_nanos(1);
        for (wrong, name) in [
            (config().with_poll_interval(long), "poll_interval"),
            (config().with_lag_interval(Duration::MAX), "lag_interval"),
            (config().with_retry(DEFAULT_RELAY_RETRY_BASE, long), "retry_cap"),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(name), "{error}");
        }
        config().with_poll_interval(MAX_RELAY_INTERVAL).with_lag_interval(MAX_RELAY_INTERVAL).check().unwrap();
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
