//! A type-erased open backend with its hooks.
//!
//! A suite is written against a trait, a setup knows the backend's type. [`Opened`] joins them: it
//! keeps the typed backend for the hooks and shows the trait to the cases.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};

use crate::setup::{Boxed, Clock, Doing, Setup};

/// A hook that a case may need for fault injection.
///
/// A case that needs a hook is ignored, with the hook's name, if the setup lacks it:
///
/// ```
/// use tidings_conformance::{Setup, Verdict, transport};
/// use tidings_memory::MemoryTransport;
///
/// let setup = Setup::new("memory", || async { Ok(MemoryTransport::new()) }).with_paused_clock();
/// let verdict = transport::check(setup, "p2_publishing_goes_on_after_an_outage");
/// assert_eq!(verdict, Verdict::Ignored("the setup has no hook outage".into()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hook {
    /// [`Setup::with_outage`].
    Outage,
    /// [`Setup::with_lost_answers`].
    LostAnswers,
    /// [`Setup::with_slow_answers`].
    SlowAnswers,
    /// [`Setup::with_session_loss`].
    SessionLoss,
    /// [`Setup::with_deleted_records`].
    DeletedRecords,
    /// [`Setup::with_truncated_records`].
    TruncatedRecords,
    /// [`Setup::with_unreadable_records`].
    UnreadableRecords,
    /// [`Setup::with_advanced_log`].
    AdvancedLog,
    /// [`Setup::with_retention_check`].
    RetentionCheck,
    /// [`Setup::with_failed_reads`].
    FailedReads,
    /// [`Setup::with_lost_commits`].
    LostCommits,
    /// [`Setup::with_rebalance`].
    Rebalance,
    /// [`Setup::with_max_letters`].
    MaxLetters,
    /// [`Setup::with_retention`].
    Retention,
    /// [`Setup::with_reopen`].
    Reopen,
}

impl Hook {
    /// Returns the name in messages; it is the suffix of the setup's method.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::LostAnswers => "lost_answers",
            Self::SlowAnswers => "slow_answers",
            Self::SessionLoss => "session_loss",
            Self::DeletedRecords => "deleted_records",
            Self::TruncatedRecords => "truncated_records",
            Self::UnreadableRecords => "unreadable_records",
            Self::AdvancedLog => "advanced_log",
            Self::RetentionCheck => "retention_check",
            Self::FailedReads => "failed_reads",
            Self::LostCommits => "lost_commits",
            Self::Rebalance => "rebalance",
            Self::MaxLetters => "max_letters",
            Self::Retention => "retention",
            Self::Reopen => "reopen",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An opened backend, seen as the trait `B`.
pub(crate) trait Live<B: ?Sized>: Send + Sync {
    /// Returns the backend as the suite's trait.
    fn backend(&self) -> Arc<B>;
    fn outage(&self, down: bool) -> Boxed<'static, Result<()>>;
    fn lost_answers(&self, lost: bool) -> Boxed<'static, Result<()>>;
    fn slow_answers(&self, slow: bool) -> Boxed<'static, Result<()>>;
    fn session_loss(&self, group: Name) -> Boxed<'static, Result<()>>;
    fn deleted_records(&self, partition: TopicPartition, range: Range<u64>) -> Boxed<'static, Result<()>>;
    fn truncated_records(&self, partition: TopicPartition, end: u64) -> Boxed<'static, Result<()>>;
    fn unreadable_records(&self, partition: TopicPartition) -> Boxed<'static, Result<()>>;
    fn advanced_log(&self, partition: TopicPartition, offset: u64) -> Boxed<'static, Result<()>>;
    fn retention_check(&self) -> Boxed<'static, Result<()>>;
    fn failed_reads(&self, times: u32) -> Boxed<'static, Result<()>>;
    fn lost_commits(&self, lost: bool) -> Boxed<'static, Result<()>>;
    fn rebalance(&self, group: Name) -> Boxed<'static, Result<()>>;
    /// Opens another backend, with a small limit or a short retention.
    fn another(self: Box<Self>, which: Hook) -> Boxed<'static, Result<Box<dyn Live<B>>>>;
    fn reopen(self: Box<Self>) -> Boxed<'static, Result<Box<dyn Live<B>>>>;
    /// Advances the backend's clock; `None` if time passes by itself.
    fn pass_time(&self, time: Duration) -> Option<Boxed<'static, Result<()>>>;
}

/// Returns the first of `needs` that `setup` lacks.
pub(crate) fn missing<T>(setup: &Setup<T>, needs: &[Hook]) -> Option<Hook> {
    needs.iter().copied().find(|hook| match hook {
        Hook::Outage => setup.outage.is_none(),
        Hook::LostAnswers => setup.lost_answers.is_none(),
        Hook::SlowAnswers => setup.slow_answers.is_none(),
        Hook::SessionLoss => setup.session_loss.is_none(),
        Hook::DeletedRecords => setup.deleted_records.is_none(),
        Hook::TruncatedRecords => setup.truncated_records.is_none(),
        Hook::UnreadableRecords => setup.unreadable_records.is_none(),
        Hook::AdvancedLog => setup.advanced_log.is_none(),
        Hook::RetentionCheck => setup.retention_check.is_none() && setup.pace.clock == Clock::Real,
        Hook::FailedReads => setup.failed_reads.is_none(),
        Hook::LostCommits => setup.lost_commits.is_none(),
        Hook::Rebalance => setup.rebalance.is_none(),
        Hook::MaxLetters => setup.small.is_none(),
        Hook::Retention => setup.forgetful.is_none(),
        Hook::Reopen => setup.reopen.is_none(),
    })
}

/// Sees a backend of type `T` as the trait `B`.
pub(crate) type Erase<T, B> = fn(Arc<T>) -> Arc<B>;

/// A backend of a known type, and how to see it as the trait.
pub(crate) struct Opened<T, B: ?Sized> {
    pub(crate) backend: Arc<T>,
    pub(crate) setup: Arc<Setup<T>>,
    pub(crate) erase: Erase<T, B>,
}

/// Calls a hook; a missing one fails as unsupported.
fn call<T, A, R: 'static>(hook: Option<&Doing<T, A, R>>, which: Hook, t: Arc<T>, a: A) -> Boxed<'static, Result<R>> {
    match hook {
        Some(hook) => hook(t, a),
        None => Box::pin(async move { Err(Error::new(ErrorKind::Unsupported, format!("call the hook {which}"))) }),
    }
}

impl<T: Send + Sync + 'static, B: ?Sized + 'static> Live<B> for Opened<T, B> {
    fn backend(&self) -> Arc<B> {
        (self.erase)(Arc::clone(&self.backend))
    }

