//! The writer of an audit trail.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidings_core::audit::{AuditOutcome, AuditPhase, AuditRecord, AuditSink, AuditedEvent};
use tidings_core::{Error, Name, Result};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::chain::Checkpoint;
use crate::events::{AuditObserver, Events, Operation};
use crate::options::{AuditorOptions, OnSinkFailure};
use crate::queue::{Queue, Ticket, refusal};
use crate::services::Watched;
use crate::status::AuditStatus;

/// Maximum number of event records made at once, so that other tasks of the thread can run in between.
const EVENT_RECORDS: usize = 8;
/// The longest pause between two attempts to write what waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Writes audit records to a sink, as one chain.
///
/// Cheap to clone; clones write to the same chain. A new auditor begins a new chain, so nothing has to be read at the
/// start and no two writers share one.
///
/// Records that the sink did not take wait in memory and are written again with the next record, or by a task in the
/// background. Call [`close`](Self::close) at the end of the program: what waits then is written, with a checkpoint.
#[derive(Clone)]
pub struct Auditor(Arc<Inner>);

struct Inner {
    queue: Queue,
    events: Events,
    watched: Watched,
    options: AuditorOptions,
    /// Whether the task that writes what waits is running.
    started: AtomicBool,
    wake: Arc<Notify>,
}

impl Auditor {
    /// Creates an auditor that writes to `sink`, which may be an `Arc` of one, with the default options.
    pub fn new(sink: impl AuditSink) -> Self {
        Self::with_options(sink, AuditorOptions::default())
    }

    /// Creates an auditor with options.
    pub fn with_options(sink: impl AuditSink, options: AuditorOptions) -> Self {
        let events = Events::new(options.events.clone(), options.max_events);
        let queue = Queue::new(Arc::new(sink), options.clone());
        let watched = Watched::default();
        Self(Arc::new(Inner { queue, events, watched, options, started: AtomicBool::new(false), wake: Arc::default() }))
    }

    /// Records that a change is about to be made, and returns the attempt, whose result must be recorded.
    ///
    /// # Errors
    /// The kind of the sink's error, unless changes [proceed](OnSinkFailure::Proceed) without records; `Unavailable`
    /// instead of `Indeterminate`, since the change was not made. The caller must not make the change. The refusal itself
    /// is recorded when the sink takes records.
    ///
    /// # Cancel safety
    /// A dropped future records that the outcome is unknown; the change was not made.
    pub async fn begin(&self, intent: AuditRecord) -> Result<Attempt> {
        let ticket = match self.0.queue.accept(std::slice::from_ref(&intent)) {
            Ok(ticket) => ticket,
            Err(error) => return self.judge(Attempt { auditor: self.clone(), intent: None }, &intent, error),
        };
        let attempt = Attempt { auditor: self.clone(), intent: Some(intent.clone()) };
        match self.0.queue.send(ticket).await {
            Ok(()) => Ok(attempt),
            Err(error) => self.judge(attempt, &intent, error),
        }
    }

    /// Records an operation that changed nothing, such as a read of payloads. It has no intent: the caller must not
    /// return the payloads before this returns `Ok`.
    ///
    /// ```
    /// use tidings_audit::{Auditor, MemoryAudit};
    /// use tidings_core::audit::{AuditOutcome, AuditRecord, Principal};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let sink = MemoryAudit::new();
    /// let read = AuditRecord::intent(Principal::new("ann"), "event.read").with_resource("topic:orders");
    /// Auditor::new(sink.clone()).record(&read, AuditOutcome::Ok).await?;
    /// assert_eq!(sink.records().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    ///
    /// # Cancel safety
    /// If the future is dropped, the record is written later.
    pub async fn record(&self, done: &AuditRecord, outcome: AuditOutcome) -> Result<()> {
        self.record_all(std::slice::from_ref(done), &outcome).await
    }

