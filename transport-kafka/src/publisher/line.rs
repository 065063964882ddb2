//! The queue of calls that wait until the publisher's task enqueues their records, and the results they receive.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tidings_core::{Error, Position, Record, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::lane::Answered;

/// A job of the task.
pub(super) enum Job {
    /// Enqueues these records.
    Publish(Publish),
    /// Resumes a partially queued call, unless it was resumed already.
    GoOn(Arc<Rest>),
    /// Sends this record in a batch of its own, if its turn comes in time and no record overtook it.
    Alone { again: Again, deadline: Instant, reply: oneshot::Sender<Option<Answer>> },
    /// Signals when all earlier jobs are queued.
    Barrier(oneshot::Sender<()>),
}

/// Records and the time since when they wait. Their results are sent in order, before they are handed over.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) call: SharedCall,
    pub(super) since: Instant,
    pub(super) reply: mpsc::UnboundedSender<Queued>,
    /// Owned by the waiting call: this may remain in a channel whose receiver is gone.
    pub(super) answers: mpsc::WeakUnboundedSender<Vec<Answered>>,
}

/// The rest of a call until the task takes it. It is owned by the job, so that it is dropped with the task.
pub(super) type Rest = Mutex<Option<Publish>>;

/// Result of a record that was sent alone.
pub(super) type Answer = BoxFuture<'static, Result<Position>>;

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Publish(_) => "Publish",
            Self::GoOn(_) => "GoOn",
            Self::Alone { .. } => "Alone",
            Self::Barrier(_) => "Barrier",
        })
    }
}

/// The next records of a call until the task takes them, or the call is dropped.
#[derive(Debug)]
pub(super) struct Call(SharedCall);
pub(super) type SharedCall = Arc<Mutex<Next>>;

/// The records of a call, beginning with a place.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) first: usize,
    pub(super) records: Vec<Record>,
}

impl Call {
    pub(super) fn new(next: Next) -> Self {
        Self(Arc::new(Mutex::new(next)))
    }

    pub(super) fn share(&self) -> SharedCall {
        Arc::clone(&self.0)
    }

    /// Checks whether the task has the records: some of them may be in flight.
    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).records.is_empty()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        drop(take(&self.0));
    }
}

pub(super) fn take(call: &SharedCall) -> Next {
    std::mem::take(&mut *call.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The queue of jobs for the task.
#[derive(Debug)]
pub(super) struct Line {
    jobs: mpsc::UnboundedSender<Job>,
    length: Length,
}

/// Number of jobs that wait or run.
pub(super) type Length = Arc<AtomicUsize>;

impl Line {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Job>, Length) {
        let ((jobs, queue), length) = (mpsc::unbounded_channel(), Length::default());
        (Self { jobs, length: Arc::clone(&length) }, queue, length)
    }

    /// Queues a job; returns false if the task is gone. The caller must then not wait for the job, which may remain
    /// in the channel forever if the task ended at this moment.
    pub(super) fn get_in(&self, job: Job) -> bool {
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
pub(super) struct Queued {
    /// The records, which may have to be resent.
    pub(super) records: Vec<Record>,
    /// The location of each record.
    pub(super) placed: Vec<Placed>,
    pub(super) failed: Vec<(usize, Error)>,
}

/// Location of a record in the client's queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Placed {
    pub(super) partition: u32,
    /// Number of records placed in its partition, including this one and those that the client did not accept.
    pub(super) number: u64,
    /// Limit of its batch in bytes, if it was known to be below the configured one.
    pub(super) most: Option<NonZeroU32>,
}

impl Queued {
    pub(super) fn fail(&mut self, place: usize, error: Error) {
        self.placed.push(Placed::default());
        self.failed.push((place, error));
    }
}

/// A record to resend, with its location.
#[derive(Debug, Clone)]
pub(super) struct Again {
    pub(super) record: Record,
    /// Its number may be that of a later record, which may precede it.
    pub(super) placed: Placed,
    /// Its batch was larger than the topic accepts.
    pub(super) too_large: bool,
}

/// Returns the next result of a call that was queued, if it was.
pub(super) async fn next(rest: &mut Option<mpsc::UnboundedReceiver<Queued>>) -> Option<Queued> {
    rest.as_mut()?.recv().await
}
