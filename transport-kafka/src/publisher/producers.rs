//! The two producers of a publisher, for even and odd partitions, each on its own thread.
//!
//! A producer has one batch per partition in flight, and encodes the next batches only after those are answered: the
//! broker then waits for the producer, and the producer for the broker. With two producers, one encodes while the
//! other waits. Also, each record is touched when it is queued, sent and answered: on a single thread, where nothing
//! has to be loaded from another core, that takes half the time. So calls hand their records over in batches, and are
//! answered in batches.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::future::{FutureExt, join_all, try_join_all};
use tidings_core::{Error, ErrorKind, Name, Position, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::acks::Answered;
use super::buffer_limit::BufferPermit;
use super::gone;
use super::lookup::TopicSource;
use super::queue_job::Answer;
use super::worker::{CurrentProducer, Worker};
use crate::client::producer::{Producer, RecordContent, Target};
use crate::config::KafkaConfig;
use crate::dedicated_runtime::DedicatedRuntime;

const PRODUCERS: usize = 2;
/// Attempts to look up topics, at most for how long and with which pause, before the producers' answers may differ.
const LOOKUPS: usize = 4;
/// Bound of all attempts together.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the slower broker to learn of a new partition.
const LOOKUP_PAUSE: Duration = Duration::from_millis(50);
/// How long a close waits beyond its deadline, to learn that all records were answered in time.
const GRACE: Duration = Duration::from_secs(1);
/// Maximum number of partitions that are searched linearly, which is faster than a map.
const LINEAR_SEARCH_MAX: usize = 16;

/// Both producers. A partition always belongs to the same one, which keeps its order.
#[derive(Debug)]
pub(super) struct Producers([ProducerHandle; PRODUCERS]);

/// The side of a producer that its publisher holds.
#[derive(Debug)]
struct ProducerHandle {
    producer: CurrentProducer,
    runtime: DedicatedRuntime,
    commands: mpsc::UnboundedSender<ProducerCommand>,
    /// Set when records not queued by the deadline of a close are refused.
    given_up: Arc<AtomicBool>,
}

/// Commands to a producer's thread, in order.
#[derive(Debug)]
pub(super) enum ProducerCommand {
    Send(Batch),
    /// Sends a record in a batch of its own.
    Alone {
        target: Target,
        record: RecordContent,
        permit: BufferPermit,
        answer: oneshot::Sender<Result<Position>>,
    },
    /// Waits for the answers to earlier work, and refuses later work.
    Close {
        ends: Instant,
        done: oneshot::Sender<Result<()>>,
    },
}

/// Records of a call that are ready to be sent, for both producers.
#[derive(Debug, Default)]
pub(super) struct ReadyBatches {
    batches: [Option<Batch>; PRODUCERS],
    /// Initial capacity of a batch, in records.
    capacity: usize,
}

/// Records for one producer, in order, with their permit.
#[derive(Debug)]
pub(super) struct Batch {
    /// The partitions of the records.
    pub(super) targets: Vec<BatchTarget>,
    /// Index of the partitions that are not among the first few.
    by_target: HashMap<Target, usize, RandomState>,
    pub(super) records: Vec<BatchRecord>,
    pub(super) permit: BufferPermit,
    /// Receives the answers; without a receiver the records are sent all the same.
    pub(super) answers: mpsc::UnboundedSender<Vec<Answered>>,
}

/// A partition, and its topic's batch limit in bytes where that is below the configured one.
#[derive(Debug)]
pub(super) struct BatchTarget {
    pub(super) target: Target,
    pub(super) max_batch_bytes: Option<NonZeroU32>,
}

/// A record by its index in the call and its partition's index in the batch.
#[derive(Debug)]
pub(super) struct BatchRecord {
    /// Index of the record in its call.
    pub(super) index: usize,
    pub(super) target_index: usize,
    pub(super) bytes: usize,
    pub(super) record: RecordContent,
}

/// Returns the producer of a partition.
fn producer_of(partition: u32) -> usize {
    partition as usize % PRODUCERS
}

impl ReadyBatches {
    /// Creates an empty list with this initial capacity.
    pub(super) fn of(count: usize) -> Self {
        Self { capacity: count.div_ceil(PRODUCERS), ..Self::default() }
    }

    /// Adds the record at an index of its call, with its part of `permit`; its result goes to `answers`. Batches of its
    /// topic are limited to `max_batch_bytes`.
    pub(super) fn push(
        &mut self,
        (index, bytes): (usize, usize),
        (topic, partition, max_batch_bytes): (&Name, u32, Option<NonZeroU32>),
        record: RecordContent,
        permit: &mut BufferPermit,
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
    ) {
        let batch = self.batches[producer_of(partition)].get_or_insert_with(|| Batch {
            targets: Vec::new(),
            by_target: HashMap::default(),
            records: Vec::with_capacity(self.capacity),
            permit: permit.empty(),
            answers: answers.clone(),
        });
        let target_index = batch.target_index(topic, partition, max_batch_bytes);
        permit.transfer(&mut batch.permit, bytes);
        batch.records.push(BatchRecord { index, target_index, bytes, record });
    }
}

impl Batch {
    /// Returns the index of a partition in the batch, adding it if it is new.
    fn target_index(&mut self, topic: &Name, partition: u32, max_batch_bytes: Option<NonZeroU32>) -> usize {
        let is_of = |target: &BatchTarget| target.target.partition == partition && target.target.topic == *topic;
        if let Some(target_index) = self.targets.iter().take(LINEAR_SEARCH_MAX).position(is_of) {
            return target_index;
        }
        let next = self.targets.len();
        let target = Target { topic: topic.clone(), partition };
        if next >= LINEAR_SEARCH_MAX {
            let target_index = *self.by_target.entry(target.clone()).or_insert(next);
            if target_index < next {
                return target_index;
            }
        }
        self.targets.push(BatchTarget { target, max_batch_bytes });
        next
    }
}

impl Producers {
    /// Connects both producers at once; either both open or none.
    pub(super) async fn open(config: &KafkaConfig) -> Result<Self> {
        let (even, odd) = tokio::try_join!(ProducerHandle::open(config), ProducerHandle::open(config))?;
        Ok(Self([even, odd]))
    }

    /// Spawns a task of the publisher.
    ///
    /// It runs on the first producer's thread, whose runtime outlives the caller's.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0[0].runtime.handle().spawn(task));
    }

    /// Hands records over. Records of a partition are sent in the order of these calls.
    pub(super) fn send(&self, ready: &mut ReadyBatches) {
        for (producer, batch) in self.0.iter().zip(&mut ready.batches) {
            if let Some(batch) = batch.take() {
                // If the producer is gone, the batch is dropped, which informs its callers.
                producer.give(ProducerCommand::Send(batch));
            }
        }
    }

    /// Sends a record in a batch of its own, if nothing else is handed over meanwhile.
    pub(super) fn send_alone(&self, target: Target, record: RecordContent, permit: BufferPermit) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0[producer_of(target.partition)].give(ProducerCommand::Alone { target, record, permit, answer });
        answered.map(|answer| answer.unwrap_or_else(|_| Err(gone()))).boxed()
    }

    /// Sends the same request to both clients. Returns their answers, or the first error.
    async fn ask_each<T, F>(&self, ask: impl Fn(Arc<Producer>) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        try_join_all(self.0.iter().map(|producer| producer.ask(&ask))).await
    }

    /// Refuses new records and waits for the answers to those that were handed over.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate) if records are unanswered at the deadline; those
    /// not yet queued are then refused.
    pub(super) async fn close(&self, ends: Instant) -> Result<()> {
        let closed = self.0.iter().map(|producer| {
            let (done, closed) = oneshot::channel();
            producer.give(ProducerCommand::Close { ends, done });
            closed.map(|closed| closed.unwrap_or_else(|_| Err(gone())))
        });
        match timeout_at(ends + GRACE, join_all(closed)).await {
            Ok(closed) => closed.into_iter().collect(),
            Err(_) => {
                self.0.iter().for_each(|producer| producer.given_up.store(true, Ordering::Release));
                Err(Error::new(
                    ErrorKind::Indeterminate,
                    "close the publisher: records in flight were not answered before the deadline",
                ))
            }
        }
    }
}