    /// As [`record`](Self::record), for an operation whose resources or events need several records: all or none of
    /// them are written.
    ///
    /// A refused operation whose records wait for the sink is recorded as failed as well: each `ok` is followed by a
    /// `failed` that names it.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin).
    ///
    /// # Cancel safety
    /// If the future is dropped, the records are written later.
    pub async fn record_all(&self, done: &[AuditRecord], outcome: &AuditOutcome) -> Result<()> {
        let mut results = done.to_vec();
        for result in &mut results {
            result.phase = AuditPhase::Result { intent: None, outcome: outcome.clone() };
        }
        let ticket = self.0.queue.accept_minor(&results);
        let is_linked = ticket.is_ok();
        let recorded = async { self.0.queue.send(ticket?).await };
        let recorded = recorded.await;
        // Also after success: a checkpoint is due some time later.
        self.wake();
        let (Err(error), OnSinkFailure::Refuse, Some(first)) = (recorded, self.0.options.on_sink_failure, done.first())
        else {
            return Ok(());
        };
        let error = refusal(&first.verb, error);
        if is_linked && *outcome == AuditOutcome::Ok {
            for result in &results {
                self.keep(&result.result(AuditOutcome::Failed { kind: error.kind(), error: error.to_string() }));
            }
        }
        Err(error)
    }

    /// Decides about a change whose intent was not stored.
    fn judge(&self, mut attempt: Attempt, intent: &AuditRecord, error: Error) -> Result<Attempt> {
        self.wake();
        if self.0.options.on_sink_failure == OnSinkFailure::Proceed {
            return Ok(attempt);
        }
        let error = refusal(&intent.verb, error);
        if let Some(intent) = attempt.intent.take() {
            self.keep(&intent.result(AuditOutcome::Failed { kind: error.kind(), error: error.to_string() }));
        }
        Err(error)
    }

    /// Records an attempt that was refused before it reached the broker or the store, such as by a role.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin): the records wait for the sink.
    pub async fn denied(&self, intent: AuditRecord, error: impl Into<String>) -> Result<()> {
        let result = intent.result(AuditOutcome::Denied { error: error.into() });
        let ticket = self.0.queue.accept_minor(&[intent, result])?;
        // Also after success: a checkpoint is due some time later.
        self.wake();
        self.0.queue.send(ticket).await
    }

    /// Returns an observer that records the event operations of a service, as the options'
    /// [policy](AuditorOptions::events) says.
    ///
    /// ```
    /// use tidings_audit::{Auditor, AuditorOptions, EventOperations, EventPolicy, MemoryAudit};
    /// use tidings_core::Delivery;
    /// use tidings_service::{Router, Service};
    ///
    /// let events = EventPolicy::default().with_topic("payments", EventOperations::all());
    /// let auditor = Auditor::with_options(MemoryAudit::new(), AuditorOptions::default().with_events(events));
    /// let router = Router::new().on_topic("payments", async |_: Delivery| {});
    /// let service = Service::new("billing", router).with_observer(auditor.observer());
    /// # let _ = service;
    /// ```
    pub fn observer(&self) -> AuditObserver {
        AuditObserver::new(self.clone())
    }

    /// Writes everything that waits, events included; those that come meanwhile are left to the next call. Each append
    /// has the options' [`answer_within`](AuditorOptions::answer_within).
    ///
    /// # Errors
    /// The sink's.
    pub async fn flush(&self) -> Result<()> {
        for ended in self.0.watched.take_ended(self.source()) {
            self.0.queue.accept_result(&ended)?;
        }
        self.0.queue.send_waiting().await?;
        let mut left = self.0.events.mark();
        while left > 0 {
            let records = self.0.events.take(EVENT_RECORDS.min(self.0.queue.room()));
            if records.is_empty() {
                break;
            }
            left = left.saturating_sub(records.iter().map(|record| record.events.len()).sum());
            self.0.queue.accept(&records)?;
            tokio::task::yield_now().await;
            self.0.queue.send_waiting().await?;
        }
        Ok(())
    }

