//! Options and report of a redrive.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, LetterId, Name, REDRIVE_LEASE, Result};

/// Options of [`DeadLetters::redrive`](super::DeadLetters::redrive).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedriveOptions {
    /// The reason, for the records of who did what; may be empty.
    pub reason: String,
    /// The maximum number of letters: [`Self::DEFAULT_LIMIT`]. A run holds the identities of all of them, about 150
    /// bytes each.
    pub limit: usize,
    /// The maximum number of letters that are leased, published and closed together: [`Self::DEFAULT_BATCH`]. A crash
    /// leaves at most this many in doubt.
    pub batch: usize,
    /// The maximum number of letters per second; `None`, the default, is as fast as the broker accepts them.
    pub per_second: Option<u32>,
    /// Leaves letters whose record was redriven at least this often; `None`, the default, redrives all. Such letters
    /// are not selected: they hold back no other letter of their key.
    pub max_redrives: Option<u32>,
    /// Whether to publish nothing and only count; `false` by default.
    pub dry_run: bool,
    /// Is called after each batch: see [`with_watch`](Self::with_watch).
    pub(super) watch: Option<Watch>,
    /// The ttl of a letter's lease: [`REDRIVE_LEASE`]. It must exceed the time that the publisher takes to answer; the
    /// letters of a run that crashed are free after it.
    pub lease: Duration,
}

impl Default for RedriveOptions {
    fn default() -> Self {
        Self {
            reason: String::new(),
            limit: Self::DEFAULT_LIMIT,
            batch: Self::DEFAULT_BATCH,
            per_second: None,
            max_redrives: None,
            dry_run: false,
            watch: None,
            lease: REDRIVE_LEASE,
        }
    }
}

impl RedriveOptions {
    /// The default of [`Self::batch`].
    pub const DEFAULT_BATCH: usize = 100;
    /// The default of [`Self::limit`].
    pub const DEFAULT_LIMIT: usize = 100_000;

    /// Sets the reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Sets the maximum number of letters.
    #[must_use]
    pub fn with_limit(mut self, letters: usize) -> Self {
        self.limit = letters;
        self
    }

    /// Sets the maximum number of letters that are leased and published at once.
    #[must_use]
    pub fn with_batch(mut self, letters: usize) -> Self {
        self.batch = letters;
        self
    }

    /// Sets the maximum number of letters per second.
    #[must_use]
    pub fn with_per_second(mut self, letters: u32) -> Self {
        self.per_second = Some(letters);
        self
    }

    /// Leaves letters whose record was redriven at least `times` before.
    #[must_use]
    pub fn with_max_redrives(mut self, times: u32) -> Self {
        self.max_redrives = Some(times);
        self
    }

    /// Sets whether to publish nothing and only count.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Calls `watch` with the report after each batch, for a progress bar; the run ends early, with
    /// [`RedriveReport::more`], if it returns [`Break`](ControlFlow::Break).
    #[must_use]
    pub fn with_watch(mut self, watch: impl Fn(&RedriveReport) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        self.watch = Some(Watch(Arc::new(watch)));
        self
    }

    /// Sets the ttl of a letter's lease.
    #[must_use]
    pub fn with_lease(mut self, ttl: Duration) -> Self {
        self.lease = ttl;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let zero = [
            (self.limit == 0, "limit"),
            (self.batch == 0, "batch"),
            (self.per_second == Some(0), "per_second"),
            (self.max_redrives == Some(0), "max_redrives"),
            (self.lease.is_zero(), "lease"),
        ];
        match zero.into_iter().find(|(is_zero, _)| *is_zero) {
            Some((_, name)) => Err(Error::new(ErrorKind::Invalid, format!("redrive letters: {name} is zero"))),
            None => Ok(()),
        }
    }
}

type Watching = dyn Fn(&RedriveReport) -> ControlFlow<()> + Send + Sync;

/// The caller's function that watches a run.
#[derive(Clone)]
pub(super) struct Watch(Arc<Watching>);

impl Watch {
    /// Shows the report; returns whether the run goes on.
    pub(super) fn goes_on(&self, report: &RedriveReport) -> bool {
        (self.0)(report).is_continue()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// The result of [`DeadLetters::redrive`](super::DeadLetters::redrive); in a dry run, the expected result.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Letters that were published to their topics again and closed.
    pub redriven: u64,
    /// Letters that another run has, or that were closed since they were selected: not published by this run. Among
    /// them are letters that an interrupted run had published already.
    pub skipped: u64,
    /// Letters that were not selected because their record was redriven [`RedriveOptions::max_redrives`] times before.
    pub repeated: u64,
    /// Letters that stay because an earlier letter of their key stays.
    pub behind: u64,
    /// Letters that the broker or the store refused, with the error: they stay. At most [`Self::MAX_REFUSALS`].
    pub refused: Vec<(LetterId, Error)>,
    /// Ranges that cannot be read, each with the cause: their letters stay.
    pub unreadable: Vec<Error>,
    /// Whether there may be more letters, beyond [`RedriveOptions::limit`] or [`Self::MAX_REFUSALS`], or because the
    /// run was ended early.
    pub more: bool,
    /// The services that have letters, if the query names one that has none in any state that the store keeps: its name
    /// may be misspelt. Otherwise empty.
    pub known_services: Vec<Name>,
}

impl RedriveReport {
    /// The limit of [`Self::refused`]: a run ends when it is reached.
    pub const MAX_REFUSALS: usize = 1_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_of_zero_is_named() {
        let options = RedriveOptions::default;
        assert!(options().check().is_ok());
        for (options, named) in [
            (options().with_batch(0), "batch"),
            (options().with_limit(0), "limit"),
            (options().with_per_second(0), "per_second"),
            (options().with_max_redrives(0), "max_redrives"),
            (options().with_lease(Duration::ZERO), "lease"),
        ] {
            let error = options.check().unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
