//! The queue of calls that wait until the publisher's task enqueues their records, and the results they receive.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tidings_core::{Error, Position, Record, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::acks::Answered;

/// A job of the task.
pub(super) enum QueueJob {
    /// Enqueues these records.
    Publish(Publish),
    /// Resumes a partially queued call, unless it was resumed already.
    Resume(Arc<Rest>),
    /// Sends this record in a batch of its own, if its turn comes in time and no record overtook it.
    Alone { resend: Resend, deadline: Instant, reply: oneshot::Sender<Option<Answer>> },
    /// Signals when all earlier jobs are queued.
    Barrier(oneshot::Sender<()>),
}

/// Records and the time since when they wait. Their results are sent in order, before they are handed over.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) call: SharedCall,
    pub(super) since: Instant,
    pub(super) reply: mpsc::UnboundedSender<QueueResult>,
    /// Owned by the waiting call: this may remain in a channel whose receiver is gone.
    pub(super) answers: mpsc::WeakUnboundedSender<Vec<Answered>>,
}

/// The rest of a call until the task takes it. It is owned by the job, so that it is dropped with the task.
pub(super) type Rest = Mutex<Option<Publish>>;

/// Result of a record that was sent alone.
pub(super) type Answer = BoxFuture<'static, Result<Position>>;

impl std::fmt::Debug for QueueJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Publish(_) => "Publish",
            Self::Resume(_) => "Resume",
            Self::Alone { .. } => "Alone",
            Self::Barrier(_) => "Barrier",
        })
    }
}

/// The next records of a call until the task takes them, or the call is dropped.
///
/// Dropping it takes the records back: a dropped call publishes none that still waited.
#[derive(Debug)]
pub(super) struct PendingCall(SharedCall);
pub(super) type SharedCall = Arc<Mutex<Unqueued>>;

/// Records of a call that are not queued yet, from an index of the call on.
#[derive(Debug, Default)]
pub(super) struct Unqueued {
    /// Index of the first of these records in its call.
    pub(super) first: usize,
    pub(super) records: Vec<Record>,
}

impl PendingCall {
    pub(super) fn new(next: Unqueued) -> Self {
        Self(Arc::new(Mutex::new(next)))
    }

    /// Returns the task's side of the call.
    pub(super) fn permit(&self) -> SharedCall {
        Arc::clone(&self.0)
    }

    /// Checks whether the task has the records: some of them may be in flight.
    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).records.is_empty()
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        drop(take(&self.0));
    }
}

/// Takes the records; a second taker gets none.
pub(super) fn take(call: &SharedCall) -> Unqueued {
    std::mem::take(&mut *call.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The queue of jobs for the task.
#[derive(Debug)]
pub(super) struct JobQueue<J = QueueJob> {
    jobs: mpsc::UnboundedSender<J>,
    length: Length,
}

/// Number of jobs that wait or run.
pub(super) type Length = Arc<AtomicUsize>;

impl<J> JobQueue<J> {
    /// Creates the queue, its receiver and its length, which the task lowers.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<J>, Length) {
        let ((jobs, queue), length) = (mpsc::unbounded_channel(), Length::default());
        (Self { jobs, length: Arc::clone(&length) }, queue, length)
    }

    /// Queues a job; returns false if the task is gone. The caller must then not wait for the job, which may remain
    /// in the channel forever if the task ended at this moment.
    pub(super) fn push(&self, job: J) -> bool {
        self.length.fetch_add(1, Ordering::AcqRel);
        self.jobs.send(job).is_ok() && !self.jobs.is_closed()
    }

    /// Checks whether the task is running and has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.length.load(Ordering::Acquire) == 0 && !self.jobs.is_closed()
    }
}

/// Result of queueing the next records of a call.
#[derive(Debug, Default)]
pub(super) struct QueueResult {
    /// The records, which may have to be resent.
    pub(super) records: Vec<Record>,
    /// The location of each record.
    pub(super) enqueued: Vec<Enqueued>,
    /// Index and error of each record that was not queued.
    pub(super) failed: Vec<(usize, Error)>,
}

/// Location of a record in the client's queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Enqueued {
    pub(super) partition: u32,
    /// Number of records placed in its partition, including this one and those that the client did not accept.
    pub(super) ordinal: u64,
    /// Limit of its batch in bytes, if it was known to be below the configured one.
    pub(super) max_batch_bytes: Option<NonZeroU32>,
}

impl QueueResult {
    /// Adds a record that was not queued, with a location that is never used.
    pub(super) fn fail(&mut self, index: usize, error: Error) {
        self.enqueued.push(Enqueued::default());
        self.failed.push((index, error));
    }
}

/// A record to resend, with its location.
#[derive(Debug, Clone)]
pub(super) struct Resend {
    pub(super) record: Record,
    /// Its number may be that of a later record, which may precede it.
    pub(super) enqueued: Enqueued,
    /// Its batch was larger than the topic accepts.
    pub(super) too_large: bool,
}

/// Returns the next result of a call that was queued, if it was.
pub(super) async fn next(rest: &mut Option<mpsc::UnboundedReceiver<QueueResult>>) -> Option<QueueResult> {
    rest.as_mut()?.recv().await
}
