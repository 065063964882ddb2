//! Options of an auditor.

use std::time::Duration;

use tidings_core::Name;

use crate::events::EventPolicy;

/// The treatment of a change whose intent cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnSinkFailure {
    /// The change is refused, with the kind of the sink's error.
    #[default]
    Refuse,
    /// The change is made, and an error is logged; its records wait for the sink.
    Proceed,
}

/// Options of an [`Auditor`](crate::Auditor).
///
/// ```
/// use tidings_audit::{AuditorOptions, EventOperations, EventPolicy};
///
/// let events = EventPolicy::default().with_topic("payments", EventOperations::all());
/// let options = AuditorOptions::default().with_source("billing").with_events(events);
/// assert_eq!(options.checkpoint_every, AuditorOptions::DEFAULT_CHECKPOINT_EVERY);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuditorOptions {
    /// The writer: the CloudEvents source, and the beginning of the chain's name. Default: `tidings`.
    pub source: Name,
    /// The treatment of a change whose intent cannot be recorded. Default: it is refused.
    pub on_sink_failure: OnSinkFailure,
    /// The number of records after which a checkpoint is written. Default: [`Self::DEFAULT_CHECKPOINT_EVERY`].
    pub checkpoint_every: u64,
    /// The time after the last checkpoint at which the next one is written, if there are records since. Default:
    /// [`Self::DEFAULT_CHECKPOINT_INTERVAL`].
    pub checkpoint_interval: Duration,
    /// How long an append of up to 64 records may take before it counts as failed; the next one has half as many. A
    /// change waits for its intent up to twice as long. Default: [`Self::DEFAULT_ANSWER_WITHIN`].
    pub answer_within: Duration,
    /// The number of records that wait for a failing sink. Default: [`Self::DEFAULT_MAX_WAITING`].
    pub max_waiting: usize,
    /// The event operations that are recorded. Default: none.
    pub events: EventPolicy,
    /// The number of events that wait to be recorded; further ones are counted and dropped. Default:
    /// [`Self::DEFAULT_MAX_EVENTS`].
    pub max_events: usize,
    /// How often events are recorded. Default: [`Self::DEFAULT_FLUSH_INTERVAL`].
    pub flush_interval: Duration,
}

impl AuditorOptions {
    /// The default of [`checkpoint_every`](Self::checkpoint_every).
    pub const DEFAULT_CHECKPOINT_EVERY: u64 = 1_000;
    /// The default of [`checkpoint_interval`](Self::checkpoint_interval).
    pub const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(600);
    /// The default of [`answer_within`](Self::answer_within).
    pub const DEFAULT_ANSWER_WITHIN: Duration = Duration::from_secs(10);
    /// The default of [`max_waiting`](Self::max_waiting).
    pub const DEFAULT_MAX_WAITING: usize = 1_024;
    /// The default of [`max_events`](Self::max_events): at 32 bytes each, 2 MiB.
    pub const DEFAULT_MAX_EVENTS: usize = 65_536;
    /// The default of [`flush_interval`](Self::flush_interval).
    pub const DEFAULT_FLUSH_INTERVAL: Duration = Duration::from_millis(100);

    /// Sets the writer's name.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Name>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets what becomes of a change whose intent cannot be recorded.
    #[must_use]
    pub fn with_on_sink_failure(mut self, treatment: OnSinkFailure) -> Self {
        self.on_sink_failure = treatment;
        self
    }

    /// Sets after how many records, and after which time, a checkpoint is written.
    #[must_use]
    pub fn with_checkpoints(mut self, every: u64, interval: Duration) -> Self {
        (self.checkpoint_every, self.checkpoint_interval) = (every, interval);
        self
    }

    /// Sets how long an append may take.
    #[must_use]
    pub fn with_answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// Sets how many records wait for a failing sink.
    #[must_use]
    pub fn with_max_waiting(mut self, records: usize) -> Self {
        self.max_waiting = records;
        self
    }

    /// Sets which event operations are recorded.
    #[must_use]
    pub fn with_events(mut self, policy: EventPolicy) -> Self {
        self.events = policy;
        self
    }

    /// Sets how many events wait to be recorded.
    #[must_use]
    pub fn with_max_events(mut self, events: usize) -> Self {
        self.max_events = events;
        self
    }

    /// Sets how often events are recorded.
    #[must_use]
    pub fn with_flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }
}

impl Default for AuditorOptions {
    fn default() -> Self {
        Self {
            source: Name::from_static("tidings"),
            on_sink_failure: OnSinkFailure::default(),
            checkpoint_every: Self::DEFAULT_CHECKPOINT_EVERY,
            checkpoint_interval: Self::DEFAULT_CHECKPOINT_INTERVAL,
            answer_within: Self::DEFAULT_ANSWER_WITHIN,
            max_waiting: Self::DEFAULT_MAX_WAITING,
            events: EventPolicy::default(),
            max_events: Self::DEFAULT_MAX_EVENTS,
            flush_interval: Self::DEFAULT_FLUSH_INTERVAL,
        }
    }
}
