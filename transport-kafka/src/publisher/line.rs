//! The line of those that wait until the publisher's task queues their records, and what they are told.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tidings_core::{Error, Position, Record, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::lane::Answered;

/// What the task is asked to do.
pub(super) enum Job {
    /// Queue these.
    Publish(Publish),
    /// Go on with a call that was queued in part, if it was not gone on with already.
    GoOn(Arc<Rest>),
    /// Send this one in a batch of its own, if its turn comes in time and it was not overtaken.
    Alone { again: Again, deadline: Instant, reply: oneshot::Sender<Option<Answer>> },
    /// Say when all that came before is queued.
    Barrier(oneshot::Sender<()>),
}

/// Records for which somebody waits since then. They are told of in order, and before they are handed over.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) call: SharedCall,
    pub(super) since: Instant,
    pub(super) reply: mpsc::UnboundedSender<Queued>,
    /// Kept by whoever waits: this may lie in a channel whose other end is gone.
    pub(super) answers: mpsc::WeakUnboundedSender<Vec<Answered>>,
}

/// The rest of a call until the task takes it. It is the job's, so that it is gone with the task.
pub(super) type Rest = Mutex<Option<Publish>>;

/// What comes of a record that was sent by itself.
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

/// The records of a call from a place on.
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

    /// Whether the task has the records: some of them may be on their way.
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

/// The line of those that the task has to work for.
#[derive(Debug)]
pub(super) struct Line {
    jobs: mpsc::UnboundedSender<Job>,
    length: Length,
}

/// How many jobs wait, or are being done.
pub(super) type Length = Arc<AtomicUsize>;

impl Line {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Job>, Length) {
        let ((jobs, queue), length) = (mpsc::unbounded_channel(), Length::default());
        (Self { jobs, length: Arc::clone(&length) }, queue, length)
    }

    /// False when the task is gone: then nobody is to wait for the job, which may lie in the channel for good if the task
    /// went in this very moment.
    pub(super) fn get_in(&self, job: Job) -> bool {
        self.length.fetch_add(1, Ordering::AcqRel);
        self.jobs.send(job).is_ok() && !self.jobs.is_closed()
    }

    /// Whether the task has nothing to do, and is there if something is to be done.
    pub(super) fn is_idle(&self) -> bool {
        self.length.load(Ordering::Acquire) == 0 && !self.jobs.is_closed()
    }
}

/// What was made of the next records of a call.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// They may have to be sent again.
    pub(super) records: Vec<Record>,
    /// Where each is.
    pub(super) placed: Vec<Placed>,
    pub(super) failed: Vec<(usize, Error)>,
}

/// Where a record is in the client's queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Placed {
    pub(super) partition: u32,
    /// How many records were placed in its partition, with it; one that the client did not take is counted, too.
    pub(super) number: u64,
    /// How many bytes its batch may have had, where that was known to be less than a batch has.
    pub(super) most: Option<NonZeroU32>,
}

impl Queued {
    pub(super) fn fail(&mut self, place: usize, error: Error) {
        self.placed.push(Placed::default());
        self.failed.push((place, error));
    }
}

/// What it takes to send a record once more.
#[derive(Debug, Clone)]
pub(super) struct Again {
    pub(super) record: Record,
    /// Its number may be that of a later record, which may precede it.
    pub(super) placed: Placed,
    /// Its batch was larger than the topic takes.
    pub(super) too_large: bool,
}

/// The next of what is made of a call that got in line, if it did.
pub(super) async fn next(rest: &mut Option<mpsc::UnboundedReceiver<Queued>>) -> Option<Queued> {
    rest.as_mut()?.recv().await
}