impl TopicSource for Producers {
    /// Returns a topic's partition count as last reported; without one, asks the brokers for at most a second.
    ///
    /// The result is a count that both producers know: they ask brokers that may learn of new partitions at different
    /// times.
    async fn partitions(&self, topic: &Name) -> Result<u32> {
        let ask = |producer: Arc<Producer>| {
            let topic = topic.clone();
            async move { producer.partitions(&topic).await }
        };
        let counts = self.ask_each(ask).await?;
        Ok(counts.into_iter().min().unwrap_or(0))
    }

    /// Asks the brokers again about topics, all at once and for at most a second, and returns the partition count of
    /// each existing topic. If the answers of the producers keep differing, the smaller count is returned.
    async fn refresh(&self, topics: &[Name]) -> Result<Vec<(Name, u32)>> {
        let (mut lookups, ends) = (1, Instant::now() + LOOKUP_TIMEOUT);
        let ask = |producer: Arc<Producer>| {
            let topics = topics.to_vec();
            async move { producer.refresh(&topics).await }
        };
        let mut counts = self.ask_each(ask).await?;
        while lookups < LOOKUPS && counts.windows(2).any(|pair| pair[0] != pair[1]) {
            lookups += 1;
            sleep(LOOKUP_PAUSE).await;
            match timeout_at(ends, self.ask_each(ask)).await {
                Ok(Ok(resend)) => counts = resend,
                _ => break,
            }
        }
        let known = |topic: &Name, counts: &[(Name, u32)]| {
            counts.iter().find(|(name, _)| name == topic).map(|(_, count)| *count)
        };
        let least = |topic: &Name| {
            let counts: Option<Vec<u32>> = counts.iter().map(|counts| known(topic, counts)).collect();
            Some((topic.clone(), counts?.into_iter().min()?))
        };
        Ok(topics.iter().filter_map(least).collect())
    }

