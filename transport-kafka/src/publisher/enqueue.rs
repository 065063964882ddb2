//! Queues records in the order in which calls were first polled.
//!
//! A call queues its records itself if it does not have to wait and no other call waits. Otherwise it waits in the job
//! queue for a task that queues them, which also serves calls that wait at the limit and calls that are no longer
//! polled.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{Name, Record, Result};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::Instant;
use tracing::error;

use super::acks::Answered;
use super::buffer_limit::BufferLimit;
use super::closed;
use super::enqueuer::Enqueuer;
use super::partitioning::{KeylessChooser, Partitioning, TopicState};
use super::producers::{Producers, ReadyBatches};
use super::queue_job::{Enqueued, JobQueue, Length, Publish, QueueJob, QueueResult, Rest, Unqueued};
use super::silent_partitions::SilentPartitions;
use crate::client::producer::RecordContent;
use crate::config::KafkaConfig;

/// Maximum number of records queued at once: more would keep a thread from other work for too long.
pub(super) const MAX_AT_ONCE: usize = 1_024;

/// State owned by the current enqueuer.
#[derive(Debug)]
struct EnqueueState {
    /// Known topics and the partitions of keyless records.
    partitioning: Partitioning,
    /// Partitions to which no record is sent alone for now.
    silent: SilentPartitions,
    /// The rest of a call that queued its first records itself: it precedes everything queued since, or the records
    /// of two calls would mix.
    rest: Weak<Rest>,
}

/// State shared by the publisher and its task.
#[derive(Debug)]
pub(super) struct Shared {
    /// Both producers, which outlive the publisher until their records are answered.
    pub(super) producers: Producers,
    /// Bound on records in flight, of this publisher alone.
    pub(super) buffer_limit: BufferLimit,
    /// Locked by the current enqueuer until all of its records are queued.
    state: Mutex<EnqueueState>,
    /// Set when waiting calls are abandoned.
    ///
    /// From then on nothing new is queued; records that are queued are still sent.
    pub(super) abandoned: AtomicBool,
    /// Larger records are refused before they are queued.
    pub(super) max_record_bytes: usize,
    /// Bounds the wait for a topic and the resending of refused batches, too.
    pub(super) delivery_timeout: Duration,
}

impl Shared {
    /// Creates the state of an open publisher.
    pub(super) fn new(producers: Producers, config: &KafkaConfig) -> Self {
        Self {
            producers,
            buffer_limit: BufferLimit::new(config.max_unanswered_records, config.max_unanswered_bytes),
            state: Mutex::new(EnqueueState {
                partitioning: Partitioning::new(config.batch_bytes, config.metadata_max_age),
                silent: SilentPartitions::default(),
                rest: Weak::new(),
            }),
            abandoned: AtomicBool::new(false),
            max_record_bytes: config.max_record_bytes,
            delivery_timeout: config.delivery_timeout,
        }
    }

    /// Queues the first of these records, in order: all of them, unless a wait is needed or other calls already wait.
    /// `to_job` turns the rest into a job for the task; returns whether the task is there to do it.
    pub(super) fn queue_at_once(
        &self,
        job_queue: &JobQueue,
        mut records: Vec<Record>,
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
        to_job: impl FnOnce(Unqueued) -> Publish,
    ) -> (QueueResult, bool) {
        let mut queued = QueueResult::default();
        let mut state = self.try_turn(job_queue);
        let first =
            state.as_mut().map_or(0, |state| self.queue_first(&mut state.partitioning, &records, answers, &mut queued));
        let rest = records.split_off(first);
        queued.records = records;
        if rest.is_empty() {
            return (queued, true);
        }
        let rest = to_job(Unqueued { first, records: rest });
        let job = match &mut state {
            Some(state) => {
                let rest = Arc::new(Rest::new(Some(rest)));
                state.rest = Arc::downgrade(&rest);
                QueueJob::Resume(rest)
            }
            None => QueueJob::Publish(rest),
        };
        (queued, job_queue.push(job))
    }