    /// Writes everything that waits and a checkpoint, and returns it: the end of the chain, to be kept elsewhere.
    /// `None` if nothing was ever written.
    ///
    /// # Errors
    /// The sink's.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        self.flush().await?;
        let ticket = self.0.queue.checkpoint()?;
        self.0.queue.send(ticket).await?;
        Ok(self.0.queue.stored())
    }

    /// Ends the chain: as [`checkpoint`](Self::checkpoint). Later records continue it.
    ///
    /// # Errors
    /// The sink's: then records are lost when the program ends.
    pub async fn close(&self) -> Result<Option<Checkpoint>> {
        self.checkpoint().await
    }

    /// Returns the sink, for reading the trail.
    pub fn sink(&self) -> Arc<dyn AuditSink> {
        self.0.queue.sink()
    }

    /// Returns the options.
    pub fn options(&self) -> &AuditorOptions {
        &self.0.options
    }

    /// Returns the state.
    pub fn status(&self) -> AuditStatus {
        let snapshot = self.0.queue.snapshot();
        let (waiting_events, dropped_events) = self.0.events.counts();
        AuditStatus {
            chain: snapshot.chain,
            stored: snapshot.stored,
            waiting: snapshot.waiting,
            lost: snapshot.lost,
            waiting_events,
            dropped_events,
            since_checkpoint: snapshot.since_checkpoint,
            checkpoint_age: snapshot.checkpoint_age,
            failure: snapshot.failure,
        }
    }

    /// Returns the writer's name.
    pub(crate) fn source(&self) -> &Name {
        &self.0.options.source
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.0.watched
    }

    /// Returns what wakes the background task.
    pub(crate) fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.0.wake)
    }

    /// Keeps events for the next record; never waits.
    pub(crate) fn note(
        &self,
        operation: Operation,
        by: &Name,
        topic: &Name,
        events: impl IntoIterator<Item = AuditedEvent>,
    ) {
        let is_first = self.0.events.add(operation, by, topic, events);
        // The task ends with its runtime: then the next events start another one.
        if is_first || !self.0.started.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Keeps a result for the next append.
    fn keep(&self, result: &AuditRecord) -> Option<Ticket> {
        let kept = self.0.queue.accept_result(result);
        self.wake();
        kept.inspect_err(|error| {
            let (verb, error) = (&result.verb, error.report());
            tracing::error!(target: "tidings::audit", %verb, %error, "an audit record of a result is lost");
        })
        .ok()
    }

    /// Writes everything that waits, and a checkpoint if one is due.
    async fn write_due(&self) -> Result<()> {
        self.flush().await?;
        if self.0.queue.checkpoint_due().is_some_and(|due| due <= Instant::now()) {
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Has the background task write what waits; starts it, where there is a runtime.
    fn wake(&self) {
        if !self.0.started.load(Ordering::Acquire) {
            let Ok(runtime) = Handle::try_current() else { return };
            if !self.0.started.swap(true, Ordering::AcqRel) {
                let running = Running(Arc::downgrade(&self.0));
                runtime.spawn(write(running, Arc::clone(&self.0.wake), self.0.options.flush_interval));
            }
        }
        self.0.wake.notify_one();
    }
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Auditor").field(&self.status()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task ends.
        self.wake.notify_one();
    }
}

/// The background task of an auditor. Dropped, as with the runtime of the task, it lets another one start.
struct Running(Weak<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(auditor) = self.0.upgrade() {
            auditor.started.store(false, Ordering::Release);
        }
    }
}

/// Writes what waits, in intervals for as long as something does, and a checkpoint when it is due. Ends with the last
/// clone of its auditor.
async fn write(running: Running, wake: Arc<Notify>, interval: Duration) {
    let mut pause = interval;
    loop {
        let Some(due) = running.0.upgrade().map(|auditor| auditor.queue.checkpoint_due()) else { return };
        match due {
            // Elapsed or woken, what is due is written.
            Some(due) => drop(timeout_at(due, wake.notified()).await),
            None => wake.notified().await,
        }
        loop {
            tokio::time::sleep(pause).await;
            let Some(auditor) = running.0.upgrade().map(Auditor) else { return };
            pause = match auditor.write_due().await {
                Ok(()) => interval,
                Err(_) => (pause * 2).min(LONGEST_PAUSE),
            };
            if !auditor.0.queue.has_waiting() && auditor.0.events.counts().0 == 0 {
                break;
            }
        }
    }
}

/// A change whose intent is recorded. [`finish`](Self::finish) records its result; dropped without that, it records
/// that the outcome is unknown.
#[derive(Debug)]
#[must_use = "the result of the change must be recorded"]
pub struct Attempt {
    auditor: Auditor,
    /// `None` once the result is recorded, or if the intent is not.
    intent: Option<AuditRecord>,
}

impl Attempt {
    /// Records the result: [`AuditRecord::result`] of the intent.
    ///
    /// If the sink does not take it, it waits: the change is made, and its caller gets its answer.
    pub async fn finish(mut self, result: AuditRecord) {
        self.intent = None;
        let Some(ticket) = self.auditor.keep(&result) else { return };
        // Logged by the queue; the background task tries again.
        let _later = self.auditor.0.queue.send(ticket).await;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(intent) = self.intent.take() {
            self.auditor.keep(&intent.result(AuditOutcome::Unknown));
        }
    }
}