    /// Returns the largest batch that a topic accepts, if a broker reports it.
    ///
    /// Asked through one producer: the setting is the same for both.
    async fn largest_batch(&self, topic: &Name) -> Option<usize> {
        let [producer, ..] = &self.0;
        let topic = topic.clone();
        let asked = producer.ask(|producer| async move { Ok(producer.largest_batch(&topic).await) });
        asked.await.ok().flatten()
    }
}

impl ProducerHandle {
    /// Starts the thread, and opens the client there: its connections belong to the thread that
    /// opens them.
    async fn open(config: &KafkaConfig) -> Result<Self> {
        let (runtime, settings, given_up) =
            (DedicatedRuntime::new("kafka-publisher")?, config.clone(), Arc::<AtomicBool>::default());
        let flag = Arc::clone(&given_up);
        let worker = runtime.run(async move { Worker::open(settings, flag).await }).await?;
        let producer = worker.current();
        let (commands, received) = mpsc::unbounded_channel();
        runtime.handle().spawn(worker.run(received, runtime.clone()));
        Ok(Self { producer, runtime, commands, given_up })
    }

    /// Asks the client on its own thread, where the connections that this may open belong.
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Producer>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.runtime.run(ask(self.producer.get())).await
    }

    /// Hands a command over. It is never lost while the publisher exists.
    fn give(&self, command: ProducerCommand) {
        // Its thread ends when this is dropped, and not before.
        drop(self.commands.send(command));
    }
}
