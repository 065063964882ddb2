//! Configuration of the sled store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result};

use crate::clock::{Clock, SystemClock};

impl SledConfig {
    /// Default of [`SledConfig::retention`].
    pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

    /// Default of [`SledConfig::cache_bytes`].
    pub const DEFAULT_CACHE_BYTES: u64 = 128 << 20;

    /// Default of [`SledConfig::max_waiting`].
    pub const DEFAULT_MAX_WAITING: u32 = 65_536;

    /// Default of [`SledConfig::max_claims`].
    pub const DEFAULT_MAX_CLAIMS: usize = 1_000_000;

    /// Default of [`SledConfig::max_letters`].
    pub const DEFAULT_MAX_LETTERS: u64 = 1_000_000;

    /// Default of [`SledConfig::max_audit_records`].
    pub const DEFAULT_MAX_AUDIT_RECORDS: u64 = 1_000_000;

    /// Initial backoff before a broken store is reopened; doubled up to [`SledConfig::max_reopen_wait`].
    pub const MIN_REOPEN_WAIT: Duration = Duration::from_millis(100);

    /// Default of [`SledConfig::max_reopen_wait`].
    pub const DEFAULT_MAX_REOPEN_WAIT: Duration = Duration::from_secs(10);

    /// Default of [`SledConfig::answer_within`].
    pub const DEFAULT_ANSWER_WITHIN: Duration = Duration::from_secs(30);
    /// Number of directories that the retention is divided into. Each is dropped as a whole, so done events are
    /// remembered for at most one part longer than configured.
    pub const RETENTION_PARTS: u32 = 7;
}

const SHORTEST_RETENTION: Duration = Duration::from_secs(1);
const SMALLEST_CACHE: u64 = 8 << 20;
/// Lower limit of `max_claims`: a service claims up to this many events in one call, which could otherwise never
/// succeed.
const FEWEST_CLAIMS: usize = 5_000;

/// Policy for a directory with damaged content.
///
/// The choice is between availability and the guarantee that no event is handled twice.
///
/// ```
/// # use tidings_sled::{OnDamage, SledConfig};
/// let config = SledConfig::new("orders.sled").with_on_damage(OnDamage::SetAside);
/// assert_eq!(config.on_damage, OnDamage::SetAside);
/// assert_eq!(SledConfig::new("orders.sled").on_damage, OnDamage::Refuse); // the default
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDamage {
    /// Refuse to open it ([`Corrupt`](ErrorKind::Corrupt)), so that an operator decides.
    #[default]
    Refuse,
    /// Move the damaged part into a subdirectory `damaged-<milliseconds since 1970>`, report it in the log and by
    /// [`SledStore::damages`](crate::SledStore::damages), and continue without it: events in it may be handled again.
    SetAside,
}

/// Settings of a [`SledStore`](crate::SledStore).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// use std::time::Duration;
/// use tidings_core::ErrorKind;
/// use tidings_sled::{SledConfig, SledStore};
///
/// # let directory = std::env::temp_dir().join(format!("tidings-doc-config-{}", std::process::id()));
/// let config = SledConfig::new(&directory).with_retention(Duration::from_secs(30 * 24 * 3_600));
/// let store = SledStore::open_with(config.clone()).await?;
///
/// let second = SledStore::open_with(config).await.unwrap_err();
/// assert_eq!(second.kind(), ErrorKind::Conflict); // one owner at a time
/// store.close().await;
/// # std::fs::remove_dir_all(&directory).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SledConfig {
    /// The store's directory; created if it is missing. Only one process at a time can open it.
    pub path: PathBuf,
    /// Minimum time for which done events and closed dead letters are remembered; they are kept at most a seventh
    /// longer ([`SledConfig::RETENTION_PARTS`]).
    pub retention: Duration,
    /// Total size of the cache in bytes.
    pub cache_bytes: u64,
    /// Policy for damaged content.
    pub on_damage: OnDamage,
    /// Maximum number of events queued for the writer; further callers wait.
    pub max_waiting: u32,
    /// Maximum number of live claims; beyond it, `claim` fails as [`Unavailable`](ErrorKind::Unavailable). At least
    /// 5,000, the maximum that a service claims in one call.
    pub max_claims: usize,
    /// Maximum number of open dead letters; beyond it, burying fails as [`Unavailable`](ErrorKind::Unavailable).
    pub max_letters: u64,
    /// Maximum number of audit records; beyond it, appending fails as [`Unavailable`](ErrorKind::Unavailable) until some
    /// are [purged](crate::SledStore::purge_audit).
    pub max_audit_records: u64,
    /// Maximum backoff before a broken store is reopened.
    pub max_reopen_wait: Duration,
    /// How long a call waits for the disk before it fails as [`Indeterminate`](ErrorKind::Indeterminate).
    pub answer_within: Duration,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

impl SledConfig {
    /// Creates a configuration for a store in `path`, with the defaults.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            retention: SledConfig::DEFAULT_RETENTION,
            cache_bytes: SledConfig::DEFAULT_CACHE_BYTES,
            on_damage: OnDamage::default(),
            max_waiting: SledConfig::DEFAULT_MAX_WAITING,
            max_claims: SledConfig::DEFAULT_MAX_CLAIMS,
            max_letters: SledConfig::DEFAULT_MAX_LETTERS,
            max_audit_records: SledConfig::DEFAULT_MAX_AUDIT_RECORDS,
            max_reopen_wait: SledConfig::DEFAULT_MAX_REOPEN_WAIT,
            answer_within: SledConfig::DEFAULT_ANSWER_WITHIN,
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Sets the retention of done events; [`SledConfig::DEFAULT_RETENTION`] by default.
    ///
    /// At least one second.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets the total size of the cache in bytes; [`SledConfig::DEFAULT_CACHE_BYTES`] by default.
    ///
    /// At least 8 MiB, which all parts of the store share.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets the policy for damaged content; [`OnDamage::Refuse`] by default.
    #[must_use]
    pub fn with_on_damage(mut self, policy: OnDamage) -> Self {
        self.on_damage = policy;
        self
    }

