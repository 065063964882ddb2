//! Queues records in the order in which calls were first polled, as the client's publisher does.
//!
//! Records are encoded into the open batches of their partitions by the call itself, if it does not have to wait and no
//! other call waits. Otherwise a task does it, in the order of the job queue.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::FutureExt;
use tidings_core::{Error, ErrorKind, Name, Record, Timestamp};
use tokio::sync::{Mutex, MutexGuard, Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::buffer::{Appended, PartitionBuffer};
use super::call::{OpenCall, Queueing};
use super::sending::Sending;
use super::topics::Topics;
use crate::client::producer::check_headers;
use crate::config::KafkaConfig;
use crate::publisher::buffer_limit::{BufferLimit, BufferPermit};
use crate::publisher::lookup::Lookup;
use crate::publisher::partitioning::{KeylessChooser, Partitioning, TopicState};
use crate::publisher::queue_job::{JobQueue, Length, PendingCall, SharedCall, Unqueued, take};
use crate::publisher::{closed, gone};
use crate::wire::records::NewRecord;

/// Maximum number of records queued at once: more would keep a thread from other work for too long.
const MAX_AT_ONCE: usize = 1_024;

/// Time for a question about a topic after the time of the call is over.
const LAST_LOOKUP: Duration = Duration::from_secs(1);

/// A job of the task.
#[derive(Debug)]
pub(super) enum Job {
    /// Queues these records.
    Publish(Publish),
    /// Queues the rest of a call that queued its first records itself.
    Resume,
    /// Signals when all earlier jobs are queued.
    Barrier(oneshot::Sender<()>),
}

/// Records of a call, and the time when they began to wait.
#[derive(Debug)]
pub(super) struct Publish {
    records: SharedCall,
    call: OpenCall,
    since: Instant,
}

/// State owned by the current enqueuer.
#[derive(Debug)]
struct State {
    partitioning: Partitioning,
    /// The partitions of known topics.
    buffers: HashMap<Name, Vec<Arc<PartitionBuffer>>, RandomState>,
    /// The rest of a call that queued its first records itself: it precedes everything queued since, or the records of
    /// two calls would mix.
    rest: Option<Publish>,
}

/// State shared by the publisher and its task.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) sending: Sending,
    topics: Topics,
    limit: BufferLimit,
    /// Locked by the current enqueuer until all of its records are queued.
    state: Mutex<State>,
    /// Set when waiting calls are abandoned.
    abandoned: AtomicBool,
    abandons: Notify,
    max_record_bytes: usize,
    batch_bytes: usize,
    delivery_timeout: Duration,
}

/// A topic in use by the current enqueuer.
struct CurrentTopic<'a> {
    name: &'a Name,
    state: &'a mut TopicState,
    chooser: &'a mut KeylessChooser,
    buffers: &'a [Arc<PartitionBuffer>],
}

/// The times of records that are queued together.
#[derive(Clone, Copy)]
struct Now {
    instant: Instant,
    millis: i64,
}

impl Now {
    fn read() -> Self {
        Self { instant: Instant::now(), millis: Timestamp::now().millis() }
    }
}

impl Shared {
    /// Creates the state of an open publisher.
    pub(super) fn new(sending: Sending, topics: Topics, config: &KafkaConfig) -> Self {
        let state = State {
            partitioning: Partitioning::new(config.batch_bytes, config.metadata_max_age),
            buffers: HashMap::default(),
            rest: None,
        };
        Self {
            sending,
            topics,
            limit: BufferLimit::new(config.max_unanswered_records, config.max_unanswered_bytes),
            state: Mutex::new(state),
            abandoned: AtomicBool::new(false),
            abandons: Notify::new(),
            max_record_bytes: config.max_record_bytes,
            batch_bytes: config.batch_bytes,
            delivery_timeout: config.delivery_timeout,
        }
    }

    /// Queues the records of a call: at once if possible, otherwise by the task. Returns the records that wait for the
    /// task; dropping them withdraws them.
    pub(super) fn queue(&self, jobs: &JobQueue<Job>, records: Vec<Record>, call: OpenCall) -> Option<PendingCall> {
        let mut records = records.into_iter();
        let mut state = self.try_turn(jobs);
        if let Some(state) = state.as_mut().filter(|_| records.len() <= MAX_AT_ONCE) {
            let bytes = records.as_slice().iter().map(Record::size).sum();
            if let Some(permit) = self.limit.try_take_all(records.len(), bytes) {
                self.queue_ready(state, &mut records, usize::MAX, Some(permit), &call);
            }
        }
        if records.len() == 0 {
            return None;
        }
        let pending = PendingCall::new(Unqueued { first: 0, records: records.collect() });
        let rest = Publish { records: pending.permit(), call, since: Instant::now() };
        let job = match &mut state {
            Some(state) => {
                state.rest = Some(rest);
                Job::Resume
            }
            None => Job::Publish(rest),
        };
        if !jobs.push(job)
            && let Some(state) = &mut state
        {
            state.rest = None;
        }
        Some(pending)
    }

