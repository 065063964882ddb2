//! Configuration of a suite: opening a backend, timing and fault injection.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Name, Result, TopicPartition};

/// A boxed future.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Opener<T> = Arc<dyn Fn() -> Boxed<'static, Result<T>> + Send + Sync>;
/// A hook that acts on the backend.
pub(crate) type Doing<T, A, R = ()> = Arc<dyn Fn(Arc<T>, A) -> Boxed<'static, Result<R>> + Send + Sync>;

/// Default of [`Setup::with_patience`].
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
/// Default of [`Setup::with_quiet`].
pub const DEFAULT_QUIET: Duration = Duration::from_secs(1);
/// Default of [`Setup::with_lifetime`].
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(6);
/// Default of [`Setup::with_case_limit`] on the real clock.
pub const DEFAULT_CASE_LIMIT: Duration = Duration::from_secs(180);
/// Default of [`Setup::with_case_limit`] on a paused clock.
pub const PAUSED_CASE_LIMIT: Duration = Duration::from_secs(30);

/// The clock that cases run on.
///
/// A setup uses the real clock unless [`Setup::with_paused_clock`] is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The system clock, on a runtime of two threads: for backends that block or talk to another process.
    Real,
    /// Tokio's paused clock, on a runtime of one thread: for in-memory backends that use only Tokio's time.
    Paused,
}

/// Time limits of a suite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) clock: Clock,
    /// For events that must occur.
    pub(crate) patience: Duration,
    /// For events that must not occur: the longer, the more violations are seen.
    pub(crate) quiet: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) case_limit: Duration,
    /// Number of unanswered records of a publisher, if the setup specifies it.
    pub(crate) unanswered: usize,
    /// Number of unanswered bytes of a publisher, if the setup specifies it.
    pub(crate) unanswered_bytes: Option<usize>,
    /// Number of open letters of a small store, if the setup specifies it.
    pub(crate) max_letters: usize,
    /// Retention of a store with a short one, if the setup specifies it.
    pub(crate) retention: Duration,
}

/// Configures how a suite opens a backend, how long it waits, and how it injects faults.
///
/// ```
/// use std::time::Duration;
/// use tidings_conformance::Setup;
/// # use tidings_core::{Error, ErrorKind, Result};
/// # #[derive(Debug)] struct Mine;
/// # impl Mine {
/// #     async fn connect(at: &str) -> Result<Self> { Ok(Mine) }
/// #     async fn drop_connections(&self) -> Result<()> { Ok(()) }
/// # }
///
/// let setup = Setup::new("mine", || Mine::connect("localhost:9092"))
///     .with_patience(Duration::from_secs(60))
///     .with_session_loss(|mine, _group| async move { mine.drop_connections().await });
/// ```
pub struct Setup<T> {
    pub(crate) name: String,
    pub(crate) open: Opener<T>,
    pub(crate) pace: Pace,
    pub(crate) outage: Option<Doing<T, bool>>,
    pub(crate) lost_answers: Option<Doing<T, bool>>,
    pub(crate) slow_answers: Option<Doing<T, bool>>,
    pub(crate) session_loss: Option<Doing<T, Name>>,
    pub(crate) deleted_records: Option<Doing<T, (TopicPartition, Range<u64>)>>,
    pub(crate) truncated_records: Option<Doing<T, (TopicPartition, u64)>>,
    pub(crate) unreadable_records: Option<Doing<T, TopicPartition>>,
    pub(crate) advanced_log: Option<Doing<T, (TopicPartition, u64)>>,
    pub(crate) retention_check: Option<Doing<T, ()>>,
    pub(crate) failed_reads: Option<Doing<T, u32>>,
    pub(crate) lost_commits: Option<Doing<T, bool>>,
    pub(crate) rebalance: Option<Doing<T, Name>>,
    pub(crate) small: Option<Opener<T>>,
    pub(crate) forgetful: Option<Opener<T>>,
    pub(crate) reopen: Option<Doing<T, (), T>>,
    pub(crate) passing_time: Option<Doing<T, Duration>>,
    /// Cases declared as not kept, with reasons.
    pub(crate) without: Vec<(String, String)>,
}