    /// Sets the maximum number of events queued for the writer; [`SledConfig::DEFAULT_MAX_WAITING`] by default.
    ///
    /// At least 1. A call with more events than this takes all of the queue.
    #[must_use]
    pub fn with_max_waiting(mut self, events: u32) -> Self {
        self.max_waiting = events;
        self
    }

    /// Sets the maximum number of live claims; [`SledConfig::DEFAULT_MAX_CLAIMS`] by default.
    #[must_use]
    pub fn with_max_claims(mut self, claims: usize) -> Self {
        self.max_claims = claims;
        self
    }

    /// Sets the maximum number of open dead letters; [`SledConfig::DEFAULT_MAX_LETTERS`] by default.
    ///
    /// At least 1.
    #[must_use]
    pub fn with_max_letters(mut self, letters: u64) -> Self {
        self.max_letters = letters;
        self
    }

    /// Sets the maximum number of audit records; [`SledConfig::DEFAULT_MAX_AUDIT_RECORDS`] by default.
    ///
    /// At least 1.
    #[must_use]
    pub fn with_max_audit_records(mut self, records: u64) -> Self {
        self.max_audit_records = records;
        self
    }

    /// Sets the maximum backoff before a broken store is reopened; [`SledConfig::DEFAULT_MAX_REOPEN_WAIT`] by default.
    #[must_use]
    pub fn with_max_reopen_wait(mut self, wait: Duration) -> Self {
        self.max_reopen_wait = wait;
        self
    }

    /// Sets how long a call waits for the disk; [`SledConfig::DEFAULT_ANSWER_WITHIN`] by default.
    ///
    /// More than zero. The disk may still carry the call out.
    #[must_use]
    pub fn with_answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// Replaces the system's clocks, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Checks all settings, before anything is created.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, format!("open a sled store: {what}")));
        if self.path.as_os_str().is_empty() {
            return wrong("path is empty".to_owned());
        }
        if self.retention < SHORTEST_RETENTION {
            return wrong(format!("retention is below {SHORTEST_RETENTION:?}"));
        }
        if self.cache_bytes < SMALLEST_CACHE {
            return wrong(format!("cache_bytes is below {SMALLEST_CACHE}"));
        }
        if self.max_claims < FEWEST_CLAIMS {
            return wrong(format!("max_claims is below {FEWEST_CLAIMS}, which one call may claim"));
        }
        if self.max_waiting == 0 || self.max_letters == 0 || self.max_audit_records == 0 {
            return wrong("max_waiting, max_letters and max_audit_records must be above 0".to_owned());
        }
        if self.answer_within.is_zero() {
            return wrong("answer_within is zero".to_owned());
        }
        Ok(())
    }

    /// Returns the time that one generation covers.
    pub(crate) fn part(&self) -> Duration {
        self.retention / SledConfig::RETENTION_PARTS
    }

    /// Returns the cache size of each table: every generation (one more than there are parts, plus the one to be
    /// dropped) and the dead letters.
    pub(crate) fn cache_of_each(&self) -> u64 {
        self.cache_bytes / u64::from(SledConfig::RETENTION_PARTS + 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let error = SledConfig::new("x").with_retention(Duration::ZERO).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("retention"), "{error}");
    }

    #[test]
    fn each_setting_is_accepted_at_its_limit_and_refused_beyond() {
        let (config, second) = (|| SledConfig::new("x"), Duration::from_secs(1));
        let least = Duration::from_nanos(1);
        for (name, at, beyond) in [
            ("path", config(), SledConfig::new("")),
            ("retention", config().with_retention(second), config().with_retention(second - least)),
            ("cache_bytes", config().with_cache_bytes(8_388_608), config().with_cache_bytes(8_388_607)),
            ("max_waiting", config().with_max_waiting(1), config().with_max_waiting(0)),
            ("max_letters", config().with_max_letters(1), config().with_max_letters(0)),
            ("max_audit_records", config().with_max_audit_records(1), config().with_max_audit_records(0)),
            ("answer_within", config().with_answer_within(least), config().with_answer_within(Duration::ZERO)),
        ] {
            at.check().unwrap();
            let error = beyond.check().unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_week_is_kept_in_days_and_all_tables_fit_into_the_cache() {
        let config = SledConfig::new("x");
        assert_eq!((config.retention.as_secs(), config.part().as_secs()), (604_800, 86_400));
        // Nine generations and the letters.
        assert_eq!((config.cache_bytes, config.cache_of_each()), (134_217_728, 13_421_772));
    }

    #[test]
    fn there_must_be_room_for_the_claims_of_one_call() {
        let config = SledConfig::new("x");
        let error = config.clone().with_max_claims(FEWEST_CLAIMS - 1).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("max_claims is below 5000"), "{error}");
        config.with_max_claims(FEWEST_CLAIMS).check().unwrap();
    }
}
