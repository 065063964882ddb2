//! How a backend is opened, timed and broken.

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
/// A hook: does something to the backend.
pub(crate) type Doing<T, A, R = ()> = Arc<dyn Fn(Arc<T>, A) -> Boxed<'static, Result<R>> + Send + Sync>;

/// The default of [`Setup::with_patience`].
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
/// The default of [`Setup::with_quiet`].
pub const DEFAULT_QUIET: Duration = Duration::from_secs(1);
/// The default of [`Setup::with_lifetime`].
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(6);
/// The default of [`Setup::with_case_limit`] on the real clock.
pub const DEFAULT_CASE_LIMIT: Duration = Duration::from_secs(180);
/// The default of [`Setup::with_case_limit`] on a paused clock.
pub const PAUSED_CASE_LIMIT: Duration = Duration::from_secs(30);

/// Which clock the cases run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The machine's, on a runtime of two threads: for whatever talks to another process or blocks.
    Real,
    /// Tokio's paused clock, on a runtime of one thread: for backends in memory that use Tokio's time and no other.
    Paused,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) clock: Clock,
    pub(crate) patience: Duration,
    pub(crate) quiet: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) case_limit: Duration,
    /// Records that a publisher takes unanswered, where the setup says so.
    pub(crate) unanswered: usize,
}

/// How a suite opens a backend, how long it waits for it, and how it breaks it.
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
    pub(crate) reopen: Option<Doing<T, (), T>>,
    pub(crate) passing_time: Option<Doing<T, Duration>>,
    /// Cases that are not kept, and why.
    pub(crate) without: Vec<(String, String)>,
}

impl<T: Send + Sync + 'static> Setup<T> {
    /// A backend called `name`, opened anew for each case by `open`.
    ///
    /// What `open` returns may lead to the same broker each time: cases use topics, groups and scopes of their own.
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
            },
            outage: None,
            lost_answers: None,
            slow_answers: None,
            session_loss: None,
            deleted_records: None,
            truncated_records: None,
            unreadable_records: None,
            reopen: None,
            passing_time: None,
            without: Vec::new(),
        }
    }

    /// Declares one case as not kept: it is reported as ignored with the reason, which the backend's documentation has to
    /// give as well. For a clause as a whole there are [`Guarantees`](tidings_core::Guarantees).
    ///
    /// A name that no case of the suite has makes a test of its own that fails.
    #[must_use]
    pub fn without_case(mut self, name: impl Into<String>, reason: impl Into<String>) -> Self {
        self.without.push((name.into(), reason.into()));
        self
    }

    /// On Tokio's paused clock: waiting takes no time, and a case at most [`PAUSED_CASE_LIMIT`] of real time.
    #[must_use]
    pub fn with_paused_clock(mut self) -> Self {
        self.pace.clock = Clock::Paused;
        self.pace.case_limit = PAUSED_CASE_LIMIT;
        self
    }

    /// How long anything that must come may take, a rebalance above all: [`DEFAULT_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.pace.patience = patience;
        self
    }

    /// How long to wait for what must not come: [`DEFAULT_QUIET`].
    #[must_use]
    pub fn with_quiet(mut self, quiet: Duration) -> Self {
        self.pace.quiet = quiet;
        self
    }

    /// How long sessions and leases live in the cases that let one end: [`DEFAULT_LIFETIME`], the shortest that a Kafka
    /// broker allows by default. Less makes those cases quicker where the backend can.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.pace.lifetime = lifetime;
        self
    }

    /// How long a case may take in real time before it is given up: [`DEFAULT_CASE_LIMIT`].
    #[must_use]
    pub fn with_case_limit(mut self, limit: Duration) -> Self {
        self.pace.case_limit = limit;
        self
    }

    /// How to make the backend unreachable (`true`) and reachable again (`false`).
    #[must_use]
    pub fn with_outage<Fut>(mut self, hook: impl Fn(Arc<T>, bool) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.outage = Some(Arc::new(move |t, down| Box::pin(hook(t, down))));
        self
    }

    /// How to make the answers to publishing disappear (`true`) while what is asked is done, and appear again (`false`).
    #[must_use]
    pub fn with_lost_answers<Fut>(mut self, hook: impl Fn(Arc<T>, bool) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.lost_answers = Some(Arc::new(move |t, lost| Box::pin(hook(t, lost))));
        self
    }

    /// How to have answers to publishing take longer than any case waits (`true`), and come again, those under way as well
    /// (`false`); and how many `records` a publisher may have unanswered, which should be few for this.
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

    /// How to end the session of every member that a group has now, as if their heartbeats had come to nothing.
    #[must_use]
    pub fn with_session_loss<Fut>(mut self, hook: impl Fn(Arc<T>, Name) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.session_loss = Some(Arc::new(move |t, group| Box::pin(hook(t, group))));
        self
    }

    /// How to delete records as retention (a range that begins with the oldest) or compaction (another one) would.
    ///
    /// An answer of kind [`Unsupported`](tidings_core::ErrorKind::Unsupported) has the case reported as ignored.
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

    /// How to cut a partition's log off, so that it ends at this offset; 0 is a topic made anew. What groups have committed
    /// must stay.
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

    /// How to append bytes to a partition that the backend's reader cannot read or refuses, as another client may.
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

    /// How to stop the backend, as a process that ends, and open it again with what it kept. The suite holds nothing else
    /// of the backend by then.
    #[must_use]
    pub fn with_reopen<Fut>(mut self, hook: impl Fn(Arc<T>) -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move |t, ()| Box::pin(hook(t))));
        self
    }

    /// How to have time pass for a backend whose clock a test can set: instead of waiting until a session or a lease is
    /// over, cases call this. They then depend on nothing that a busy machine is late for.
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
