//! The publisher: chooses partitions, bounds what is in flight, and reports the outcome of each record.
//!
//! A record passes these parts: `enqueue` (or `enqueuer`, where it has to wait) chooses its
//! partition and takes capacity, `producers` and `worker` pass it to the client on a thread of
//! their own, `acks` waits for its answer, and `split_batch` resends it if its batch was refused
//! for another record.

mod acks;
mod buffer_limit;
mod enqueue;
mod enqueuer;
mod lookup;
mod native;
mod partitioning;
mod producers;
mod queue_job;
mod silent_partitions;
mod split_batch;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, async_trait};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use self::enqueue::Shared;
pub(crate) use self::native::NativePublisher;
use self::producers::Producers;
use self::queue_job::{Enqueued, JobQueue, PendingCall, Publish, QueueJob, QueueResult};
use self::split_batch::{Outcome, drop_payload, resend_each};
use crate::client::producer::Refusal;
use crate::config::KafkaConfig;

/// Idempotent Kafka publisher; records are acknowledged by all in-sync replicas.
///
/// Header names must be UTF-8. If the broker confirms a record as a duplicate without reporting its offset, the
/// offset of the position is `u64::MAX`.
///
/// New partitions of a topic are noticed within [`KafkaConfig::metadata_max_age`], and at once if a record names an
/// unknown partition: such a record ends as [`Unavailable`](ErrorKind::Unavailable) while no broker reports whether
/// the partition exists.
///
/// A broker refuses a batch as a whole because of one of its records, such as one without a key for a compacted
/// topic. The records of the batch are then resent one by one, which is slow. A record with a key ends as
/// [`Unavailable`](ErrorKind::Unavailable), not stored, if a later record of its key is stored, or if other calls
/// queued records for its partition after it: it would be stored after them. The same applies to records whose turn
/// does not come within another [`KafkaConfig::delivery_timeout`], and to records of a partition that stopped
/// answering.
///
/// Topics with a limit below [`KafkaConfig::batch_bytes`] get smaller batches. The publisher asks for the limit,
/// which requires the right to describe the topic's configuration; without that right it finds the limit by trial, at
/// the cost of some refused batches.
///
/// A record with more than 10,000 headers, the client's limit, is [`Invalid`](ErrorKind::Invalid).
///
/// If the client's producer ends because its identity was refused, it is replaced: its in-flight records end as
/// [`Indeterminate`](ErrorKind::Indeterminate), and records that it did not accept as
/// [`Unavailable`](ErrorKind::Unavailable).
///
/// The publisher runs on its own threads, even after the runtime that opened it has ended. If it is dropped without
/// [`close`](Publisher::close), it still sends the queued records and waits until all are answered.
#[derive(Debug)]
pub struct KafkaPublisher {
    // Ordered by first poll, whether or not the caller polls again.
    job_queue: JobQueue,
    shared: Arc<Shared>,
    /// Set when new calls are refused.
    closed: AtomicBool,
    /// Result of the close, shared by all calls of `close`.
    ending: OnceLock<watch::Receiver<Option<Ended>>>,
}

/// Result of a close: all records were answered, or why not.
type Ended = std::result::Result<(), Arc<Error>>;

impl KafkaPublisher {
    /// Opens both producers and starts the task that queues waiting calls.
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self> {
        let shared = Arc::new(Shared::new(Producers::open(config).await?, config));
        let (job_queue, jobs, length) = JobQueue::new();
        shared.producers.spawn(enqueue::run(Arc::clone(&shared), jobs, length));
        Ok(Self { job_queue, shared, closed: AtomicBool::new(false), ending: OnceLock::new() })
    }

    /// Starts closing; returns a receiver of the result.
    fn end(&self, ends: Instant) -> watch::Receiver<Option<Ended>> {
        let shared = Arc::clone(&self.shared);
        let (reply, all_queued) = oneshot::channel();
        let is_queued = self.job_queue.push(QueueJob::Barrier(reply));
        let (done, ending) = watch::channel(None);
        // Spawned, so that it continues after its caller stops waiting.
        self.shared.producers.spawn(async move {
            if is_queued {
                let _in_time = timeout_at(ends, all_queued).await;
            }
            shared.abandon();
            let ended = shared.producers.close(ends).await.map_err(Arc::new);
            done.send_replace(Some(ended));
        });
        ending
    }
}

/// Limit of a close without a deadline.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How long a call of `close` waits beyond its deadline, to learn that all records were answered in time, or which
/// were not.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// State of a call's records.
#[derive(Debug, Default)]
struct Progress {
    /// The queued records. An answered record has no value and no headers, unless it is to be resent: a call lasts as
    /// long as its slowest record, and answered records hold no permit.
    records: Vec<Record>,
    /// Location of each queued record, by its index.
    enqueued: Vec<Enqueued>,
    /// Answer to each record of the call, by its index.
    answers: Vec<Option<Result<Position>>>,
    /// Places of records whose batches were refused, because of another record or of their own.
    refused: Vec<usize>,
}

impl Progress {
    fn of(count: usize) -> Self {
        Self { answers: (0..count).map(|_| None).collect(), ..Self::default() }
    }

    /// Adds the results of queueing the next records.
    fn add(&mut self, queued: QueueResult) {
        append(&mut self.records, queued.records);
        append(&mut self.enqueued, queued.enqueued);
        for (index, error) in queued.failed {
            self.answer(index, Err(Refusal { error, batch: false }));
        }
    }