    /// Locks the state, unless another call has locked it or waits in the job queue.
    fn try_turn(&self, jobs: &JobQueue<Job>) -> Option<MutexGuard<'_, State>> {
        let state = self.state.try_lock().ok()?;
        (jobs.is_idle() && !self.abandoned.load(Ordering::Acquire)).then_some(state)
    }

    /// Queues at most `most` of the next records, and stops at the first that needs a lookup, has no room, or is too
    /// large. Without a `permit` for all of them, each takes its own.
    fn queue_ready(
        &self,
        state: &mut State,
        records: &mut std::vec::IntoIter<Record>,
        most: usize,
        mut permit: Option<BufferPermit>,
        call: &OpenCall,
    ) {
        let (now, mut queueing) = (Now::read(), call.queueing());
        let State { partitioning, buffers, .. } = state;
        let mut woken = Woken::new(&self.sending);
        let mut current: Option<CurrentTopic<'_>> = None;
        let slice = records.as_slice();
        let mut queued = 0;
        for record in slice.iter().take(most) {
            if current.as_ref().is_none_or(|current| *current.name != record.topic) {
                current = self.current(partitioning, buffers, &record.topic, now.instant);
            }
            let Some(topic) = &mut current else { break };
            let size = record.size();
            let mut own;
            let permit = match &mut permit {
                Some(permit) => permit,
                None => match self.limit.try_take(size) {
                    Some(permit) => {
                        own = permit;
                        &mut own
                    }
                    None => break,
                },
            };
            // The task handles errors and lookups.
            let partition = topic.state.partition_now(record, topic.chooser).filter(|_| size <= self.max_record_bytes);
            let buffer = partition.and_then(|partition| topic.buffers.get(partition as usize));
            let Some(buffer) = buffer else { break };
            topic.state.note_queued(buffer.at.partition);
            append(buffer, record, size, now, permit, &mut queueing, &mut woken);
            queued += 1;
        }
        records.by_ref().take(queued).for_each(drop);
    }

    /// Returns a topic that is recent enough.
    fn current<'a>(
        &self,
        partitioning: &'a mut Partitioning,
        buffers: &'a mut HashMap<Name, Vec<Arc<PartitionBuffer>>, RandomState>,
        name: &'a Name,
        now: Instant,
    ) -> Option<CurrentTopic<'a>> {
        let (state, chooser) = partitioning.known_at(name, now)?;
        if buffers.get(name).is_none_or(|buffers| buffers.len() < state.count() as usize) {
            let known = buffers.entry(name.clone()).or_default();
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            let new = |partition| Arc::new(PartitionBuffer::new(name.clone(), partition, self.batch_bytes));
            known.extend((next..state.count()).map(new));
        }
        Some(CurrentTopic { name, state, chooser, buffers: buffers.get(name)? })
    }

    /// Queues the records of a call in order. A record that cannot be queued gets its error and does not stop the next
    /// ones (P1).
    async fn publish(&self, state: &mut State, Publish { records, call, since }: Publish) {
        let mut records = take(&records).records.into_iter();
        // One deadline for the whole call: records behind a topic that cannot be looked up have waited, too.
        let deadline = since + self.delivery_timeout;
        let mut missing = HashSet::new();
        while records.len() > 0 {
            let before = records.len();
            if !self.abandoned.load(Ordering::Acquire) {
                let next = records.as_slice().iter().take(MAX_AT_ONCE);
                let (count, bytes) = (next.len(), next.map(Record::size).sum());
                let permit = self.limit.try_take_all(count, bytes);
                self.queue_ready(state, &mut records, count, permit, &call);
            }
            if records.len() < before {
                // Lets the sending task run on this thread.
                yield_now().await;
            } else if let Some(record) = records.next() {
                self.queue_one(state, &record, &call, &mut missing, (since, deadline)).await;
            }
        }
    }

    /// Queues a record that needs a lookup, has no room, or is refused.
    async fn queue_one(
        &self,
        state: &mut State,
        record: &Record,
        call: &OpenCall,
        missing: &mut HashSet<Name>,
        (since, deadline): (Instant, Instant),
    ) {
        let mut lookup = Lookup {
            partitioning: &mut state.partitioning,
            source: &self.topics,
            max_record_bytes: self.max_record_bytes,
            is_closed: &self.abandoned,
        };
        // The limits of the call and of closing are shorter than those of connecting to a broker.
        let ends = deadline.max(Instant::now() + LAST_LOOKUP);
        let found = tokio::select! {
            found = lookup.find_partition(missing, record, since, deadline) => found,
            () = self.until_abandoned() => Err(closed()),
            () = sleep_until(ends) => Err(undescribed(&record.topic)),
        };
        let partition = match found {
            Ok(partition) => partition,
            Err(error) => return call.queueing().fail(error),
        };
        let size = record.size();
        let Some(mut permit) = self.limit.take(size).await else { return call.queueing().fail(closed()) };
        let now = Now::read();
        // The age of the topic does not matter: the partition was found just now.
        let buffers = &mut state.buffers;
        let known = state.partitioning.known(&record.topic).unwrap_or(0).max(partition + 1);
        let buffers = buffers.entry(record.topic.clone()).or_default();
        let next = u32::try_from(buffers.len()).unwrap_or(u32::MAX);
        let new = |partition| Arc::new(PartitionBuffer::new(record.topic.clone(), partition, self.batch_bytes));
        buffers.extend((next..known).map(new));
        let Some(buffer) = buffers.get(partition as usize) else { return call.queueing().fail(gone()) };
        state.partitioning.note_queued(&record.topic, partition);
        let (mut queueing, mut woken) = (call.queueing(), Woken::new(&self.sending));
        append(buffer, record, size, now, &mut permit, &mut queueing, &mut woken);
    }

    /// Waits until the current enqueuer has queued its records.
    pub(super) async fn all_queued(&self) {
        drop(self.state.lock().await);
    }

    async fn until_abandoned(&self) {
        let notified = self.abandons.notified();
        if !self.abandoned.load(Ordering::Acquire) {
            notified.await;
        }
    }

    /// Fails current and future waiters because the publisher is closed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.abandons.notify_waiters();
        self.limit.close();
    }
}

