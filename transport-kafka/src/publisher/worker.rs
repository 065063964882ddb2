//! The worker on a producer's thread: passes records to the client's producer, and replaces a producer that has ended.
//!
//! A producer that the broker has fenced, or whose identity was refused, accepts no more records.
//! The worker then opens another one, after the old one's records are answered, and refuses records
//! meanwhile as not stored: callers retry.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::future::FutureExt;
use futures_util::stream::{SelectAll, StreamExt};
use tidings_core::{Error, ErrorKind, Name, Result};
use tokio::sync::mpsc;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::acks::{Answered, PendingAcks, answer_of};
use super::buffer_limit::BufferPermit;
use super::closed;
use super::producers::{Batch, BatchRecord, BatchTarget, ProducerCommand};
use crate::client::connection::{Connection, Role};
use crate::client::producer::{InFlightRecord, Producer, ProducerCounts, RecordContent, Refusal, Rejected, Target};
use crate::config::KafkaConfig;
use crate::dedicated_runtime::DedicatedRuntime;

/// Pause before a missing topic is looked up again, or brokers that provided no new producer are asked again.
///
/// Records are refused at once meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Minimum interval between reads of the client's counts.
///
/// The counts are only compared, so they may be that old.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Requests that were held back for less than this between two readings are no trouble.
const THROTTLED: Duration = Duration::from_millis(100);
/// The interval of the line on a publisher that is throttled.
const THROTTLED_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// The client's producer, which may have to be replaced.
///
/// Shared with the publisher, which asks the current one about topics.
#[derive(Debug, Clone)]
pub(super) struct CurrentProducer(Arc<Mutex<Arc<Producer>>>);

impl CurrentProducer {
    /// Shares the slot's first producer.
    fn new(producer: Arc<Producer>) -> Self {
        Self(Arc::new(Mutex::new(producer)))
    }

    /// Returns the current producer.
    pub(super) fn get(&self) -> Arc<Producer> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, producer: Arc<Producer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = producer;
    }
}

/// State of a producer's thread.
pub(super) struct Worker {
    connection: Connection,
    config: KafkaConfig,
    producer: Arc<Producer>,
    current: CurrentProducer,
    /// Set by a close whose deadline has passed: nothing more is queued.
    given_up: Arc<AtomicBool>,
    /// Set when the producer is closing.
    closing: bool,
    /// Why the producer accepts no more records.
    ended: Option<ProducerEnded>,
    /// Topics that were not found.
    missing: HashMap<Name, MissingTopic, RandomState>,
    /// Bytes in the open batches of partitions whose topics have a limit below the configured batch size.
    filled: HashMap<Target, usize, RandomState>,
    counts: LastCounts,
}

/// The client's counts as of the last reading.
struct LastCounts {
    read_at: Instant,
    counts: ProducerCounts,
    /// When a throttled publisher was logged.
    logged: Option<Instant>,
}

impl LastCounts {
    /// Takes counts; returns how long requests were held back since the last ones, if that is to be logged.
    fn take(&mut self, counts: ProducerCounts, now: Instant) -> Option<Duration> {
        let throttled = counts.throttled.saturating_sub(self.counts.throttled);
        (self.read_at, self.counts) = (now, counts);
        let is_due = self.logged.is_none_or(|at| now.saturating_duration_since(at) >= THROTTLED_LOGGED_EVERY);
        if throttled < THROTTLED || !is_due {
            return None;
        }
        self.logged = Some(now);
        Some(throttled)
    }
}

/// Why records of a topic cannot be sent, and until when it is not looked up again: all other records of the producer
/// wait for a lookup.
struct MissingTopic {
    /// Until then its records are refused at once.
    until: Instant,
    kind: ErrorKind,
    /// Shown in the errors of refused records.
    why: String,
}

/// Why the client's producer accepts no more records, or why there is no replacement yet.
struct ProducerEnded {
    kind: ErrorKind,
    why: String,
    /// When a replacement may be opened.
    from: Instant,
}

impl Worker {
    /// Connects and opens the producer.
    ///
    /// # Errors
    /// If there is no connection, or no broker gives the producer its identity.
    pub(super) async fn open(config: KafkaConfig, given_up: Arc<AtomicBool>) -> Result<Self> {
        let connection = Connection::open(&config, Role::Publishing).await?;
        let producer = Arc::new(Producer::open(&connection, &config).await?);
        Ok(Self {
            connection,
            config,
            current: CurrentProducer::new(Arc::clone(&producer)),
            producer,
            given_up,
            closing: false,
            ended: None,
            missing: HashMap::default(),
            filled: HashMap::default(),
            counts: LastCounts { read_at: Instant::now(), counts: ProducerCounts::default(), logged: None },
        })
    }