    /// Returns the turn, unless another call has it or waits in the job queue by now.
    ///
    /// The lock alone is not enough: a job may wait for it.
    fn try_turn(&self, job_queue: &JobQueue) -> Option<MutexGuard<'_, EnqueueState>> {
        let state = self.state.try_lock().ok()?;
        (job_queue.is_idle() && self.check_open().is_ok()).then_some(state)
    }

    /// Returns how many records could be queued at once.
    ///
    /// Stops at the first record that needs a broker, is too large, or has no room.
    fn queue_first(
        &self,
        partitioning: &mut Partitioning,
        records: &[Record],
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
        queued: &mut QueueResult,
    ) -> usize {
        let (now, bytes) = (Instant::now(), records.iter().map(Record::size).sum());
        let fits = records.len() <= MAX_AT_ONCE;
        let permit = if fits { self.buffer_limit.try_take_all(records.len(), bytes) } else { None };
        let Some(mut permit) = permit else { return 0 };
        queued.enqueued.reserve_exact(records.len());
        let mut ready = ReadyBatches::of(records.len());
        let mut known: Option<(&Name, &mut TopicState, &mut KeylessChooser)> = None;
        let mut first = 0;
        for record in records {
            if known.as_ref().is_none_or(|(topic, ..)| **topic != record.topic) {
                known =
                    partitioning.known_at(&record.topic, now).map(|(state, chooser)| (&record.topic, state, chooser));
            }
            let Some((topic, state, chooser)) = &mut known else { break };
            let size = record.size();
            // Errors and questions to brokers are left to the task.
            let Some(partition) = state.partition_now(record, chooser).filter(|_| size <= self.max_record_bytes) else {
                break;
            };
            match RecordContent::of(record) {
                Ok(content) => {
                    let max_batch_bytes = state.max_batch_bytes();
                    queued.enqueued.push(Enqueued {
                        partition,
                        ordinal: state.note_queued(partition),
                        max_batch_bytes,
                    });
                    ready.push((first, size), (*topic, partition, max_batch_bytes), content, &mut permit, answers);
                }
                Err(error) => queued.fail(first, error),
            }
            first += 1;
        }
        // During our turn, so that no other call's records come first.
        self.producers.send(&mut ready);
        first
    }

    /// Sends a call the results of its next records, and hands over those that are ready: in this order, so that
    /// their answers find them.
    pub(super) fn hand_over(
        &self,
        reply: &mut mpsc::UnboundedSender<QueueResult>,
        queued: &mut QueueResult,
        ready: &mut ReadyBatches,
    ) {
        tell(reply, std::mem::take(queued));
        self.producers.send(ready);
    }

    /// Fails current and future waiters because the publisher is closed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.buffer_limit.close();
    }

    /// # Errors
    /// [`Closed`](tidings_core::ErrorKind::Closed) once waiting calls are abandoned.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

/// Runs until the publisher is gone.
///
/// A panic ends one job, not the task: other calls must not hang.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::UnboundedReceiver<QueueJob>, length: Length) {
    while let Some(job) = jobs.recv().await {
        // As in a producer's worker: unfinished work is dropped, which informs its waiters.
        if AssertUnwindSafe(run_job(&shared, job)).catch_unwind().await.is_err() {
            error!("a publisher thread panicked and continues; records waiting to be queued may or may not be stored");
        }
        length.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs one job, after the rest of a call that queued its first records itself.
async fn run_job(shared: &Shared, job: QueueJob) {
    let mut state = shared.state.lock().await;
    let EnqueueState { partitioning, silent, rest } = &mut *state;
    let mut enqueuer = Enqueuer { shared, partitioning, silent };
    let rest = std::mem::take(rest).upgrade();
    let rest = rest.and_then(|rest| rest.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(rest) = rest {
        enqueuer.publish(rest).await;
    }
    // The caller may be gone: its queued records are sent all the same.
    match job {
        QueueJob::Publish(publish) => enqueuer.publish(publish).await,
        QueueJob::Resume(done) => drop(done),
        QueueJob::Alone { resend, deadline, reply } => drop(reply.send(enqueuer.alone(resend, deadline).await)),
        QueueJob::Barrier(reply) => drop(reply.send(())),
    }
}

/// Sends a call the result of queueing. If the call is gone, nothing is kept for it, even if it ended at this moment:
/// the message then remains in the channel until that is dropped.
fn tell(reply: &mut mpsc::UnboundedSender<QueueResult>, queued: QueueResult) {
    drop(reply.send(queued));
    if reply.is_closed() {
        *reply = mpsc::unbounded_channel().0;
    }
}