fn undescribed(topic: &Name) -> Error {
    Error::new(ErrorKind::Unavailable, format!("publish to {topic:?}: no broker described the topic in time"))
}

/// Appends a record to the open batch of its partition.
#[inline]
fn append(
    buffer: &Arc<PartitionBuffer>,
    record: &Record,
    size: usize,
    now: Now,
    permit: &mut BufferPermit,
    queueing: &mut Queueing<'_>,
    woken: &mut Woken<'_>,
) {
    if !record.headers.is_empty()
        && let Err(error) = check_headers(record)
    {
        return queueing.fail(error);
    }
    let new = NewRecord::of(record, now.millis);
    match buffer.append(&new, size, now.instant.into_std(), permit, queueing) {
        Ok(Appended::Nothing) => {}
        Ok(Appended::Closed) => woken.is_due = true,
        Ok(Appended::Listed) => woken.listed.push(Arc::clone(buffer)),
        Err(_) => {
            let text = format!("publish to {:?}: the record fits into no batch", record.topic);
            queueing.fail(Error::new(ErrorKind::TooLarge, text));
        }
    }
}

/// Partitions that are listed with the sending task when this is dropped.
struct Woken<'a> {
    sending: &'a Sending,
    listed: Vec<Arc<PartitionBuffer>>,
    is_due: bool,
}

impl<'a> Woken<'a> {
    fn new(sending: &'a Sending) -> Self {
        Self { sending, listed: Vec::new(), is_due: false }
    }
}

impl Drop for Woken<'_> {
    fn drop(&mut self) {
        if self.is_due || !self.listed.is_empty() {
            self.sending.wake(&mut self.listed);
        }
    }
}

/// Runs until the publisher is gone.
///
/// A panic ends one job, not the task: other calls must not hang.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::UnboundedReceiver<Job>, length: Length) {
    while let Some(job) = jobs.recv().await {
        if AssertUnwindSafe(run_job(&shared, job)).catch_unwind().await.is_err() {
            error!("a publisher thread panicked and continues; records waiting to be queued may or may not be stored");
        }
        length.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn run_job(shared: &Shared, job: Job) {
    let mut state = shared.state.lock().await;
    if let Some(rest) = state.rest.take() {
        shared.publish(&mut state, rest).await;
    }
    match job {
        Job::Publish(publish) => shared.publish(&mut state, publish).await,
        Job::Resume => {}
        Job::Barrier(reply) => drop(reply.send(())),
    }
}

#[cfg(test)]
mod tests;