    /// Returns the shared slot of the current producer.
    pub(super) fn current(&self) -> CurrentProducer {
        self.current.clone()
    }

    /// Runs until the publisher is gone, and then until all records are answered, at most for the delivery timeout.
    ///
    /// The thread stays until the client has sent everything, even if the publisher was dropped.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<ProducerCommand>,
        runtime: DedicatedRuntime,
    ) {
        while let Some(command) = commands.recv().await {
            // The client logs to the program's subscriber, which may panic. Each step leaves this state consistent,
            // and unfinished work is dropped, which informs its waiters.
            if AssertUnwindSafe(self.run_command(command, &runtime)).catch_unwind().await.is_err() {
                error!("a publisher thread panicked and continues; records handed to it may or may not be stored");
            }
        }
        let _in_time = self.producer.close(self.config.delivery_timeout).await;
        drop(self);
        drop(runtime);
    }

    /// Runs one command. A closing producer is not waited for here, so that later commands are
    /// refused at once.
    async fn run_command(&mut self, command: ProducerCommand, runtime: &DedicatedRuntime) {
        match command {
            ProducerCommand::Send(batch) => {
                self.replace_ended().await;
                self.send(batch).await;
                // To the client, which sends the records, and to the tasks that wait for answers.
                yield_now().await;
            }
            ProducerCommand::Alone { target, record, permit, answer } => {
                self.replace_ended().await;
                let retries = self.count_retries();
                match self.producer.enqueue_alone(&target, record, retries).await {
                    Ok(in_flight) => {
                        let came = answer_of(PendingAcks::of_one(target, &self.producer, in_flight, permit));
                        tokio::spawn(came.map(|came| drop(answer.send(came.map_err(|refusal| refusal.error)))));
                    }
                    Err(rejected) => drop(answer.send(Err(self.note_rejected(rejected)))),
                }
            }
            ProducerCommand::Close { ends, done } => {
                self.closing = true;
                let (producer, runtime) = (Arc::clone(&self.producer), runtime.clone());
                tokio::spawn(async move {
                    drop(done.send(producer.close(ends.saturating_duration_since(Instant::now())).await));
                    // Not before, even if the publisher is dropped meanwhile.
                    drop(runtime);
                });
            }
        }
    }

    /// Queues the records of a batch in order, and hands the answers on as they come.
    async fn send(&mut self, Batch { targets, records, mut permit, answers, .. }: Batch) {
        let (retries, producer) = (self.count_retries(), Arc::clone(&self.producer));
        let empty = |permit: &BufferPermit| -> Vec<PendingAcks> {
            targets.iter().map(|target| PendingAcks::new(target.target.clone(), &producer, permit)).collect()
        };
        let (mut acks, mut failed) = (empty(&permit), Vec::new());
        for BatchRecord { index, target_index, bytes, record } in records {
            // Earlier records must not wait for a topic lookup.
            let before_lookup =
                || answer(std::mem::replace(&mut acks, empty(&permit)), std::mem::take(&mut failed), &answers);
            let queued = self.queue(&producer, &targets[target_index], (record, retries), before_lookup).await;
            match queued {
                Ok(in_flight) => acks[target_index].push(index, in_flight, bytes, &mut permit),
                Err(error) => {
                    drop(permit.split(bytes));
                    failed.push((index, Err(Refusal { error, batch: false })));
                }
            }
        }
        answer(acks, failed, &answers);
    }

    /// Puts a record into the client's queue; `before_lookup` is called before its topic is looked up.
    ///
    /// # Errors
    /// The record is not queued and will not be stored.
    async fn queue(
        &mut self,
        producer: &Producer,
        BatchTarget { target, max_batch_bytes }: &BatchTarget,
        (record, retries): (RecordContent, u64),
        before_lookup: impl FnOnce(),
    ) -> Result<InFlightRecord> {
        // Before the attempt: a record that the client accepted may be stored.
        if self.given_up.load(Ordering::Acquire) {
            return Err(closed());
        }
        let alone = max_batch_bytes
            .is_some_and(|max_batch_bytes| self.make_room(target, record.wire_bytes(), max_batch_bytes.get() as usize));
        // The task's budget for operations that are ready at once is less than a batch.
        let mut queuing = pin!(unconstrained(producer.enqueue(target, record, retries)));
        let queued = match queuing.as_mut().now_or_never() {
            Some(queued) => queued,
            None => {
                if let Some(error) = refusal(&mut self.missing, &target.topic) {
                    return Err(error);
                }
                before_lookup();
                let queued = queuing.await;
                self.note_missing(&target.topic, &queued);
                queued
            }
        };
        match queued {
            Ok(in_flight) if alone => Ok(in_flight.alone()),
            Ok(in_flight) => Ok(in_flight),
            Err(rejected) => Err(self.note_rejected(rejected)),
        }
    }

    /// Remembers a topic that was not found, so that the next records do not wait for it again.
    fn note_missing(&mut self, topic: &Name, queued: &Result<InFlightRecord, Rejected>) {
        let Err(Rejected { error, ended: false }) = queued else { return };
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) {
            let (until, why) = (Instant::now() + RETRY_AFTER, error.report());
            self.missing.insert(topic.clone(), MissingTopic { until, kind: error.kind(), why });
        }
    }

    /// Closes the open batches if a record would make that of its partition larger than its topic accepts. Returns
    /// whether the record itself is too large.
    ///
    /// The client knows one batch size for all topics, so smaller batches are made by closing them
    /// early.
    fn make_room(&mut self, target: &Target, bytes: usize, max_batch_bytes: usize) -> bool {
        let filled = self.filled.get(target).copied().unwrap_or(0);
        if filled > 0 && filled + bytes > max_batch_bytes {
            self.producer.close_batches();
            self.filled.clear();
        }
        *self.filled.entry(target.clone()).or_default() += bytes;
        bytes >= max_batch_bytes
    }

    /// Returns the client's retry count, which may be a moment old.
    fn count_retries(&mut self) -> u64 {
        let now = Instant::now();
        if now.saturating_duration_since(self.counts.read_at) >= COUNT_EVERY
            && let Some(throttled) = self.counts.take(self.producer.counts(), now)
        {
            warn!(
                ?throttled,
                "the brokers throttle this publisher: its user or client id exceeds a quota, and records wait; raise the quota (producer_byte_rate, request_percentage), or publish less"
            );
        }
        self.counts.counts.retries
    }

    /// Returns the error of a record that was not accepted; records whether the producer has ended.
    ///
    /// While closing, the error stays as it is: no replacement will come.
    fn note_rejected(&mut self, Rejected { error, ended }: Rejected) -> Error {
        if !ended || self.closing || self.given_up.load(Ordering::Acquire) {
            return error;
        }
        let ended = self.ended.get_or_insert_with(|| {
            let why = error.report();
            warn!(why, "the client's producer ended; it is replaced once its records in flight are answered");
            ProducerEnded { kind: ErrorKind::Unavailable, why, from: Instant::now() }
        });
        Error::new(ended.kind, format!("publish: the producer ended and is being replaced: {}", ended.why))
    }

    /// Replaces an ended producer once its in-flight records are answered: otherwise records that it resends would be
    /// stored after later records of their key.
    ///
    /// If no replacement can be opened, records are refused and another attempt follows after
    /// [`RETRY_AFTER`].
    async fn replace_ended(&mut self) {
        let now = Instant::now();
        if self.closing || self.ended.as_ref().is_none_or(|ended| ended.from > now) {
            return;
        }
        let limit = self.config.delivery_timeout;
        let _in_time = self.producer.close(limit).await;
        let opened = timeout(limit, Producer::open(&self.connection, &self.config)).await;
        let late =
            || Error::new(ErrorKind::Unavailable, "open a publisher: no broker answered within delivery_timeout");
        match opened.unwrap_or_else(|_| Err(late())) {
            Ok(producer) => {
                info!("the ended producer was replaced");
                self.producer = Arc::new(producer);
                self.current.set(Arc::clone(&self.producer));
                self.ended = None;
                (self.counts.read_at, self.counts.counts) = (Instant::now(), ProducerCounts::default());
                self.filled.clear();
            }
            Err(error) => {
                let kind = if error.kind() == ErrorKind::Denied { ErrorKind::Denied } else { ErrorKind::Unavailable };
                self.ended = Some(ProducerEnded { kind, why: error.report(), from: Instant::now() + RETRY_AFTER });
            }
        }
    }
}

/// Returns why a topic is not looked up now.
fn refusal(missing: &mut HashMap<Name, MissingTopic, RandomState>, topic: &Name) -> Option<Error> {
    let now = Instant::now();
    missing.retain(|_, missing| missing.until > now);
    missing.get(topic).map(|missing| Error::new(missing.kind, missing.why.clone()))
}

/// Sends the answers to records. It continues without a receiver: each record keeps its permit until it is answered.
///
/// The task ends when the last record is answered.
fn answer(acks: Vec<PendingAcks>, failed: Vec<Answered>, answers: &mpsc::UnboundedSender<Vec<Answered>>) {
    if !failed.is_empty() {
        drop(answers.send(failed));
    }
    let (mut acks, answers) = (acks.into_iter().collect::<SelectAll<PendingAcks>>(), answers.clone());
    tokio::spawn(async move {
        while let Some(answered) = acks.next().await {
            drop(answers.send(answered));
        }
    });
}