    /// Records an answer, and frees the record's payload unless it may be resent.
    fn answer(&mut self, index: usize, answer: Result<Position, Refusal>) {
        let refused = answer.as_ref().is_err_and(|refusal| refusal.batch);
        if refused {
            self.refused.push(index);
        } else if let Some(record) = self.records.get_mut(index) {
            drop_payload(record);
        }
        if let Some(known) = self.answers.get_mut(index) {
            *known = Some(answer.map_err(|refusal| refusal.error));
        }
    }

    /// Returns the outcome of each record; some may be resent.
    fn into_outcomes(self) -> Vec<Option<Outcome>> {
        let mut answers = self.answers.into_iter();
        let sent = self.records.into_iter().zip(self.enqueued).zip(answers.by_ref());
        let mut outcomes: Vec<Option<Outcome>> = sent
            .map(|((record, enqueued), answer)| {
                answer.map(|answer| Outcome { record, enqueued, answer, refused: false })
            })
            .collect();
        outcomes.extend(answers.map(|_| None));
        for index in self.refused {
            outcomes.get_mut(index).into_iter().flatten().for_each(|outcome| outcome.refused = true);
        }
        outcomes
    }
}

/// Moves the first vector rather than copy it: most calls are queued at once.
fn append<T>(to: &mut Vec<T>, mut more: Vec<T>) {
    if to.is_empty() {
        *to = more;
    } else {
        to.append(&mut more);
    }
}

/// Abandons records that wait at the limit or for a topic: their callers are gone.
impl Drop for KafkaPublisher {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// Returns the error text of a close whose deadline has passed.
fn unanswered() -> &'static str {
    "close the publisher: records in flight were not answered before the deadline"
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish: the publisher is closed")
}

/// The error of records whose thread has ended: they may be stored.
fn gone() -> Error {
    Error::new(ErrorKind::Indeterminate, "publish: the publisher ended before the broker answered")
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let count = records.len();
        if self.closed.load(Ordering::Acquire) {
            consume_budget().await;
            return (0..count).map(|_| Err(closed())).collect();
        }
        let mut progress = Progress::of(count);
        let (mut call, mut rest) = (None, None);
        let (answers, mut answered) = mpsc::unbounded_channel();
        let (queued, is_queued) = self.shared.queue_at_once(&self.job_queue, records, &answers, |next| {
            let (reply, coming) = mpsc::unbounded_channel();
            rest = Some(coming);
            // Returned if the call is dropped before its turn: records that wait at the limit are owned by their
            // callers alone.
            let call = call.insert(PendingCall::new(next)).permit();
            Publish { call, since: Instant::now(), reply, answers: answers.downgrade() }
        });
        progress.add(queued);
        if !is_queued {
            rest = None;
        }
        // Kept open for the rest of the call; afterwards only those that answer hold it.
        let mut answers = rest.is_some().then_some(answers);
        loop {
            tokio::select! {
                biased;
                some = queue_job::next(&mut rest), if rest.is_some() => match some {
                    Some(queued) => progress.add(queued),
                    None => (rest, answers) = (None, None),
                },
                Some(answered) = answered.recv() => {
                    answered.into_iter().for_each(|(index, answer)| progress.answer(index, answer));
                }
                else => break,
            }
        }
        drop(answers);
        // There may have been nothing to wait for, and a loop of such calls must let other tasks run.
        consume_budget().await;
        // Without an answer, the publisher's threads are gone.
        let untold = || if call.as_ref().is_none_or(PendingCall::is_taken) { gone() } else { closed() };
        if progress.refused.is_empty() {
            return progress.answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(untold()))).collect();
        }
        let mut outcomes = progress.into_outcomes();
        resend_each(&self.job_queue, Instant::now() + self.shared.delivery_timeout, &mut outcomes).await;
        outcomes.into_iter().map(|outcome| outcome.map_or_else(|| Err(untold()), |outcome| outcome.answer)).collect()
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let ends = Instant::now() + deadline.min(LONGEST);
        let mut ending = self.ending.get_or_init(|| self.end(ends)).clone();
        // A later call may have a shorter deadline than the one that started the close.
        match timeout_at(ends + CLOSE_GRACE, ending.wait_for(Option::is_some)).await {
            Ok(Ok(ended)) => match ended.as_ref() {
                Some(Err(error)) => Err(Error::new(error.kind(), error.report())),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Error::new(ErrorKind::Indeterminate, unanswered())),
        }
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call lasts as long as its slowest record, but the limit has room again as soon as one record is answered.
    #[test]
    fn what_is_answered_keeps_no_payload() {
        let record = Record::new("t", "value").with_key("k").with_header("h", "1");
        let mut progress = Progress::of(4);
        progress.add(QueueResult {
            records: vec![record.clone(); 3],
            enqueued: vec![Enqueued::default(); 3],
            ..QueueResult::default()
        });
        let refusal = |batch| Refusal { error: Error::new(ErrorKind::Invalid, "its batch"), batch };
        progress.answer(0, Ok(Position::new(0, 0)));
        progress.answer(1, Err(refusal(false)));
        progress.answer(2, Err(refusal(true)));
        let outcomes = progress.into_outcomes();
        let [Some(stored), Some(failed), Some(refused), None] = &outcomes[..] else { panic!("{outcomes:?}") };
        for drop_payload in [stored, failed] {
            assert_eq!(
                (&drop_payload.record.value, drop_payload.record.headers.len(), drop_payload.refused),
                (&None, 0, false)
            );
        }
        assert_eq!((&refused.record, refused.refused), (&record, true));
    }
}