impl<T: Send + Sync + 'static> Setup<T> {
    /// Creates a setup of a backend called `name`, opened for each case by `open`.
    ///
    /// `open` may return the same broker each time: each case uses its own topics, groups and scopes.
    pub fn new<F, Fut>(name: impl Into<String>, open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        Self {
            name: name.into(),
            open: Arc::new(move || Box::pin(open())),
            pace: Pace {
                clock: Clock::Real,
                patience: DEFAULT_PATIENCE,
                quiet: DEFAULT_QUIET,
                lifetime: DEFAULT_LIFETIME,
                case_limit: DEFAULT_CASE_LIMIT,
                unanswered: 0,
                unanswered_bytes: None,
                max_letters: 0,
                retention: Duration::ZERO,
            },
            outage: None,
            lost_answers: None,
            slow_answers: None,
            session_loss: None,
            deleted_records: None,
            truncated_records: None,
            unreadable_records: None,
            advanced_log: None,
            retention_check: None,
            failed_reads: None,
            lost_commits: None,
            rebalance: None,
            small: None,
            forgetful: None,
            reopen: None,
            passing_time: None,
            without: Vec::new(),
        }
    }

    /// Declares one case as not kept: it is reported as ignored with the reason, which the backend's documentation
    /// must state too. To disclaim a whole clause, use [`Guarantees`](tidings_core::Guarantees).
    ///
    /// An unknown name adds a test that fails.
    #[must_use]
    pub fn without_case(mut self, name: impl Into<String>, reason: impl Into<String>) -> Self {
        self.without.push((name.into(), reason.into()));
        self
    }

    /// Runs the cases on Tokio's paused clock: waiting takes no time, and a case takes at most [`PAUSED_CASE_LIMIT`]
    /// of real time.
    #[must_use]
    pub fn with_paused_clock(mut self) -> Self {
        self.pace.clock = Clock::Paused;
        self.pace.case_limit = PAUSED_CASE_LIMIT;
        self
    }

    /// Sets how long to wait for an expected event, such as a rebalance: [`DEFAULT_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.pace.patience = patience;
        self
    }

    /// Sets how long to wait for an event that must not occur: [`DEFAULT_QUIET`].
    #[must_use]
    pub fn with_quiet(mut self, quiet: Duration) -> Self {
        self.pace.quiet = quiet;
        self
    }

    /// Sets the session timeout and lease ttl in cases that let one expire: [`DEFAULT_LIFETIME`], the shortest that a
    /// Kafka broker allows by default. A shorter one makes those cases faster if the backend allows it.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.pace.lifetime = lifetime;
        self
    }

    /// Sets how long a case may take in real time before it is aborted: [`DEFAULT_CASE_LIMIT`].
    #[must_use]
    pub fn with_case_limit(mut self, limit: Duration) -> Self {
        self.pace.case_limit = limit;
        self
    }

    /// Sets the hook that makes the backend unreachable (`true`) and reachable again (`false`).
    ///
    /// ```
    /// use tidings_conformance::{Setup, Verdict, transport};
    /// use tidings_memory::MemoryTransport;
    ///
    /// let setup = Setup::new("memory", || async { Ok(MemoryTransport::new()) })
    ///     .with_paused_clock()
    ///     .with_outage(|memory, down| async move {
    ///         if down { memory.faults().down() } else { memory.faults().up() }
    ///         Ok(())
    ///     });
    /// assert_eq!(transport::check(setup, "p2_publishing_goes_on_after_an_outage"), Verdict::Passed);
    /// ```
    #[must_use]
    pub fn with_outage<Fut>(mut self, hook: impl Fn(Arc<T>, bool) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.outage = Some(Arc::new(move |t, down| Box::pin(hook(t, down))));
        self
    }

    /// Sets the hook that drops the answers to publishes (`true`) while the records are stored, and delivers them
    /// again (`false`). For an idempotency store, it drops the answers to all calls, which are still applied.
    #[must_use]
    pub fn with_lost_answers<Fut>(mut self, hook: impl Fn(Arc<T>, bool) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.lost_answers = Some(Arc::new(move |t, lost| Box::pin(hook(t, lost))));
        self
    }

    /// Sets the hook that delays answers to publishes beyond any case's wait (`true`) and delivers them again,
    /// pending ones included (`false`). `records` is the publisher's bound on unanswered records, which should be
    /// small for this.
    #[must_use]
    pub fn with_slow_answers<Fut>(
        mut self,
        records: usize,
        hook: impl Fn(Arc<T>, bool) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.pace.unanswered = records;
        self.slow_answers = Some(Arc::new(move |t, slow| Box::pin(hook(t, slow))));
        self
    }

    /// Sets the publisher's bound on unanswered bytes, for the cases with [slow answers](Self::with_slow_answers); it
    /// should be small for this, and leave room for the bound on records. Without it, its case is reported as ignored.
    #[must_use]
    pub fn with_unanswered_bytes(mut self, bytes: usize) -> Self {
        self.pace.unanswered_bytes = Some(bytes);
        self
    }

    /// Sets the hook that ends the session of every current member of a group, as if their heartbeats had failed.
    #[must_use]
    pub fn with_session_loss<Fut>(mut self, hook: impl Fn(Arc<T>, Name) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.session_loss = Some(Arc::new(move |t, group| Box::pin(hook(t, group))));
        self
    }

    /// Sets the hook that deletes records as retention (a range that begins with the oldest) or compaction (any other
    /// range) would.
    ///
    /// If it fails as [`Unsupported`](tidings_core::ErrorKind::Unsupported), the case is reported as ignored.
    #[must_use]
    pub fn with_deleted_records<Fut>(
        mut self,
        hook: impl Fn(Arc<T>, TopicPartition, Range<u64>) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.deleted_records = Some(Arc::new(move |t, (partition, range)| Box::pin(hook(t, partition, range))));
        self
    }

    /// Sets the hook that truncates a partition's log to end at this offset; 0 means a recreated topic. Committed
    /// offsets of groups must stay.
    #[must_use]
    pub fn with_truncated_records<Fut>(
        mut self,
        hook: impl Fn(Arc<T>, TopicPartition, u64) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.truncated_records = Some(Arc::new(move |t, (partition, end)| Box::pin(hook(t, partition, end))));
        self
    }

    /// Sets the hook that appends bytes to a partition that the backend's reader cannot decode or refuses, as another
    /// client may.
    #[must_use]
    pub fn with_unreadable_records<Fut>(
        mut self,
        hook: impl Fn(Arc<T>, TopicPartition) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.unreadable_records = Some(Arc::new(move |t, partition| Box::pin(hook(t, partition))));
        self
    }

    /// Sets the hook that lets the log of an empty partition begin at this offset, as if all earlier records had been
    /// deleted: offsets beyond 32 and 53 bits are checked by it.
    #[must_use]
    pub fn with_advanced_log<Fut>(
        mut self,
        hook: impl Fn(Arc<T>, TopicPartition, u64) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.advanced_log = Some(Arc::new(move |t, (partition, offset)| Box::pin(hook(t, partition, offset))));
        self
    }

    /// Sets the hook that makes the backend apply retention soon: within the setup's patience, records beyond their
    /// topic's limits are deleted. A backend that always does so returns `Ok`. On a paused clock, where patience costs
    /// nothing, the cases run without the hook, too.
    #[must_use]
    pub fn with_retention_check<Fut>(mut self, hook: impl Fn(Arc<T>) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.retention_check = Some(Arc::new(move |t, ()| Box::pin(hook(t))));
        self
    }

    /// Sets the hook that makes a number of the next calls of `next`, by any consumer, fail with a transient error of
    /// the broker. Sessions continue, and no other calls fail.
    #[must_use]
    pub fn with_failed_reads<Fut>(mut self, hook: impl Fn(Arc<T>, u32) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.failed_reads = Some(Arc::new(move |t, times| Box::pin(hook(t, times))));
        self
    }

    /// Sets the hook that drops the answers to commits (`true`) while the offsets are committed, and delivers them again
    /// (`false`). Of a transport with transactions, it drops the answers to their commits as well.
    #[must_use]
    pub fn with_lost_commits<Fut>(mut self, hook: impl Fn(Arc<T>, bool) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.lost_commits = Some(Arc::new(move |t, lost| Box::pin(hook(t, lost))));
        self
    }

    /// Sets the hook that revokes all partitions of a group. Each is reassigned, to any member, after its release.
    #[must_use]
    pub fn with_rebalance<Fut>(mut self, hook: impl Fn(Arc<T>, Name) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.rebalance = Some(Arc::new(move |t, group| Box::pin(hook(t, group))));
        self
    }

    /// Sets the hook that stops the backend like a process exit, and reopens it with its persisted state. The suite
    /// has dropped all other handles of the backend by then.
    #[must_use]
    pub fn with_reopen<Fut>(mut self, hook: impl Fn(Arc<T>) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move |t, ()| Box::pin(hook(t))));
        self
    }

    /// Sets the hook that advances the backend's clock: cases call it instead of waiting until a session or a lease
    /// expires, or an event gets old enough to be purged. They then do not depend on the timing of a busy machine.
    #[must_use]
    pub fn with_passing_time<Fut>(mut self, hook: impl Fn(Arc<T>, Duration) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.passing_time = Some(Arc::new(move |t, time| Box::pin(hook(t, time))));
        self
    }
}

impl<T> fmt::Debug for Setup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("name", &self.name).field("pace", &self.pace).finish_non_exhaustive()
    }
}
