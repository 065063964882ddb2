//! How a store is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result};

use crate::clock::{Clock, SystemClock};

/// How long done events are remembered: [`SledConfig::retention`].
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How much of the store is cached: [`SledConfig::cache_bytes`].
pub const DEFAULT_CACHE_BYTES: u64 = 128 << 20;
/// How many events may wait for the writer: [`SledConfig::max_waiting`].
pub const DEFAULT_MAX_WAITING: u32 = 65_536;
/// How many claims may live at once: [`SledConfig::max_claims`].
pub const DEFAULT_MAX_CLAIMS: usize = 1_000_000;
/// How many dead letters are kept open: [`SledConfig::max_letters`].
pub const DEFAULT_MAX_LETTERS: u64 = 1_000_000;
/// The first wait before a store that broke is opened again; doubled up to [`SledConfig::max_reopen_wait`].
pub const MIN_REOPEN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait before a store that broke is opened again: [`SledConfig::max_reopen_wait`].
pub const DEFAULT_MAX_REOPEN_WAIT: Duration = Duration::from_secs(10);
/// How long a caller waits for a disk that does not answer: [`SledConfig::answer_within`].
pub const DEFAULT_ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Retention is kept by so many directories, each dropped whole: done events are remembered for at most one of these
/// parts longer than asked for.
pub const RETENTION_PARTS: u32 = 7;

const SHORTEST_RETENTION: Duration = Duration::from_secs(1);
const SMALLEST_CACHE: u64 = 8 << 20;
/// A service claims so many events in one call: with less room than that such a call could never succeed.
const FEWEST_CLAIMS: usize = 5_000;

/// What to do with a directory whose content is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDamage {
    /// Refuse to open it ([`Corrupt`](ErrorKind::Corrupt)), so that a person decides.
    #[default]
    Refuse,
    /// Move the damaged part into a subdirectory `damaged-<date>`, say so in the log and by
    /// [`SledStore::damages`](crate::SledStore::damages), and go on without it: events in it may be handled again.
    SetAside,
}

/// Settings of a [`SledStore`](crate::SledStore).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SledConfig {
    /// The store's directory; created if it is missing. One process at a time has it.
    pub path: PathBuf,
    /// Done events are remembered for at least so long, and for at most a seventh longer ([`RETENTION_PARTS`]).
    /// Closed dead letters too.
    pub retention: Duration,
    /// How many bytes of content are cached, in all.
    pub cache_bytes: u64,
    /// What to do with damaged content.
    pub on_damage: OnDamage,
    /// How many events may wait for the writer; further callers wait for their turn.
    pub max_waiting: u32,
    /// How many claims may live at once; beyond, `claim` is refused as [`Unavailable`](ErrorKind::Unavailable). At least
    /// 5,000: a service claims up to so many in one call.
    pub max_claims: usize,
    /// How many dead letters may be open; beyond, burying is refused as [`Unavailable`](ErrorKind::Unavailable).
    pub max_letters: u64,
    /// The longest wait before a store that broke is opened again.
    pub max_reopen_wait: Duration,
    /// A call whose answer the disk holds back for longer fails as [`Indeterminate`](ErrorKind::Indeterminate).
    pub answer_within: Duration,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

impl SledConfig {
    /// A store in `path`, with the defaults.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            retention: DEFAULT_RETENTION,
            cache_bytes: DEFAULT_CACHE_BYTES,
            on_damage: OnDamage::default(),
            max_waiting: DEFAULT_MAX_WAITING,
            max_claims: DEFAULT_MAX_CLAIMS,
            max_letters: DEFAULT_MAX_LETTERS,
            max_reopen_wait: DEFAULT_MAX_REOPEN_WAIT,
            answer_within: DEFAULT_ANSWER_WITHIN,
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Remembers done events for at least so long; by default [`DEFAULT_RETENTION`].
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Caches so many bytes; by default [`DEFAULT_CACHE_BYTES`].
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// What to do with damaged content; by default [`OnDamage::Refuse`].
    #[must_use]
    pub fn with_on_damage(mut self, policy: OnDamage) -> Self {
        self.on_damage = policy;
        self
    }

    /// Lets so many events wait for the writer; by default [`DEFAULT_MAX_WAITING`].
    #[must_use]
    pub fn with_max_waiting(mut self, events: u32) -> Self {
        self.max_waiting = events;
        self
    }

    /// Lets so many claims live at once; by default [`DEFAULT_MAX_CLAIMS`].
    #[must_use]
    pub fn with_max_claims(mut self, claims: usize) -> Self {
        self.max_claims = claims;
        self
    }

    /// Keeps so many dead letters open; by default [`DEFAULT_MAX_LETTERS`].
    #[must_use]
    pub fn with_max_letters(mut self, letters: u64) -> Self {
        self.max_letters = letters;
        self
    }

    /// Opens a broken store again at least this often; by default [`DEFAULT_MAX_REOPEN_WAIT`].
    #[must_use]
    pub fn with_max_reopen_wait(mut self, wait: Duration) -> Self {
        self.max_reopen_wait = wait;
        self
    }

    /// Gives up waiting for the disk after so long; by default [`DEFAULT_ANSWER_WITHIN`].
    #[must_use]
    pub fn with_answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// Other clocks than the system's: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

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
        if self.max_waiting == 0 || self.max_letters == 0 {
            return wrong("max_waiting and max_letters must be above 0".to_owned());
        }
        if self.answer_within.is_zero() {
            return wrong("answer_within is zero".to_owned());
        }
        Ok(())
    }

    /// How much time one generation covers.
    pub(crate) fn part(&self) -> Duration {
        self.retention / RETENTION_PARTS
    }

    /// The cache of each table: every generation (one more than there are parts, and the one to be dropped), and the
    /// dead letters.
    pub(crate) fn cache_of_each(&self) -> u64 {
        self.cache_bytes / u64::from(RETENTION_PARTS + 3)
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
    fn there_must_be_room_for_the_claims_of_one_call() {
        let config = SledConfig::new("x");
        let error = config.clone().with_max_claims(FEWEST_CLAIMS - 1).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("max_claims is below 5000"), "{error}");
        config.with_max_claims(FEWEST_CLAIMS).check().unwrap();
    }
}