    fn outage(&self, down: bool) -> Boxed<'static, Result<()>> {
        call(self.setup.outage.as_ref(), Hook::Outage, Arc::clone(&self.backend), down)
    }

    fn lost_answers(&self, lost: bool) -> Boxed<'static, Result<()>> {
        call(self.setup.lost_answers.as_ref(), Hook::LostAnswers, Arc::clone(&self.backend), lost)
    }

    fn slow_answers(&self, slow: bool) -> Boxed<'static, Result<()>> {
        call(self.setup.slow_answers.as_ref(), Hook::SlowAnswers, Arc::clone(&self.backend), slow)
    }

    fn session_loss(&self, group: Name) -> Boxed<'static, Result<()>> {
        call(self.setup.session_loss.as_ref(), Hook::SessionLoss, Arc::clone(&self.backend), group)
    }

    fn deleted_records(&self, partition: TopicPartition, range: Range<u64>) -> Boxed<'static, Result<()>> {
        let hook = self.setup.deleted_records.as_ref();
        call(hook, Hook::DeletedRecords, Arc::clone(&self.backend), (partition, range))
    }

    fn truncated_records(&self, partition: TopicPartition, end: u64) -> Boxed<'static, Result<()>> {
        let hook = self.setup.truncated_records.as_ref();
        call(hook, Hook::TruncatedRecords, Arc::clone(&self.backend), (partition, end))
    }

    fn unreadable_records(&self, partition: TopicPartition) -> Boxed<'static, Result<()>> {
        let hook = self.setup.unreadable_records.as_ref();
        call(hook, Hook::UnreadableRecords, Arc::clone(&self.backend), partition)
    }

    fn advanced_log(&self, partition: TopicPartition, offset: u64) -> Boxed<'static, Result<()>> {
        let hook = self.setup.advanced_log.as_ref();
        call(hook, Hook::AdvancedLog, Arc::clone(&self.backend), (partition, offset))
    }

    fn retention_check(&self) -> Boxed<'static, Result<()>> {
        match &self.setup.retention_check {
            None if self.setup.pace.clock == Clock::Paused => Box::pin(async { Ok(()) }),
            hook => call(hook.as_ref(), Hook::RetentionCheck, Arc::clone(&self.backend), ()),
        }
    }

    fn failed_reads(&self, times: u32) -> Boxed<'static, Result<()>> {
        call(self.setup.failed_reads.as_ref(), Hook::FailedReads, Arc::clone(&self.backend), times)
    }

    fn lost_commits(&self, lost: bool) -> Boxed<'static, Result<()>> {
        call(self.setup.lost_commits.as_ref(), Hook::LostCommits, Arc::clone(&self.backend), lost)
    }

    fn rebalance(&self, group: Name) -> Boxed<'static, Result<()>> {
        call(self.setup.rebalance.as_ref(), Hook::Rebalance, Arc::clone(&self.backend), group)
    }

    fn pass_time(&self, time: Duration) -> Option<Boxed<'static, Result<()>>> {
        self.setup.passing_time.as_ref().map(|hook| hook(Arc::clone(&self.backend), time))
    }

    fn another(self: Box<Self>, which: Hook) -> Boxed<'static, Result<Box<dyn Live<B>>>> {
        let Self { setup, erase, .. } = *self;
        Box::pin(async move {
            let missing = || Error::new(ErrorKind::Unsupported, format!("call the hook {which}"));
            let open = if which == Hook::Retention { setup.forgetful.as_ref() } else { setup.small.as_ref() };
            let backend = Arc::new((open.ok_or_else(missing)?)().await?);
            Ok(Box::new(Opened { backend, setup, erase }) as Box<dyn Live<B>>)
        })
    }

    fn reopen(self: Box<Self>) -> Boxed<'static, Result<Box<dyn Live<B>>>> {
        let Self { backend, setup, erase } = *self;
        Box::pin(async move {
            let backend = Arc::new(call(setup.reopen.as_ref(), Hook::Reopen, backend, ()).await?);
            Ok(Box::new(Opened { backend, setup, erase }) as Box<dyn Live<B>>)
        })
    }
}
